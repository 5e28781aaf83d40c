"""No key can be found again: not in a table, a log, a page, a list or a representation."""

import json
import logging

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.urls import reverse

from accounts.models import APIKey
from tests.factories import accounts as make
from tests.factories import gateway

pytestmark = pytest.mark.django_db


def dump():
    """Return every row of every table as text, binary columns in hexadecimal and as they are."""
    with connection.cursor() as cursor:
        lines = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            lines += [line for (line,) in cursor.fetchall()]
    return "\n".join(lines)


def assert_absent(text, plaintext):
    secret = plaintext[20:]
    for needle in (plaintext, secret, secret.encode().hex(), secret[:20], secret[-20:]):
        assert needle not in text


@pytest.fixture
def plaintext(client):
    """A key that an operator made in the admin and that was used once."""
    operator = make.user(email="root@example.com", is_staff=True, is_superuser=True)
    client.force_login(operator)
    fields = {"owner": operator.email, "name": "laptop"}
    page = client.post(reverse("admin:accounts_apikey_add"), fields).content.decode()
    start = page.index("sk-airi-")
    plaintext = page[start : start + 60]
    answer = client.get("/api/v1/keys", headers={"authorization": f"Bearer {plaintext}"})
    assert answer.status_code == 200
    return plaintext


class TestLeaks:
    def test_tables(self, plaintext):
        assert plaintext[8:20] in dump()
        assert_absent(dump(), plaintext)

    def test_representations(self, plaintext):
        key = APIKey.objects.get()

        assert_absent(f"{key} {key!r} {vars(key)}", plaintext)

    def test_lists(self, plaintext, client):
        answer = client.get("/api/v1/keys", headers={"authorization": f"Bearer {plaintext}"})

        assert_absent(json.dumps(answer.json()), plaintext)
        assert APIKey.objects.get().secret_hash.hex() not in answer.content.decode()

    def test_admin_pages_show_neither_key_nor_hash(self, plaintext, client):
        key = APIKey.objects.get()
        pages = [
            reverse("admin:index"),
            reverse("admin:accounts_apikey_changelist"),
            reverse("admin:accounts_apikey_change", args=[key.pk]),
            reverse("admin:accounts_apikey_history", args=[key.pk]),
            reverse("admin:accounts_user_change", args=[quote(key.user_id)]),
        ]

        for page in pages:
            answer = client.get(page)
            text = answer.content.decode()
            assert answer.status_code == 200
            assert_absent(text, plaintext)
            assert key.secret_hash.hex() not in text
            assert key.user.password not in text


@pytest.mark.asyncio
async def test_in_no_line_of_the_log(served, log, caplog):
    """Served or refused, on the hot path and on Django's way, whatever is logged."""
    caplog.set_level(logging.DEBUG)
    caller = await gateway.caller()
    wrong = caller.key[:-1] + ("a" if caller.key[-1] != "a" else "b")

    for path in ("/api/v1/flux", "/api/v1/keys"):
        for key, status in ((caller.key, 200), (wrong, 401)):
            answer = await served.get(path, key)
            (line,) = await log.whole(answer.headers["x-request-id"])
            assert (line["path"], line["status"]) == (path, answer.status) == (path, status)
            assert_absent(log.text, key)
