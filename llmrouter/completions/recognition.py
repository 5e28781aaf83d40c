"""Positive recognition: an answer is one by what it generated, never by what it lacks. Pure.

One function says what a choice generated. It decides failover (`is_answer`, `opening.Opening`) and
the charge, so that a charge above 0 implies that something was generated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from llmrouter.gateway import estimates
from llmrouter.gateway.usage import TokenCounts

_REASONING: Final = ("reasoning", "reasoning_content")
_USUAL: Final = frozenset({"role", "content", "refusal", "annotations"})
"""What nearly every message is made of, of which only the content generates something."""


class Generated(NamedTuple):
    """What a choice generated, and why it ended.

    `size` is in UTF-8 bytes of text, media by what their tokens are worth. `reason` is empty while
    it goes on, and for `error`, which is none.
    """

    size: int
    reason: str


NOTHING: Final = Generated(0, "")


def of_choice(choice: Any) -> Generated:
    """Return what one choice of an answer, or of a chunk, generated."""
    if not isinstance(choice, dict):
        return NOTHING
    size = _length(choice["text"]) if "text" in choice else 0
    part = choice.get("message") or choice.get("delta")
    if isinstance(part, dict):
        size += _of_message(part)
    reason = choice.get("finish_reason")
    if not isinstance(reason, str) or reason == "error":
        reason = ""
    return Generated(size, reason)


def of_choices(choices: Any) -> Generated:
    """Return what all of them generated, and the first reason among them."""
    if not isinstance(choices, list):
        return NOTHING
    size, reason = 0, ""
    for choice in choices:
        found = of_choice(choice)
        size += found.size
        reason = reason or found.reason
    return Generated(size, reason)


def is_answer(answer: Any, counts: TokenCounts) -> bool:
    """Return whether a plain body is an answer: it has choices that generated, or that ended.

    Args:
        answer: The body, decoded.
        counts: What its usage says, read as if nothing had been generated.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices:
        return False
    found = of_choices(choices)
    return found.size > 0 or (not answer.get("error") and bool(found.reason or counts.output))


def _of_message(part: dict[str, Any]) -> int:
    content = part.get("content")
    size = _length(content)
    if isinstance(content, str) and _USUAL.issuperset(part) and not part.get("refusal"):
        return size
    if isinstance(content, list):
        size += sum(_length(p.get("text")) + _length(p.get("refusal")) for p in _dicts(content))
    size += _length(part.get("refusal"))
    # Some write their reasoning twice, under two names.
    size += max(*(_length(part.get(name)) for name in _REASONING), _of_details(part))
    size += sum(_of_call(call) for call in _dicts(part.get("tool_calls")))
    if function := part.get("function_call"):
        size += _of_function(function)
    return size + _of_media(part) if "audio" in part or "images" in part else size


def _of_details(part: dict[str, Any]) -> int:
    details = part.get("reasoning_details")
    return sum(
        _length(each.get(name)) for each in _dicts(details) for name in ("text", "summary", "data")
    )


def _of_call(call: dict[str, Any]) -> int:
    return _of_function(call.get("function")) + _of_function(call.get("custom"))


def _of_function(function: Any) -> int:
    if not isinstance(function, dict):
        return 0
    return sum(_length(function.get(name)) for name in ("name", "arguments", "input"))


def _of_media(part: dict[str, Any]) -> int:
    audio = part.get("audio")
    size = 0
    if isinstance(audio, dict):
        size += _length(audio.get("transcript"))
        size += estimates.spoken_bytes(_length(audio.get("data")))
    images = part.get("images")
    return size + estimates.IMAGE_OUT_BYTES * len(images) if isinstance(images, list) else size


def _length(text: Any) -> int:
    """Return the UTF-8 length of a text, 0 of anything else."""
    if not isinstance(text, str):
        return 0
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _dicts(values: Any) -> Iterable[dict[str, Any]]:
    return (v for v in values if isinstance(v, dict)) if isinstance(values, list) else ()
