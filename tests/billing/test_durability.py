"""What money rests on waits for the disk; what the database may forget in a crash does not.

Each commit is asked itself, by a trigger that PostgreSQL runs at its very end: so it counts
whatever the statement, its connection or its pool has set.
"""

from __future__ import annotations

import contextlib

import pytest
from django.db import connection

from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from billing import ledger, reconciliation, requests
from tests.factories import billing as make
from tests.factories import gateway
from tests.fakes.upstream import answer, stream

NOTES = """
CREATE TABLE noted (what text, waits text);
GRANT INSERT ON noted TO PUBLIC;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO noted VALUES (TG_ARGV[0], current_setting('synchronous_commit'));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER note AFTER INSERT ON flux_transaction
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note('entry');
CREATE CONSTRAINT TRIGGER note_open AFTER INSERT ON llm_request_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note('open');
CREATE CONSTRAINT TRIGGER note_mark AFTER UPDATE ON llm_request_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.settled_at IS NULL) EXECUTE FUNCTION note('mark');
CREATE CONSTRAINT TRIGGER note_end AFTER UPDATE ON llm_request_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (NEW.settled_at IS NOT NULL) EXECUTE FUNCTION note('end');
"""
FORGET = """
DROP TRIGGER note ON flux_transaction;
DROP TRIGGER note_open ON llm_request_log;
DROP TRIGGER note_mark ON llm_request_log;
DROP TRIGGER note_end ON llm_request_log;
DROP FUNCTION note();
DROP TABLE noted;
"""
LEFT_BEHIND = "SELECT name, setting FROM pg_settings WHERE source = 'session'"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
AS_PROMISED = {("entry", "on"), ("open", "off"), ("mark", "off"), ("end", "on")}


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def waiting(transactional_db):
    """A database whose commits wait, as they do everywhere but where tests throw it away."""
    database_name = connection.ops.quote_name(connection.settings_dict["NAME"])
    execute(f"ALTER DATABASE {database_name} SET synchronous_commit = on")
    connection.close()  # who connects from now on hears of it
    yield
    execute(f"ALTER DATABASE {database_name} RESET synchronous_commit")
    connection.close()


@pytest.fixture
def noted(waiting):
    """Return how each commit was made."""
    execute(NOTES)
    yield lambda: set(make.run("SELECT what, waits FROM noted", {}))
    execute(FORGET)


@pytest.mark.asyncio
async def test_settling_waits_though_opening_and_marking_need_not(noted, hot):
    price = await make.new_price()
    await make.account(100, "mio")
    for tokens in (7, None):
        one = make.ticket("mio", price)
        await requests.open(one, hold=make.hold(10), deadline_s=60)
        if tokens:  # what has begun is not voided
            await requests.mark(one.id, checkpoint=1)
        await requests.settle(make.settlement(one, tokens))

    assert await in_thread(noted)() == AS_PROMISED


def test_ending_an_orphan_waits(noted):
    make.make_account(100, "mio")
    one = make.ticket("mio", make.price())
    make.open_one(one, 10, deadline_s=-1)
    make.mark_batch((one, 3))

    (ended,) = reconciliation.settle_orphans()

    assert ended.charged is not None
    assert ended.charged.charged == 3
    assert noted() == AS_PROMISED


def test_what_operators_book_waits(noted):
    make.make_account(100, "mio")
    ledger.reverse(user_id="mio", user_seq=2, request_id="r", description="", at=make.NOW)

    assert noted() == {("entry", "on")}


@pytest.mark.asyncio
async def test_no_statement_leaves_its_settings_to_the_next(waiting, served, upstream):
    """They take turns on the connections of a pool; one that need not wait says so for itself."""
    caller = await gateway.caller()
    await gateway.route(upstream.base_url)
    upstream.script(answer(), answer(status=500), stream())
    for body in (BODY, BODY, {**BODY, "stream": True}):
        await served.post("/v1/chat/completions", body, caller.key)
    for path in ("/api/v1/flux", "/api/v1/flux/history", "/api/v1/flux/requests"):
        assert (await served.get(path, caller.key)).status == 200

    assert [row.state for row in await gateway.requests()] == ["settled", "voided", "settled"]
    async with contextlib.AsyncExitStack() as lent:
        for _ in range(database._pools.get().get_stats()["pool_size"]):
            session = await lent.enter_async_context(database.connection())
            assert await database.execute(session, LEFT_BEHIND, {}) == []
