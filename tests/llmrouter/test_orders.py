"""What is read from a body, what is held for it, and what is sent upstream in its place."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from billing.pricing import Price
from llmrouter.completions import chat_request
from llmrouter.completions.chat_request import InvalidBody
from llmrouter.configuration import routes
from llmrouter.gateway.estimates import PromptSize
from llmrouter.routing.planning import Attempt
from tests.factories import gateway
from tests.factories import llmrouter as routers
from tests.fakes.upstream import answer, completion, stream, usage

PATH = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
PRICE = Price(1, 1_000_000, 1_000_000, 1_000_000, flat=5, minimum=1)


def parse(**fields):
    return chat_request.parse(orjson.dumps({"messages": MESSAGES, **fields}))


class TestParse:
    @pytest.mark.parametrize(
        "raw",
        [
            b"", b"{", b"[]", b"null", b"7", b'"x"', b"{'a': 1}", b'{"a":NaN}', b'{"a":1e400}',
            b'{"a":Infinity}', b'\xff\xfe{"a":1}', b'{"a":"\xff"}', b'{"a":"\\ud800"}',
            b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
            b'{"a":' + b'{"b":' * 300 + b"1" + b"}" * 300 + b"}",
            b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        ],
    )  # fmt: skip
    def test_refuses_what_is_no_json_object(self, raw):
        with pytest.raises(InvalidBody):
            chat_request.parse(raw)

    def test_many_brackets_side_by_side_are_not_deep(self):
        assert (
            chat_request.parse(orjson.dumps({"messages": MESSAGES * 1_000})).prompt.estimate > 5_000
        )

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, True, "7", [], {}, 2**40])
    def test_refuses_counts_that_are_none(self, name, value):
        with pytest.raises(InvalidBody) as refused:
            parse(**{name: value})
        assert refused.value.param == name

    def test_refuses_the_older_count_also_beside_the_newer(self):
        with pytest.raises(InvalidBody):
            parse(max_completion_tokens=5, max_tokens="lots")

    @pytest.mark.parametrize("model", [7, ["a"], {"a": 1}, True, "x" * 201, "a\0b"])
    def test_refuses_models_that_are_no_names(self, model):
        with pytest.raises(InvalidBody):
            parse(model=model)

    @pytest.mark.parametrize("model", [None, "", 0, False, "auto"])
    def test_no_model_means_auto(self, model):
        """Case 9."""
        assert parse(model=model).model is None
        assert parse().model is None

    @pytest.mark.parametrize(
        ("options", "wanted"),
        [
            ({"include_usage": True}, True),
            ({"include_usage": False}, False),
            ({}, False),
            (None, False),
            ("yes", False),
            ([1], False),
        ],
    )
    def test_reads_whether_usage_is_wanted(self, options, wanted):
        assert parse(stream=True, stream_options=options).wants_usage is wanted

    @pytest.mark.parametrize("empty", [b"{}", b"[]"])
    def test_refuses_more_values_than_are_read_in_no_time(self, empty):
        """Of these each costs a bracket and a comma; half as many of either would be allowed."""
        raw = b'{"messages":[' + b",".join([empty] * (chat_request.MAX_VALUES // 2 + 1)) + b"]}"

        with pytest.raises(InvalidBody, match="too many values"):
            chat_request.parse(raw)

    @pytest.mark.parametrize(
        ("field", "value"), [("model", 7), ("n", 0), ("max_tokens", "1"), ("max_tokens", -1)]
    )
    def test_names_the_field_it_refuses(self, field, value):
        with pytest.raises(InvalidBody) as refused:
            parse(**{field: value})

        assert refused.value.param == field

    @pytest.mark.parametrize(
        "messages", [None, "text", 7, {}, [None], [7], ["image_url"], [{"content": 7}],
                     [{"content": [None, 7, "file", {"type": "file"}]}]]
    )  # fmt: skip
    def test_messages_are_the_clients_business(self, messages):
        assert (
            chat_request.parse(orjson.dumps({"messages": messages, "x": "file", "file": 1})).choices
            == 1
        )


class TestHold:
    def test_is_the_flat_price_at_least(self):
        route = route_of(max_output_tokens=100)
        hold = parse(max_tokens=10).hold(PRICE, route)

        assert (hold.floor, hold.wanted) == (5, 5)

    def test_covers_every_choice(self):
        route = route_of()
        hold = parse(max_tokens=1000, n=8).hold(PRICE, route)

        assert hold.floor == 5
        assert hold.wanted == 9

    def test_takes_the_models_default_and_cap(self):
        route = route_of(max_output_tokens=2_000, default_output_tokens=500)

        assert parse().max_tokens(route) == 500
        assert parse(max_tokens=9_999).max_tokens(route) == 2_000
        assert parse(max_completion_tokens=7, max_tokens=9).max_tokens(route) == 7

    @pytest.mark.parametrize(("hold", "fits"), [(5, 1_000), (2, 967), (1, 467), (50, 1_000)])
    def test_fits_the_answer_to_what_is_held(self, hold, fits):
        order = parse(max_tokens=1000, n=2)
        order.prompt = PromptSize(4 * 66)

        assert order.fit(PRICE, route_of(), hold) == fits

    def test_fits_one_token_at_least_to_each_of_many_choices(self):
        """What is held pays for a short answer, of which 32 choices each get less than a token."""
        assert parse(max_tokens=1000, n=32).fit(PRICE, route_of(), hold=0) == 1


def route_of(**fields):
    table = routes.compile(routers.chat_tree(m=routers.chat_model(name="m", **fields)), 1)
    return table.llm["m"]


class TestBody:
    @pytest.mark.parametrize(
        ("field", "asked", "sent"),
        [
            ("max_tokens", {}, {"max_tokens": 500}),
            ("max_tokens", {"max_tokens": 70}, {"max_tokens": 70}),
            ("max_tokens", {"max_tokens": 10**9}, {"max_tokens": 2000}),
            ("max_tokens", {"max_tokens": None}, {"max_tokens": 500}),
            ("max_tokens", {"max_completion_tokens": 70}, {"max_tokens": 70}),
            ("max_tokens", {"n_predict": 70, "max_new_tokens": 90}, {"max_tokens": 70}),
            ("max_tokens", {"max_tokens": 80, "num_predict": 70}, {"max_tokens": 80}),
            ("max_tokens", {"max_output_tokens": "70"}, {"max_tokens": 500}),
            ("max_completion_tokens", {}, {"max_completion_tokens": 500}),
            ("max_completion_tokens", {"max_tokens": 10**9}, {"max_completion_tokens": 2000}),
            (
                "max_tokens",
                {"max_tokens": 10**9, "max_completion_tokens": 70},
                {"max_tokens": 70},
            ),
        ],
    )
    def test_one_bound_goes_along(self, field, asked, sent):
        route = route_of(max_tokens_field=field, max_output_tokens=2_000, default_output_tokens=500)
        order = parse(**asked)
        upstream = route.upstreams[0]
        attempt = Attempt(1, route, upstream, upstream.keys[0], 0, 0)
        tokens = order.fit(PRICE, route, hold=100)
        for _ in range(2):  # a second attempt sends the same
            body = orjson.loads(order.body_for(attempt, tokens))
            assert {k: v for k, v in body.items() if k.startswith("max_")} == sent


@pytest.mark.asyncio
class TestSentUpstream:
    async def test_everything_else_is_forwarded_as_it_came(self, served, upstream):
        """Cases 7, 8, 9, 19 and 63: the model is resolved, no header of the client's goes along."""
        caller = await gateway.caller()
        await gateway.route(upstream.base_url, name="anthropic/x")
        extra = {
            "temperature": 0.5,
            "tools": [{"type": "function"}],
            "documents": [{"a": [1, None]}],
        }
        headers = {"x-foo": "bar", "Cookie": "a=b", "User-Agent": "client", "Accept": "text/html"}

        for model in ({"model": "auto"}, {"model": "anthropic/x"}, {}):
            body = {**model, "messages": MESSAGES, **extra}
            assert (await served.post(PATH, body, caller.key, **headers)).status == 200

        for seen in upstream.seen:
            assert seen.path == "/v1/chat/completions"
            assert seen.body == {
                "messages": MESSAGES, **extra, "model": "upstream-model", "max_tokens": 4096,
            }  # fmt: skip
            names = {name.lower() for name in seen.headers}
            assert names == {"host", "authorization", "content-type", "accept-encoding",
                             "content-length", "x-airi-hops"}  # fmt: skip
            assert seen.headers["authorization"] == f"Bearer {routers.SECRET}"
        assert {row.model for row in await gateway.requests()} == {"anthropic/x"}

    async def test_an_upstream_without_override_gets_the_alias(self, served, upstream):
        """Case 63."""
        caller = await gateway.caller()
        plain = routers.upstream(base_url=upstream.base_url + "/", header_template="Key {KEY}")
        models: dict[str, Any] = {"chat-default": routers.chat_model(plain)}
        await gateway.publish_tree(**models)

        await served.post(PATH, {"model": "auto", "messages": MESSAGES}, caller.key)

        (seen,) = upstream.seen
        assert (seen.path, seen.body["model"]) == ("/v1/chat/completions", "chat-default")
        assert seen.headers["authorization"] == f"Key {routers.SECRET}"

    async def test_the_answer_is_no_longer_than_the_balance_affords(self, served, upstream):
        caller = await gateway.caller(flux=6)
        await gateway.route(upstream.base_url)
        upstream.script(answer(completion(use=usage(20, 5_950))))
        body = {"messages": MESSAGES, "max_tokens": 16_000}

        response = await served.post(PATH, body, caller.key)

        sent = upstream.seen[0].body["max_tokens"]
        assert 5_900 < sent < 6_000
        assert (response.status, response.headers["x-airi-flux-charged"]) == (200, "6")
        (row,) = await gateway.requests()
        assert (row.hold, row.unbilled) == (6, 0)

    async def test_choices_share_what_the_balance_affords(self, served, upstream):
        caller = await gateway.caller(flux=6)
        await gateway.route(upstream.base_url)

        await served.post(PATH, {"messages": MESSAGES, "max_tokens": 16_000, "n": 4}, caller.key)

        assert 4 * upstream.seen[0].body["max_tokens"] < 6_000
        assert upstream.seen[0].body["n"] == 4

    async def test_streams_ask_for_usage_and_keep_the_clients_other_options(self, served, upstream):
        caller = await gateway.caller()
        await gateway.route(upstream.base_url)
        upstream.script(stream())
        for options in ({}, {"stream_options": {"x": 1, "include_usage": False}},
                        {"stream_options": "yes"}):  # fmt: skip
            await served.post(PATH, {"messages": MESSAGES, "stream": True, **options}, caller.key)

        assert [seen.body["stream_options"] for seen in upstream.seen] == [
            {"include_usage": True}, {"x": 1, "include_usage": True}, {"include_usage": True},
        ]  # fmt: skip
        assert all(seen.body["stream"] is True for seen in upstream.seen)
