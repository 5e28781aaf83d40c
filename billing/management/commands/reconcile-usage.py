"""`manage.py reconcile-usage`: check the books, and end the requests nobody else will end."""

from __future__ import annotations

import dataclasses
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from airi_server.runtime import audit
from billing import reconciliation, reconciliation_runs
from billing.reconciliation import CheckScope


class Command(BaseCommand):
    help = (
        "Check that balances, ledger, requests and holds agree, and name every row that does "
        "not; list requests that nobody will end any more, and count those that somebody may "
        "still end. Writes down that it ran and what it "
        "found, and changes nothing else unless --settle is given. "
        "Exits with 0 if all agree, 1 if not, 2 if it was called wrongly. Output: one line a "
        "row, tab-separated or JSON."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", help="look at this user only")
        parser.add_argument(
            "--since", help="skip entries and requests from before (ISO 8601 with offset)"
        )
        parser.add_argument(
            "--format", choices=("text", "json"), default="text", help="default: %(default)s"
        )
        parser.add_argument(
            "--settle",
            action="store_true",
            help="end orphaned requests, and forget stored answers older than a day",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._json = options["format"] == "json"
        scope = CheckScope(options["user"], _instant(options["since"]))
        if scope.user_id is not None and not reconciliation.is_known(scope.user_id):
            raise CommandError(f"Nobody is called {scope.user_id!r}.", returncode=2)
        at, began = timezone.now(), time.monotonic()
        counts: Counter[str] = Counter()
        for kind, row in self._rows(scope, settle=options["settle"]):
            counts[kind] += row.get("requests", 1)
            self._line(kind, **row)
        reconciliation_runs.record(
            scope=scope,
            by=audit.COMMAND,
            at=at,
            duration_ms=round((time.monotonic() - began) * 1000),
            broken=counts["broken"],
            orphans=counts["orphan"],
        )
        self._summarize(counts)
        if counts["broken"]:
            raise CommandError(f"The books disagree in {counts['broken']} places.", returncode=1)

    def _rows(self, scope: CheckScope, *, settle: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        if settle:
            for ended in reconciliation.settle_orphans(scope):
                yield _ended(ended)
            yield "pruned", {"answers": reconciliation.prune_results()}
        with reconciliation.snapshot():
            for orphan in reconciliation.orphans(scope):
                yield "orphan", dataclasses.asdict(orphan)
            for unjudged in reconciliation.unjudged(scope):
                yield "unjudged", dataclasses.asdict(unjudged)
            for broken in reconciliation.broken_rows(scope):
                yield "broken", dataclasses.asdict(broken)

    def _line(self, kind: str, **row: Any) -> None:
        if self._json:
            self.stdout.write(orjson.dumps({"kind": kind, **row}).decode())
        else:
            self.stdout.write("\t".join((kind, *map(str, row.values()))))

    def _summarize(self, counts: Counter[str]) -> None:
        agrees = not counts["broken"]
        found = {"broken": counts["broken"], "orphans": counts["orphan"]}
        if self._json:
            self._line("summary", agrees=agrees, **found, unjudged=counts["unjudged"])
        waiting = f", {counts['unjudged']} not judged yet" if counts["unjudged"] else ""
        self.stderr.write(
            f"{'agree' if agrees else 'disagree'}: {counts['broken']} broken, "
            f"{counts['orphan']} orphans, {counts['settled'] + counts['voided']} ended{waiting}"
        )


def _ended(ended: reconciliation.Ended) -> tuple[str, dict[str, Any]]:
    """Say what became of an orphan: settled, voided, or skipped because somebody is at it."""
    identity = {"id": ended.id, "user_id": ended.user_id}
    if ended.charged is None:
        return "skipped", identity
    charged = ended.charged
    return charged.state, identity | {"charged": charged.charged, "unbilled": charged.unbilled}


def _instant(text: str | None) -> datetime | None:
    """Read an instant with an offset; without one nobody knows which was meant."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CommandError("--since takes ISO 8601 with an offset.", returncode=2)
    return at
