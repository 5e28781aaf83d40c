"""The statement that records refusals: rows once, counts each time, and old rows go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import psycopg
import pytest
from django.db import connection, transaction

from airi_server.kernel import ids
from billing.models import RefusalHour, RefusedRequest
from billing.usage.refusals import RECORD_SQL
from tests.lab.server import database_url

pytestmark = pytest.mark.django_db(transaction=True)
NOW = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
HOUR = timedelta(hours=1)


def row(**fields):
    ordinary = {
        "id": ids.uuid7(), "user_id": "mio", "api_key_id": "k1", "model": "m", "kind": "chat",
        "status": 503, "code": "X", "message": "said", "at": NOW,
    }  # fmt: skip
    return {**ordinary, **fields}


def count(at, number=1, **fields):
    ordinary = {
        "user_id": "mio", "hour": NOW.replace(minute=0, second=0), "api_key_id": "k1",
        "model": "m", "code": "X", "status": 503, "count": number, "first_at": at, "last_at": at,
    }  # fmt: skip
    return {**ordinary, **fields}


def run(rows=(), counts=(), *, old=NOW, oldest=NOW - HOUR, page=2):
    params = {
        "rows": orjson.dumps(list(rows)).decode(),
        "counts": orjson.dumps(list(counts)).decode(),
        "old": ids.first_uuid7_at(old),
        "oldest": oldest,
        "page": page,
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD_SQL, params)


def aged(minutes):
    at = NOW - timedelta(minutes=minutes)
    return RefusedRequest.objects.create(**row(id=ids.first_uuid7_at(at), at=at))


class TestRecordRefusals:
    def test_a_row_again_is_no_other_row_and_a_count_again_counts_again(self):
        one = row()

        run([one], [count(NOW, 2)])
        run([one, row()], [count(NOW + HOUR / 9, 3, status=504)])
        run([], [count(NOW - HOUR / 9, 4)])

        assert RefusedRequest.objects.count() == 2
        hour = RefusalHour.objects.get()
        assert (hour.count, hour.first_at, hour.last_at, hour.status) == (
            9, NOW - HOUR / 9, NOW + HOUR / 9, 503,
        )  # fmt: skip

    def test_counts_apart_by_each_part_of_the_key(self):
        other = [{"user_id": "ria"}, {"api_key_id": "k2"}, {"model": "n"}, {"code": "Y"}]
        other.append({"hour": NOW.replace(minute=0, second=0) + HOUR})  # type: ignore[dict-item]

        run([], [count(NOW), *(count(NOW, **fields) for fields in other)])

        assert sorted(RefusalHour.objects.values_list("count", flat=True)) == [1] * 6

    def test_the_oldest_go_a_page_at_a_time(self):
        old = [aged(minutes).pk for minutes in (1, 2, 3)]
        for hours in (2, 3, 4):
            run([], [count(NOW, hour=NOW - hours * HOUR)], oldest=NOW - 9 * HOUR, page=0)
        new = row(id=ids.first_uuid7_at(NOW))

        run([new], [count(NOW)])

        assert set(RefusedRequest.objects.values_list("pk", flat=True)) == {old[0], new["id"]}
        assert RefusalHour.objects.filter(hour__lt=NOW - HOUR).get().hour == NOW - 2 * HOUR

    def test_leaves_to_another_instance_what_it_is_deleting(self):
        old = [aged(minutes).pk for minutes in (1, 2)]
        with psycopg.connect(database_url()) as other:
            other.execute("SELECT FROM refused_request WHERE id = %s FOR UPDATE", [old[0]])
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL lock_timeout = '1s'")
                run([], [count(NOW)])

        assert list(RefusedRequest.objects.values_list("pk", flat=True)) == [old[0]]

    def test_does_not_wait_for_the_disk_and_leaves_the_session_as_it_was(self):
        def setting():
            with connection.cursor() as cursor:
                cursor.execute("SHOW synchronous_commit")
                return cursor.fetchone()[0]

        before = setting()
        with transaction.atomic():
            run([], [count(NOW)])
            assert setting() == "off"

        assert setting() == before
