"""What an answer used: read from the upstream's own report, checked, or estimated from its text.

Pure. A report that does not make sense counts as missing, never as an error.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NoReturn, TypeGuard

import orjson

from billing.pricing import MAX_TOKENS, Source, Usage

BYTES_PER_TOKEN: Final = 4
"""UTF-8 bytes of an average token; what an estimate divides by."""


def decode(text: bytes) -> Any:
    """Read JSON as clients do: also halves of surrogate pairs and numbers beyond a double.

    Raises:
        ValueError: It is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except RecursionError as too_deep:
            raise ValueError("nested too deeply") from too_deep


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def reported(report: Any) -> Usage | None:
    """Return the upstream's `usage` object as a value, or None if it makes no sense."""
    if not isinstance(report, dict):
        return None
    prompt, completion = report.get("prompt_tokens"), report.get("completion_tokens")
    if not (_is_count(prompt) and _is_count(completion)):
        return None
    details = report.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    if not _is_count(cached) or cached > prompt:
        cached = 0
    return Usage(prompt=prompt, completion=completion, cached=cached)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= MAX_TOKENS


def estimated(*, prompt_estimate: int, text_bytes: int, at_least: int = 0) -> Usage:
    """Return a guess: the prompt as estimated on the way in, and four bytes for each token."""
    completion = max(at_least, -(-text_bytes // BYTES_PER_TOKEN))
    return Usage(prompt=prompt_estimate, completion=completion, source=Source.ESTIMATED)


def text_bytes_of(choices: Any) -> int:
    """Return the UTF-8 length of everything generated in `choices`, of an answer or of a chunk."""
    if not isinstance(choices, list):
        return 0
    return sum(_generated(choice) for choice in choices if isinstance(choice, dict))


def messages_of(choices: Any) -> list[Any]:
    """Return the messages of an answer's choices, or the deltas of a chunk's."""
    found = [c for c in choices if isinstance(c, dict)] if isinstance(choices, list) else []
    return [choice.get("message") or choice.get("delta") for choice in found]


def _generated(choice: dict[str, Any]) -> int:
    message = choice.get("message") or choice.get("delta")
    if not isinstance(message, dict):
        return 0
    parts = (message.get(name) for name in ("content", "refusal", "reasoning_content", "reasoning"))
    size = sum(len(part.encode(errors="replace")) for part in parts if isinstance(part, str))
    if calls := message.get("tool_calls"):
        size += _size_of(calls) // 2
    return size


def _size_of(calls: Any) -> int:
    try:
        return len(orjson.dumps(calls))
    except orjson.JSONEncodeError:  # nested deeper than orjson writes, though it reads it
        return 0


def text_of_chunks(payloads: Iterable[bytes]) -> tuple[int, int]:
    """Return the same for the chunks of a stream, and how many of them carried any text.

    What cannot be read counts nothing.
    """
    sizes = [text_bytes_of(choices) for choices in choices_in(payloads)]
    return sum(sizes), sum(size > 0 for size in sizes)


def choices_in(payloads: Iterable[bytes]) -> Iterator[Any]:
    """Yield the choices of each chunk of a stream that can be read."""
    for payload in payloads:
        if payload.startswith(b"{"):
            with contextlib.suppress(ValueError):
                yield decode(payload).get("choices")
