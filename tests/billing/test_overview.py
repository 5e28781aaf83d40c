"""The numbers of the start page: what moved, what failed, how soon, and what is open."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connection, transaction

from billing import overview, runs
from billing.models import LLMRequestLog
from billing.reconciliation import EVERYTHING, Scope
from tests.billing.corruption import corrupt
from tests.factories import billing as make

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
places = count(1)


def entry(days_ago, kind, amount, before, after):
    """Post an entry by hand: only so can the past be written."""
    make.run(
        "INSERT INTO flux_transaction (user_id, user_seq, type, amount, balance_before,"
        " balance_after, description, created_at, reverses_seq) VALUES"
        " ('mio', %(seq)s, %(kind)s, %(amount)s, %(before)s, %(after)s, '', %(at)s,"
        " CASE WHEN %(kind)s = 'reversal' THEN %(seq)s - 1 END) RETURNING id",
        {
            "seq": next(places), "kind": kind, "amount": amount, "before": before, "after": after,
            "at": NOW - timedelta(days=days_ago),
        },
    )  # fmt: skip


def requests(*rows):
    """Insert ended requests: (minutes ago, model, outcome, ttft_ms)."""
    for number, (minutes, model, outcome, ttft_ms) in enumerate(rows):
        at = NOW - timedelta(minutes=minutes)
        request_id = overview.first_id_at(at).int + number
        LLMRequestLog.objects.create(
            id=UUID(int=request_id), user_id="mio", kind="chat", state="settled", hold=0,
            model=model, stream=True, prompt_estimate=0, price_version=1, instance_id="x",
            opened_at=at, deadline_at=at, settled_at=at, outcome=outcome, ttft_ms=ttft_ms,
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

        days = overview.flux_by_day(at=NOW)

        assert len(days) == overview.DAYS
        assert days[0] == overview.Day(date(2026, 1, 31), used=3, credited=100, withdrawn=0)
        assert days[1] == overview.Day(date(2026, 2, 1), 0, 0, 0)
        assert days[-2] == overview.Day(date(2026, 2, 28), used=7, credited=0, withdrawn=40)
        assert days[-1] == overview.Day(date(2026, 3, 1), used=5, credited=14, withdrawn=0)

    def test_a_day_begins_at_midnight_utc(self):
        midnight = NOW.replace(hour=0)
        for before in (timedelta(microseconds=1), timedelta()):
            entry((NOW - midnight + before) / timedelta(days=1), "credit", 1, 0, 1)

        yesterday, today = overview.flux_by_day(at=NOW)[-2:]

        assert (yesterday.credited, today.credited) == (1, 1)

    def test_an_empty_ledger_has_quiet_days(self):
        assert {day.used for day in overview.flux_by_day(at=NOW)} == {0}


@pytest.mark.django_db
class TestTraffic:
    def test_counts_requests_and_failures_by_model_busiest_first(self):
        requests(
            (90, "old", "completed", 5), (50, "a", "failed", None), (40, "b", "completed", 100),
            (30, "b", "client_gone", 100), (20, "b", "upstream_broken", 100),
        )  # fmt: skip

        found = overview.traffic(since=NOW - timedelta(hours=1), slot=timedelta(hours=1))

        assert found.models == (
            overview.ModelTraffic("b", 3, 1),
            overview.ModelTraffic("a", 1, 1),
        )
        assert (found.requests, found.failures) == (4, 2)

    def test_percentiles_come_within_a_fifth_from_bins(self):
        requests(*((30, "a", "completed", 10 * number) for number in range(1, 101)))

        (slot,) = overview.traffic(
            since=NOW - timedelta(hours=1), slot=timedelta(days=1)
        ).first_token

        assert slot.at == NOW.replace(hour=0)
        assert slot.answers == 100
        assert slot.p50_ms == pytest.approx(500, rel=0.2)
        assert slot.p95_ms == pytest.approx(950, rel=0.2)

    def test_what_is_quicker_or_slower_than_every_bin_still_counts(self):
        requests((30, "a", "completed", 0), (30, "a", "completed", 2**31 - 1))

        (slot,) = overview.traffic(
            since=NOW - timedelta(hours=1), slot=timedelta(days=1)
        ).first_token

        assert (slot.p50_ms, slot.p95_ms) == (overview.BOUNDS_MS[0], overview.BOUNDS_MS[-1])


@pytest.mark.django_db
class TestUnderWay:
    def test_what_is_open_is_what_accounts_hold(self, books):
        found = overview.under_way()

        assert (found.requests, found.held, found.accounts_hold, found.drift) == (1, 20, 20, 0)
        assert found.oldest is not None

    def test_an_orphan_is_counted_with_its_hold(self, books):
        LLMRequestLog.objects.filter(settled_at=None).update(deadline_at=NOW)

        assert overview.orphans() == overview.Orphans(1, 20)

    def test_a_hold_without_a_request_is_drift(self, books):
        corrupt("UPDATE user_flux SET held = held + 3 WHERE user_id = 'mio'", books)

        assert overview.under_way().drift == 3

    def test_nothing_open_is_no_drift(self):
        assert overview.under_way() == overview.UnderWay(0, None, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(overview, "LIMIT_SQL", "SET LOCAL statement_timeout = 20")

    with pytest.raises(OperationalError, match="timeout"):
        overview._read("SELECT pg_sleep(5)", {})

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
        whole = runs.record(scope=EVERYTHING, at=NOW, **counts)
        of_one = runs.record(scope=Scope(user_id="mio", since=NOW), at=NOW, **counts)

        assert runs.newest() == whole
        assert runs.before_now() == [of_one, whole]
        assert of_one.scope == "--user mio --since 2026-03-01T12:00:00+00:00"

    def test_the_past_is_not_rewritten(self):
        counts: dict[str, Any] = {"duration_ms": 5, "broken": 3, "orphans": 0}
        run = runs.record(scope=EVERYTHING, at=NOW, by="op@example.com", **counts)

        for statement in (
            "UPDATE reconciliation_run SET broken = 0",
            "DELETE FROM reconciliation_run",
        ):
            with pytest.raises(Exception, match="append-only"), transaction.atomic():
                make.run(statement, {})

        run.refresh_from_db()
        assert not run.agrees
