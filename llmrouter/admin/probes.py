"""One tiny request to one upstream with one key: does it answer, and if not, why not.

Nothing the upstream says is kept: it has seen the key, and could say it back in any spelling.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any, Final

import orjson
from django.db import transaction

from airi_server.kernel import hops, outgoing, sealing
from airi_server.kernel.errors import InvalidRequest
from airi_server.kernel.outgoing import NoResponse
from llmrouter.completions import recognition
from llmrouter.configuration import (
    key_origins,
    origins,
    provider_keys,
    publishing,
    routes,
    rows,
    tree,
)
from llmrouter.configuration.models import RouterKey, RouterUpstream
from llmrouter.configuration.routes import Key, Route, Upstream
from llmrouter.gateway import usage
from llmrouter.routing import failures, health

PERMISSION: Final = "llmrouter.probe_upstream"
TIMEOUT_S: Final = 15.0
MAX_TOKENS: Final = 16
"""Some providers refuse to be asked for fewer."""
MAX_ANSWER_BYTES: Final = 65_536
OK: Final = "ok"
SENTENCES: Final[dict[str, str]] = {
    failures.TIMEOUT: f"No answer within {TIMEOUT_S:.0f} s.",
    failures.CONNECT: "No connection could be made.",
    failures.BAD_ANSWER: "Something answered, but not with a chat completion: is the base URL "
    "right?",
    failures.DECRYPT: "The key does not open with the master key of this server.",
    failures.ORIGIN: "The key was entered for another host, and was not sent.",
    outgoing.REFUSED: "The connection was refused: nobody listens at that address.",
    outgoing.UNKNOWN_HOST: "The host name of the base URL is not known.",
    outgoing.TLS: "TLS failed: the certificate is not valid for this host, or the server speaks "
    "no TLS.",
    outgoing.DISCONNECTED: "The connection was closed without an answer.",
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
class ProbeTarget:
    """What is asked: one key of one upstream of one route, as the hot path would use it."""

    route: Route
    upstream: Upstream
    key: Key


@dataclass(frozen=True, slots=True)
class ProbeResult:
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


def target_of(row: RouterUpstream, key_id: str | None) -> ProbeTarget:
    """Compile what the rows say of one upstream; `key_id` None means its first enabled key.

    A disabled key can be tested before it is enabled. Call it in a transaction: what it changes
    to compile that is undone before it returns.

    Raises:
        NotTestable: It is no chat upstream, there is no such key, or it was entered for another
            host than the one it would be sent to.
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
                _refuse_elsewhere(upstream, key)
                return ProbeTarget(route, upstream, key)
    raise NotTestable("There is no key to test with: it was deleted, or every key is disabled.")


def _refuse_elsewhere(upstream: Upstream, key: Key) -> None:
    """Refuse what publishing would refuse: the form may have another address than is in force."""
    in_force = publishing.current_tree()
    entered = key_origins.entered_for(key.context_model, key.sealed, in_force)
    if upstream.origin not in entered:
        raise NotTestable(key_origins.enter_again(entered))


def probe(target: ProbeTarget) -> ProbeResult:
    """Ask for a few tokens, and say what came of it. Takes at most `TIMEOUT_S`.

    Call it outside of transactions and locks. Whatever was held against key and upstream is
    forgotten if it works.
    """
    began = time.perf_counter()
    try:
        answer, outcome = _asked(target)
    except NoResponse as none:
        answer, outcome = {}, _outcome(none.reason)
    except sealing.WrongOrigin:
        answer, outcome = {}, failures.ORIGIN
    except sealing.CannotOpen:
        answer, outcome = {}, failures.DECRYPT
    latency_ms = round((time.perf_counter() - began) * 1000)
    if outcome != OK:
        return ProbeResult(outcome, latency_ms)
    health.wake(target.key.health_id, target.upstream.target_id)
    has_usage = _reported(answer).output is not None
    return ProbeResult(
        OK, latency_ms, has_usage, _named(answer.get("model"), target.upstream.model)
    )


def _asked(target: ProbeTarget) -> tuple[Any, str]:
    """Return the JSON of the answer, None if it is none, and what came of it."""
    try:
        answered = _sent(target)
    except ValueError as unusable:
        raise NoResponse(failures.CONNECT) from unusable
    if answered.status != 200:
        return None, str(answered.status)
    if answered.cut:
        return None, _outcome(answered.cut)
    answer = _decoded(answered.body)
    is_answer = recognition.is_answer(answer, _reported(answer))
    return answer, OK if is_answer else failures.BAD_ANSWER


def _sent(target: ProbeTarget) -> outgoing.OutgoingAnswer:
    url = outgoing.read_url(target.upstream.url)
    # The key is sealed for where the hot path connects to; this client reads URLs by itself.
    if origins.of(url) != target.upstream.origin:
        raise sealing.WrongOrigin
    body = {
        "model": target.upstream.model,
        "messages": [{"role": "user", "content": "ping"}],
        target.route.max_tokens_field: min(MAX_TOKENS, target.route.max_output_tokens),
    }
    return outgoing.ask(
        "POST",
        url,
        headers={
            "authorization": _authorization(target),
            "content-type": "application/json",
            hops.HEADER: hops.own(),
        },
        body=orjson.dumps(body),
        within_s=TIMEOUT_S,
        at_most=MAX_ANSWER_BYTES,
    )


def _authorization(target: ProbeTarget) -> str:
    key, upstream = target.key, target.upstream
    return provider_keys.authorization(
        key.sealed,
        model=key.context_model,
        key_id=key.id,
        origin=upstream.origin,
        template=upstream.header_template,
    )


def _outcome(reason: str) -> str:
    """Return what an operator reads for a word of the client's."""
    is_odd = reason in {outgoing.MALFORMED, outgoing.TOO_LONG}
    return failures.BAD_ANSWER if is_odd else reason


def _decoded(body: bytes) -> Any:
    try:
        return usage.decode(body)
    except ValueError:
        return None


def _reported(answer: Any) -> usage.TokenCounts:
    reports = usage.Reports()
    if isinstance(answer, dict):
        reports.add(answer)
    return reports.counts(has_text=False)


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
