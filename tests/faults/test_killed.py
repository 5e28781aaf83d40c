"""SIGKILL at each step of a paid request: one reconciliation and one retry make it one charge."""

from __future__ import annotations

import signal

import httpx
import pytest

from billing.models import LLMRequestLog
from tests.factories import gateway
from tests.fakes.upstream import answer, chunk, frames, stream
from tests.faults import build
from tests.lab import books

BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
URL = "/v1/chat/completions"
DELIVERED_NOTHING = ("after_open", "before_dispatch", "after_first_upstream_byte")
SENT = ("before_response", "after_first_client_byte")
SETTLING = ("before_settle", "inside_settle")
PLAIN = {
    # No answer was sent, so nothing is owed: an answer leaves only after its debit.
    **dict.fromkeys((*DELIVERED_NOTHING, *SETTLING), "voided"),
    **dict.fromkeys(("after_settle", *SENT), "settled"),
}
STREAMED = {
    **dict.fromkeys(DELIVERED_NOTHING, "voided"),
    **dict.fromkeys((*SENT, "mid_stream", *SETTLING, "after_settle"), "settled"),
}
"""What becomes of the request, by the step at which its server dies."""


def post(server, caller, streamed, **headers):
    return httpx.post(
        server.base_url + URL,
        json={**BODY, "stream": streamed},
        headers={"Authorization": f"Bearer {caller.key}", "Idempotency-Key": "once", **headers},
        timeout=30,
    )


def kill(fleet, caller, streamed, at):
    """Have a server die at a step of this caller's request."""
    server = fleet.start()
    with pytest.raises(httpx.HTTPError):
        response = post(server, caller, streamed, **{"fault-at": at})
        # What the kernel has taken arrives, also from somebody who is dead.
        assert at == "after_first_client_byte"
        raise httpx.ReadError(response.text)
    assert server.wait() == -signal.SIGKILL, at


def row_of(caller):
    return LLMRequestLog.objects.get(user_id=caller.user_id, settled_at__isnull=False)


def test_every_step_is_taken():
    assert PLAIN.keys() | STREAMED.keys() == set(build.STEPS)


@pytest.mark.parametrize("streamed", [False, True])
def test_killed_then_reconciled_then_tried_again_is_one_charge(fleet, provider, streamed):
    gateway.make_route(provider.base_url)
    states = STREAMED if streamed else PLAIN
    callers = {at: gateway.make_caller(flux=100) for at in states}
    told = stream([*[chunk()] * 4, *frames()], pause_s=0.04)
    provider.script(told if streamed else answer())
    for at, caller in callers.items():
        kill(fleet, caller, streamed, at)
    rows = {row.user_id: row.state for row in LLMRequestLog.objects.all()}
    left_open = {at for at in states if rows[callers[at].user_id] in ("open", "streaming")}

    server = fleet.start()
    at_once = {at: post(server, callers[at], streamed) for at in left_open}
    said = fleet.reconcile("--settle")
    ended = {at: row_of(caller) for at, caller in callers.items()}
    again = fleet.reconcile("--settle")
    retried = {at: post(server, caller, streamed) for at, caller in callers.items()}
    server.end(signal.SIGTERM)

    closed = ("after_settle",) if streamed else ("after_settle", *SENT)
    assert left_open == set(states) - set(closed)
    assert {response.status_code for response in at_once.values()} == {409}
    assert f"{len(left_open)} ended" in said
    assert "0 ended" in again
    assert {at: row.state for at, row in ended.items()} == states
    for at, response in retried.items():
        if states[at] == "voided":
            assert (response.status_code, ended[at].flux_charged) == (200, 0)
        elif streamed:
            assert response.status_code == 409
            assert response.json()["details"]["fluxCharged"] == 1
        else:
            assert (response.status_code, response.headers["x-airi-flux-charged"]) == (200, "1")
        assert books.charges(callers[at].user_id) == [1], at
    books.in_order()
