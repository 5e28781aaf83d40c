"""A process that has imported everything once, and forks for each run of tests.

`python -m tests.mutants.nursery TEST_FILES…` in the copy of the tree. It reads one order a line
from its standard input, and answers each with one line. A child runs pytest on a warm process with
a database that is there, so that a run costs little more than its tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, TextIO

import pytest

from tests.mutants import graft, watch

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = frozenset({"airi_server", "accounts", "billing", "llmrouter"})
MAX_MEMORY: Final = 6 * 2**30
"""Address space of a child: a mutant may be a loop that appends."""
_PYTEST: Final = (
    "-q", "--no-header", "--no-summary", "-p", "pytest_django.plugin",
    "-p", "pytest_asyncio.plugin", "-p", "_hypothesis_pytestplugin", "-p", "tests.mutants.given",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
Order = dict[str, Any]


def main(files: list[str]) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)
    # The plugins are named: each is then loaded here once and not looked for again.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    code = pytest.main([*_PYTEST, "--collect-only", *files])
    _say(answers, {"ready": int(code) == 0})
    functions = graft.functions_under(ROOT)
    for line in sys.stdin:
        _say(answers, _in_a_child(json.loads(line), functions))


def _say(answers: TextIO, answer: Order) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _in_a_child(order: Order, functions: graft.Functions) -> Order:
    """Carry out an order in a child of its own, which ends when its time is over."""
    began = time.monotonic()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.setpgid(0, 0)
        with os.fdopen(writing, "w", encoding="utf-8") as report:
            json.dump(_carried_out(order, functions), report)
        os._exit(0)
    os.close(writing)
    said, is_late = _read(reading, until=began + order["timeout_s"])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    is_late = is_late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM)
    seconds = round(time.monotonic() - began, 2)
    if is_late:
        return {"outcome": "timeout", "seconds": seconds}
    with contextlib.suppress(ValueError):
        return {**json.loads(said), "seconds": seconds}
    return {"outcome": "crashed", "seconds": seconds}


def _read(pipe: int, *, until: float) -> tuple[bytearray, bool]:
    said = bytearray()
    with os.fdopen(pipe, "rb", buffering=0) as file:
        while (left := until - time.monotonic()) > 0:
            if not select.select([file], [], [], left)[0]:
                break
            if not (piece := file.read(65_536)):
                return said, False
            said += piece
    return said, True


def _carried_out(order: Order, functions: graft.Functions) -> Order:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    try:
        if "python" in order:
            graft.graft_python(functions, ROOT / order["path"], order["python"])
        if "text" in order:
            graft.graft_text(order["healthy"], order["text"], PACKAGES)
    except LookupError as missing:
        return {"outcome": "out of reach", "by": str(missing)}
    if order["kind"] == "reach":
        return _reach(order["tests"])
    trial = watch.Trial(order["limits"])
    code = pytest.main([*_PYTEST, "-x", "--tb=no", *order["tests"]], plugins=[trial])
    if code == pytest.ExitCode.OK:
        return {"outcome": "survived", "ran": trial.ran}
    if code == pytest.ExitCode.TESTS_FAILED:
        return {"outcome": "killed", "by": trial.failed, "clean": trial.is_clean}
    if code in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        return {"outcome": "survived", "by": f"pytest ended with {int(code)}"}  # nobody was asked
    return {"outcome": "crashed", "by": f"pytest ended with {int(code)}"}


def _reach(tests: list[str]) -> Order:
    """Run tests and return which lines each reaches, and how long it takes."""
    watcher = watch.Reach(ROOT)
    pytest.main([*_PYTEST, "--tb=short", *tests], plugins=[watcher])
    return {"outcome": "ran", **watcher.found()}


if __name__ == "__main__":
    main(sys.argv[1:])
