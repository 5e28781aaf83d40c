"""`./run test`: every check on one throw-away stack, and one verdict.

Arguments go to pytest, which then runs alone: `./run test tests/billing -k hold`. With `--browser`
it runs the tests in Chromium, with `--clients` those with real client libraries: both are otherwise
skipped where what they need is missing.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
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
}  # fmt: skip
_CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
_NODE: Final = ("node", "npm")


@dataclass(slots=True)
class Check:
    """A static check and how it went."""

    name: str
    command: list[str]
    output: str = field(default="", init=False)
    passed: bool = field(default=False, init=False)
    seconds: float = field(default=0.0, init=False)

    def run(self) -> None:
        started = time.monotonic()
        outcome = subprocess.run(
            self.command,
            cwd=processes.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        self.output = outcome.stdout.decode(errors="replace").rstrip()
        self.passed = outcome.returncode == 0
        self.seconds = time.monotonic() - started


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


def main(arguments: list[str]) -> None:
    arguments = _of_pytest(arguments)
    processes.end_on_sigterm()
    # pytest hears Ctrl-C as well and says what it had found; we wait for that.
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    with (
        tempfile.TemporaryDirectory(prefix="airi-test-") as directory,
        Stack(directory, durable=False) as stack,
    ):
        _apply(stack.database_url, stack.redis_url)
        passed = _only_pytest(arguments) if arguments else _everything()
    sys.exit(0 if passed else 1)


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
        for repair in (["check", "--fix", "--quiet", "."], ["format", "--quiet", "."]):
            subprocess.run([str(_SCRIPTS / "ruff"), *repair], cwd=processes.ROOT, check=False)
    checks = _checks()
    _run(checks)
    _report(checks)
    sys.exit(0 if all(each.passed for each in checks) else 1)


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


def _checks() -> list[Check]:
    return [Check(name, command) for name, command in _CHECKS.items()]


def _run(checks: list[Check]) -> None:
    for each in checks:
        each.run()


def _only_pytest(arguments: list[str]) -> bool:
    command = [*_PYTEST, *arguments]
    return subprocess.run(command, cwd=processes.ROOT, check=False).returncode == 0


def _everything() -> bool:
    checks = _checks()
    # One after the other beside pytest: the tests want the other processors.
    beside = threading.Thread(target=_run, args=[checks])
    beside.start()
    code, verdict = _pytest_live()
    beside.join()
    _report(checks)
    print(verdict, flush=True)
    return code == 0 and all(each.passed for each in checks)


def _pytest_live() -> tuple[int, str]:
    """Run all tests, showing what pytest says as it says it; return its last line too."""
    color = "yes" if sys.stdout.isatty() else "no"
    command = [*_PYTEST, "-n", str(_WORKERS), "--dist", "loadgroup", f"--color={color}", *_SLOWEST]
    kept = b""
    with subprocess.Popen(command, cwd=processes.ROOT, stdout=subprocess.PIPE) as pytest:
        try:
            while pytest.stdout and (piece := os.read(pytest.stdout.fileno(), 65536)):
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
                kept = (kept + piece)[-4096:]
        except BaseException:
            pytest.kill()
            raise
    lines = kept.decode(errors="replace").splitlines() or ["0 passed, 0 failed"]
    return pytest.returncode, lines[-1]


def _report(checks: list[Check]) -> None:
    for each in checks:
        if not each.passed:
            print(f"\n--- {each.name} ---\n{each.output}")
    print()
    for each in checks:
        verdict = "ok" if each.passed else "FAILED"
        print(f"{each.name:<14} {verdict:<7} {each.seconds:5.1f} s")
    print(flush=True)
