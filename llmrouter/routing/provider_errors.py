"""Provider errors: read in every shape there is, cleaned, and sorted by whose fault they are. Pure.

`fault` decides whose fault a refusal is, by the provider's own words. `message_of` is the one
reader of foreign errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final

import orjson

from llmrouter.routing.failures import Blame, seconds_of

MAX_MESSAGE: Final = 500
MAX_DEPTH: Final = 5
PROXY_STATUSES: Final = frozenset({401, 403, 404, 413, 429})
"""Which a provider explains in JSON; without it a proxy on the way has spoken."""
CALLER_STATUSES: Final = frozenset({400, 404, 413, 414, 415, 422})
"""The request itself is refused: another upstream would refuse it too."""
DEAD_WORDS: Final = frozenset(
    {
        "invalid_api_key", "api_key_invalid", "authentication_error", "account_deactivated",
        "billing_not_active", "billing_hard_limit_reached", "insufficient_quota",
        "credit_balance_exhausted",
    }
)  # fmt: skip
"""In `code`, `type`, `status` or `reason`: the key is of no use to anybody."""
ABSENT_WORDS: Final = frozenset({"model_not_found", "deploymentnotfound", "invalid_model"})
_DEAD: Final = re.compile(
    r"(?i)(?:in|not )(?:correct|valid)\s+api.key|location is not supported|insufficient balance"
)
_FLAGGED: Final = re.compile(r"(?i)moderat|flagged|guardrail|content[ _]?(?:policy|filter)")
_TOO_DEAR: Final = re.compile(r"(?i)fewer max_tokens|can only afford")
_ABSENT: Final = re.compile(r"(?i)\b(?:model|deployment)\b")
_NAMES: Final = ("message", "msg", "detail", "error", "errors", "error_message", "title", "reason")
_EVENT_DATA: Final = re.compile(rb"(?m)\A(?:(?:event|id):.*\r?\n)*data:(.+)$")
_WORD: Final = re.compile(r"[\w.\[\]-]{1,64}")
_SECRETS: Final = re.compile(
    r"(?i:bearer\s+\S+)|https?://\S+"
    r"|\b(?:sk|pk|rk|key|gsk|xai|hf|ghp)-[\w.*-]{6,}"  # a parameter's name has no hyphen
    r"|\b(?:sk|pk|rk|key|gsk|xai|hf|ghp)_(?=\w*\d)\w{12,}"
    r"|\bAIza[\w-]{20,}"
    r"|\b(?:org|proj|acct|cus|team)[-_](?=[\w-]*\d)[\w-]{8,}"  # accounts at a provider
    r"|\barn:\S+|\b\d{10,}\b|[\w.+-]+@[\w-]+\.[\w.-]+"
    r"|\b(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{32,}\b"
)


_ACCOUNTS: Final = re.compile(
    r"(?i)\b((?:account|organi[sz]ation|project|tenant|subscription|workspace|customer)"
    r"(?:[ _-]?(?:id|number))?[\"'`:=# ]{1,4})(?=[\w-]*\d)[\w-]{6,}"
)


class Sort(Enum):
    """Whose fault a refusal is, where it is neither a key's nor an upstream's."""

    CALLER = "caller"
    """The provider's words go back; no other upstream is asked."""
    ELSEWHERE = "elsewhere"
    """This account cannot pay for this one request: another may, and nothing is held against it."""


@dataclass(frozen=True, slots=True)
class ProviderFault:
    """A refusal, sorted. `status` is what the caller is told, if it is the caller's.

    `wait_s` is how long the provider asked to wait, None if it did not; unclamped.
    """

    sort: Sort | Blame
    status: int
    words: str
    code: str | None = None
    param: str | None = None
    wait_s: float | None = None


def fault(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    request: str,
    trusted: bool = False,
    now: datetime,
) -> ProviderFault:
    """Sort a refusal.

    Args:
        status: Outside of 2xx.
        headers: Of the answer, names in lower case.
        body: Its beginning, 64 KiB at most.
        request: What the caller wrote, as text: words that stand there may be quoted from it.
        trusted: Whether the operator says that this status, without words, is worth another try.
        now: For a `Retry-After` that is a date.
    """
    said = decoded(body)
    words = message_of(said) if isinstance(said, dict | list) else _plain(body, headers)
    if _is_page(status, headers, body, said):
        sort: Sort | Blame = Blame.SICK
    else:
        sort = _sort(status, words, _codes(said), request)
    if sort is Sort.CALLER and trusted and not words:
        sort = Blame.SICK
    details = _details(said)
    return ProviderFault(
        sort,
        # 402 and 403 of ours speak of the caller's balance and key.
        400 if status in (402, 403) else status,
        words,
        _word(details.get("code")),
        _word(details.get("param")),
        seconds_of(headers.get("retry-after"), now=now),
    )


def _sort(status: int, words: str, codes: frozenset[str], request: str) -> Sort | Blame:
    if not 400 <= status < 500:
        return Blame.SICK
    if codes & DEAD_WORDS or status == 401 or _says(_DEAD, words, request):
        return Blame.DEAD
    match status:
        case 429:
            return Blame.RATE
        case 402:
            return Sort.ELSEWHERE if _TOO_DEAR.search(words) else Blame.DOUBT
        case 403:
            is_flagged = _FLAGGED.search(f"{words} {' '.join(codes)}")
            return Sort.CALLER if is_flagged else Blame.DOUBT
    is_absent = codes & ABSENT_WORDS or (status == 404 and _ABSENT.search(words))
    return Blame.SICK if is_absent or status not in CALLER_STATUSES else Sort.CALLER


def _is_page(status: int, headers: Mapping[str, str], body: bytes, said: Any) -> bool:
    """Whether a proxy on the way has answered, and not the provider."""
    if is_markup(body, headers):
        return True
    return status in PROXY_STATUSES and not isinstance(said, dict | list)


def is_markup(body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a body is a page for people."""
    return "html" in headers.get("content-type", "").lower() or body.lstrip()[:1] == b"<"


def _says(pattern: re.Pattern[str], words: str, request: str) -> bool:
    """Whether the provider says so itself: providers quote the requests that they refuse."""
    found = pattern.search(words)
    return found is not None and found.group().casefold() not in request.casefold()


def message_of(said: Any, depth: int = MAX_DEPTH) -> str:
    """Return what an error says, cleaned, whichever of the known shapes it has; "" if nothing."""
    if isinstance(said, str):
        return cleaned(said)
    if depth == 0:
        return ""
    if isinstance(said, list):
        found = (message_of(item, depth - 1) for item in said[:5])
        return cleaned("; ".join(text for text in found if text))
    if isinstance(said, dict):
        for name in _NAMES:
            if name in said and (text := message_of(said[name], depth - 1)):
                return text
    return ""


def cleaned(words: str) -> str:
    """Return a provider's words in one line of 500 characters, without addresses and secrets.

    Secrets are keys, and the names of our accounts at the provider.

    The names of parameters stay: they are what a developer needs.
    """
    printable = "".join(c if c.isprintable() else " " for c in words[: 4 * MAX_MESSAGE])
    return _ACCOUNTS.sub(r"\1…", _SECRETS.sub("…", printable))[:MAX_MESSAGE].strip()


def _plain(body: bytes, headers: Mapping[str, str]) -> str:
    """Return words that came as text; a page has none."""
    if is_markup(body, headers):
        return ""
    return cleaned(body[: 4 * MAX_MESSAGE].decode("utf-8", "replace"))


def decoded(body: bytes) -> Any:
    """Return the JSON of a body, or of the first data in one that is an event; else None."""
    for text in (body, _EVENT_DATA.search(body)):
        try:
            return orjson.loads(text if isinstance(text, bytes) else text[1] if text else b"")
        except orjson.JSONDecodeError:
            continue
    return None


def _details(said: Any) -> dict[str, Any]:
    """Return the object with the error's code: the innermost `error`, or the first of a list."""
    for _ in range(MAX_DEPTH):
        if isinstance(said, list) and said:
            said = said[0]
        elif isinstance(said, dict) and isinstance(said.get("error"), dict | list):
            said = said["error"]
        else:
            break
    return said if isinstance(said, dict) else {}


def _codes(said: Any) -> frozenset[str]:
    """Return the words by which an error names itself, in lower case, from the usual places."""
    found: set[str] = set()
    _gather(said, found, MAX_DEPTH)
    return frozenset(found)


def _gather(said: Any, found: set[str], depth: int) -> None:
    if depth == 0:
        return
    if isinstance(said, list):
        for item in said[:5]:
            _gather(item, found, depth - 1)
    if isinstance(said, dict):
        for name, value in said.items():
            if name in ("code", "type", "status", "reason") and isinstance(value, str):
                found.add(value.casefold())
            elif name in ("error", "errors", "details", "detail"):
                _gather(value, found, depth - 1)


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None
