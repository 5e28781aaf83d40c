"""Sealing every stored provider key again, under the current master key."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from django.db import transaction

from airi_server.kernel import sealing
from airi_server.runtime import options as operator_options
from llmrouter.configuration import provider_keys, publishing, tree
from llmrouter.options import UNSPEECH_UPSTREAM

NOTE: Final = "sealed under the current master key"


@dataclass
class Rotation:
    """`counts` are by master key id, afterwards; `unopened` names what was left as it was."""

    counts: Counter[str] = field(default_factory=Counter)
    sealed_again: int = 0
    unopened: list[str] = field(default_factory=list)


def rotate(*, by: str, at: datetime, dry_run: bool = False) -> Rotation:
    """Seal again what is not under the current master key, and publish it.

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
                    _reseal(upstream["keys"], name, rotated, dry_run=dry_run)
        streaming = _streaming()
        if streaming:
            keys = streaming["streaming"]["keys"]
            _reseal(keys, tree.STREAMING_TTS, rotated, dry_run=dry_run)
        if rotated.sealed_again:
            publishing.publish(tree.parse(config), note=NOTE, by=by, at=at)
        if rotated.sealed_again and streaming:
            operator_options.put(UNSPEECH_UPSTREAM.name, streaming, by=by, at=at, note=NOTE)
    return rotated


def _streaming() -> tree.JSON | None:
    """Return the speech service's setting, if it has a streaming socket with keys."""
    try:
        value: tree.UnspeechUpstream = UNSPEECH_UPSTREAM.read()
    except operator_options.ConfigNotSet:
        return None
    return tree.dump(value) if value.streaming else None


def _reseal(keys: list[dict[str, Any]], model: str, rotated: Rotation, *, dry_run: bool) -> None:
    """Replace the ciphertexts in place."""
    current = sealing.master_keys().current.id
    for key in keys:
        if sealing.key_id_of(key["ciphertext"]) != current and not dry_run:
            try:
                key["ciphertext"] = provider_keys.resealed(
                    key["ciphertext"], model=model, key_id=key["id"]
                )
                rotated.sealed_again += 1
            except sealing.CannotOpen:
                rotated.unopened.append(f"{model}|{key['id']}")
        rotated.counts[sealing.key_id_of(key["ciphertext"])] += 1
