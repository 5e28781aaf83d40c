"""A server stopped in the middle of paid work: frozen and thawed, or told to end."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from billing.models import LLMRequestLog, RefusalHour
from tests.factories import billing as make
from tests.factories import gateway
from tests.fakes.upstream import DONE, chunk, stream
from tests.faults.gates import Gate
from tests.lab import books

BODY = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
URL = "/v1/chat/completions"


@pytest.fixture
def caller(provider, transactional_db):
    gateway.make_route(provider.base_url)
    return gateway.make_caller(flux=1000)


def post(server, caller, *, streamed):
    """Return status and body as far as they came."""
    body, headers = {**BODY, "stream": streamed}, {"Authorization": f"Bearer {caller.key}"}
    text = b""
    with httpx.stream(
        "POST", server.base_url + URL, json=body, headers=headers, timeout=30
    ) as response:
        try:
            for part in response.iter_raw():
                text += part
        except httpx.HTTPError:
            assert streamed
    return response.status_code, text


def wait_for_state(state, count):
    until = time.monotonic() + 20
    while LLMRequestLog.objects.filter(state=state).count() < count:
        assert time.monotonic() < until
        time.sleep(0.01)


class TestFrozen:
    @pytest.mark.parametrize("streamed", [False, True])
    def test_past_its_deadline_the_reconciler_and_it_make_one_settlement(
        self, fleet, provider, caller, streamed
    ):
        """The server sleeps through its request's deadline and does not know that it is over."""
        gate = Gate()
        provider.script(gate.step)
        server = fleet.start()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(post, server, caller, streamed=streamed)
            wait_for_state("streaming" if streamed else "open", 1)
            server.send(signal.SIGSTOP)
            LLMRequestLog.objects.update(deadline_at=make.NOW)

            taken = fleet.reconcile("--settle")
            (before,) = LLMRequestLog.objects.all()
            gate.open()
            server.send(signal.SIGCONT)
            status, text = asking.result(30)
        server.end(signal.SIGTERM)

        assert "1 ended" in taken
        assert before.state == ("settled" if streamed else "voided")
        (after,) = LLMRequestLog.objects.all()
        assert (after.settled_at, after.outcome) == (before.settled_at, "orphaned")
        assert (status, bool(text)) == (200, True)
        assert books.charges(caller.user_id) == ([1] if streamed else [])
        books.in_order()

    def test_within_its_deadline_nobody_else_ends_its_requests(self, fleet, provider, caller):
        """Its sessions live as long as it does, however long it sleeps."""
        gate = Gate()
        provider.script(gate.step)
        server = fleet.start()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(post, server, caller, streamed=True)
            wait_for_state("streaming", 1)
            server.send(signal.SIGSTOP)

            untouched = fleet.reconcile("--settle")
            gate.open()
            server.send(signal.SIGCONT)
            _, text = asking.result(30)
        server.end(signal.SIGTERM)

        assert "0 ended" in untouched
        assert text.endswith(DONE)
        assert LLMRequestLog.objects.get().outcome == "completed"
        books.in_order()


class TestToldToEnd:
    def test_is_not_ready_before_it_stops_taking_requests(self, fleet, provider, caller):
        gate = Gate()
        provider.script(gate.step)
        server = fleet.start(SHUTDOWN_DELAY_S=2)
        with ThreadPoolExecutor(21) as pool:
            asking = [pool.submit(post, server, caller, streamed=True) for _ in range(20)]
            wait_for_state("streaming", 20)
            server.send(signal.SIGTERM)
            while (probed := server.probe()) == 200:
                time.sleep(0.01)
            asking.append(pool.submit(post, server, caller, streamed=True))
            wait_for_state("streaming", 21)
            gate.open()
            ends = [each.result(30) for each in asking]

        assert probed == 503
        assert all(text.endswith(DONE) for _, text in ends)
        # uvicorn ends by raising the signal again, once everything is done.
        assert server.wait() in (0, -signal.SIGTERM)
        assert LLMRequestLog.objects.filter(state="settled").count() == 21
        books.in_order()

    def test_streams_end_whole_after_it_has_stopped_listening(self, fleet, provider, caller):
        gate = Gate()
        provider.script(gate.step)
        server = fleet.start()
        with ThreadPoolExecutor(20) as pool:
            asking = [pool.submit(post, server, caller, streamed=True) for _ in range(20)]
            wait_for_state("streaming", 20)
            server.send(signal.SIGTERM)
            while server.probe() != 0:
                time.sleep(0.01)
            gate.open()
            ends = [each.result(30) for each in asking]

        assert all(text.endswith(DONE) for _, text in ends)
        assert server.wait() in (0, -signal.SIGTERM)
        assert LLMRequestLog.objects.filter(state="settled").count() == 20
        books.in_order()

    def test_what_does_not_end_is_cut_with_an_error_frame_and_settled(
        self, fleet, provider, caller
    ):
        provider.script(stream([chunk()], then="hang"))
        server = fleet.start(SHUTDOWN_GRACE_S=1)
        with ThreadPoolExecutor(5) as pool:
            asking = [pool.submit(post, server, caller, streamed=True) for _ in range(5)]
            wait_for_state("streaming", 5)
            server.end(signal.SIGTERM)
            ends = [each.result(30) for each in asking]

        for _, text in ends:
            assert text.startswith(chunk())
            assert b'"code":"SERVICE_UNAVAILABLE"' in text
            assert DONE not in text
        rows = list(LLMRequestLog.objects.all())
        assert {(row.state, row.outcome) for row in rows} == {("settled", "shutdown")}
        assert all(row.completion_tokens for row in rows)
        books.in_order()


def test_what_was_refused_is_counted_before_it_ends(fleet):
    """Nothing else of it is written: strangers alone cause no statement."""
    server = fleet.start()
    for _ in range(3):
        assert httpx.post(server.base_url + URL, json=BODY).status_code == 401
    assert not RefusalHour.objects.exists()

    server.end(signal.SIGTERM)

    assert sum(RefusalHour.objects.values_list("count", flat=True)) == 3
