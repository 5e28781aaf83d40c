"""Chat request: the fields we read, their bounds, and the body that is sent upstream.

What else is passed on is decided by an allow-list (`fields`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import orjson

from airi_server.kernel import validation
from airi_server.kernel.errors import InvalidRequest
from billing.pricing import Hold, Price, affordable_tokens, hold_for
from llmrouter.completions import fields
from llmrouter.configuration.routes import Route
from llmrouter.gateway import estimates
from llmrouter.gateway.estimates import PromptSize
from llmrouter.gateway.usage import Asked
from llmrouter.routing.planning import Attempt
from llmrouter.routing.repairs import AS_USUAL, Repair

MAX_CHOICES: Final = 128
MAX_MODEL_LENGTH: Final = 200
MAX_DEPTH: Final = 200
"""orjson reads deeper JSON than it writes; with fewer brackets than this nothing is too deep."""
MAX_VALUES: Final = 1_000_000
"""JSON of nothing but empty lists costs a hundred times its bytes to read."""
OTHER_LENGTHS: Final = frozenset(fields.LENGTHS)
AUTO: Final = "auto"
"""What a client says for the operator's default, or by saying nothing."""


class InvalidBody(InvalidRequest):
    """The body is not a JSON object with the fields we read in their shapes."""

    code = "INVALID_BODY"


@dataclass(slots=True)
class ChatRequest:
    """One parsed request. `asked_tokens` None: the client left the length to the model.

    `body` is the client's; `passed` what of it goes to an upstream that allows nothing beyond the
    list, and `dropped` the names that do not.
    """

    body: dict[str, Any]
    model: str | None
    stream: bool
    wants_usage: bool
    asked_tokens: int | None
    choices: int
    prompt: PromptSize
    passed: dict[str, Any] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()

    def max_tokens(self, route: Route) -> int:
        """Return the longest answer this request may have, for each of its choices."""
        if self.asked_tokens is None:
            return route.default_output_tokens
        return min(self.asked_tokens, route.max_output_tokens)

    def hold(self, price: Price, route: Route) -> Hold:
        return hold_for(
            price,
            prompt_estimate=self.prompt.estimate,
            prompt_bound=self.prompt.bound,
            max_tokens=self.max_tokens(route) * self.choices,
        )

    def fit(self, price: Price, route: Route, hold: int) -> int:
        """Return the answer length, for each choice, that the hold pays for."""
        most = self.max_tokens(route)
        tokens = affordable_tokens(
            price, hold=hold, prompt=self.prompt.estimate, max_tokens=most * self.choices
        )
        return max(1, min(most, tokens // self.choices))

    def asked(self, max_tokens: int) -> Asked:
        """Return what a usage report is held against; `max_tokens` was sent for each choice."""
        return Asked(self.prompt.estimate, self.prompt.plausible, max_tokens * self.choices)

    def fingerprint(self) -> str:
        """Return a name of what is asked: the same prompt has the same one."""
        return blake2b(orjson.dumps(self.body.get("messages")), digest_size=8).hexdigest()

    def left_out(self, attempt: Attempt) -> tuple[str, ...]:
        """Return the names of the client's fields that this attempt goes without."""
        allowed = attempt.upstream.allow
        return fields.select(self.body, allowed)[1] if allowed else self.dropped

    def body_for(self, attempt: Attempt, max_tokens: int, repair: Repair = AS_USUAL) -> bytes:
        """Return the bytes to send: model, length and usage are ours, the rest is the client's."""
        upstream = attempt.upstream
        body = fields.select(self.body, upstream.allow)[0] if upstream.allow else {**self.passed}
        body["model"] = upstream.model
        if "max_tokens" not in upstream.omit:
            # One bound only: an upstream might follow the other one.
            body[repair.length_field or attempt.route.max_tokens_field] = max_tokens
        if self.stream:
            body["stream"] = True
            if not (repair.without_usage or "stream_options" in upstream.omit):
                options = self.body.get("stream_options")
                wanted = options if isinstance(options, dict) else {}
                body["stream_options"] = {**wanted, "include_usage": True}
        return orjson.dumps(body)


def parse(raw: bytes) -> ChatRequest:
    """Read a chat body.

    Raises:
        InvalidBody: Not JSON, not an object, or a field we read has the wrong shape.
    """
    body = _decoded(raw)
    options = body.get("stream_options")
    passed, dropped = fields.select(body)
    return ChatRequest(
        body=body,
        model=_model(body.get("model")),
        stream=bool(body.get("stream")),
        wants_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        asked_tokens=_asked_tokens(body),
        choices=_count(body, "n", most=MAX_CHOICES) or 1,
        prompt=estimates.of_prompt(raw, body),
        passed=passed,
        dropped=dropped,
    )


def _decoded(raw: bytes) -> dict[str, Any]:
    brackets = raw.count(b"[") + raw.count(b"{")
    if len(raw) > MAX_VALUES and raw.count(b",") + brackets > max(MAX_VALUES, len(raw) // 8):
        raise InvalidBody("The body has too many values.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as malformed:
        raise InvalidBody(validation.malformed_json(malformed, raw)) from malformed
    if not isinstance(body, dict):
        raise InvalidBody("The body must be a JSON object.")
    if brackets > MAX_DEPTH:
        _refuse_too_deep(body)
    return body


def _refuse_too_deep(body: dict[str, Any]) -> None:
    try:
        orjson.dumps(body)
    except orjson.JSONEncodeError as too_deep:
        raise InvalidBody("The body is nested too deeply.") from too_deep


def _model(value: Any) -> str | None:
    if not value or value == AUTO:
        return None
    if not isinstance(value, str) or len(value) > MAX_MODEL_LENGTH or "\0" in value:
        raise InvalidBody("model must be a string of at most 200 characters.", param="model")
    return value


def _asked_tokens(body: dict[str, Any]) -> int | None:
    older = _count(body, "max_tokens", most=2**31)
    newer = _count(body, "max_completion_tokens", most=2**31)
    asked = older if newer is None else newer
    if asked is not None or OTHER_LENGTHS.isdisjoint(body):
        return asked
    others = [body[name] for name in fields.LENGTHS if type(body.get(name)) is int]
    return min((length for length in others if 1 <= length <= 2**31), default=None)


def _count(body: dict[str, Any], name: str, *, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidBody(f"{name} must be a whole number from 1 to {most}.", param=name)
    return value
