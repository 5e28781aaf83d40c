"""`manage.py clear-expired`: what has expired goes, in batches, and nothing else does."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone

from airi_server.kernel import expiry, ids
from airi_server.runtime.models import UsedForm
from billing.models import LLMRequestResult, RefusalHour, RefusedRequest
from tests.lab.server import database_url, manage

pytestmark = pytest.mark.django_db(transaction=True)
DAY = timedelta(days=1)
MOMENT = timedelta(hours=1)
KEPT = {
    "django_session": timedelta(0),
    "llm_request_result": DAY,
    "refusal_hour": 761 * DAY,
    "refused_request": 7 * DAY,
    "used_form": DAY,
}


def session(at: datetime) -> None:
    Session.objects.create(session_key=ids.nanoid(), session_data="", expire_date=at)


def result(at: datetime) -> None:
    LLMRequestResult.objects.create(request=ids.uuid7(), user_id="mio", body=b"", created_at=at)


def hour(at: datetime) -> None:
    RefusalHour.objects.create(
        user_id="mio", hour=at, code="X", status=429, count=1, first_at=at, last_at=at
    )


def refused(at: datetime) -> None:
    RefusedRequest.objects.create(
        id=ids.first_uuid7_at(at), user_id="mio", kind="chat", status=429, code="X", at=at
    )


def form(at: datetime) -> None:
    UsedForm.objects.create(token=ids.nanoid(), used_at=at)


MAKE = {
    "django_session": session,
    "llm_request_result": result,
    "refusal_hour": hour,
    "refused_request": refused,
    "used_form": form,
}


def count(table: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f'SELECT count(*) FROM "{table}"')
        (rows,) = cursor.fetchone() or (-1,)
    assert isinstance(rows, int)
    return rows


def test_each_table_loses_what_is_past_its_time():
    now = timezone.now()
    for table, make in MAKE.items():
        make(now - KEPT[table] - MOMENT)
        make(now - KEPT[table] + MOMENT)

    done = manage("clear-expired")  # with the role that serves

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{table}\t1" for table in sorted(MAKE)]
    assert {table: count(table) for table in MAKE} == dict.fromkeys(MAKE, 1)


class TestBatches:
    def test_go_on_until_nothing_is_left(self):
        now = timezone.now()
        for _ in range(5):
            form(now - DAY)

        for cleared in (5, 0):
            gone = expiry.clear(table="used_form", column="used_at", before=now, page=2)
            assert gone == cleared

    def test_leave_a_row_that_is_locked(self):
        now = timezone.now()
        for days in (1, 2, 3):
            form(now - days * DAY)

        with psycopg.connect(database_url()) as other:
            other.execute("SELECT 1 FROM used_form ORDER BY used_at LIMIT 1 FOR UPDATE")
            assert expiry.clear(table="used_form", column="used_at", before=now, page=2) == 2

        assert count("used_form") == 1
