"""What a start of `./run` makes, and what it leaves to whoever has decided otherwise."""

from __future__ import annotations

import pytest

from airi_server.launch import demo
from airi_server.launch.upstreams import LaunchUpstream
from airi_server.runtime import options as operator_options
from llmrouter.configuration import publishing, tree
from llmrouter.configuration.models import RouterRevision
from llmrouter.configuration.options import DEFAULT_CHAT_MODEL
from tests.factories.llmrouter import NOON, chat_model, chat_tree, published, upstream

pytestmark = pytest.mark.django_db
ECHO = LaunchUpstream("http://127.0.0.1:9/v1", "demo-echo", "sk-local-1", "echoes")
REAL = LaunchUpstream("https://provider.example/v1", "real", "sk-real-1", "a provider")


def test_a_first_start_routes_the_model_and_makes_it_the_default() -> None:
    assert demo.routed() is None
    assert demo.route(ECHO, at=NOON)

    assert demo.routed() == {ECHO.base_url}
    assert DEFAULT_CHAT_MODEL.read() == "chat-default"
    assert demo.target().model == "chat-default"
    assert demo.target().base_url == ECHO.base_url


def test_its_own_route_goes_to_another_upstream_that_was_asked_for() -> None:
    demo.route(ECHO, at=NOON)
    operator_options.put("DEFAULT_CHAT_MODEL", "mine", by="operator", at=NOON)

    assert demo.route(REAL, at=NOON)
    assert demo.route(REAL, at=NOON)

    assert demo.routed() == {REAL.base_url}
    assert RouterRevision.objects.count() == 2
    assert DEFAULT_CHAT_MODEL.read() == "mine"


def test_routes_that_somebody_else_published_stay() -> None:
    demo.route(ECHO, at=NOON)
    operators = chat_tree(**{"chat-default": chat_model(upstream())})
    published(operators)

    assert not demo.route(REAL, at=NOON)
    assert publishing.current_tree() == operators


def test_no_route_at_all_is_a_decision_too() -> None:
    demo.route(ECHO, at=NOON)
    published(tree.Tree())

    assert demo.routed() == set()
    assert not demo.route(ECHO, at=NOON)
    assert demo.target() == demo.FirstTarget(
        "auto", "", "none: no model is routed, or none is the default"
    )


def test_a_request_to_paste_names_what_there_is() -> None:
    published(chat_tree("mine"))
    operator_options.put("DEFAULT_CHAT_MODEL", "mine", by="operator", at=NOON)

    target = demo.target()

    assert target.model == "mine"
    assert target.description.startswith(f"mine is routed to {target.base_url} (")
