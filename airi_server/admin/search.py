"""Global search: a request, a person, a key or a chat by whatever an operator has in hand.

What is in hand is whole: an id, an address, a key, a name. So every kind is one look into an index,
and only the kinds that this operator may see are looked up at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.contrib.admin.utils import quote
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import urlencode

import accounts.admin.lookup
import billing.admin.lookup
import chats.admin.lookup
import llmrouter.configuration.lookup
from accounts.admin.lookup import PREFIX
from accounts.credentials import PUBLIC_ID_LENGTH
from airi_server.admin import settings_pages
from airi_server.runtime import options

MAX_TERM: Final = 400
"""No longer than the longest e-mail address or ledger key."""
QUOTES: Final = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb<>()[]{},;"


USER: Final = "User"
ACCOUNT: Final = "Account"


@dataclass(frozen=True, slots=True)
class Hit:
    """One row that was found, and where it is shown."""

    kind: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Findable:
    """Something that can be found: how to say so, who may, and how it is looked up."""

    title: str
    example: str
    permissions: tuple[str, ...]
    find: Callable[[str], Iterator[Hit]]


def page(request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
    """Land on the row, list several, or say what could not be found and what can."""
    given = request.GET.get("q", "")
    term = _cleaned(given)
    if PREFIX in given and term != given:
        return _without_secret(term)
    kinds = [kind for kind in KINDS if any(map(request.user.has_perm, kind.permissions))]
    hits = _found(kinds, term) if term else []
    if len(hits) == 1:
        return redirect(hits[0].url)
    shown = {**context, "title": "Search", "term": term, "hits": hits, "kinds": kinds}
    return TemplateResponse(request, "console/search.html", shown)


def _found(kinds: Sequence[Findable], term: str) -> list[Hit]:
    """Return every row of that name. A person is one hit: their account is on their page."""
    hits = [hit for kind in kinds for hit in kind.find(term)]
    has_person = any(hit.kind == USER for hit in hits)
    return [hit for hit in hits if not (has_person and hit.kind == ACCOUNT)]


def _cleaned(given: str) -> str:
    """Return what was meant: without quotes and blanks around it, and no more of a key than shows.

    A NUL or something too long cannot be a name of ours.
    """
    term = given.strip().strip(QUOTES).strip()
    if "\x00" in term or len(term) > MAX_TERM:
        return ""
    if PREFIX not in term:
        return term
    key = term[term.index(PREFIX) :]
    return key[: len(PREFIX) + PUBLIC_ID_LENGTH]


def _without_secret(term: str) -> HttpResponse:
    """Lead away from an address that holds a secret, before anything else looks at it."""
    clean: HttpResponseRedirect = HttpResponseRedirect(
        f"{reverse('admin:search')}?{urlencode({'q': term})}"
    )
    clean["Cache-Control"] = "no-store"
    return clean


def _requests(term: str) -> Iterator[Hit]:
    request_id = billing.admin.lookup.as_request_id(term)
    if request_id is not None and billing.admin.lookup.is_request(request_id):
        yield _hit("Request", str(request_id), "billing_llmrequestlog_change", request_id)


def _refusals(term: str) -> Iterator[Hit]:
    request_id = billing.admin.lookup.as_request_id(term)
    if request_id is not None and billing.admin.lookup.is_refused(request_id):
        yield _hit("Refused request", str(request_id), "billing_refusedrequest_change", request_id)


def _users(term: str) -> Iterator[Hit]:
    user_id = accounts.admin.lookup.user_at(term) if "@" in term else term
    if user_id and accounts.admin.lookup.is_user(user_id):
        yield _hit(USER, term, "accounts_user_change", user_id)


def _user_accounts(term: str) -> Iterator[Hit]:
    user_id = accounts.admin.lookup.user_at(term) if "@" in term else term
    if user_id and billing.admin.lookup.is_account(user_id):
        yield _hit(ACCOUNT, term, "billing_fluxaccount_change", user_id)


def _keys(term: str) -> Iterator[Hit]:
    public_id = accounts.admin.lookup.public_id_in(term)
    found = accounts.admin.lookup.key_id(public_id) if public_id else None
    if found is not None:
        yield _hit("API key", f"{PREFIX}{public_id}", "accounts_apikey_change", found)


def _entries(term: str) -> Iterator[Hit]:
    found = billing.admin.lookup.entry_keyed(term) if ":" in term else None
    if found is not None:
        yield _hit("Ledger entry", term, "billing_fluxtransaction_change", found)


def _grants(term: str) -> Iterator[Hit]:
    found = billing.admin.lookup.grant_keyed(term)
    if found is not None:
        yield _hit("Grant", term, "billing_fluxgrant_change", found)


def _models(term: str) -> Iterator[Hit]:
    for found in llmrouter.configuration.lookup.model_ids(term):
        yield _hit("Model", term, "llmrouter_routermodel_change", found)


def _chats(term: str) -> Iterator[Hit]:
    if chats.admin.lookup.is_chat(term):
        yield _hit("Chat", term, "chats_chat_change", term)


def _messages(term: str) -> Iterator[Hit]:
    if chats.admin.lookup.is_message(term):
        yield _hit("Message", term, "chats_chatmessage_change", term)


def _characters(term: str) -> Iterator[Hit]:
    if chats.admin.lookup.is_character(term):
        yield _hit("Character", term, "chats_character_change", term)


def _settings(term: str) -> Iterator[Hit]:
    name = term.upper()
    if name in options.REGISTRY:
        yield Hit("Setting", name, reverse("admin:setting", args=[name]))


def _hit(kind: str, name: str, page_name: str, key: int | str | UUID) -> Hit:
    # Quoted as Django's pages read it: an id may have `_`.
    return Hit(kind, name, reverse(f"admin:{page_name}", args=[quote(key)]))


KINDS: Final = (
    Findable(
        "A request",
        "its id, which clients see as x-request-id",
        ("billing.view_llmrequestlog",),
        _requests,
    ),
    Findable(
        "A refused request",
        "its id, for seven days",
        ("billing.view_refusedrequest",),
        _refusals,
    ),
    Findable("A user", "their e-mail address or id", ("accounts.view_user",), _users),
    Findable(
        "An account",
        "its user's e-mail address or id",
        ("billing.view_fluxaccount",),
        _user_accounts,
    ),
    Findable("An API key", "its public part: sk-airi-…", ("accounts.view_apikey",), _keys),
    Findable(
        "A ledger entry",
        "its key: llm:… or flux-grant:…",
        ("billing.view_fluxtransaction",),
        _entries,
    ),
    Findable(
        "A grant",
        "its idempotency key",
        ("billing.view_fluxgrant", "billing.grant_flux"),
        _grants,
    ),
    Findable("A model", "its public name", ("llmrouter.view_routermodel",), _models),
    Findable("A chat", "its id", ("chats.view_chat",), _chats),
    Findable("A message", "its id", ("chats.view_chatmessage",), _messages),
    Findable("A character", "its id", ("chats.view_character",), _characters),
    Findable("A setting", "its name", settings_pages.SEE, _settings),
)
