"""The console's start page on a million requests: few statements, and under a second of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from airi_server.admin import onboarding
from billing.admin import dashboard
from tests.airi_server.console import staff
from tests.cache import forget
from tests.perf.test_million_rows import explain, is_read, nodes, recorded

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
    "llmrouter.view_routermodel",
)
LIMIT_S = 1.0
QUERIES = 14
BIG = {"llm_request_log", "flux_transaction", "user_flux", "user", "api_key", "chat"}
FEW = 1_200
"""Pages of the first steps: the newest opening grants, each on a page of its own at worst."""
MOST = {"24h": 12_000, "7d": 20_000}
"""Pages of the whole start page; the ledger alone has 31,000, and the requests 41,000."""


def spent() -> float:
    """Return the seconds our server process has worked: a clock would count its neighbors' too."""
    pid = connection.connection.info.backend_pid
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("window", "requests"), [("1h", 1_000), ("24h", 30_000), ("7d", 30_000)])
def test_opens_within_a_second_of_database_time(client, window, requests):
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
    assert seen.traffic.value.requests > requests
    assert sum(day.used for day in seen.flux.value) > 900_000
    assert seen.under_way.value.drift == 0
    assert len(queries) <= QUERIES
    assert 0 < seconds < LIMIT_S


def plans(sent) -> list[dict[str, Any]]:
    """Return the plan of every statement that reads, as it was carried out."""
    # What a page may take is said in front of its statements, in the same round trip.
    bare = [(sql.removeprefix(f"{dashboard.LIMIT_SQL};\n"), params) for sql, params in sent]
    return [explain(sql, params) for sql, params in bare if is_read(sql)]


def scanned(found: list[dict[str, Any]]) -> list[str]:
    """Return the big tables that are read from end to end."""
    return [
        node["Relation Name"]
        for plan in found
        for node in nodes(plan)
        if node["Node Type"].endswith("Seq Scan") and node["Relation Name"] in BIG
    ]


def pages(found: list[dict[str, Any]]) -> int:
    return sum(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] for plan in found)


@pytest.mark.parametrize("window", ["24h", "7d"])
def test_reads_no_table_from_end_to_end(client, window):
    staff(client, *PERMISSIONS)
    forget()
    dashboard.flux_by_day(at=timezone.now())  # as any page of this day has

    with recorded() as sent:
        answer = client.get(reverse("admin:index"), {"window": window})
    found = plans(sent)

    forget()
    assert not answer.context["seen"].failed
    assert len(found) > 6
    assert scanned(found) == []
    assert pages(found) < MOST[window]


def test_nor_do_the_first_steps():
    """They are asked for after a quiet day, too, however many people there are."""
    with recorded() as sent:
        steps = onboarding.of(lambda _permission: True)
    found = plans(sent)

    assert [step.is_done for step in steps if step.page != "llmrouter_routermodel_changelist"]
    assert len(found) >= 4
    assert scanned(found) == []
    assert pages(found) < FEW
