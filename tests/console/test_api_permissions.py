"""The operators' HTTP API for everybody who could call it, generated from the URLconf.

A route under `/api/admin/` that is not listed here fails, and so does a line without a route.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.models import User
from airi_server.runtime.audit import AuditEntry
from tests.airi_server.endpoints import EXAMPLES, endpoints
from tests.console import rows
from tests.factories import accounts

pytestmark = pytest.mark.django_db
PUBLISH = "llmrouter.publish_router_config"
NEEDED = {
    "GET /api/admin/config/router": PUBLISH,
    "POST /api/admin/config/router": PUBLISH,
    "POST /api/admin/flux-grants": "billing.grant_flux",
}
LISTED = "listed@example.com"


def test_every_route_is_listed_and_every_listed_route_exists():
    routes = {route for route in endpoints() if " /api/admin/" in route}

    assert routes == NEEDED.keys()


@pytest.mark.parametrize("route", sorted(NEEDED))
def test_a_route_is_for_those_who_may(route: str, settings):
    settings.ADMIN_EMAILS = [LISTED]
    client = Client()
    client.force_login(_user(is_staff=True, is_superuser=True))

    seen, expected = {}, {}
    for who, key, status in _callers(NEEDED[route]):
        audited = AuditEntry.objects.count()
        seen[who] = _call(client, route, key)
        expected[who] = status
        assert status == 200 or AuditEntry.objects.count() == audited, f"{who} changed something"

    assert seen == expected


def _callers(needed: str) -> Iterator[tuple[str, str, int]]:
    """Return who calls, with which key, and what they should be answered."""
    everything = list(Permission.objects.all())
    one = [rows.permission(needed)]
    others = [each for each in everything if each not in one]
    yield "nobody, though logged in to the console", "", 401
    yield "a made-up key", "sk-airi-AAAAAAAAAAAA" + "B" * 43, 401
    yield "a user", _key(_user()), 403
    yield "a user with every permission", _key(_user(everything)), 403
    yield "staff with every other permission", _key(_user(others, is_staff=True)), 403
    yield (
        "staff whose address is not verified",
        _key(_user(one, is_staff=True, email_verified=False)),
        403,
    )
    yield (
        "staff with a key that may do less",
        _key(_user(one, is_staff=True), allowed_models=["chat-default"]),
        403,
    )
    yield "staff with a key that may spend less", _key(_user(one, is_staff=True), limit_day=5), 403
    yield "banned staff", _key(_user(one, is_staff=True, banned=True)), 401
    yield "staff with a disabled key", _disabled(_user(one, is_staff=True)), 401
    yield "staff with the permission", _key(_user(one, is_staff=True)), 200
    yield "a superuser", _key(_user(is_staff=True, is_superuser=True)), 200
    listed = accounts.user(email=LISTED)
    key = _key(listed)
    yield "a listed address that is not verified", key, 403
    User.objects.filter(pk=listed.pk).update(email_verified=True)
    yield "a listed address", key, 200


def _user(permissions: Sequence[Permission] = (), **columns) -> User:
    user = accounts.user()
    User.objects.filter(pk=user.pk).update(**{"email_verified": True, **columns})
    user.refresh_from_db()
    user.user_permissions.set(permissions)
    return user


def _key(owner: User, **settings) -> str:
    return accounts.api_key(owner=owner, **settings)[1]


def _disabled(owner: User) -> str:
    key, plaintext = accounts.api_key(owner=owner)
    type(key).objects.filter(pk=key.pk).update(disabled_at=rows.NOW)
    return plaintext


def _call(client: Client, route: str, key: str) -> int:
    method, path = route.split(" ")
    example = EXAMPLES[route]
    headers = {"HTTP_AUTHORIZATION": f"Bearer {key}"} if key else {}
    send = getattr(client, method.lower())
    if example.body is None:
        return int(send(path, **headers).status_code)
    body = {"data": example.body, "content_type": "application/json"}
    return int(send(path, **body, **headers).status_code)
