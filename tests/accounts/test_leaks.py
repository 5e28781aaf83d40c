"""No key can be found again: not in a table, a log, a page, a list or a representation."""

import json
import logging

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.urls import reverse

from accounts.models import APIKey
from tests.factories import accounts as make

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
def plaintext(client, caplog):
    """A key that an operator made in the admin and that was used once."""
    caplog.set_level(logging.DEBUG)
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

    def test_logs(self, plaintext, caplog):
        assert_absent("\n".join(map(str, (vars(record) for record in caplog.records))), plaintext)

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
