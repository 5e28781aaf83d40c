"""What is asked of pytest: which test noticed, and which lines each one reaches."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import coverage
import pytest

SCOPE: Final = ("billing", "llmrouter")
LONGEST_S: Final = 60.0
LONGEST_NAME: Final = 500
"""Of a test: some are named after all of the body that they send, and are not asked."""


class Trial:
    """A plugin: the first test that failed, how many ran, and whether all cleaned up.

    A test that takes longer than its limit ends the process, by SIGALRM.
    """

    def __init__(self, limits: dict[str, float]) -> None:
        self._limits = limits
        self.failed = ""
        self.ran = 0
        self.is_clean = True

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the order that was asked for; pytest-django puts those without a database last."""
        asked = {name: number for number, name in enumerate(self._limits)}
        items.sort(key=lambda item: asked.get(item.nodeid, len(asked)))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._limits.get(nodeid, LONGEST_S))

    def pytest_sessionfinish(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, LONGEST_S)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran += report.when == "call"
        if report.failed:
            self.failed = self.failed or report.nodeid
            self.is_clean = self.is_clean and report.when == "call"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed = self.failed or report.nodeid


class Reach:
    """A plugin: which lines of our code each test reaches, and how long it takes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        sources = [str(root / each) for each in SCOPE]
        self._coverage = coverage.Coverage(data_file=None, source=sources, config_file=False)
        self._seconds: dict[str, float] = {}
        self._failed: dict[str, str] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._coverage.switch_context(item.nodeid)
        yield

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self._failed[report.nodeid] = str(report.longrepr)[-2000:]

    def found(self) -> dict[str, Any]:
        """Return seconds and failures by test, and for each file the tests of each line."""
        data = self._coverage.get_data()
        lines = {
            str(Path(file).relative_to(self._root)): {
                str(line): [each for each in contexts if 0 < len(each) <= LONGEST_NAME]
                for line, contexts in data.contexts_by_lineno(file).items()
            }
            for file in data.measured_files()
        }
        seconds = {each: s for each, s in self._seconds.items() if len(each) <= LONGEST_NAME}
        return {"seconds_of": seconds, "failed": self._failed, "lines": lines}
