"""One JSON object per line on stderr, with the request id on every line of a request.

Messages are constant text; facts travel in `extra`. Secrets, prompts and upstream bodies are
never given to a logger, and anything that looks like a key is cut out here all the same.
"""

from __future__ import annotations

import logging
import re
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from airi_server.kernel import context

# What no line says is not looked up for each.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False

_OWN = len(vars(logging.makeLogRecord({})))
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message", "asctime", "taskName",
    "request",  # Django's, whose text has the query
}  # fmt: skip
_SECRET = re.compile(r"""(sk-[A-Za-z0-9_-]{6})[A-Za-z0-9_.-]+|(?i:(bearer\s+(?:\\?")?)[^\s"\\]+)""")
_UNFINISHED = "ASGI callable returned without completing response."


def redact(text: str) -> str:
    """Return `text` with API keys and bearer tokens cut off after a recognizable start."""
    if "sk-" not in text and "bearer" not in text.lower():  # a tenth of what the pattern costs
        return text
    return _SECRET.sub(lambda match: f"{match[1] or match[2]}…", text)


@lru_cache(maxsize=4)
def _second(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class JSONFormatter(logging.Formatter):
    """Render a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": f"{_second(int(record.created))}.{int(record.created * 1000) % 1000:03}+00:00",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := context.request_id.get():
            line["request_id"] = request_id
        given = islice(vars(record).items(), _OWN, None)  # `extra` comes after a record's own
        line.update({name: value for name, value in given if name not in _STANDARD})
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = "".join(traceback.format_exception(record.exc_info[1]))
        return redact(orjson.dumps(line, default=str).decode())


class AbortedStreamFilter(logging.Filter):
    """Drop the line uvicorn writes when a broken stream is cut off on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != _UNFINISHED
