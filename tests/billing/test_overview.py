"""The numbers of the start page: what moved, what failed, how soon, and what is open."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection, transaction

from airi_server.kernel import ids
from billing import reconciliation_runs
from billing.admin import dashboard
from billing.admin import requests as request
from billing.models import FAILED_OUTCOMES, LLMRequestLog
from billing.reconciliation import EVERYTHING, CheckScope
from tests.billing.corruption import corrupt
from tests.cache import forget
from tests.factories import billing as make

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
places = count(1)


@pytest.fixture(autouse=True)
def _nothing_is_cached():
    forget()
    yield
    forget()


def entry(days_ago, kind, amount, before, after):
    """Post an entry by hand: only so can the past be written."""
    corrupt(
        "INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before,"
        " balance_after, description, created_at, reverses_seq) VALUES"
        " ('mio', %(seq)s, %(kind)s, %(amount)s, %(before)s, %(after)s, '', %(at)s,"
        " CASE WHEN %(kind)s = 'reversal' THEN %(seq)s - 1 END)",
        {
            "seq": next(places), "kind": kind, "amount": amount, "before": before, "after": after,
            "at": NOW - timedelta(days=days_ago),
        },
    )  # fmt: skip


def requests(*rows):
    """Insert ended requests: (minutes ago, model, outcome, ttft_ms)."""
    for number, (minutes, model, outcome, ttft_ms) in enumerate(rows):
        at = NOW - timedelta(minutes=minutes)
        request_id = ids.first_uuid7_at(at).int + number
        LLMRequestLog.objects.create(
            id=UUID(int=request_id), user_id="mio", kind="chat", state="settled", hold=0,
            model=model, stream=True, prompt_estimate=0, price_version=1, instance_id="x",
            opened_at=at, deadline_at=at, settled_at=at, outcome=outcome, ttft_ms=ttft_ms,
            usage_source="reported",
        )  # fmt: skip


@pytest.mark.django_db
class TestFluxByDay:
    def test_adds_up_each_day_by_the_way_flux_went(self):
        for place in (
            (40, "credit", 999, 0, 999), (29, "promo", 100, 0, 100), (29, "debit", 3, 100, 97),
            (1, "debit", 7, 97, 90), (1, "admin_set", 40, 90, 50), (0, "debit", 5, 50, 45),
            (0, "reversal", 5, 45, 50), (0, "credit", 9, 50, 59),
        ):  # fmt: skip
            entry(*place)

        days = dashboard.flux_by_day(at=NOW)

        assert len(days) == dashboard.DAYS
        assert days[0] == dashboard.Day(date(2026, 1, 31), used=3, credited=100, withdrawn=0)
        assert days[1] == dashboard.Day(date(2026, 2, 1), 0, 0, 0)
        assert days[-2] == dashboard.Day(date(2026, 2, 28), used=7, credited=0, withdrawn=40)
        assert days[-1] == dashboard.Day(date(2026, 3, 1), used=5, credited=14, withdrawn=0)

    def test_a_day_begins_at_midnight_utc(self):
        midnight = NOW.replace(hour=0)
        for before in (timedelta(microseconds=1), timedelta()):
            entry((NOW - midnight + before) / timedelta(days=1), "credit", 1, 0, 1)

        yesterday, today = dashboard.flux_by_day(at=NOW)[-2:]

        assert (yesterday.credited, today.credited) == (1, 1)

    def test_days_that_are_over_are_read_once(self):
        entry(2, "credit", 5, 0, 5)
        entry(0, "credit", 1, 5, 6)
        dashboard.flux_by_day(at=NOW)
        # No entry ever changes: this shows where the numbers come from.
        corrupt("UPDATE flux_transaction SET amount = 9, balance_after = balance_before + 9", {})

        days = dashboard.flux_by_day(at=NOW)

        assert (days[-3].credited, days[-1].credited) == (5, 9)
        forget()
        assert dashboard.flux_by_day(at=NOW)[-3].credited == 9

    @pytest.mark.parametrize(("after_midnight", "credited"), [(59, 3), (61, 1)])
    def test_a_day_is_over_once_nothing_can_be_posted_into_it(self, after_midnight, credited):
        at = NOW.replace(hour=0) + timedelta(minutes=after_midnight)
        entry(1, "credit", 1, 0, 1)
        dashboard.flux_by_day(at=at)
        entry(1, "credit", 2, 1, 3)

        assert dashboard.flux_by_day(at=at)[-2].credited == credited

    def test_an_empty_ledger_has_quiet_days(self):
        assert {day.used for day in dashboard.flux_by_day(at=NOW)} == {0}


@pytest.mark.django_db
class TestTraffic:
    def test_counts_requests_and_failures_by_model_busiest_first(self):
        requests(
            (90, "old", "completed", 5), (50, "a", "failed", None), (40, "b", "completed", 100),
            (30, "b", "client_gone", 100), (20, "b", "upstream_broken", 100),
        )  # fmt: skip

        found = dashboard.traffic(since=NOW - timedelta(hours=1), slot=timedelta(hours=1))

        assert found.models == (
            dashboard.ModelTraffic("b", 3, 1),
            dashboard.ModelTraffic("a", 1, 1),
        )
        assert (found.requests, found.failures) == (4, 2)

    def test_what_counts_as_failed_is_what_the_list_finds_as_failed(self):
        outcomes = (*FAILED_OUTCOMES, "completed", "client_gone")
        requests(*((5, outcome, outcome, None) for outcome in outcomes))

        found = dashboard.traffic(since=NOW - timedelta(hours=1), slot=timedelta(hours=1))

        assert {each.model for each in found.models if each.failures} == set(FAILED_OUTCOMES)
        assert set(outcomes) == set(request.OUTCOMES)

    def test_percentiles_come_within_a_fifth_from_bins(self):
        requests(*((30, "a", "completed", 10 * number) for number in range(1, 101)))

        (slot,) = dashboard.traffic(
            since=NOW - timedelta(hours=1), slot=timedelta(days=1)
        ).first_token

        assert slot.at == NOW.replace(hour=0)
        assert slot.answers == 100
        assert slot.p50_ms == pytest.approx(500, rel=0.2)
        assert slot.p95_ms == pytest.approx(950, rel=0.2)

    def test_what_is_quicker_or_slower_than_every_bin_still_counts(self):
        requests((30, "a", "completed", 0), (30, "a", "completed", 2**31 - 1))

        (slot,) = dashboard.traffic(
            since=NOW - timedelta(hours=1), slot=timedelta(days=1)
        ).first_token

        assert (slot.p50_ms, slot.p95_ms) == (dashboard.BOUNDS_MS[0], dashboard.BOUNDS_MS[-1])


@pytest.mark.django_db
class TestUnderWay:
    def test_what_is_open_is_what_accounts_hold(self, books):
        found = dashboard.under_way()

        assert (found.requests, found.held, found.accounts_hold, found.drift) == (1, 20, 20, 0)
        assert found.oldest is not None

    def test_an_orphan_is_counted_with_its_hold(self, books):
        LLMRequestLog.objects.filter(settled_at=None).update(deadline_at=NOW)

        assert dashboard.orphans() == dashboard.Orphans(1, 20)

    def test_a_hold_without_a_request_is_drift(self, books):
        corrupt("UPDATE user_flux SET held = held + 3 WHERE user_id = 'mio'", books)

        assert dashboard.under_way().drift == 3

    def test_a_hold_that_outlived_its_request_is_drift(self, books):
        LLMRequestLog.objects.filter(settled_at=None).update(
            state="voided", outcome="failed", settled_at=NOW
        )

        found = dashboard.under_way()

        assert (found.requests, found.held, found.accounts_hold, found.drift) == (0, 0, 20, 20)

    def test_whoever_has_called_nothing_lately_is_left_to_the_check_of_the_books(
        self, books, monkeypatch
    ):
        monkeypatch.setattr(dashboard, "NEWEST", 0)
        corrupt("INSERT INTO user_flux (user_id, flux, held, ledger_seq, frozen, updated_at)"
                " VALUES ('ren', 9, 9, 1, false, now())", {})  # fmt: skip

        assert dashboard.under_way().drift == 0

    def test_nothing_open_is_no_drift(self):
        assert dashboard.under_way() == dashboard.UnderWay(0, None, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(dashboard, "LIMIT_SQL", "SET LOCAL statement_timeout = 20")

    with pytest.raises(OperationalError, match="timeout"):
        dashboard._read("SELECT pg_sleep(5)", {})

    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("1min",)


@pytest.mark.django_db
class TestRuns:
    def test_the_newest_is_the_newest_of_everything(self):
        counts: dict[str, Any] = {
            "by": "op@example.com",
            "duration_ms": 5,
            "broken": 0,
            "orphans": 0,
        }
        whole = reconciliation_runs.record(scope=EVERYTHING, at=NOW, **counts)
        of_one = reconciliation_runs.record(
            scope=CheckScope(user_id="mio", since=NOW), at=NOW, **counts
        )

        assert reconciliation_runs.newest() == whole
        assert reconciliation_runs.before_now() == [of_one, whole]
        assert of_one.scope == "--user mio --since 2026-03-01T12:00:00+00:00"

    def test_the_past_is_not_rewritten(self):
        counts: dict[str, Any] = {"duration_ms": 5, "broken": 3, "orphans": 0}
        run = reconciliation_runs.record(scope=EVERYTHING, at=NOW, by="op@example.com", **counts)

        for statement in (
            "UPDATE reconciliation_run SET broken = 0",
            "DELETE FROM reconciliation_run",
        ):
            with pytest.raises(Exception, match="append-only"), transaction.atomic():
                make.run(statement, {})

        run.refresh_from_db()
        assert not run.agrees
