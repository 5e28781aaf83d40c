"""One process that has everything imported, and forks servers and commands in milliseconds.

What it forks are processes like any others: with a name, sessions and signals of their own. It
reads one JSON order a line and answers with one. Its children end with it. It has one thread and
no connection, so that a child has nothing of anybody else's.
"""

from __future__ import annotations

import gc
import io
import json
import os
import random
import signal
import sys
import time
import traceback
from datetime import datetime, timedelta
from importlib import import_module, reload
from pathlib import Path
from typing import Any, Final, NoReturn

import uvicorn
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

import airi_server.asgi  # noqa: F401  # everything there is to import
from airi_server.kernel import instance
from airi_server.launch import processes
from airi_server.web import serve

Order = dict[str, Any]
THREADS: Final = Path("/proc/self/task")


def main() -> None:
    processes.die_with_parent(signal.SIGKILL, parent=int(sys.argv[1]))
    # Children that look through what they share with us would copy all of it.
    gc.collect()
    gc.freeze()
    _answer(ready=True)
    for line in sys.stdin:
        order: Order = json.loads(line)
        assert len(list(THREADS.iterdir())) == 1, "a child would lack the others"
        if order["kind"] == "wait":
            _answer(status=_wait(order["pid"], order["within_s"]))
            continue
        ours = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(order, parent=ours)
        _answer(pid=pid)


def _answer(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def _wait(pid: int, within_s: float) -> int | None:
    """Return how a child ended, negative for a signal; None if it did not."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _live(order: Order, *, parent: int) -> NoReturn:
    """Be the child that was asked for."""
    status = 70
    try:
        processes.die_with_parent(signal.SIGKILL, parent=parent)
        _redirect(order["log"])
        _become(order)
        status = _DOES[order["kind"]](order)
    except KeyboardInterrupt:
        status = 130
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _redirect(log: str) -> None:
    nothing, kept = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    os.lseek(kept, 0, os.SEEK_END)
    for theirs, descriptor in ((nothing, 0), (kept, 1), (kept, 2)):
        os.dup2(theirs, descriptor)


def _become(order: Order) -> None:
    """Take a name of its own, and what this child's surroundings are."""
    random.seed()
    connections.settings["default"].update(order["database"])
    for path, value in order["patches"].items():
        module, name = path.rsplit(".", 1)
        owner = import_module(module) if module != "settings" else _settings()
        assert hasattr(owner, name), path
        setattr(owner, name, value)
    reload(instance)  # a fork is another process
    if order["clock_shift_s"]:
        _shift_clocks(order["clock_shift_s"])


def _settings() -> Any:
    from django.conf import settings

    return settings


def _shift_clocks(seconds: float) -> None:
    """Have every clock of the application that tells the time of day go wrong by so much."""
    now, now_ns = time.time, time.time_ns

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=seconds)

    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)
    for name, module in list(sys.modules.items()):
        ours = name.split(".")[0] in ("airi_server", "accounts", "billing", "llmrouter")
        if (ours or name == "django.utils.timezone") and vars(module).get("datetime") is datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]


def _named(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def _serve(order: Order) -> int:
    config = serve.config(_named(order["application"]), port=order["port"])
    uvicorn.Server(config).run()
    return 0


def _manage(order: Order) -> int:
    errors = io.StringIO()
    try:
        call_command(*order["arguments"], stderr=errors)
    except CommandError as failed:
        print(failed)
        return failed.returncode
    finally:
        print(errors.getvalue())
    return 0


def _call(order: Order) -> int:
    _named(order["function"])(*order["arguments"])
    return 0


_DOES: Final = {"serve": _serve, "manage": _manage, "call": _call}

if __name__ == "__main__":
    main()
