"""The start page: what it shows to whom, and that nothing that is away takes it along."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from django.db import OperationalError
from django.urls import reverse

from airi_server.console import panels, verdict
from airi_server.console.connections import Connections, Instance
from airi_server.console.panels import Counted, Seen
from billing import overview, runs
from billing.reconciliation import EVERYTHING
from tests.airi_server.console import staff
from tests.billing.corruption import corrupt
from tests.cache import forget
from tests.factories import accounts
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
START = reverse("admin:index")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERY = (
    "billing.view_llmrequestlog",
    "billing.view_fluxtransaction",
    "billing.view_fluxaccount",
)


@pytest.fixture(autouse=True)
def _nothing_is_cached():
    forget()
    yield
    forget()


@pytest.fixture
def used():
    """Mio used 7 Flux of 100, and has one request open."""
    price = make.price()
    make.make_account(100, "mio")
    settled, waiting = (make.ticket("mio", price) for _ in range(2))
    make.open_batch(make.opening(settled, 30), make.opening(waiting, 20))
    make.settle_one(make.settlement(settled, 7, ttft_ms=120))


def seen(**counted):
    return Seen(**{name: Counted(value, NOW) for name, value in counted.items()})


def check(**facts):
    ordinary = {"scope": EVERYTHING, "by": "op", "at": NOW, "duration_ms": 1, "broken": 0}
    return runs.record(**{**ordinary, "orphans": 0, **facts})


class TestPanels:
    def test_shows_what_moved_what_was_asked_and_what_is_open(self, client, used):
        staff(client, *EVERY)

        answer = client.get(START)

        charts = answer.context["charts"]
        models = orjson.loads(charts["models"].data)
        assert models["labels"] == ["chat-default"]
        assert [each["data"] for each in models["datasets"]] == [[2], [0]]
        assert charts["first_token"].rows[0][1] == pytest.approx(120, rel=0.2)
        assert charts["flux"].headers == ["Day (UTC)", "Used", "Credited"]
        page = answer.content.decode()
        assert "20 Flux on both sides" in page
        assert page.count("<canvas") == 3
        assert page.count("<details") >= 3
        assert "<script>" not in page

    @pytest.mark.parametrize(
        ("permission", "shown"),
        [
            ("billing.view_llmrequestlog", {"traffic", "under_way", "orphans"}),
            ("billing.view_fluxtransaction", {"flux"}),
            ("billing.view_fluxaccount", {"last_check"}),
            ("accounts.view_user", set()),
        ],
    )
    def test_are_for_those_who_may_see_their_rows(self, client, used, permission, shown):
        staff(client, permission)

        found = client.get(START).context["seen"]

        assert {name for name in Seen.__slots__ if getattr(found, name) is not None} == shown

    def test_who_may_see_nothing_is_told_what_to_do(self, client):
        staff(client)

        page = client.get(START).content.decode()

        assert "ask a superuser" in page
        assert "All is well" not in page

    def test_a_week_is_a_link_away_and_nonsense_is_a_day(self, client):
        staff(client, *EVERY)

        windows = [
            client.get(START, {"window": given}).context["window"].name
            for given in ("7d", "24h", "\x00", "x")
        ]

        assert windows == ["7d", "24h", "24h", "24h"]

    def test_what_the_database_cannot_count_costs_its_panel_and_no_other(
        self, client, used, monkeypatch
    ):
        def stopped(**_window):
            raise OperationalError("canceling statement due to statement timeout")

        monkeypatch.setattr(overview, "traffic", stopped)
        staff(client, *EVERY)

        answer = client.get(START)

        assert answer.status_code == 200
        assert "could not be counted" in answer.content.decode()
        assert set(answer.context["charts"]) == {"flux"}
        assert answer.context["troubles"]

    def test_numbers_wait_in_the_cache_for_a_moment_and_say_of_when_they_are(self, client, used):
        staff(client, *EVERY)
        first = client.get(START).context["seen"]
        make.make_account(50, "ria")

        second = client.get(START).context["seen"]
        forget()
        third = client.get(START).context["seen"]

        assert (second.flux, second.traffic) == (first.flux, first.traffic)
        assert third.flux.at > first.flux.at

    def test_works_without_redis(self, client, used, settings):
        settings.CACHES = {
            "default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        }
        staff(client, *EVERY)

        answer = client.get(START)

        assert answer.context["seen"].traffic.value.requests == 2


class TestFirstSteps:
    def test_a_fresh_server_says_what_is_missing_and_what_is_done(self, client):
        staff(client, is_superuser=True)
        accounts.user()

        steps = client.get(START).context["steps"]

        assert [step.is_done for step in steps] == [False, False, True, False]

    def test_are_for_those_who_can_take_them(self, client):
        staff(client, "accounts.view_user")

        assert [step.page for step in client.get(START).context["steps"]] == [
            "accounts_user_changelist"
        ]

    def test_nobody_is_told_how_to_begin_who_has_traffic(self, client, used):
        staff(client, is_superuser=True)

        assert client.get(START).context["steps"] == []


class TestConnections:
    def test_are_for_those_who_may_see_chats(self, client):
        staff(client, *EVERY)
        assert "Live connections" not in client.get(START).content.decode()

        staff(client, "chats.view_chat")
        assert "No instance is listening." in client.get(START).content.decode()

    def test_say_so_when_redis_is_away(self, client, settings):
        nowhere = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
        settings.CACHES = {"default": nowhere}
        staff(client, "chats.view_chat")

        page = client.get(START).content.decode()

        assert "only the instance that made this page is known" in page
        assert "Messages reach clients of other instances late" in page


class TestVerdict:
    def test_all_is_well(self):
        well = seen(
            under_way=overview.UnderWay(3, NOW, 15, 15),
            orphans=overview.Orphans(0, 0),
            last_check=check(),
            connections=Connections((Instance("a", 3, 2),), has_asked=True),
            traffic=overview.Traffic((overview.ModelTraffic("a", 100, 5),), ()),
        )

        assert verdict.of(well, at=NOW) == []

    @pytest.mark.parametrize(
        ("panel", "weight", "words"),
        [
            ({"under_way": overview.UnderWay(1, NOW, 15, 20)}, "danger", "Accounts hold 20"),
            ({"orphans": overview.Orphans(2, 10)}, "warning", "2 open requests"),
            ({"last_check": None}, "warning", "Nobody has checked"),
            (
                {"connections": Connections((Instance("b"), Instance("a", 3, 2)), has_asked=True)},
                "warning",
                "did not answer: b.",
            ),
            (
                {"connections": Connections((Instance("b"),), has_asked=False)},
                "warning",
                "Redis does not answer",
            ),
            (
                {"traffic": overview.Traffic((overview.ModelTraffic("a", 50, 6),), ())},
                "warning",
                "12% of 50",
            ),
        ],
    )
    def test_each_trouble_is_a_sentence(self, panel, weight, words):
        (trouble,) = verdict.of(seen(**panel), at=NOW)

        assert trouble.weight == weight
        assert words in trouble.sentence

    def test_broken_books_come_first(self):
        found = verdict.of(seen(orphans=overview.Orphans(1, 1), last_check=check(broken=2)), at=NOW)

        assert [trouble.weight for trouble in found] == ["danger", "warning"]
        assert "2 rows" in found[0].sentence

    def test_an_old_check_is_no_check(self):
        (trouble,) = verdict.of(
            seen(last_check=check()), at=NOW + verdict.STALE + timedelta(seconds=1)
        )

        assert "last checked 2026-03-01" in trouble.sentence

    def test_drift_is_seen_on_the_page_within_its_next_load(self, client, used):
        staff(client, *EVERY)
        client.get(START)
        corrupt("UPDATE user_flux SET held = held + 1 WHERE user_id = 'mio'", {})

        page = client.get(START).content.decode()

        assert "Accounts hold 21 Flux, but open requests hold 20." in page


def test_a_window_has_slots_that_fill_it():
    for window in panels.WINDOWS.values():
        assert window.length % window.slot == timedelta()
