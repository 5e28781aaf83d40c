"""What a browser does on the router's admin pages, for the tests of them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from llmrouter.configuration.models import RouterModel
from tests.fakes.upstream import ScriptedUpstream

CANARY = "sk-canary-c0ffee"
ADD = "admin:llmrouter_routermodel_add"
BY_SCRIPT = {"X-Requested-With": "fetch"}


def client_of(*permissions, **columns) -> Client:
    columns = {"is_staff": True, "email_verified": True, **columns}
    email = f"op{get_user_model().objects.count()}@example.com"
    user = get_user_model().objects.create_user(email=email, password="x", **columns)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page(name, pk=None) -> str:
    return reverse(f"admin:llmrouter_{name}", args=[pk] if pk else [])


def form_of(client, url) -> dict[str, str]:
    """Return what a browser would post from this page as it stands."""
    return posted_by(client.get(url))


def posted_by(response) -> dict[str, str]:
    """Return what a browser would post from a page it was shown."""
    context = response.context
    forms = [context["adminform"].form]
    for inline in context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    values = {bound.html_name: bound.value() for form in forms for bound in form}
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None and value is not False
    }


def save(client, url, headers=None, **changes):
    values = {"note": "because", **form_of(client, url), **changes}
    posted = {name: value for name, value in values.items() if value is not None}
    return client.post(url, posted, headers=headers)


def errors_of(response) -> str:
    """Return every error of the page, field by field."""
    forms = [response.context["adminform"].form]
    formsets = [inline.formset for inline in response.context["inline_admin_formsets"]]
    for formset in formsets:
        forms += formset.forms
    shown = [f"{formset.non_form_errors()}" for formset in formsets]
    return " ".join(shown + [str(dict(form.errors)) for form in forms])


NEW = {
    "name": "chat-default",
    "surface": "llm",
    "upstreams-0-base_url": "https://h.example/v1",
    "upstreams-0-adapter_params": "{}",
    "upstreams-0-key_id": "k1",
    "upstreams-0-key_value": CANARY,
}


def change_page(model="chat-default") -> str:
    return page("routermodel_change", RouterModel.objects.get(name=model).pk)


@contextmanager
def provider(*steps):
    """Play a provider in a thread of its own, for pages that call one while they are asked."""
    ready, over = threading.Event(), threading.Event()
    scripted = ScriptedUpstream(*steps)

    async def serve():
        async with scripted:
            ready.set()
            while not over.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield scripted
    finally:
        over.set()
        thread.join(10)
