"""`in_thread`: the one bridge from async code to synchronous domain code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """Return an awaitable twin of `function` that runs in the default thread pool.

    The thread borrows a database connection for the one call and gives it back. Not
    thread-sensitive, because sockets and streams have no thread of their own and would
    otherwise queue the whole process behind a single one.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    return sync_to_async(call, thread_sensitive=False)
