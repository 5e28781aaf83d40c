"""The worked example of docs/ledger.md, run: its table and its sentences are what happens."""

from __future__ import annotations

import re

import orjson
import pytest
import pytest_asyncio
from django.conf import settings

from accounts.models import User
from airi_server.kernel.threads import in_thread
from airi_server.runtime.audit import Actor
from billing import grants, ledger
from billing.models import FluxTransaction
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, usage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.asyncio]
PAGE = (settings.BASE_DIR / "docs" / "ledger.md").read_text()
EXAMPLE = PAGE.partition("## A worked example")[2]
TABLE = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \| (.+?) \|$", EXAMPLE, re.MULTILINE)
PATH = "/v1/chat/completions"


def prompt_of(size: int, **more: int) -> bytes:
    """Return a request of exactly so many bytes."""

    def saying(text: str) -> bytes:
        messages = [{"role": "user", "content": text}]
        return orjson.dumps({"model": "chat-default", "messages": messages, **more})

    return saying("x" * (size - len(saying(""))))


def entries(user_id):
    return list(FluxTransaction.objects.filter(user_id=user_id).order_by("user_seq"))


class Books:
    """The account of the example, and what the page has about it so far."""

    def __init__(self, served, upstream, caller):
        self.served, self.upstream, self.caller = served, upstream, caller
        self.seen: list[tuple[str, str, str]] = []

    async def note(self):
        """Read balance, hold and the newest entry if there is a new one."""
        account = await gateway.account(self.caller.user_id)
        rows = await in_thread(entries)(self.caller.user_id)
        told = len([entry for *_, entry in self.seen if entry])
        new = rows[told:]
        entry = "".join(
            f"{e.user_seq}: `{e.kind}` {e.amount}, {e.balance_before} → {e.balance_after}"
            for e in new
        )
        self.seen.append((str(account.balance), str(account.held), entry))

    async def ask(self, body, tokens):
        """Send a request; note the account while it is open, and after it has settled."""

        async def step(request):
            await self.note()
            return await answer(completion(use=usage(*tokens)))(request)

        self.upstream.script(step)
        answered = await self.served.send("POST", PATH, key=self.caller.key, data=body)
        await self.note()
        return answered


@pytest_asyncio.fixture
async def books(served, upstream):
    caller = await gateway.caller(flux=0)
    await gateway.route(upstream.base_url, max_output_tokens=100_000)
    return Books(served, upstream, caller)


async def test_is_what_happens(books):
    user_id = books.caller.user_id
    user = await in_thread(User.objects.get)(pk=user_id)
    await in_thread(ledger.open_account)(user_id=user_id)
    await books.note()
    order = grants.GrantOrder.of([user.email], 100, "Welcome", "welcome")
    for _ in range(2):
        await in_thread(grants.apply)(order, by=Actor.of(user), at=gateway.NOW)
        await books.note()

    first = await books.ask(prompt_of(4_800), (1_180, 2_350))
    second = await books.ask(prompt_of(80_000, max_tokens=90_000), (70_000, 47_000))
    third = await books.served.send("POST", PATH, key=books.caller.key, data=prompt_of(4_800))
    await books.note()
    debit = (await in_thread(entries)(user_id))[2]
    await in_thread(ledger.reverse)(
        user_id=user_id, user_seq=debit.user_seq, request_id="support:1",
        description="a mistake", at=gateway.NOW,
    )  # fmt: skip
    await books.note()

    assert len(TABLE) == len(books.seen)
    for (step, balance, held, told), seen in zip(TABLE, books.seen, strict=True):
        assert (balance, held) == seen[:2], step
        assert told.startswith(seen[2] or "none"), step
    assert (first.status, second.status, third.status) == (200, 200, 402)
    a, b = await gateway.requests()
    assert (a.hold, a.prompt_estimate, a.flux_charged, a.unbilled) == (7, 1_200, 4, 0)
    assert (b.hold, b.prompt_estimate, b.flux_charged, b.unbilled) == (96, 20_000, 96, 21)
    assert books.upstream.seen[1].body["max_tokens"] == 76_000
    assert third.json()["details"] == {"available": 0, "required": 5}
    assert "key `llm:<A>`" in EXAMPLE
    assert debit.request_id == f"llm:{a.id}"
