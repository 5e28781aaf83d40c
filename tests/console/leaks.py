"""Looks for secrets in everything that leaves the server or stays in it, in any usual spelling."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from django.contrib.sessions.models import Session
from django.db import connection

from airi_server.logging import JSONFormatter


def spellings(secret: str) -> set[str]:
    """Return the secret as it is, in hex, in an address, and in base64 wherever it begins."""
    raw = secret.encode()
    shifted = (base64.b64encode(b"\0" * before + raw).decode() for before in range(3))
    # What stands around it decides the first and the last characters.
    cores = {text.rstrip("=")[4:-2] for text in shifted}
    cores |= {core.replace("+", "-").replace("/", "_") for core in cores}
    return {secret, quote(secret, safe=""), raw.hex(), secret[::-1], *cores}


class Leaks:
    """Takes texts as they come and says which of them hold a secret."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._secrets = {name: spellings(secret) for name, secret in secrets.items()}
        self.found: list[str] = []
        self.looked_at = 0

    def watch(self, name: str, secret: str) -> None:
        """Look for one more secret from now on."""
        self._secrets[name] = spellings(secret)

    def look(self, where: str, text: str) -> None:
        self.looked_at += 1
        for name, needles in self._secrets.items():
            if any(needle in text for needle in needles):
                self.found.append(f"{name} in {where}")

    def look_at_answer(self, where: str, answer: Any) -> None:
        body = asyncio.run(_read(answer)) if answer.streaming else answer.content
        self.look(where, body.decode(errors="replace"))
        self.look(f"headers of {where}", repr([*answer.items(), answer.cookies.output()]))

    def look_at_log(self, records: Iterable[logging.LogRecord]) -> None:
        written = JSONFormatter()
        for record in records:
            self.look(f"log of {record.name}", f"{vars(record)!r} {written.format(record)}")

    def look_at_database(self, *, but: str = "") -> None:
        """Read every row of every table as text, and every session as what it says."""
        with connection.cursor() as cursor:
            for table in {*connection.introspection.table_names()} - {but}:
                dump = io.StringIO()
                copy = f'COPY (SELECT t::text FROM "{table}" t) TO STDOUT'
                with cursor.copy(copy) as rows:
                    for piece in rows:
                        dump.write(bytes(piece).decode())
                self.look(f"table {table}", dump.getvalue())
        for session in Session.objects.all():
            self.look("a session", repr(session.get_decoded()))


async def _read(answer: Any) -> bytes:
    if answer.is_async:
        return b"".join([part async for part in answer])
    return b"".join(answer)
