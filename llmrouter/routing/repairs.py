"""Repairs: what we add to a request is left out where an upstream does not know it.

A refusal that names a field of ours is tried once more without it, or with the length under its
other name. What helped is remembered for an hour for that target, in this process.
"""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, replace
from typing import Final

from llmrouter.routing.planning import Attempt
from llmrouter.routing.provider_errors import ProviderFault

logger = logging.getLogger(__name__)

REMEMBER_S: Final = 3_600.0
MAX_REMEMBERED: Final = 10_000
LENGTHS: Final = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
USAGE: Final = ("stream_options", "include_usage")
_UNKNOWN: Final = re.compile(
    r"unsupported|not (?:be )?(?:supported|permitted|allowed|recogni[sz]ed)|unknown|unrecogni[sz]ed"
    r"|unexpected|extra|cannot find field|does not support|no longer",
    re.IGNORECASE,
)
_CODES: Final = frozenset({"unsupported_parameter", "unknown_parameter", "extra_forbidden"})


@dataclass(frozen=True, slots=True)
class Repair:
    """How a request differs from an ordinary one."""

    length_field: str = ""
    without_usage: bool = False


AS_USUAL: Final = Repair()
_remembered: dict[tuple[str, str], tuple[float, Repair]] = {}


def known(attempt: Attempt) -> Repair:
    """Return what this target was found to need."""
    if not _remembered:
        return AS_USUAL
    until, repair = _remembered.get(_target(attempt), (0.0, AS_USUAL))
    return repair if until > time.monotonic() else AS_USUAL


def needed(
    refusal: ProviderFault, sent: Repair, *, length_field: str, request: str
) -> Repair | None:
    """Return how the same request may be sent once more, or None if the refusal is about itself.

    Args:
        refusal: What the provider said.
        sent: How the request that it refused was made.
        length_field: The field that its length was sent in.
        request: What the caller wrote: a field that is named there may be quoted from it.
    """
    if not (_UNKNOWN.search(refusal.words) or refusal.code in _CODES):
        return None
    if any(_is_named(name, refusal, request) for name in USAGE) and not sent.without_usage:
        return replace(sent, without_usage=True)
    if _is_named(length_field, refusal, request) and not sent.length_field:
        return replace(sent, length_field=LENGTHS[length_field])
    return None


def remember(attempt: Attempt, repair: Repair) -> None:
    """Begin with this at the target from now on: it was answered."""
    logger.warning(
        "An upstream does not know a field of ours",
        extra={
            "upstream": attempt.upstream.id,
            "model": attempt.upstream.model,
            "length_field": repair.length_field or None,
            "without_usage": repair.without_usage,
        },
    )
    if len(_remembered) >= MAX_REMEMBERED:
        _remembered.clear()
    _remembered[_target(attempt)] = (time.monotonic() + REMEMBER_S, repair)


def forget() -> None:
    """Drop what this process remembers; for tests."""
    _remembered.clear()


def _is_named(name: str, refusal: ProviderFault, request: str) -> bool:
    if refusal.param == name:
        return True
    return bool(re.search(rf"\b{name}\b", refusal.words)) and name not in request


def _target(attempt: Attempt) -> tuple[str, str]:
    return attempt.upstream.url, attempt.upstream.model
