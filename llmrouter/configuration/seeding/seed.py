"""Turn slices into the configuration in force: merged into what is there, or in its place.

A key that is already there, in its place and with the same content, keeps its ciphertext, so
seeding twice publishes once. Merging leaves alone what no slice can name, and refuses to touch a
model that no slice stands for: its other upstreams and keys would be gone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import transaction
from pydantic import SecretStr

from airi_server.runtime import options as operator_options
from llmrouter.configuration import changes, publishing, tree
from llmrouter.configuration.models import NOTE_LENGTH
from llmrouter.configuration.options import UNSPEECH_UPSTREAM
from llmrouter.configuration.seeding import desired, providers, requests


class WouldFlatten(requests.InvalidSeed):
    """A slice is for a model that has more than a slice can say. Nothing was written."""


@dataclass(frozen=True)
class Seeded:
    """What seeding did, or in a dry run would do.

    `applied`, `changed` (names) and `preview` have the contract's shapes. Nothing here holds a
    secret or a ciphertext. `left` says of each slice that was passed over why.
    """

    applied: list[dict[str, str | None]]
    changed: list[str]
    preview: dict[str, Any]
    diff: str
    left: list[str] = field(default_factory=list)


def seed(
    request: requests.Seed, *, by: str, at: datetime, note: str = "seeded", is_routine: bool = False
) -> Seeded:
    """Write every slice in one transaction, and tell every instance once it commits.

    Args:
        request: What to write.
        by: Who asks.
        at: When.
        note: Kept with the revision.
        is_routine: It is repeated at every start: what an operator has made more of than a slice
            can say is left as it is, and does not hold up the others.

    Raises:
        InvalidSeed: A key cannot be sent, or is to be kept and is not there or was entered for
            another origin; or a name or an address may not be written. Nothing was written.
        WouldFlatten: Merging, and a model has several upstreams or keys. Nothing was written.
        InvalidTree: There would be too many models. Nothing was written.
    """
    with transaction.atomic():
        publishing.lock()
        misspelled = desired.misspelled(request)
        if misspelled:
            raise requests.InvalidSeed(misspelled[0]["message"], details=misspelled)
        left = desired.flattened(request)
        if left and not is_routine:
            raise _would_flatten(left)
        request = _without(left, request)
        wanted = dict(desired.wanted(request))
        stored = {name: desired.in_force(name) for name in wanted}
        changed = [] if request.dry_run else [n for n in wanted if wanted[n] != stored[n]]
        for name in changed:
            _write(name, wanted[name], note=note, by=by, at=at)
    return Seeded(
        applied=[_applied(each, wanted) for each in request.slices],
        changed=changed,
        preview=desired.preview(wanted),
        diff=changes.diff(desired.as_json(stored), desired.as_json(wanted)),
        left=list(left.values()),
    )


def import_tree(
    config: tree.Tree, *, mode: requests.Mode, dry_run: bool, by: str, at: datetime, note: str
) -> Seeded:
    """Publish a tree with its ciphertexts, merged into the one in force or in its place.

    Raises:
        InvalidTree: A key that is new here does not open, or one would go to another origin than
            it was entered for; a name or an address may not be written. Nothing was written, and
            a dry run says the same.
    """
    with transaction.atomic():
        publishing.lock()
        current = publishing.current_tree()
        wanted = config if mode == "reset" else desired.merged(current, config)
        if dry_run:
            publishing.check(wanted)
        else:
            publishing.publish(wanted, note=note, by=by, at=at)
    before, after = {desired.ROUTER_CONFIG: current}, {desired.ROUTER_CONFIG: wanted}
    return Seeded(
        applied=[],
        changed=[desired.ROUTER_CONFIG] if wanted != current and not dry_run else [],
        preview=desired.preview(after),
        diff=changes.diff(desired.as_json(before), desired.as_json(after)),
    )


def route_chat(  # noqa: PLR0913  the launcher says it all in one place
    *,
    model_name: str,
    base_url: str,
    override_model: str,
    plaintext_key: str,
    key_id: str,
    by: str,
    at: datetime,
    is_default: bool = True,
) -> Seeded:
    """Route one chat model to one upstream and, by default, make it what `auto` means.

    Safe to run at every start: what is already so is not written again, and a model that an
    operator gave more upstreams or keys stays as it is.
    """
    chat = providers.OpenRouter(
        model_name=model_name,
        base_url=base_url,
        override_model=override_model,
        plaintext_key=SecretStr(plaintext_key),
        key_entry_id=key_id,
    )
    defaults = requests.SeedDefaults(chat_model=model_name) if is_default else None
    request = requests.Seed(slices=(chat,), defaults=defaults)
    return seed(request, by=by, at=at, note=f"{model_name} routed", is_routine=True)


def _would_flatten(left: dict[int, str]) -> WouldFlatten:
    faults = [
        {"path": f"slices.{at}", "message": f"A slice would lose a part of {why}"}
        for at, why in left.items()
    ]
    return WouldFlatten(faults[0]["message"], details=faults)


def _without(left: dict[int, str], request: requests.Seed) -> requests.Seed:
    kept = tuple(each for at, each in enumerate(request.slices) if at not in left)
    return request.model_copy(update={"slices": kept})


def _write(name: str, value: Any, *, note: str, by: str, at: datetime) -> None:
    if isinstance(value, tree.Tree):
        publishing.publish(value, note=note, by=by, at=at)
    else:
        operator_options.put(name, value, by=by, at=at, note=note[:NOTE_LENGTH])


def _applied(
    each: providers.ModelSlice | providers.Unspeech, wanted: dict[str, Any]
) -> dict[str, str | None]:
    if isinstance(each, providers.Unspeech):
        streaming = wanted[UNSPEECH_UPSTREAM.name].get("streaming")
        key_id = streaming["keys"][0]["id"] if streaming else None
        return {"kind": each.kind, "target": "unspeech", "keyEntryId": key_id}
    model = desired.models_of(wanted[desired.ROUTER_CONFIG], each.surface)[each.model_name]
    return {
        "kind": each.kind,
        "target": "llm-router",
        "surface": each.surface,
        "modelName": each.model_name,
        "keyEntryId": model.upstreams[0].keys[0].id,
    }
