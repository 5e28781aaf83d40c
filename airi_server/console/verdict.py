"""All is well, or what to look at: one sentence for each trouble, with a page that helps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from airi_server.console.panels import Seen
from billing import overview, runs

STALE: Final = timedelta(days=1)
"""The books should be checked at least so often."""
MANY_FAILURES: Final = 0.05
FEW_REQUESTS: Final = 20
"""Below so many requests a share of failures says nothing."""

Weight = Literal["danger", "warning"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing to look at. `page` is the name of an admin page, or empty."""

    weight: Weight
    sentence: str
    page: str = ""
    link: str = ""


def of(seen: Seen, *, at: datetime) -> list[Trouble]:
    """Return what is wrong as far as can be seen, the worst first. Empty: all is well."""
    troubles = [*_of_books(seen, at), *_of_requests(seen), *_of_connections(seen)]
    if seen.failed:
        troubles.append(Trouble("warning", "Some of this page could not be counted just now."))
    return sorted(troubles, key=lambda trouble: trouble.weight)


def _of_books(seen: Seen, at: datetime) -> list[Trouble]:
    found = []
    if seen.under_way and (open_now := seen.under_way.value) and open_now.drift:
        found.append(_drift(open_now))
    if seen.last_check and not seen.last_check.failed:
        found += _of_check(seen.last_check.value, at)
    return found


def _drift(open_now: overview.UnderWay) -> Trouble:
    sentence = (
        f"Accounts hold {open_now.accounts_hold:,} Flux, but open requests hold {open_now.held:,}."
    )
    return Trouble("danger", sentence, "reconciliation", "Check the books")


def _of_check(check: runs.ReconciliationRun | None, at: datetime) -> list[Trouble]:
    if check is None:
        return [_check_now("warning", "Nobody has checked the books yet.")]
    if not check.agrees:
        sentence = f"The newest check found {check.broken:,} rows that break the books."
        return [_check_now("danger", sentence)]
    if at - check.at > STALE:
        return [_check_now("warning", f"The books were last checked {check.at:%Y-%m-%d %H:%M}.")]
    return []


def _check_now(weight: Weight, sentence: str) -> Trouble:
    return Trouble(weight, sentence, "reconciliation", "Check the books")


def _of_requests(seen: Seen) -> list[Trouble]:
    found = []
    if seen.orphans and (orphans := seen.orphans.value) and orphans.requests:
        sentence = (
            f"{orphans.requests:,} open requests have lost their server and keep {orphans.held:,} "
            "Flux from their users. End them with manage.py reconcile-usage --settle."
        )
        found.append(Trouble("warning", sentence, "reconciliation", "See which"))
    if seen.traffic and (traffic := seen.traffic.value) and traffic.requests >= FEW_REQUESTS:
        share = traffic.failures / traffic.requests
        if share > MANY_FAILURES:
            sentence = f"{share:.0%} of {traffic.requests:,} requests failed."
            page = "billing_llmrequestlog_changelist"
            found.append(Trouble("warning", sentence, page, "Look at the requests"))
    return found


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
