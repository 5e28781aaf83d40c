"""The start page: what it shows to whom, and that nothing that is away takes it along."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.urls import reverse
from django.utils import timezone

from airi_server.admin import dashboard as panels
from airi_server.admin import health_summary
from airi_server.admin.connections import Connections, Instance
from airi_server.admin.dashboard import Counted, Seen
from billing import reconciliation_runs
from billing.admin import dashboard
from billing.reconciliation import EVERYTHING
from billing.usage.models import RefusalHour
from billing.usage.refusals import ModelRefusals
from llmrouter.admin.overview import Overview
from llmrouter.configuration.models import RouterRevision
from llmrouter.model_health import HealthIssue, ModelHealth, RouterHealth, Way
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


WELL = (Way("up", "k1", 1, is_disabled=False),)
DEAD = (Way("up", "k2", 2, is_disabled=False, of_key=(HealthIssue("401", is_refusal=True),)),)


def routed(auto="", **models):
    """Return an overview of models by their ways."""
    health = {name: ModelHealth(name, ways) for name, ways in models.items()}
    return Overview(RouterHealth(RouterRevision(number=1, published_at=NOW), None, health), auto)


def refusals(model, status, count):
    return ModelRefusals(model, "CODE", count, NOW, NOW, status)


def check(**facts):
    ordinary = {"scope": EVERYTHING, "by": "op", "at": NOW, "duration_ms": 1, "broken": 0}
    return reconciliation_runs.record(**{**ordinary, "orphans": 0, **facts})


class TestPanels:
    def test_shows_what_moved_what_was_asked_and_what_is_open(self, client, used):
        staff(client, *EVERY)

        answer = client.get(START)

        charts = answer.context["charts"]
        models = orjson.loads(charts["models"].data)
        assert models["labels"] == ["chat-default"]
        assert [each["data"] for each in models["datasets"]] == [[2], [0], [0]]
        assert charts["first_token"].rows[0][1] == pytest.approx(120, rel=0.2)
        assert charts["flux"].headers == ["Day (UTC)", "Used", "Credited"]
        page = answer.content.decode()
        assert "20 Flux on both sides" in page
        assert page.count("<canvas") == 3
        assert page.count("<details") >= 3
        assert "<script>" not in page

    def test_shows_what_was_refused_beside_what_failed(self, client, used):
        RefusalHour.objects.create(
            user_id="mio", hour=timezone.now(), api_key_id="k", model="other", code="X", status=503,
            count=7, first_at=timezone.now(), last_at=timezone.now(),
        )  # fmt: skip
        staff(client, *EVERY)

        models = client.get(START).context["charts"]["models"]

        assert models.headers == ["Model", "OK", "Failed", "Refused"]
        assert models.rows == [("other", 0, 0, 7), ("chat-default", 2, 0, 0)]

    @pytest.mark.parametrize(
        ("permission", "shown"),
        [
            (
                "billing.view_llmrequestlog",
                {"router", "traffic", "refused", "under_way", "orphans"},
            ),
            ("llmrouter.view_routermodel", {"router"}),
            ("billing.view_fluxtransaction", {"flux"}),
            ("billing.view_fluxaccount", {"last_check", "has_expired_rows"}),
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

    def test_other_windows_are_a_link_away_and_nonsense_is_a_day(self, client):
        staff(client, *EVERY)

        windows = [
            client.get(START, {"window": given}).context["window"].name
            for given in ("1h", "7d", "24h", "30d", "\x00", "x")
        ]

        assert windows == ["1h", "7d", "24h", "24h", "24h", "24h"]

    def test_what_the_database_cannot_count_costs_its_panel_and_no_other(
        self, client, used, monkeypatch
    ):
        def stopped(**_window):
            raise OperationalError("canceling statement due to statement timeout")

        monkeypatch.setattr(dashboard, "traffic", stopped)
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
            under_way=dashboard.UnderWay(3, NOW, 15, 15),
            orphans=dashboard.Orphans(0, 0),
            last_check=check(),
            connections=Connections((Instance("a", 3, 2),), has_asked=True),
            traffic=dashboard.Traffic((dashboard.ModelTraffic("a", 100, 5),), ()),
        )

        assert health_summary.of(well, at=NOW) == []

    @pytest.mark.parametrize(
        ("panel", "weight", "words"),
        [
            ({"under_way": dashboard.UnderWay(1, NOW, 15, 20)}, "danger", "Accounts hold 20"),
            ({"orphans": dashboard.Orphans(2, 10)}, "warning", "2 open requests"),
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
                {"traffic": dashboard.Traffic((dashboard.ModelTraffic("a", 50, 6),), ())},
                "warning",
                "12% of 50",
            ),
        ],
    )
    def test_each_trouble_is_a_sentence(self, panel, weight, words):
        (trouble,) = health_summary.of(seen(**panel), at=NOW)

        assert trouble.weight == weight
        assert words in trouble.sentence

    def test_what_cannot_be_served_comes_first_by_what_it_has_cost(self):
        traffic = dashboard.Traffic(
            (dashboard.ModelTraffic("b", 60, 40), dashboard.ModelTraffic("a", 40, 3)), ()
        )
        found = health_summary.of(
            seen(router=routed(a=DEAD, b=DEAD, c=DEAD, d=WELL), traffic=traffic,
                 last_check=check(broken=2)),
            at=NOW,
        )  # fmt: skip

        assert [each.weight for each in found] == [*["outage"] * 3, "danger", "warning"]
        assert [each.health.model for each in found if each.health] == ["b", "a", "c"]
        assert found[0].sentence == "40 of its requests failed in the last 24 hours."
        assert found[2].sentence == ""

    def test_calls_that_were_refused_before_they_had_a_row_count_too(self):
        """While every key rests hardly anything else is left of an outage."""
        traffic = dashboard.Traffic((dashboard.ModelTraffic("b", 20, 2),), ())
        refused = (refusals("a", 503, 30), refusals("b", 402, 500), refusals("", 400, 9))
        found = health_summary.of(
            seen(router=routed(a=DEAD, b=DEAD), traffic=traffic, refused=refused), at=NOW
        )

        assert [each.sentence for each in found] == [
            "30 were refused at once in the last 24 hours.",
            "2 of its requests failed in the last 24 hours.",
            "64% of 50 requests failed in the last 24 hours; 30 of them were refused at once.",
        ]

    def test_each_leads_to_the_requests_of_its_window_and_to_its_plan(self):
        (trouble,) = health_summary.of(
            seen(router=routed(**{"a/b": DEAD})), at=NOW, window=panels.WEEK
        )

        urls = [link.url for link in trouble.links]
        assert urls[0] == "/admin/billing/llmrequestlog/?last=7d&failed=yes&model=a%2Fb"
        assert urls[-1] == "/admin/llmrouter/plan/?model=a%2Fb"

    def test_a_share_that_failed_leads_to_what_failed_and_not_to_everything(self):
        traffic = dashboard.Traffic((dashboard.ModelTraffic("a", 50, 6),), ())

        (trouble,) = health_summary.of(seen(traffic=traffic), at=NOW, window=panels.HOUR)

        link = trouble.links[0]
        assert link.url == "/admin/billing/llmrequestlog/?last=1h&failed=yes"
        assert trouble.sentence == "12% of 50 requests failed in the last hour."

    def test_links_are_for_those_who_may_follow_them(self):
        found = health_summary.of(
            seen(router=routed(a=DEAD), last_check=None), at=NOW,
            may=lambda permission: permission == "llmrouter.view_routermodel",
        )  # fmt: skip

        assert [[link.text for link in each.links] for each in found] == [
            ["Its keys and upstreams"], [],
        ]  # fmt: skip

    def test_a_refused_key_is_a_warning_while_others_serve(self):
        (trouble,) = health_summary.of(seen(router=routed(a=(*DEAD, *WELL))), at=NOW)

        assert trouble.health is not None
        assert (trouble.weight, trouble.health.headline) == (
            "warning", "is served, but not by 1 of its 2 upstreams and keys",
        )  # fmt: skip

    def test_what_is_routed_nowhere_is_an_outage(self):
        (auto,) = health_summary.of(seen(router=routed(auto="gone", a=WELL)), at=NOW)
        (nothing,) = health_summary.of(seen(router=routed()), at=NOW)

        assert (auto.weight, nothing.weight) == ("outage", "outage")
        assert "auto means gone" in auto.sentence
        assert "No chat model is routed since 2026-03-01 12:00 UTC" in nothing.sentence

    def test_says_when_nothing_clears_what_has_expired(self):
        key = Session.objects.create(
            session_key="old", session_data="", expire_date=NOW - timedelta(days=3)
        )

        assert panels.has_expired_rows(NOW)
        assert not panels.has_expired_rows(key.expire_date)
        (trouble,) = health_summary.of(seen(has_expired_rows=True), at=NOW)
        assert "clear-expired has not run" in trouble.sentence

    def test_broken_books_come_first(self):
        found = health_summary.of(
            seen(orphans=dashboard.Orphans(1, 1), last_check=check(broken=2)), at=NOW
        )

        assert [trouble.weight for trouble in found] == ["danger", "warning"]
        assert "2 rows" in found[0].sentence

    def test_an_old_check_is_no_check(self):
        (trouble,) = health_summary.of(
            seen(last_check=check()), at=NOW + health_summary.STALE + timedelta(seconds=1)
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
