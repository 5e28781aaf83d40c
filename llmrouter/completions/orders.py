"""What the client asked for: the few fields we read, their bounds, and the body sent upstream.

Everything else in the body is the client's business and is forwarded as it is, but for what
would choose another route or price at a provider that routes itself: that is the operator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from airi_server.kernel.errors import InvalidRequest
from billing.pricing import Hold, Price, affordable_tokens, hold_for
from llmrouter.configuration.routes import Route
from llmrouter.routing.planning import Attempt

MAX_CHOICES: Final = 128
MAX_MODEL_LENGTH: Final = 200
MAX_DEPTH: Final = 200
"""orjson reads deeper JSON than it writes; with fewer brackets than this nothing is too deep."""
MAX_VALUES: Final = 1_000_000
"""JSON of nothing but empty lists costs a hundred times its bytes to read."""
LENGTHS: Final = ("max_tokens", "max_completion_tokens")
OURS: Final = frozenset({"model", "messages", "n", "stream", "stream_options", *LENGTHS})
"""Fields that decide route, price and length; some servers read names without regard to case."""
OPERATORS: Final = frozenset(
    {
        "models", "route", "provider", "plugins", "preset", "transforms", "fallbacks",
        "api_base", "base_url", "api_key", "api_version", "service_tier", "best_of",
        "max_output_tokens", "max_new_tokens", "num_predict",
    }
)  # fmt: skip
"""What routing providers and gateways take from a body to choose a model, a key or a price."""
MEDIA_TOKENS: Final = 1_500
"""What an image, or a megabyte and a half of sound, is reckoned with."""
MEDIA_BYTES: Final = 1_500_000


class InvalidBody(InvalidRequest):
    """The body is not a JSON object with the fields we read in their shapes."""

    code = "INVALID_BODY"


@dataclass(slots=True)
class Order:
    """One parsed request. `asked_tokens` None: the client left the length to the model.

    `prompt_estimate` is what the prompt probably is and `prompt_bound` what it hardly exceeds,
    in tokens.
    """

    body: dict[str, Any]
    model: str | None
    stream: bool
    wants_usage: bool
    asked_tokens: int | None
    choices: int
    prompt_estimate: int
    prompt_bound: int

    def max_tokens(self, route: Route) -> int:
        """Return the longest answer this request may have, for each of its choices."""
        if self.asked_tokens is None:
            return route.default_output_tokens
        return min(self.asked_tokens, route.max_output_tokens)

    def hold(self, price: Price, route: Route) -> Hold:
        return hold_for(
            price,
            prompt_estimate=self.prompt_estimate,
            prompt_bound=self.prompt_bound,
            max_tokens=self.max_tokens(route) * self.choices,
        )

    def fit(self, price: Price, route: Route, hold: int) -> int:
        """Return the answer length, for each choice, that the hold pays for."""
        most = self.max_tokens(route)
        tokens = affordable_tokens(
            price, hold=hold, prompt=self.prompt_estimate, max_tokens=most * self.choices
        )
        return max(1, min(most, tokens // self.choices))

    def body_for(self, attempt: Attempt, max_tokens: int) -> bytes:
        """Return the bytes to send: model, length and usage are ours, the rest is the client's."""
        body = self.body
        body["model"] = attempt.upstream.model
        newer = "max_completion_tokens" in body
        for name in LENGTHS:  # one bound only: an upstream might follow the other one
            body.pop(name, None)
        body["max_completion_tokens" if newer else attempt.route.max_tokens_field] = max_tokens
        if self.stream:
            body["stream"] = True
            options = body.get("stream_options")
            wanted = options if isinstance(options, dict) else {}
            body["stream_options"] = {**wanted, "include_usage": True}
        return orjson.dumps(body)


def parse(raw: bytes) -> Order:
    """Read a chat body.

    Raises:
        InvalidBody: Not JSON, not an object, or a field we read has the wrong shape.
    """
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > max(MAX_VALUES, len(raw) // 8):
        raise InvalidBody("The body has too many values.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise InvalidBody("The body must be JSON.") from malformed
    if not isinstance(body, dict):
        raise InvalidBody("The body must be a JSON object.")
    _refuse_too_deep(raw, body)
    _drop_what_routes(body)
    options = body.get("stream_options")
    size, media = _prompt_size(raw, body)
    return Order(
        body=body,
        model=_model(body.get("model")),
        stream=bool(body.get("stream")),
        wants_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        asked_tokens=_asked_tokens(body),
        choices=_count(body, "n", most=MAX_CHOICES) or 1,
        prompt_estimate=size // 4 + media * MEDIA_TOKENS,
        prompt_bound=size // 2 + media * MEDIA_TOKENS,
    )


def _drop_what_routes(body: dict[str, Any]) -> None:
    for name in list(body):
        plain = name.casefold()
        if plain in OPERATORS or (plain in OURS and name != plain):
            del body[name]


def _refuse_too_deep(raw: bytes, body: dict[str, Any]) -> None:
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    try:
        orjson.dumps(body)
    except orjson.JSONEncodeError as too_deep:
        raise InvalidBody("The body is nested too deeply.") from too_deep


def _model(value: Any) -> str | None:
    if not value or value == "auto":
        return None
    if not isinstance(value, str) or len(value) > MAX_MODEL_LENGTH or "\0" in value:
        raise InvalidBody("model must be a string of at most 200 characters.", param="model")
    return value


def _asked_tokens(body: dict[str, Any]) -> int | None:
    older, newer = (_count(body, name, most=2**31) for name in LENGTHS)
    return older if newer is None else newer


def _count(body: dict[str, Any], name: str, *, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidBody(f"{name} must be a whole number from 1 to {most}.", param=name)
    return value


def _prompt_size(raw: bytes, body: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes of text in the request and how many media are inlined in it.

    A file counts by its bytes: it may be all text.
    """
    if b'"image_url"' not in raw and b'"input_audio"' not in raw:
        return len(raw), 0
    media = 0
    inlined = 0
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("image_url", "input_audio"):
                medium = len(orjson.dumps(part.get(kind)))
                media += max(1, medium // MEDIA_BYTES) if kind == "input_audio" else 1
                inlined += medium
    return max(0, len(raw) - inlined), media
