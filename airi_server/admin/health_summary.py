"""Health summary: a sentence for each trouble, worst first, or that all is well."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from django.urls import reverse
from django.utils.http import urlencode

from airi_server.admin.dashboard import DAY, SEE_REQUESTS, SEE_ROUTES, Seen, Window
from airi_server.pages.columns import listed
from billing import reconciliation_runs
from billing.admin import dashboard
from billing.admin.dashboard import Traffic
from billing.usage.refusals import ModelRefusals
from llmrouter.admin.overview import Overview
from llmrouter.model_health import ModelHealth

STALE: Final = timedelta(days=1)
"""The books should be checked at least so often."""
MANY_FAILURES: Final = 0.05
FEW_REQUESTS: Final = 20
"""Below so many requests a share of failures says nothing."""
OURS: Final = 500
"""From this status on a refusal is no fault of the caller's: nothing was there to serve it."""
SEE_REFUSED: Final = "billing.view_refusedrequest"
SEE_BOOKS: Final = "billing.view_fluxaccount"
SETTINGS: Final = ("runtime.view_optionrevision", "runtime.change_options")

Weight = Literal["outage", "danger", "warning"]
_RANKS: Final[dict[Weight, int]] = {"outage": 0, "danger": 1, "warning": 2}
May = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class HealthLink:
    """Where a sentence leads: the rows it speaks of, or what mends it. Any permission will do."""

    text: str
    url: str
    permissions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing to look at. `health` says in its own words how a model is, before the sentence."""

    weight: Weight
    sentence: str
    links: tuple[HealthLink, ...] = ()
    health: ModelHealth | None = None


def of(
    seen: Seen, *, at: datetime, window: Window = DAY, may: May = lambda _permission: True
) -> list[Trouble]:
    """Return what is wrong as far as can be seen, the worst first. Empty: all is well.

    A model that cannot be served comes before everything else. Links are those that `may` follow.
    """
    troubles = [
        *_of_models(seen, window),
        *_of_books(seen, at),
        *_of_requests(seen, window),
        *_of_connections(seen),
        *_of_clock(seen),
    ]
    if seen.failed:
        troubles.append(Trouble("warning", "Some of this page could not be counted just now."))
    found = [_for_reader(trouble, may) for trouble in troubles]
    return sorted(found, key=lambda trouble: _RANKS[trouble.weight])


def _for_reader(trouble: Trouble, may: May) -> Trouble:
    links = tuple(link for link in trouble.links if any(map(may, link.permissions)))
    return Trouble(trouble.weight, trouble.sentence, links, trouble.health)


def _of_models(seen: Seen, window: Window) -> Iterator[Trouble]:
    """Yield what cannot be served, by how many calls it has cost, and what is refused a key."""
    found = seen.router.value if seen.router else None
    if found is None:
        return
    lost = {health.model: _lost(seen, health.model) for health in found.router.unserved}
    for health in sorted(found.router.unserved, key=lambda h: sum(lost[h.model]), reverse=True):
        sentence = _said_of(*lost[health.model], window)
        yield Trouble("outage", sentence, _links_of(health.model, window), health)
    yield from _of_names(found)
    for health in found.router.refused:
        yield Trouble("warning", "", _links_of(health.model, window), health)


def _lost(seen: Seen, model: str) -> tuple[int, int]:
    """Return how many requests of a model failed, and how many calls nothing could be found for."""
    traffic = seen.traffic.value if seen.traffic else None
    failed = sum(each.failures for each in traffic.models if each.model == model) if traffic else 0
    refused = seen.refused.value if seen.refused else None
    return failed, sum(each.count for each in _of_ours(refused) if each.model == model)


def _of_ours(refused: Iterable[ModelRefusals] | None) -> Iterator[ModelRefusals]:
    """Yield what was refused by no fault of the caller's."""
    return (each for each in refused or () if each.status >= OURS)


def _said_of(failed: int, refused: int, window: Window) -> str:
    said = []
    if failed:
        said.append(f"{failed:,} of its requests failed")
    if refused:
        said.append(f"{refused:,} were refused at once")
    return f"{' and '.join(said)} in {window.title}." if said else ""


def _links_of(model: str, window: Window) -> tuple[HealthLink, ...]:
    plan = f"{reverse('admin:llmrouter_plan')}?{urlencode({'model': model})}"
    return (
        *_lost_requests(window, model=model),
        HealthLink("Its keys and upstreams", plan, (SEE_ROUTES, "llmrouter.publish_router_config")),
    )


def _lost_requests(window: Window, **filtered: str) -> Iterator[HealthLink]:
    """Yield where the requests are that failed, and where those that were refused."""
    query = {"last": window.name, "failed": "yes", **filtered}
    failed = listed("billing_llmrequestlog_changelist", **query)
    yield HealthLink("Show the failed requests", failed, (SEE_REQUESTS,))
    if refused := listed("billing_refusedrequest_changelist", last=window.name, **filtered):
        yield HealthLink("Show the refused requests", refused, (SEE_REFUSED,))


def _of_names(found: Overview) -> Iterator[Trouble]:
    """Yield what is routed nowhere."""
    if found.router.revision is not None and not found.router.models:
        since = found.router.revision.published_at
        sentence = f"No chat model is routed since {since:%Y-%m-%d %H:%M} UTC: all calls fail."
        models = HealthLink(
            "Models", reverse("admin:llmrouter_routermodel_changelist"), (SEE_ROUTES,)
        )
        yield Trouble("outage", sentence, (models,))
    elif found.auto_is_missing and found.router.revision is not None:
        sentence = f"auto means {found.auto}, which is not a chat model: requests for auto fail."
        change = HealthLink(
            "Change it", reverse("admin:setting", args=["DEFAULT_CHAT_MODEL"]), SETTINGS
        )
        yield Trouble("outage", sentence, (change,))


def _of_books(seen: Seen, at: datetime) -> list[Trouble]:
    found = []
    if seen.under_way and (open_now := seen.under_way.value) and open_now.drift:
        found.append(_drift(open_now))
    if seen.last_check and not seen.last_check.failed:
        found += _of_check(seen.last_check.value, at)
    return found


def _drift(open_now: dashboard.UnderWay) -> Trouble:
    sentence = (
        f"Accounts hold {open_now.accounts_hold:,} Flux, but open requests hold {open_now.held:,}."
    )
    return _check_now("danger", sentence)


def _of_check(check: reconciliation_runs.ReconciliationRun | None, at: datetime) -> list[Trouble]:
    if check is None:
        return [_check_now("warning", "Nobody has checked the books yet.")]
    if not check.agrees:
        sentence = f"The newest check found {check.broken:,} rows that break the books."
        return [_check_now("danger", sentence)]
    if at - check.at > STALE:
        return [_check_now("warning", f"The books were last checked {check.at:%Y-%m-%d %H:%M}.")]
    return []


def _check_now(weight: Weight, sentence: str, text: str = "Check the books") -> Trouble:
    return Trouble(
        weight, sentence, (HealthLink(text, reverse("admin:reconciliation"), (SEE_BOOKS,)),)
    )


def _of_requests(seen: Seen, window: Window) -> Iterator[Trouble]:
    if seen.orphans and (orphans := seen.orphans.value) and orphans.requests:
        sentence = (
            f"{orphans.requests:,} open requests have lost their server and keep {orphans.held:,} "
            "Flux from their users. End them with manage.py reconcile-usage --settle."
        )
        yield _check_now("warning", sentence, "See which")
    if seen.traffic and (traffic := seen.traffic.value):
        refused = seen.refused.value if seen.refused else None
        yield from _of_traffic(traffic, sum(each.count for each in _of_ours(refused)), window)


def _of_traffic(traffic: Traffic, refused: int, window: Window) -> Iterator[Trouble]:
    calls = traffic.requests + refused
    if calls < FEW_REQUESTS:
        return
    share = (traffic.failures + refused) / calls
    if share > MANY_FAILURES:
        how = f"; {refused:,} of them were refused at once" if refused else ""
        sentence = f"{share:.0%} of {calls:,} requests failed in {window.title}{how}."
        yield Trouble("warning", sentence, tuple(_lost_requests(window)))


def _of_clock(seen: Seen) -> Iterator[Trouble]:
    """Yield what runs by the clock and has not; the books have their own sentence."""
    if seen.has_expired_rows and seen.has_expired_rows.value:
        sentence = (
            "Sessions that expired days ago are still there: manage.py clear-expired has not run. "
            "It wants to run every day."
        )
        yield Trouble("warning", sentence)


def _of_connections(seen: Seen) -> list[Trouble]:
    found = seen.connections.value if seen.connections else None
    if found is None:
        return []
    if not found.has_asked:
        sentence = (
            "Redis does not answer. Messages reach clients of other instances late, and each "
            "instance limits by what it has counted itself."
        )
        return [Trouble("warning", sentence)]
    if found.silent:
        names = ", ".join(found.silent)
        return [Trouble("warning", f"Running, but did not answer: {names}.")]
    return []
