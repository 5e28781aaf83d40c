"""The end of a run, as an operator makes it: `reconcile-usage --settle`, and once more."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Final

from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections

from billing import reconciliation
from tests.chaos.chat import witness as chat_witness
from tests.chaos.paid import witness

_WITHIN_S: Final = 15.0
"""Longer than anything that still runs may take to end, once nobody asks any more."""
_LOOK_S: Final = 0.5


def close(database_url: str) -> Iterator[str]:
    """Wait until whatever still runs has ended, end the orphans, and say what disagrees.

    A reconciler gives instances a minute to come back after PostgreSQL has; here both are back.
    """
    # A command of its own would find no connection that the last restart has cut.
    connection.close_pool()  # type: ignore[attr-defined]  # of PostgreSQL only
    chat_witness.dismiss(database_url)
    grace_s = reconciliation.RESTART_GRACE_S
    reconciliation.RESTART_GRACE_S = 0  # type: ignore[misc]  # see above
    try:
        _wait(database_url)
        first, _ = _reconcile()
        again, ended = _reconcile()
        yield from dict.fromkeys([*_disagreements(first), *_disagreements(again)])
        if ended:
            yield f"reconciling again ended {ended} more"
    finally:
        reconciliation.RESTART_GRACE_S = grace_s  # type: ignore[misc]
        connections.close_all()


def _wait(database_url: str) -> None:
    until = time.monotonic() + _WITHIN_S
    while time.monotonic() < until:
        with reconciliation.snapshot():
            orphans = {str(orphan.id) for orphan in reconciliation.orphans()}
        if orphans.issuperset(witness.open_rows(database_url)):
            return
        time.sleep(_LOOK_S)


def _reconcile() -> tuple[str, int]:
    """Return what the command says, and how many requests it has ended."""
    said, summary = io.StringIO(), io.StringIO()
    try:
        call_command("reconcile-usage", "--settle", stdout=said, stderr=summary)
    except CommandError as disagree:
        said.write(f"\nbroken\t{disagree}")
    lines = said.getvalue().splitlines()
    return said.getvalue(), sum(line.split("\t")[0] in ("settled", "voided") for line in lines)


def _disagreements(said: str) -> Iterator[str]:
    for line in said.splitlines():
        if line.startswith(("broken", "orphan", "skipped")):
            yield f"reconcile-usage: {' '.join(line.split())}"
