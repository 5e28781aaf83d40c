"""A bug in a view is one traceback in the log, under the id that its caller was given.

The crash is planted in every endpoint of the URLconf. The log is what our own settings write.
"""

from __future__ import annotations

import orjson
import pytest
from django.urls import get_resolver

from airi_server.kernel.threads import in_thread
from llmrouter.completions import operation as gateway
from tests.airi_server.endpoints import EXAMPLES, NOBODY, operations, routes
from tests.console import rows

pytestmark = pytest.mark.asyncio
OPERATOR = "operator@example.com"
OPERATIONS = {
    f"{method} {route}": operation
    for route, pattern in routes(get_resolver().url_patterns, "/")
    for operation in operations(pattern)
    for method in operation.methods
}


class Planted(Exception):
    """What the views of these tests raise."""


@pytest.fixture
def crashing(monkeypatch):
    """Every operation crashes where its own code would begin, and so does the fast path."""

    def crash(*_args, **_arguments):
        raise Planted("a canary")

    async def crash_later(*_args, **_arguments):
        crash()

    for operation in OPERATIONS.values():
        monkeypatch.setattr(operation, "view_func", crash_later if operation.is_async else crash)
    monkeypatch.setattr(gateway, "chat", crash_later)


async def test_each_is_logged_once_and_tells_its_caller_nothing(crashing, served, settings, log):
    settings.ADMIN_EMAILS = [OPERATOR]
    _, key = await in_thread(rows.api_key_of)(OPERATOR)

    for name in OPERATIONS:
        example = EXAMPLES[name]
        method, path = name.split(" ")[0], example.path.replace("{x}", NOBODY)
        answer = await served.send(method, path, key=key, json=example.body)
        lines = await log.whole(answer.headers["x-request-id"])

        said = [line for line in lines if "exception" in line]
        assert (answer.status, len(said)) == (500, 1), (name, answer, lines)
        assert (said[0]["level"], said[0]["path"]) == ("error", path)
        assert ", in crash\n" in said[0]["exception"]
        assert said[0]["exception"].endswith("Planted: a canary\n")
        assert "canary" not in answer.body.decode()
        error = orjson.loads(answer.body)["error"]
        assert "INTERNAL_SERVER_ERROR" in (error, *(error.values() if type(error) is dict else ()))
    assert len(OPERATIONS) > 30
