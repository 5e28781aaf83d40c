"""Long bodies under way: what a key and the process may hold of them, and that it is given back."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import orjson
import pytest
import pytest_asyncio
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore

from accounts.auth import Principal
from airi_server.kernel import database
from airi_server.kernel.threads import in_thread
from airi_server.web import bodies, fast_path
from airi_server.web.budgets import HELD
from tests.airi_server.lines import line_to, request
from tests.airi_server.test_unread import resident_mib
from tests.factories import accounts, gateway
from tests.fakes.upstream import answer, refuse, stream

pytestmark = pytest.mark.asyncio
PATH = "/v1/chat/completions"
MIB = 2**20
LONG = orjson.dumps({"messages": [{"role": "user", "content": "x" * 300_000}]})


def is_given_back():
    return (HELD.taken, HELD.buffered, HELD.by_owner) == (0, 0, {})


async def all_is_given_back():
    async with asyncio.timeout(5):
        while not is_given_back():
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture
async def caller(served, upstream):
    assert is_given_back()
    await gateway.route(upstream.base_url)
    yield await gateway.caller(flux=1_000_000)
    await all_is_given_back()


def head_of(caller, length, path=PATH):
    return request("POST", path, f"Authorization: Bearer {caller.key}", f"Content-Length: {length}")


async def is_held(size):
    async with asyncio.timeout(5):
        while sum(HELD.by_owner.values()) != size:
            await asyncio.sleep(0.005)


class TestOneKey:
    async def test_sends_as_much_as_it_may_hold_and_the_rest_is_429(self, served, caller):
        """Sixteen uploads of 30 MB at once: two are taken, and the process holds no more."""
        length = 30_000_000
        before = resident_mib()
        async with AsyncExitStack() as stack:
            lines = [await stack.enter_async_context(line_to(served.base_url)) for _ in range(16)]
            for line in lines[:2]:
                await line.send(head_of(caller, length))
            await is_held(2 * length)
            for line in lines[2:]:
                await line.send(head_of(caller, length))
                refused = await line.answer()

                assert refused is not None
                assert refused.status == 429
                assert refused.headers["retry-after"] == "1"
                assert refused.headers["connection"] == "close"
                assert orjson.loads(refused.body)["error"]["code"] == "TOO_MANY_REQUESTS"
            # Also those who were refused send all of it: that is read, and dropped.
            for _ in range(29):
                for line in lines:
                    await line.send(b"x" * 1_000_000)
            grown = resident_mib() - before

            await is_held(2 * length)
            assert grown < 2 * length // MIB + 40
            for line in lines[:2]:
                await line.send(b"x" * 1_000_000)
                answered = await line.answer()
                assert answered is not None
                assert answered.status == 400  # it is no JSON
            await all_is_given_back()

    async def test_leaves_room_for_short_requests_and_other_keys(
        self, served, settings, caller, upstream
    ):
        settings.MAX_KEY_BODIES_BYTES = settings.MAX_GATEWAY_BODY_BYTES = 400_000
        other = await gateway.caller(flux=1_000)
        body = {"messages": [{"role": "user", "content": "x" * 60_000}]}
        async with line_to(served.base_url) as line:
            await line.send(head_of(caller, len(LONG)))
            await is_held(len(LONG))

            assert (await served.post(PATH, orjson.loads(LONG), caller.key)).status == 429
            assert (await served.post(PATH, body, caller.key)).status == 200
            assert (await served.post(PATH, orjson.loads(LONG), other.key)).status == 200

            await line.send(LONG)
            answered = await line.answer()
            assert answered is not None
            assert answered.status == 200
        assert (await served.post(PATH, orjson.loads(LONG), caller.key)).status == 200

    async def test_is_counted_as_it_comes_without_a_declared_length(self, served, settings, caller):
        settings.MAX_KEY_BODIES_BYTES = settings.MAX_GATEWAY_BODY_BYTES = 400_000
        chunk = b"%x\r\n%b\r\n" % (250_000, b"x" * 250_000)
        head = request(
            "POST", PATH, f"Authorization: Bearer {caller.key}", "Transfer-Encoding: chunked"
        )
        async with line_to(served.base_url) as first, line_to(served.base_url) as second:
            await first.send(head, chunk)
            await is_held(250_000)
            await second.send(head, chunk)
            answered = await second.answer()

            assert answered is not None
            assert answered.status == 429
            await is_held(250_000)

    async def test_may_always_send_one_body(self, served, settings, caller):
        settings.MAX_KEY_BODIES_BYTES = 100_000

        assert (await served.post(PATH, orjson.loads(LONG), caller.key)).status == 200

    async def test_is_a_user_where_there_is_no_key(self):
        assert fast_path.owner_of(Principal("user", "key", *[None] * 8)) == "key"
        assert fast_path.owner_of(Principal("user", None, *[None] * 8)) == "user"


class TestEverybody:
    async def test_together_hold_what_the_process_may_and_the_rest_is_503(
        self, served, settings, caller
    ):
        settings.MAX_BODIES_BYTES = 700_000
        callers = [caller, *[await gateway.caller(flux=1_000) for _ in range(2)]]
        lines = [line_to(served.base_url) for _ in callers]
        async with lines[0] as first, lines[1] as second, lines[2] as third:
            for number, (line, each) in enumerate(zip((first, second), callers, strict=False)):
                await line.send(head_of(each, len(LONG)), LONG[:-1])
                async with asyncio.timeout(5):
                    while HELD.taken != (number + 1) * (len(LONG) - 1):
                        await asyncio.sleep(0.005)
            await third.send(head_of(callers[2], len(LONG)), LONG)
            answered = await third.answer()

            assert answered is not None
            assert answered.status == 503
            assert answered.headers["retry-after"] == "1"
            assert orjson.loads(answered.body)["error"]["code"] == "SERVICE_UNAVAILABLE"

    async def test_are_not_kept_out_by_those_who_announce_much_and_send_nothing(
        self, served, settings, caller
    ):
        settings.MAX_BODIES_BYTES = 700_000
        others = [await gateway.caller(flux=1_000) for _ in range(8)]
        async with AsyncExitStack() as stack:
            for each in others:
                line = await stack.enter_async_context(line_to(served.base_url))
                await line.send(head_of(each, 30_000_000))
            await is_held(8 * 30_000_000)

            assert (await served.post(PATH, orjson.loads(LONG), caller.key)).status == 200

    async def test_include_those_whose_turn_has_not_come(self, served, settings, caller, upstream):
        """What waits in the connection behind an answer under way is held as well."""
        settings.MAX_BODIES_BYTES = 70_000
        upstream.script(answer(after_s=1.0))
        body = orjson.dumps({"messages": []})
        key = f"Authorization: Bearer {caller.key}"
        async with line_to(served.base_url) as line:
            await line.send(request("POST", PATH, key, body=body))
            await line.send(head_of(caller, len(LONG)), LONG)
            found = await line.answers(["POST", "POST"])

        assert [each.status for each in found] == [200, 503]

    async def test_hold_nothing_of_strangers(self, served, caller):
        head = request("POST", PATH, "Authorization: Bearer no", f"Content-Length: {30 * MIB}")
        async with line_to(served.base_url) as line:
            await line.send(head + b"x" * 200_000)
            answered = await line.answer()

            assert answered is not None
            assert answered.status == 401
            assert is_given_back()
            await all_is_given_back()


class TestIsGivenBack:
    @pytest.mark.parametrize(
        ("step", "status"), [(answer(), 200), (refuse(400), 400), (refuse(500), 502)]
    )
    async def test_with_the_answer(self, served, upstream, caller, step, status):
        upstream.script(step)

        assert (await served.post(PATH, orjson.loads(LONG), caller.key)).status == status
        await all_is_given_back()

    async def test_with_the_end_of_a_stream_and_not_before(self, served, upstream, caller):
        upstream.script(stream(pause_s=0.1))
        body = {**orjson.loads(LONG), "stream": True}
        url, headers = f"{served.base_url}{PATH}", served.headers(caller.key)
        async with served.session.post(url, json=body, headers=headers) as response:
            await response.content.readany()
            assert HELD.taken > 300_000  # the upstream may still be asked again with it
            await response.read()
        await all_is_given_back()

    async def test_when_the_client_leaves(self, served, upstream, caller):
        upstream.script(answer(after_s=5))
        async with line_to(served.base_url) as line:
            await line.send(head_of(caller, len(LONG)), LONG[:200_000])
            await is_held(len(LONG))
        await all_is_given_back()
        async with line_to(served.base_url) as line:
            await line.send(head_of(caller, len(LONG)), LONG)
            async with asyncio.timeout(5):
                while not upstream.seen:
                    await asyncio.sleep(0.01)
            assert HELD.taken == len(LONG)
        await all_is_given_back()

    async def test_when_it_takes_too_long(self, served, monkeypatch, caller):
        monkeypatch.setattr(bodies, "TIMEOUT_S", 0.2)
        async with line_to(served.base_url) as line:
            await line.send(head_of(caller, len(LONG)), LONG[:100_000])
            answered = await line.answer()

            assert answered is not None
            assert answered.status == 408
            await all_is_given_back()

    async def test_when_its_chunks_break(self, served, caller):
        head = request(
            "POST", PATH, f"Authorization: Bearer {caller.key}", "Transfer-Encoding: chunked"
        )
        async with line_to(served.base_url) as line:
            await line.send(head + b"%x\r\n%b\r\n" % (200_000, b"x" * 200_000), b"zz\r\n")
            answered = await line.answer()

            assert answered is not None
            assert answered.status == 400
            await all_is_given_back()

    async def test_when_we_crash(self, served, monkeypatch, caller):
        async def crash(_call):
            assert HELD.taken
            raise RuntimeError

        monkeypatch.setattr("llmrouter.completions.operation.chat", crash)
        assert (await served.post(PATH, orjson.loads(LONG), caller.key)).status == 500
        await all_is_given_back()

    async def test_when_what_waits_for_its_turn_is_left(self, served, upstream, caller):
        upstream.script(answer(after_s=5))
        key = f"Authorization: Bearer {caller.key}"
        async with line_to(served.base_url) as line:
            await line.send(request("POST", PATH, key, body=b'{"messages":[]}'))
            await line.send(head_of(caller, len(LONG)), LONG[:60_000])
            async with asyncio.timeout(5):
                while not HELD.buffered:
                    await asyncio.sleep(0.01)
        await all_is_given_back()


class TestDjangosWay:
    """What is read before anybody asks who sends it."""

    FORM = b"name=" + b"x" * 100_000

    @pytest.mark.parametrize("path", ["/api/v1/keys", "/api/nothing", "/admin/login/", "/nothing"])
    async def test_of_strangers_takes_only_short_bodies(self, served, path):
        long = await served.send("POST", path, data=self.FORM)
        short = await served.send("POST", path, data=self.FORM[:60_000])

        assert long.status == 401
        assert short.status in (401, 403, 404)
        assert long.headers["Connection"] == "close"

    async def test_takes_long_ones_of_known_callers(self, served, caller):
        answered = await served.send("POST", "/api/v1/keys", key=caller.key, data=self.FORM)

        assert answered.status == 400

    async def test_takes_long_forms_of_those_who_are_signed_in(self, served, transactional_db):
        def signed_in():
            user = accounts.user(is_staff=True)
            session = SessionStore()
            session[SESSION_KEY] = user.pk
            session[BACKEND_SESSION_KEY] = "accounts.backends.AccountBackend"
            session[HASH_SESSION_KEY] = user.get_session_auth_hash()
            session.save()
            return session.session_key

        for key, status in ((await in_thread(signed_in)(), 403), ("x" * 32, 401)):
            cookie = {"Cookie": f"a=b; sessionid={key}"}
            answered = await served.send("POST", "/admin/", headers=cookie, data=self.FORM)

            assert answered.status == status  # 403 is what forms get without their token

    async def test_says_when_the_database_is_away(self, served, caller, monkeypatch):
        async def away(*_, **__):
            raise database.AWAY[0]

        monkeypatch.setattr("accounts.auth.authenticate", away)
        answered = await served.send("POST", "/api/v1/keys", key=caller.key, data=self.FORM)

        assert (answered.status, answered.headers["Retry-After"]) == (503, "1")
