"""Chromium and what drives it, where they are installed; and what went wrong on its pages."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self

from airi_server.launch import tests

DRIVER: Final = "playwright"
IS_DRIVEN: Final = importlib.util.find_spec(DRIVER) is not None

if TYPE_CHECKING or IS_DRIVEN:
    from playwright.sync_api import BrowserContext, Locator, Page, expect
else:  # every test is skipped then, but has to be importable
    BrowserContext = Locator = Page = expect = None

__all__ = ["BrowserContext", "Locator", "Page", "Watch", "expect", "launched", "missing"]

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
    "--force-color-profile=srgb",
)
MAX_WAIT_MS: Final = 5_000


def missing() -> str:
    """Say what keeps the browser tests from running here; nothing if they can."""
    if tests.chromium() is None:
        return "no Chromium on this machine: install one and run ./run test --browser"
    return "" if IS_DRIVEN else f"{DRIVER} is not installed: ./run test installs it"


def must_run() -> bool:
    """Return whether a test that cannot run is a failure: where nobody reads what was skipped."""
    return os.environ.get("CI") == "true" or os.environ.get("AIRI_BROWSER") == "required"


def launched(driver: Any) -> Any:
    return driver.chromium.launch(executable_path=tests.chromium(), args=list(FLAGS))


class Watch:
    """Collects what a person with the developer tools open would call broken.

    `allow` names the refusals that a test provokes; anything of 500 and more is never allowed.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.faults: list[str] = []
        self._allowed: set[int] = set()
        self._context = context
        self._events: dict[str, Callable[[Any], None]] = {
            "console": self._on_console,
            "weberror": lambda error: self.faults.append(f"script: {error.error}"),
            "requestfailed": self._on_failure,
            "response": self._on_response,
        }

    def __enter__(self) -> Self:
        for event, listener in self._events.items():
            self._context.on(event, listener)
        return self

    def __exit__(self, *_: object) -> None:
        for event, listener in self._events.items():
            self._context.remove_listener(event, listener)

    def allow(self, *statuses: int) -> None:
        self._allowed.update(statuses)

    def _on_console(self, message: Any) -> None:
        refused = re.search(r"responded with a status of (\d+)", message.text)
        if message.type == "error" and not (refused and int(refused[1]) in self._allowed):
            self.faults.append(f"console: {message.text} ({message.location.get('url')})")

    def _on_failure(self, request: Any) -> None:
        # Aborted is what the page or its reader gave up: leaving it, or a download.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request: {request.failure} {request.url}")

    def _on_response(self, response: Any) -> None:
        if response.status >= 500:
            self.faults.append(f"response: {response.status} {response.url}")
