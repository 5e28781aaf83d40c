"""One tiny request to one upstream with one key: does it answer, and if not, why not.

It goes out as real traffic does, by the same client. Nothing the upstream says is kept: it has
seen the key, and could say it back in any spelling.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django.db import transaction

from airi_server.kernel import sealing
from airi_server.kernel.errors import InvalidRequest
from llmrouter.completions import usage
from llmrouter.configuration import routes, rows, tree
from llmrouter.configuration.routes import Key, Route, Upstream
from llmrouter.models import RouterKey, RouterUpstream
from llmrouter.routing import failures
from llmrouter.routing import upstream as upstream_client
from llmrouter.routing.failures import AttemptFailed
from llmrouter.routing.responses import Disconnected

PERMISSION: Final = "llmrouter.probe_upstream"
TIMEOUT_S: Final = 15.0
MAX_TOKENS: Final = 16
"""Some providers refuse to be asked for fewer."""
MAX_ANSWER_BYTES: Final = 65_536
OK: Final = "ok"
REFUSED, UNKNOWN_HOST, TLS, DISCONNECTED = "refused", "unknown_host", "tls", "disconnected"
SENTENCES: Final[dict[str, str]] = {
    failures.TIMEOUT: f"No answer within {TIMEOUT_S:.0f} s.",
    failures.CONNECT: "No connection could be made.",
    failures.BAD_ANSWER: "Something answered, but not with a chat completion: is the base URL "
    "right?",
    failures.DECRYPT: "The key does not open with the master key of this server.",
    REFUSED: "The connection was refused: nobody listens at that address.",
    UNKNOWN_HOST: "The host name of the base URL is not known.",
    TLS: "TLS failed: the certificate is not valid for this host, or the server speaks no TLS.",
    DISCONNECTED: "The connection was closed without an answer.",
    "400": "The provider refuses the request itself (400): check its name for the model, and "
    "which field it takes the output limit in.",
    "401": "The provider does not accept the key (401).",
    "402": "The provider wants to be paid first (402).",
    "403": "The provider accepts the key but refuses the request (403).",
    "404": "The provider does not know the address or the model (404): check the base URL and "
    "the upstream's name for the model.",
    "422": "The provider refuses the request itself (422): check its name for the model.",
    "429": "The provider says we have asked too often, or have nothing left to spend (429).",
}
# A name with the day of its making behind it; nothing longer, nothing but digits.
_DATED: Final = re.compile(r"[-@:][0-9-]{1,10}")


class NotTestable(InvalidRequest):
    """There is nothing here that one chat request could test."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: one key of one upstream of one route, as the hot path would use it."""

    route: Route
    upstream: Upstream
    key: Key


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it, in our words. `outcome` is `ok`, a status in digits, or one of our words.

    `answered_as` is the model name the answer carried, if it is the one that was asked for, with
    or without a date; empty otherwise.
    """

    outcome: str
    latency_ms: int
    reports_usage: bool = False
    answered_as: str = ""

    @property
    def is_ok(self) -> bool:
        return self.outcome == OK

    @property
    def sentence(self) -> str:
        if not self.is_ok:
            return f"{_fault(self.outcome)} After {self.latency_ms} ms."
        counts = "reports usage" if self.reports_usage else "does not report usage"
        name = self.answered_as or "another name than was asked for"
        return f"It works: answered in {self.latency_ms} ms, {counts}, as {name}."


def target_of(row: RouterUpstream, key_id: str | None) -> Target:
    """Compile what the rows say of one upstream; `key_id` None means its first enabled key.

    A disabled key can be tested before it is enabled. Call it in a transaction: what it changes
    to compile that is undone before it returns.

    Raises:
        NotTestable: It is no chat upstream, or there is no such key.
        InvalidTree: The rows do not make a configuration.
    """
    if row.model.surface != tree.LLM:
        raise NotTestable("Only chat upstreams can be tested, and this is a speech upstream.")
    with transaction.atomic():
        keys = RouterKey.objects.filter(upstream=row)
        if key_id is not None:
            keys.filter(key_id=key_id, disabled=True).update(disabled=False)
        rows.renumber()
        row.refresh_from_db()
        table = routes.compile(rows.read(), 0)
        transaction.set_rollback(True)
    route = table.llm[row.model.name]
    for upstream in route.upstreams:
        for key in upstream.keys:
            if upstream.position == row.position and key_id in (None, key.id):
                return Target(route, upstream, key)
    raise NotTestable("There is no key to test with: it was deleted, or every key is disabled.")


def probe(target: Target) -> Result:
    """Ask for a few tokens, and say what came of it. Takes at most `TIMEOUT_S`.

    Call it outside of transactions and locks. It changes nothing, not even who rests.
    """
    began = time.perf_counter()
    try:
        answer = asyncio.run(_asked(target))
        outcome = OK if _is_completion(answer) else failures.BAD_ANSWER
    except AttemptFailed as failed:
        answer, outcome = {}, _outcome(failed)
    latency_ms = round((time.perf_counter() - began) * 1000)
    if outcome != OK:
        return Result(outcome, latency_ms)
    has_usage = usage.reported(answer.get("usage")) is not None
    return Result(OK, latency_ms, has_usage, _named(answer.get("model"), target.upstream.model))


async def _asked(target: Target) -> Any:
    """Return the JSON of the answer, None if it is none."""
    body = orjson.dumps(
        {
            "model": target.upstream.model,
            "messages": [{"role": "user", "content": "ping"}],
            target.route.max_tokens_field: min(MAX_TOKENS, target.route.max_output_tokens),
        }
    )
    try:
        # The client's own limits are for each step; a server that drips would outlast them.
        async with asyncio.timeout(TIMEOUT_S):
            return _decoded(await _sent(target, body))
    except TimeoutError as late:
        raise AttemptFailed(failures.TIMEOUT) from late
    except ValueError as unusable:
        raise AttemptFailed(failures.CONNECT) from unusable
    finally:
        await upstream_client.close()


async def _sent(target: Target, body: bytes) -> bytes:
    response = await upstream_client.post(
        target.upstream.url,
        authorization=_authorization(target),
        body=body,
        first_byte_s=TIMEOUT_S,
        idle_s=TIMEOUT_S,
        is_stream=False,
    )
    if response.status != 200:
        response.close()
        raise AttemptFailed(str(response.status), status=response.status)
    return await upstream_client.read(response, at_most=MAX_ANSWER_BYTES)


def _authorization(target: Target) -> str:
    key = target.key
    try:
        secret = sealing.open_sealed(
            key.sealed, purpose=sealing.PROVIDER_KEY, owner=key.context_model, name=key.id
        )
    except sealing.CannotOpen:
        raise AttemptFailed(failures.DECRYPT) from None
    header = target.upstream.header_template.replace("{KEY}", secret.decode(), 1)
    secret[:] = bytes(len(secret))
    return header


def _decoded(body: bytes) -> Any:
    try:
        return usage.decode(body)
    except ValueError:
        return None


def _is_completion(answer: Any) -> bool:
    """Return whether this is an answer, and not a web page or an error inside a 200."""
    if not isinstance(answer, dict) or answer.get("error"):
        return False
    choices = answer.get("choices")
    return isinstance(choices, list) and bool(choices) and isinstance(choices[0], dict)


def _outcome(failed: AttemptFailed) -> str:
    """Say more precisely what the client calls no connection."""
    if failed.reason != failures.CONNECT:
        return failed.reason
    match failed.__cause__:
        case ssl.SSLError():
            return TLS
        case socket.gaierror():
            return UNKNOWN_HOST
        case ConnectionRefusedError():
            return REFUSED
        case Disconnected():
            return DISCONNECTED
    return failures.CONNECT


def _fault(outcome: str) -> str:
    if outcome in SENTENCES:
        return SENTENCES[outcome]
    if outcome.startswith("3"):
        return f"The provider sends us elsewhere ({outcome}): enter the address it leads to."
    if outcome.startswith("5"):
        return f"The provider is in trouble ({outcome})."
    return f"The provider answered with status {outcome}."


def _named(echoed: Any, asked: str) -> str:
    """Return the name in the answer, unless it could be anything else than ours and a date."""
    if not isinstance(echoed, str) or not echoed.startswith(asked):
        return ""
    rest = echoed[len(asked) :]
    return echoed if not rest or _DATED.fullmatch(rest) else ""
