"""`./run test`: every check and every test, on one throw-away stack.

Arguments go to pytest, which then runs alone: `./run test tests/billing -k hold`. With `--browser`
it runs the tests in Chromium, with `--clients` those with real client libraries: both are otherwise
skipped where what they need is missing. With `--slow-path` completions go through Django and ninja.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airi_server.launch import processes
from airi_server.launch.stack import Stack

_SCRIPTS: Final = Path(sys.executable).parent
_PYTEST: Final = [sys.executable, "-m", "pytest"]
_WORKERS: Final = len(os.sched_getaffinity(0)) + 1
"""One more than the processors we may use: a quarter of a run is waiting."""
_SLOWEST: Final = ("--durations=15", "--durations-min=3")
_CHECKS: Final = {
    "ruff check": [str(_SCRIPTS / "ruff"), "check", "--output-format=concise", "."],
    "ruff format": [str(_SCRIPTS / "ruff"), "format", "--check", "."],
    "import-linter": [
        sys.executable, "-c",
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_logo=True))",
    ],
    "mypy": [sys.executable, "-m", "mypy", "."],
    "assertions": [sys.executable, "-m", "tests.assertions"],
}  # fmt: skip
_REPAIRS: Final = (
    [str(_SCRIPTS / "ruff"), "check", "--fix", "--quiet", "."],
    [str(_SCRIPTS / "ruff"), "format", "--quiet", "."],
)
_CHECK: Final = [sys.executable, "-m", "airi_server.launch", "check"]
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
_NODE: Final = ("node", "npm")


def chromium() -> str | None:
    """Return the browser of this machine that the browser tests can drive."""
    return next((found for name in _CHROMIUM if (found := shutil.which(name))), None)


def node() -> str | None:
    """Return the Node of this machine, if there is an npm beside it."""
    found = [shutil.which(name) for name in _NODE]
    return found[0] if all(found) else None


@dataclass(frozen=True, slots=True)
class Kind:
    """Tests that want more of a machine than Python: they are skipped without, or they must run.

    Args:
        directory: Where they are.
        variable: What tells them that they must run.
        found: Returns what they need, if it is here.
        wanted: What to install.
    """

    directory: str
    variable: str
    found: Callable[[], str | None]
    wanted: str


_KINDS: Final = {
    "--browser": Kind(
        "tests/browser", "AIRI_BROWSER", chromium, f"a browser first, one of {', '.join(_CHROMIUM)}"
    ),
    "--clients": Kind(
        "tests/processes/clients", "AIRI_CLIENTS", node, f"Node first: {' and '.join(_NODE)}"
    ),
}


_SLOW_PATH: Final = "--slow-path"


def main(arguments: list[str]) -> None:
    if _SLOW_PATH in arguments:
        os.environ["AIRI_FAST_PATH"] = "off"
        arguments = [each for each in arguments if each != _SLOW_PATH]
    arguments = _of_pytest(arguments)
    processes.end_on_sigterm()
    # pytest hears Ctrl-C as well and says what it had found; we wait for that.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    with (
        tempfile.TemporaryDirectory(prefix="airi-test-") as directory,
        Stack(directory, durable=False) as stack,
    ):
        _apply(stack.database_url, stack.redis_url)
        status = _run([*_PYTEST, *arguments]) if arguments else _everything()
    sys.exit(status)


def _of_pytest(arguments: list[str]) -> list[str]:
    """Return the arguments as pytest takes them: `--browser` is a directory to it."""
    rest = [each for each in arguments if each not in (*_KINDS, "--screenshots")]
    if "--screenshots" in arguments:
        os.environ["AIRI_SCREENSHOTS"] = "1"
    for option, kind in _KINDS.items():
        if option not in arguments:
            continue
        os.environ[kind.variable] = "required"
        if kind.found() is None:
            sys.exit(f"./run test {option}: install {kind.wanted}.")
        # The tests of one module may be chosen; options alone choose all of them.
        if not any(kind.directory in each for each in rest):
            rest.insert(0, kind.directory)
    return rest


def check(arguments: list[str]) -> None:
    """Run the static checks alone; with `--fix`, ruff repairs what it can first."""
    _apply("postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0")
    if "--fix" in arguments:
        for command in _REPAIRS:
            _run(command)
    failed = [name for name, command in _CHECKS.items() if not _succeeds(name, command)]
    sys.exit(f"./run check: {', '.join(failed)} failed." if failed else 0)


def _apply(database_url: str, redis_url: str) -> None:
    """Put into the environment what airi_server.settings.test reads; secrets need not be secret."""
    os.environ.update(
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        DJANGO_SETTINGS_MODULE="airi_server.settings.test",
        SECRET_KEY="a key of the tests and of nothing else, long enough for the checks",  # noqa: S106
        LLM_ROUTER_MASTER_KEY=base64.b64encode(bytes(range(32))).decode(),
        PYTHONUNBUFFERED="1",
    )


def _succeeds(name: str, command: list[str]) -> bool:
    print(f"--- {name}", flush=True)
    return _run(command) == 0


def _everything() -> int:
    """Run the checks beside all tests. pytest has the last word, unless a check failed."""
    with tempfile.TemporaryFile() as said:
        checks = subprocess.Popen(_CHECK, cwd=processes.ROOT, stdout=said, stderr=said)
        status = _run([*_PYTEST, "-n", str(_WORKERS), "--dist", "loadgroup", *_SLOWEST])
        if checks.wait() == 0:
            return status
        said.seek(0)
        print(said.read().decode(errors="replace"), end="", flush=True)
    return status or 1


def _run(command: list[str]) -> int:
    return subprocess.run(command, cwd=processes.ROOT, check=False).returncode
