"""The console's start page on a million requests: few statements, and under a second of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.airi_server.console import staff
from tests.cache import forget

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.xdist_group("million"),
    pytest.mark.usefixtures("million"),
]
PERMISSIONS = (
    "billing.view_llmrequestlog",
    "billing.view_fluxtransaction",
    "billing.view_fluxaccount",
    "chats.view_chat",
)
LIMIT_S = 1.0
QUERIES = 12


def spent() -> float:
    """Return the seconds our server process has worked: a clock would count its neighbors' too."""
    pid = connection.connection.info.backend_pid
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("window", ["24h", "7d"])
def test_opens_within_a_second_of_database_time(client, window):
    staff(client, *PERMISSIONS)
    forget()
    with connection.cursor() as cursor:
        # All of the work in the one process that is watched.
        cursor.execute("SET LOCAL max_parallel_workers_per_gather = 0")
    before = spent()

    with CaptureQueriesContext(connection) as queries:
        answer = client.get(reverse("admin:index"), {"window": window})

    seconds, seen = spent() - before, answer.context["seen"]
    forget()
    assert not seen.failed
    assert seen.traffic.value.requests > 30_000
    assert sum(day.used for day in seen.flux.value) > 900_000
    assert seen.under_way.value.drift == 0
    assert len(queries) <= QUERIES
    assert 0 < seconds < LIMIT_S
