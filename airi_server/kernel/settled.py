"""What is made of Django's settings, once: the hot path reads six of them for each request.

To read one from `settings` is a call into Django's lazy object, which looks whether it stands in
for another. A test that changes one says so, by Django's signal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.core.signals import setting_changed

T = TypeVar("T")


class Settled(Generic[T]):
    """Call it for the value of `make()`, which is made when it is first asked for."""

    __slots__ = ("__weakref__", "_kept", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._kept: T | None = None
        setting_changed.connect(self._forget)

    def __call__(self) -> T:
        if self._kept is None:
            self._kept = self._make()
        return self._kept

    def _forget(self, **_what: Any) -> None:
        self._kept = None
