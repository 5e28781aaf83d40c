"""Sealing every stored provider key again: under the current master key, for its origin."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from django.db import transaction

from airi_server.kernel import sealing
from airi_server.runtime import options as operator_options
from llmrouter.configuration import origins, provider_keys, publishing, tree
from llmrouter.configuration.options import UNSPEECH_UPSTREAM

NOTE: Final = "sealed under the current master key"


@dataclass
class Rotation:
    """`counts` are by master key id, afterwards; `unopened` names what was left as it was.

    In a dry run `sealed_again` is how many would be, and counts and keys are as they were.
    `unbound` is how many keys do not name, in their seal, the origin they may be sent to.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sealed_again: int = 0
    unbound: int = 0
    unopened: list[str] = field(default_factory=list)


def rotate(*, by: str, at: datetime, dry_run: bool = False) -> Rotation:
    """Seal again what is not under the current master key or names no origin, and publish it.

    Only such keys are touched, so it can be repeated, and goes on where it was interrupted. A key
    that does not open stays as it is and is reported; the others are not held up by it.
    """
    rotated = Rotation()
    with transaction.atomic():
        publishing.lock()
        config = tree.dump(publishing.current_tree())
        for surface in (tree.LLM, tree.TTS):
            for name, model in config[surface]["models"].items():
                for upstream in model["upstreams"]:
                    _reseal(upstream, name, rotated, dry_run=dry_run)
        streaming = _streaming()
        if streaming:
            _reseal(streaming["streaming"], tree.STREAMING_TTS, rotated, dry_run=dry_run)
        if rotated.sealed_again and not dry_run:
            publishing.publish(tree.parse(config), note=NOTE, by=by, at=at)
        if rotated.sealed_again and streaming and not dry_run:
            operator_options.put(UNSPEECH_UPSTREAM.name, streaming, by=by, at=at, note=NOTE)
    return rotated


def _streaming() -> tree.JSON | None:
    """Return the speech service's setting, if it has a streaming socket with keys."""
    try:
        value: tree.UnspeechUpstream = UNSPEECH_UPSTREAM.read()
    except operator_options.ConfigNotSet:
        return None
    return tree.dump(value) if value.streaming else None


def _reseal(upstream: tree.JSON, model: str, rotated: Rotation, *, dry_run: bool) -> None:
    """Replace the ciphertexts of an upstream in place."""
    origin = origins.of(upstream["baseURL"])
    for key in upstream["keys"]:
        if sealing.origin_of(key["ciphertext"]) not in (None, origin):
            rotated.unopened.append(f"{model}|{key['id']}")  # here it opens for nobody
        elif _is_due(key["ciphertext"], origin):
            try:
                again = provider_keys.resealed(
                    key["ciphertext"], model=model, key_id=key["id"], origin=origin
                )
                rotated.sealed_again += 1
                key["ciphertext"] = key["ciphertext"] if dry_run else again
            except sealing.CannotOpen:
                rotated.unopened.append(f"{model}|{key['id']}")
        rotated.counts[sealing.key_id_of(key["ciphertext"])] += 1
        rotated.unbound += sealing.origin_of(key["ciphertext"]) is None


def _is_due(sealed: str, origin: str) -> bool:
    is_unbound = sealing.origin_of(sealed) is None and origin != origins.NOWHERE
    return is_unbound or sealing.key_id_of(sealed) != sealing.master_keys().current.id
