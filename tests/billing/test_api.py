"""What a user sees of their Flux over HTTP: own rows only, clamped, stable under writes."""

from __future__ import annotations

import re

import pytest

from airi_server.kernel import ids
from airi_server.kernel.threads import in_thread
from billing import ledger
from billing.models import FluxAccount
from billing.pricing import Usage
from tests.factories import billing as make
from tests.factories import gateway

pytestmark = pytest.mark.asyncio
FLUX = "/api/v1/flux"


@in_thread
def credit_often(user_id, count):
    for number in range(1, count + 1):
        ledger.credit(
            user_id=user_id, amount=number, request_id=None, description=f"no {number}", at=make.NOW
        )


@in_thread
def requests(user_id, count, *, tokens=3):
    """Open and settle; return the tickets, newest first. `tokens` None leaves them open."""
    price = make.price()
    tickets = [make.ticket(user_id, price, stream=True) for _ in range(count)]
    for one in tickets:
        make.open_one(one, 5)
        if tokens is not None:
            make.settle_one(make.settlement(one, 0, usage=Usage(1, tokens - 1), status=200))
    return sorted(tickets, key=lambda one: one.id, reverse=True)


class TestBalance:
    async def test_the_first_read_opens_the_account(self, served):
        caller = await gateway.caller(flux=0)

        got = await served.get(FLUX, caller.key)

        assert (got.status, got.json()) == (200, {"userId": caller.user_id, "flux": 0})
        (entry,) = await make.entries(caller.user_id)
        assert entry.kind == "initial"

    async def test_is_private_and_gone_with_the_account(self, served):
        caller = await gateway.caller(flux=7)

        assert (await served.get(FLUX)).status == 401
        assert (await served.get(FLUX, caller.key)).json()["flux"] == 7
        await in_thread(lambda: FluxAccount.objects.update(deleted_at=make.NOW))()
        refused = await served.get(FLUX, caller.key)
        assert (refused.status, refused.json()["error"]) == (403, "FORBIDDEN")


class TestStats:
    async def test_is_the_balance_after_the_newest_top_up(self, served):
        caller = await gateway.caller(flux=0)
        assert (await served.get(f"{FLUX}/stats", caller.key)).json() == {"capacity": 0}

        await credit_often(caller.user_id, 2)
        await requests(caller.user_id, 1)

        assert (await served.get(f"{FLUX}/stats", caller.key)).json() == {"capacity": 3}
        assert (await served.get(FLUX, caller.key)).json()["flux"] == 0


class TestHistory:
    async def test_pages_newest_first_and_clamps(self, served):
        caller, other = await gateway.caller(flux=0), await gateway.caller(flux=0)
        await credit_often(caller.user_id, 24)
        await credit_often(other.user_id, 2)

        async def page(query):
            got = await served.get(f"{FLUX}/history{query}", caller.key)
            assert got.status == 200
            body = got.json()
            return [record["amount"] for record in body["records"]], body["hasMore"]

        everything = [*range(24, 0, -1), 0]
        assert await page("?limit=10&offset=0") == (everything[:10], True)
        assert await page("?limit=10&offset=20") == (everything[20:], False)
        assert await page("?limit=25") == (everything, False)
        for query in ("", "?limit=abc&offset=x", "?limit=&offset=", "?limit=null"):
            assert await page(query) == (everything[:20], True)
        assert await page("?limit=999&offset=-12") == (everything, False)
        assert await page("?limit=0") == (everything[:1], True)
        assert await page("?limit=-5") == (everything[:1], True)
        assert await page("?limit=%20%202.9&offset=+1abc") == (everything[1:3], True)
        assert await page("?limit=2&offset=" + "9" * 400) == ([], False)

    async def test_an_entry_reads_as_the_clients_expect(self, served):
        caller = await gateway.caller(flux=50)
        (one,) = await requests(caller.user_id, 1)

        body = (await served.get(f"{FLUX}/history?limit=1", caller.key)).json()

        (record,) = body["records"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("createdAt"))
        assert record.pop("id").isdigit()
        assert record == {
            "type": "debit",
            "amount": 3,
            "description": "llm_request",
            "metadata": {
                "model": "chat-default",
                "promptTokens": 1,
                "completionTokens": 2,
                "source": "llm.request",
                "requestId": str(one.id),
            },
        }

    async def test_a_user_without_an_account_has_none(self, served):
        caller = await gateway.caller(flux=0)

        got = await served.get(f"{FLUX}/history", caller.key)

        assert got.json() == {"records": [], "hasMore": False}


class TestRequests:
    async def test_a_cursor_stays_where_it_was_while_others_are_added(self, served):
        caller, other = await gateway.caller(flux=500), await gateway.caller(flux=500)
        tickets = await requests(caller.user_id, 7)
        await requests(other.user_id, 2)
        seen, cursor = [], None

        for _ in range(4):
            query = f"?limit=2&cursor={cursor}" if cursor else "?limit=2"
            page = (await served.get(f"{FLUX}/requests{query}", caller.key)).json()
            seen += [record["id"] for record in page["records"]]
            cursor = page["nextCursor"]
            await requests(caller.user_id, 1)

        assert seen == [str(one.id) for one in tickets]
        assert cursor is None

    async def test_shows_one_request_from_open_to_settled(self, served):
        caller, other = await gateway.caller(flux=50), await gateway.caller(flux=50)
        (one,) = await requests(caller.user_id, 1, tokens=None)
        path = f"{FLUX}/requests/{one.id}"

        open_row = (await served.get(path, caller.key)).json()
        await in_thread(make.settle_one)(make.settlement(one, 3, status=200, duration_ms=5))
        settled = (await served.get(path, caller.key)).json()

        assert (open_row["state"], open_row["hold"], open_row["fluxCharged"]) == ("open", 5, 0)
        assert (open_row["settledAt"], open_row["outcome"]) == (None, None)
        assert (settled["state"], settled["outcome"]) == ("settled", "completed")
        assert (settled["fluxCharged"], settled["unbilled"], settled["promptTokens"]) == (3, 0, 3)
        assert (settled["usageSource"], settled["durationMs"]) == ("reported", 5)
        stranger = await served.get(path, other.key)
        assert (stranger.status, stranger.json()["error"]) == (404, "NOT_FOUND")

    @pytest.mark.parametrize("cursor", ["x", "0" * 36, "%00", "-" * 36, "1" * 400])
    async def test_a_foreign_cursor_is_refused(self, served, cursor):
        caller = await gateway.caller(flux=0)

        got = await served.get(f"{FLUX}/requests?cursor={cursor}", caller.key)
        one = await served.get(f"{FLUX}/requests/{cursor}", caller.key)

        assert (got.status, got.json()["error"]) == (400, "INVALID_REQUEST")
        assert one.status == 404

    async def test_an_unknown_one_is_not_there(self, served):
        caller = await gateway.caller(flux=0)

        assert (await served.get(f"{FLUX}/requests/{ids.uuid7()}", caller.key)).status == 404
        for path in ("", "/stats", "/history", "/requests", f"/requests/{ids.uuid7()}"):
            assert (await served.get(FLUX + path)).status == 401


class TestRefused:
    async def test_are_listed_where_they_are_asked_for(self, served):
        caller, other = await gateway.caller(), await gateway.caller()
        (first,) = await requests(caller.user_id, 1)
        refused = [await make.refused_later(caller.user_id) for _ in range(2)]
        (last,) = await requests(caller.user_id, 1)
        await make.refused_later(other.user_id)
        url = f"{FLUX}/requests"

        async def listed(query):
            got = (await served.get(url + query, caller.key)).json()
            return [record["id"] for record in got["records"]], got["nextCursor"]

        every = [str(row) for row in (last.id, refused[1].pk, refused[0].pk, first.id)]
        assert await listed("") == ([every[0], every[3]], None)
        assert await listed("?refused=false") == ([every[0], every[3]], None)
        assert await listed("?refused=true") == (every, None)
        assert await listed("?refused=true&limit=2") == (every[:2], every[1])
        assert await listed(f"?refused=true&limit=2&cursor={every[1]}") == (every[2:], None)

    async def test_look_like_requests_that_came_to_nothing(self, served):
        caller, other = await gateway.caller(), await gateway.caller()
        row = await make.refused_later(caller.user_id)
        url = f"{FLUX}/requests/{row.pk}"

        got = await served.get(url, caller.key)

        shown = got.json()
        assert (shown["state"], shown["outcome"], shown["status"]) == ("refused", "refused", 402)
        assert (shown["errorCode"], shown["model"]) == ("PAYMENT_REQUIRED", "chat-default")
        assert (shown["fluxCharged"], shown["hold"], shown["promptTokens"]) == (0, 0, None)
        assert shown["openedAt"] == shown["settledAt"]
        listed = await served.get(f"{FLUX}/requests?refused=true", caller.key)
        assert listed.json()["records"] == [shown]
        assert (await served.get(url, other.key)).status == 404

    async def test_one_that_has_a_row_of_its_own_is_that_row(self, served):
        caller = await gateway.caller()
        (ticket,) = await requests(caller.user_id, 1)
        await make.refused_later(caller.user_id, id=ticket.id)

        listed = (await served.get(f"{FLUX}/requests?refused=true", caller.key)).json()
        one = (await served.get(f"{FLUX}/requests/{ticket.id}", caller.key)).json()

        assert listed["records"] == [one]
        assert one["state"] == "settled"
