"""`settle_requests.sql` and `mark_requests.sql`: each request is closed exactly once."""

from __future__ import annotations

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing import ledger
from billing.models import APIKeySpend, FluxAccount, LLMRequestLog, LLMRequestResult
from billing.pricing import TokenSource, Usage
from billing.settlements import Charged
from tests.billing.twins import Account
from tests.factories import billing as make

pytestmark = pytest.mark.django_db


@pytest.fixture
def price():
    return make.price()


@pytest.fixture
def ticket(price):
    return lambda user_id="mio", **facts: make.ticket(user_id, price, **facts)


@pytest.fixture
def opened(ticket):
    """Open an account of Mio's with `flux`, and one request that holds `hold`."""

    def open_one(flux=100, hold=30, **facts):
        make.make_account(flux, "mio")
        one = ticket(**facts)
        assert make.open_one(one, hold)[:2] == ("opened", hold)
        return one

    return open_one


class TestSettle:
    def test_debits_releases_and_explains(self, opened):
        one = opened(api_key_id="k")
        usage = Usage(12, 8, 5)

        charged = make.settle_one(
            make.settlement(
                one, 0, usage=usage, upstream="u1", upstream_key_id="k1", attempts=2, status=200
            )
        )

        assert charged == Charged("settled", 20, 0, 80, replayed=False)
        assert make.state_of("mio") == (80, 0)
        entry = make.entries_of("mio")[2]
        assert (entry.kind, entry.amount, entry.user_seq) == ("debit", 20, 3)
        assert (entry.request_id, entry.description) == (f"llm:{one.id}", "llm_request")
        assert entry.metadata == {
            "model": "chat-default",
            "promptTokens": 12,
            "completionTokens": 8,
            "source": "llm.request",
            "requestId": str(one.id),
        }
        row = make.request_of(one)
        assert (row.state, row.flux_charged, row.unbilled, row.hold) == ("settled", 20, 0, 30)
        assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (12, 8, 5)
        assert (row.upstream, row.upstream_key_id, row.attempts) == ("u1", "k1", 2)
        spend = APIKeySpend.objects.get()
        assert (spend.api_key_id, spend.flux, spend.day) == ("k", 20, entry.created_at.date())
        assert make.broken_here() == []

    def test_a_void_releases_and_costs_nothing(self, opened):
        one = opened(api_key_id="k")

        assert make.settle_one(make.settlement(one, None)) == Charged(
            "voided", 0, 0, 100, replayed=False
        )
        assert make.state_of("mio") == (100, 0)
        assert len(make.entries_of("mio")) == 2
        assert not APIKeySpend.objects.exists()
        assert make.broken_here() == []

    def test_who_comes_second_does_nothing(self, opened, ticket):
        one = opened()
        make.settle_one(make.settlement(one, 10))

        late = make.settle_batch(make.settlement(one, 25), make.settlement(one, None))

        assert late == [Charged("settled", 10, 0, 90, replayed=True)] * 2
        voided = ticket()
        make.open_one(voided, 5)
        make.settle_one(make.settlement(voided, None))
        assert make.settle_one(make.settlement(voided, 5)) == Charged(
            "voided", 0, 0, 90, replayed=True
        )
        assert make.state_of("mio") == (90, 0)

    def test_the_same_id_twice_in_one_batch_is_settled_once(self, opened):
        one = opened()

        first, second = make.settle_batch(make.settlement(one, 10), make.settlement(one, 20))

        assert first == Charged("settled", 10, 0, 90, replayed=False)
        assert second == Charged("settled", 10, 0, 90, replayed=True)
        assert make.broken_here() == []

    def test_more_than_the_hold_is_taken_from_what_is_free_and_the_rest_is_unbilled(
        self, opened, ticket
    ):
        one = opened(100, 30)
        make.open_one(ticket(), 50)

        charged = make.settle_one(make.settlement(one, 70))

        assert charged == Charged("settled", 50, 20, 50, replayed=False)
        assert make.state_of("mio") == (50, 50)
        metadata = make.entries_of("mio")[-1].metadata
        assert metadata is not None
        assert (metadata["requestedAmount"], metadata["unbilled"]) == (70, 20)
        assert make.broken_here() == []

    def test_an_empty_account_leaves_everything_unbilled(self, opened):
        one = opened(30, 0)
        ledger.reverse(user_id="mio", user_seq=2, request_id="r", description="", at=make.NOW)

        assert make.settle_one(make.settlement(one, 9)) == Charged(
            "settled", 0, 9, 0, replayed=False
        )
        assert make.request_of(one).unbilled == 9
        assert len(make.entries_of("mio")) == 3
        assert make.broken_here() == []

    def test_a_frozen_account_pays_with_what_there_is(self, opened):
        one = opened(30, 30)
        FluxAccount.objects.update(frozen=True)
        with connection.cursor() as cursor:
            cursor.execute("UPDATE user_flux SET held = 40 WHERE user_id = 'mio'")

        assert make.settle_one(make.settlement(one, 35)).charged == 30
        assert make.state_of("mio") == (0, 10)

    def test_a_deleted_account_still_pays(self, opened):
        one = opened()
        FluxAccount.objects.update(deleted_at=make.NOW)

        assert make.settle_one(make.settlement(one, 5)).charged == 5

    def test_the_answer_is_kept_with_the_debit(self, opened):
        one = opened(client_key="k")
        make.settle_one(make.settlement(one, 1, result=b"\x00answer"))

        kept = LLMRequestResult.objects.get()
        assert (kept.request, bytes(kept.body)) == (one.id, b"\x00answer")

    def test_is_one_transaction_with_its_money(self, opened):
        one = opened()

        with pytest.raises(ZeroDivisionError), transaction.atomic():
            make.settle_one(make.settlement(one, 7))
            raise ZeroDivisionError

        assert make.state_of("mio") == (100, 30)
        assert make.request_of(one).state == "open"
        assert make.broken_here() == []


class TestForgottenRows:
    def test_are_written_again_closed(self, ticket, price):
        make.make_account(100, "mio")
        lost, void = ticket(client_key="k", api_key_id="x", input_hash="ab"), ticket()

        charged, voided = make.settle_batch(
            make.settlement(lost, 40, duration_ms=1500), make.settlement(void, None)
        )

        assert (charged.charged, charged.replayed, voided.state) == (40, False, "voided")
        row = make.request_of(lost)
        assert (row.state, row.hold, row.flux_charged, row.client_key) == ("settled", 0, 40, "k")
        assert row.settled_at is not None
        assert (row.settled_at - row.opened_at).total_seconds() == 1.5
        assert make.open_one(lost, 40)[:2] == ("replayed", 0)
        assert make.state_of("mio") == (60, 0)
        assert make.broken_here() == []

    def test_give_way_to_a_later_request_with_their_client_key(self, ticket):
        make.make_account(100, "mio")
        lost, retry = ticket(client_key="k"), ticket(client_key="k")
        make.open_one(retry, 10)

        charged = make.settle_one(make.settlement(lost, 40))

        assert charged.charged == 40
        assert make.request_of(lost).client_key is None
        assert make.settle_one(make.settlement(retry, 10)).charged == 10
        assert make.broken_here() == []

    def test_cost_at_most_what_is_free(self, ticket):
        make.make_account(100, "mio")
        make.open_one(ticket(), 80)

        assert make.settle_one(make.settlement(ticket(), 40)).charged == 20
        assert make.broken_here() == []


class TestMark:
    def test_the_first_is_the_first_byte_and_none_goes_backwards(self, opened, ticket):
        one = opened()
        make.mark_batch((one, 0))
        began = make.request_of(one).first_byte_at

        make.mark_batch((one, 9), (one, 7), (ticket(), 3))
        make.mark_batch((one, 4), (ticket(), 3))

        row = make.request_of(one)
        assert began is not None
        assert (row.state, row.first_byte_at, row.checkpoint) == ("streaming", began, 9)
        assert LLMRequestLog.objects.count() == 1

    @pytest.mark.parametrize("tokens", [5, None])
    def test_leaves_closed_rows_alone(self, opened, tokens):
        one = opened()
        make.settle_one(make.settlement(one, tokens))
        before = LLMRequestLog.objects.values().get()

        make.mark_batch((one, 9))

        assert LLMRequestLog.objects.values().get() == before


STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # which request; 5 was never opened: its row was forgotten
        st.one_of(st.none(), st.integers(0, 60)),  # its charge, or None to void it
    ),
    max_size=12,
)


class TestTwin:
    @given(steps=STEPS, flux=st.integers(0, 80), holds=st.lists(st.integers(0, 30), max_size=5))
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_batches_do_what_ten_lines_of_python_do(self, price, steps, flux, holds):
        """The same through one batch, through single calls, and through the twin."""
        ended = []
        for how in ("one batch", "one by one"):
            user_id = make.make_account(flux)
            twin = Account(flux)
            tickets = [make.ticket(user_id, price) for _ in range(6)]
            for one, hold in zip(tickets, holds, strict=False):
                row = make.opening(one, hold)
                assert make.open_batch(row)[0][:2] == twin.open(row)
            settlements = [make.settlement(tickets[which], charge) for which, charge in steps]
            if how == "one batch":
                found = make.settle_batch(*settlements) if settlements else []
            else:
                found = [make.settle_one(each) for each in settlements]

            expected = [twin.settle(tickets[which].id, charge) for which, charge in steps]
            assert [tuple(each) for each in found] == expected
            assert make.state_of(user_id) == (twin.flux, twin.held)
            assert make.broken_here(user_id) == []
            ended.append(expected)
        assert ended[0] == ended[1]

    def test_an_estimate_is_recorded_as_one(self, opened):
        one = opened()
        make.settle_one(
            make.settlement(one, 0, usage=Usage(3, 4, source=TokenSource.ESTIMATED), completed=True)
        )

        assert make.request_of(one).usage_source == "estimated"
        assert make.broken_here() == []
