"""Sealing capabilities again, under the current master key."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from django.db import transaction

from airi_server.kernel import sealing
from chats.characters import encryption
from chats.characters.models import Capability

BATCH: Final = 500


@dataclass
class Resealing:
    """`counts` are by master key id, afterwards; `unopened` names what was left as it was.

    In a dry run `sealed_again` is how many would be, and the counts are as they were.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sealed_again: int = 0
    unopened: list[str] = field(default_factory=list)


def reseal(*, dry_run: bool = False) -> Resealing:
    """Seal again what is not under the current master key.

    In batches that are transactions of their own: it can be repeated, and goes on where it was
    interrupted. What does not open stays as it is and is reported.
    """
    found, last = Resealing(), ""
    while batch := _batch_after(last, found, dry_run=dry_run):
        last = batch
    return found


def _batch_after(last: str, found: Resealing, *, dry_run: bool) -> str:
    """Look at the next capabilities by id, and return the last of them, or nothing."""
    ids = list(
        Capability.objects.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:BATCH]
    )
    with transaction.atomic():
        rows = Capability.objects.filter(pk__in=ids).order_by("pk")
        # What its owner replaces meanwhile is gone by then, and sealed anew.
        for capability in rows if dry_run else rows.select_for_update(no_key=True):
            _reseal(capability, found, dry_run=dry_run)
            found.counts[sealing.key_id_of(capability.sealed_config)] += 1
    return ids[-1] if ids else ""


def _reseal(capability: Capability, found: Resealing, *, dry_run: bool) -> None:
    if sealing.key_id_of(capability.sealed_config) == sealing.master_keys().current.id:
        return
    place = {"character_id": capability.character_id, "capability_id": capability.pk}
    try:
        config = encryption.open_sealed(capability.sealed_config, **place)
    except sealing.CannotOpen:
        found.unopened.append(f"capability {capability.pk} of character {capability.character_id}")
        return
    found.sealed_again += 1
    if not dry_run:
        capability.sealed_config = encryption.seal(config, **place)
        capability.save(update_fields=["sealed_config"])
