"""Secrets go in by every door of the console and come out of none (invariant I26).

One test, because what it says is about all of it together: after the secrets were typed, posted,
refused, previewed and sent to an upstream that says them back, nothing that can be read has one.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
from aiohttp import web
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from accounts.models import APIKey, User
from llmrouter.configuration.models import RouterKey, RouterModel, RouterUpstream
from tests.console import rows
from tests.console.leaks import Leaks, spellings
from tests.console.walk import places
from tests.factories import characters
from tests.fakes.upstream import answer, completion
from tests.llmrouter.admin_pages import NEW, page, save
from tests.processes.conftest import ThreadedUpstream

pytestmark = pytest.mark.django_db
SECRETS = {
    "the key of a form": "sk-canary-form/7f3a9c+e1",
    "the key of a mistaken form": "sk-canary-mistake/51dd0b+a2",
    "the key of a preview": "sk-canary-preview/90ab4e+c3",
    "the key of a test": "sk-canary-test/3be8f1+d4",
    "the key of a rotation": "sk-canary-rotation/c07d62+f5",
    "the key of the API": "sk-canary-api/aa49c3+b6",
    "the key of a command": "sk-canary-command/e8f107+97",
    "the key of a character": characters.KEY,
    "a password": "canary-password/2c6d5a+18",
    "a mistaken password": "canary-mistaken/d41e7b+39",
}
ANYTHING_ELSE = "/admin/nothing/here/"


@pytest.fixture
def provider():
    with ThreadedUpstream() as scripted:
        yield scripted


async def says_it_back(request: web.Request) -> web.StreamResponse:
    """Answer with the key in the body, in a header and as the model's name."""
    key = request.headers["Authorization"].removeprefix("Bearer ")
    body = completion(f"your key is {key}") | {"model": key, "id": key, "system_fingerprint": key}
    said: web.StreamResponse = await answer(body, headers={"x-key": key, "x-request-id": key})(
        request
    )
    return said


async def refuses_with_it(request: web.Request) -> web.StreamResponse:
    key = request.headers["Authorization"].removeprefix("Bearer ")
    body = {"error": {"message": f"bad key {key}", "code": key, "type": key, "param": key}}
    said: web.StreamResponse = await answer(body, status=401, headers={"x-key": key})(request)
    return said


class Operator:
    """A superuser whose every answer is looked at."""

    def __init__(self, leaks: Leaks) -> None:
        self.client: Client = rows.client_of(is_staff=True, is_superuser=True)
        self.leaks = leaks

    def get(self, path: str) -> Any:
        return self._looked_at(f"GET {path}", self.client.get(path))

    def post(self, path: str, values: dict[str, Any], **extra: Any) -> Any:
        return self._looked_at(f"POST {path}", self.client.post(path, values, **extra))

    def save(self, path: str, **changes: Any) -> Any:
        return self._looked_at(f"saving {path}", save(self.client, path, **changes))

    def _looked_at(self, where: str, answered: Any) -> Any:
        assert answered.status_code < 500, where
        self.leaks.look_at_answer(where, answered)
        return answered


@pytest.mark.django_db(transaction=True)  # the check of the books insists on its own
def test_no_secret_comes_out(provider, caplog, capsys, monkeypatch, settings):
    caplog.set_level(logging.DEBUG)
    # Names of variables that are not there, by the ten thousand, and never a value.
    caplog.set_level(logging.INFO, "django.template")
    leaks = Leaks(SECRETS)
    operator = Operator(leaks)
    world = rows.make()

    type_provider_keys(operator, provider)
    send_provider_keys(operator, settings, monkeypatch)
    type_passwords(operator, world)
    shown_once = make_api_key(operator, world, leaks)
    walk(operator, world)
    search(operator, shown_once)

    leaks.look_at_log(caplog.records)
    leaks.look_at_database()
    leaks.look("the terminal", "".join(capsys.readouterr()))
    assert leaks.found == []
    assert leaks.looked_at > 200
    sent = [seen.headers["authorization"].removeprefix("Bearer ") for seen in provider.seen]
    assert sent == [SECRETS["the key of a test"]] * 2 + [SECRETS["the key of a rotation"]]


@pytest.mark.django_db(transaction=True)
def test_what_was_said_is_on_the_page_that_was_asked_for_and_nowhere_else(caplog, capsys):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, "django.template")
    leaks = Leaks({"what was said": rows.SAID})
    operator = Operator(leaks)
    world = rows.make()
    read = places()["chats_chat_read"].url(world.keys)
    asked = {"first": 1, "last": 1, "reason": "a complaint"}

    said = operator.client.post(read, asked).content.decode()
    operator.post(read, {**asked, "reason": ""})
    operator.get(read)
    walk(operator, world)

    leaks.look_at_log(caplog.records)
    leaks.look_at_database(but="chat_message")
    leaks.look("the terminal", "".join(capsys.readouterr()))
    assert rows.SAID in said
    assert leaks.found == []
    assert leaks.looked_at > 150


def type_provider_keys(operator: Operator, provider: Any) -> None:
    """Publish a key from a form, after a mistake, a preview and two tests; then replace it."""
    add = page("routermodel_add")
    new = {**NEW, "name": "chat-canary", "upstreams-0-base_url": provider.base_url}

    def typed(name: str) -> dict[str, str]:
        return {"upstreams-0-key_value": SECRETS[f"the key of {name}"]}

    mistakes = {"upstreams-0-base_url": "nowhere", "upstreams-0-key_id": "a|b", "note": ""}
    assert operator.save(add, **{**new, **mistakes, **typed("a mistaken form")}).status_code == 200
    operator.save(add, **{**new, **typed("a preview"), "_preview": "1"})
    operator.client.defaults["HTTP_X_REQUESTED_WITH"] = "fetch"
    fetched = operator.save(add, **{**new, **typed("a preview"), "_preview": "1"})
    assert fetched.headers["X-Fragment"] == "preview"
    for step in (says_it_back, refuses_with_it):
        provider.script(step)
        fetched = operator.save(add, **{**new, **typed("a test"), "_probe": "upstreams-0"})
        assert fetched.headers["X-Fragment"] == "probe"
    del operator.client.defaults["HTTP_X_REQUESTED_WITH"]
    assert not RouterModel.objects.filter(name="chat-canary").exists()
    assert operator.save(add, **{**new, **typed("a form")}).status_code == 302

    upstream = RouterUpstream.objects.get(model__name="chat-canary")
    edit = page("routerupstream_change", upstream.pk)
    rotation = {"keys-0-value": SECRETS["the key of a rotation"]}
    assert operator.save(edit, **rotation, base_url="nowhere").status_code == 200
    assert operator.save(edit, **rotation).status_code == 302
    key = RouterKey.objects.get(upstream=upstream)
    operator.post(page("routerupstream_test", upstream.pk), {"_probe": str(key.pk)})


def send_provider_keys(operator: Operator, settings: Any, monkeypatch: Any) -> None:
    """Publish keys over HTTP, right and wrong, and with the command."""
    settings.ADMIN_EMAILS = [EMAIL]
    _, plaintext = rows.api_key_of(EMAIL)
    bearer: dict[str, Any] = {"HTTP_AUTHORIZATION": f"Bearer {plaintext}"}
    path = "/api/admin/config/router"
    secret = SECRETS["the key of the API"]
    openrouter = {"kind": "openrouter", "modelName": "chat-api", "overrideModel": "m"}
    slices = [{**openrouter, "plaintextKey": secret}]
    for body in (
        {"slices": slices, "dryRun": True},
        {"slices": slices},
        {"slices": [{**slices[0], "keyEntryId": "a|b", "more": secret}], "mode": secret},
        {"slices": {secret: 1}},
    ):
        operator.post(path, body, content_type="application/json", **bearer)
    operator.leaks.look_at_answer("GET " + path, operator.client.get(path, **bearer))
    assert RouterModel.objects.filter(name="chat-api").exists()

    monkeypatch.setenv("OPENROUTER_KEY", SECRETS["the key of a command"])
    call_command("seed-router-config", "--openrouter-model=m", "--default-chat-model=chat-command")
    assert RouterModel.objects.filter(name="chat-command").exists()


EMAIL = "canary@example.com"


def type_passwords(operator: Operator, world: rows.Rows) -> None:
    secret, mistaken = SECRETS["a password"], SECRETS["a mistaken password"]
    add = reverse("admin:accounts_user_add")
    operator.post(add, {"email": "nobody", "password": mistaken})
    operator.post(add, {"email": "canary.new@example.com", "password": secret})
    path = reverse("admin:accounts_user_password", args=[world.user.pk])
    operator.post(path, {"password": mistaken, "reason": ""})
    operator.post(path, {"password": secret, "reason": "forgotten"})
    login = {"username": EMAIL, "password": mistaken}
    operator.leaks.look_at_answer("login", Client().post(reverse("admin:login"), login))
    changed = {"old_password": mistaken, "new_password1": mistaken, "new_password2": mistaken}
    operator.post(reverse("admin:password_change"), changed)
    assert User.objects.get(email="canary.new@example.com").password
    assert User.objects.get(pk=world.user.pk).password


def make_api_key(operator: Operator, world: rows.Rows, leaks: Leaks) -> str:
    """Make a key on its page, which shows it this once, and look for it from now on."""
    path = reverse("admin:accounts_apikey_add")
    made = operator.client.post(path, {"owner": world.user.email, "name": "canary"})
    plaintext: str = made.context["plaintext"]
    assert APIKey.objects.filter(name="canary").exists()
    assert plaintext in made.content.decode()
    assert plaintext not in repr([*made.items(), made.cookies.output()])
    leaks.watch("an API key", plaintext)
    return plaintext


def walk(operator: Operator, world: rows.Rows) -> None:
    """Open every page and post nothing to it; a page about a row, for each row with a secret."""
    models = {str(pk) for pk in RouterModel.objects.values_list("pk", flat=True)}
    upstreams = {str(pk) for pk in RouterUpstream.objects.values_list("pk", flat=True)}
    for place in places().values():
        url = place.url(world.keys)
        urls = {url}
        for name, keys in (("routermodel", models), ("routerupstream", upstreams)):
            if place.name.startswith(f"llmrouter_{name}_"):
                urls |= {place.url({**world.keys, f"llmrouter_{name}": key}) for key in keys}
        for each in urls:
            operator.get(each)
        if place.name != "logout":
            operator.post(url, {})
    operator.get(ANYTHING_ELSE)


def search(operator: Operator, plaintext: str) -> None:
    """Look for a whole key, as somebody does who has just been sent one."""
    for page_name in ("search", "accounts_apikey_changelist", "accounts_user_changelist"):
        operator.get(f"{reverse(f'admin:{page_name}')}?q={plaintext}")


class TestTheTestItself:
    @pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
    def test_base64_is_seen_wherever_it_begins(self, before):
        import base64

        text = base64.b64encode(f"{before}sk-canary-form/7f3a9c+e1 after".encode()).decode()

        assert any(needle in text for needle in spellings("sk-canary-form/7f3a9c+e1"))

    def test_a_leak_into_a_row_is_found(self):
        leaks = Leaks({"it": "canary/of+the+row"})
        rows.make()
        User.objects.update(name="a canary/of+the+row")

        leaks.look_at_database()

        assert leaks.found == ["it in table user"]

    def test_a_leak_into_the_log_is_found(self, caplog):
        leaks = Leaks({"it": "canary/of+the+log"})
        logging.getLogger("tests").error("said", extra={"more": ["canary/of+the+log"]})

        leaks.look_at_log(caplog.records)

        assert leaks.found == ["it in log of tests"]
