"""`manage.py reconcile-usage`: quiet, noisy, exit codes, and read-only."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command, get_commands
from django.db import InternalError, transaction

from billing import reconciliation
from billing.models import FluxAccount
from tests.billing.corruption import corrupt


def reconcile(*arguments):
    """Return exit code, standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("reconcile-usage", *arguments, stdout=out, stderr=err)
    except CommandError as refused:
        return refused.returncode, out.getvalue(), str(refused)
    return 0, out.getvalue(), err.getvalue()


@pytest.mark.django_db(transaction=True)
class TestCommand:
    def test_is_quiet_when_the_books_agree_and_writes_nothing(self, books):
        before = list(FluxAccount.objects.values())

        code, out, err = reconcile("--user", "ria")

        assert (code, out) == (0, "")
        assert err.strip() == "agree: 0 broken, 0 orphans, 0 ended"
        assert list(FluxAccount.objects.values()) == before
        assert "reconcile-usage" in get_commands()
        with pytest.raises(InternalError, match="read-only"), reconciliation.snapshot():
            FluxAccount.objects.update(held=0)

    def test_names_what_is_broken_and_exits_with_one(self, books):
        corrupt("UPDATE user_flux SET flux = flux + 1 WHERE user_id = 'ria'", books)

        code, out, err = reconcile("--user", "ria", "--since", "2026-01-01T00:00:00+00:00")

        assert code == 1
        assert out.splitlines()[0].split("\t")[:4] == ["broken", "I1", "ria", "account"]
        assert err == "The books disagree in 2 places."
        code, out, _ = reconcile("--format", "json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert (code, [line["kind"] for line in lines]) == (
            1,
            ["orphan", "broken", "broken", "summary"],
        )
        assert lines[1] == {
            "kind": "broken",
            "invariant": "I1",
            "user_id": "ria",
            "row": "account",
            "why": "balance 51, but the entries add up to 50",
        }
        counts = {"broken": 2, "orphans": 1, "unjudged": 0}
        assert lines[-1] == {"kind": "summary", "agrees": False, **counts}

    def test_says_what_it_does_not_judge_and_why(self, books, monkeypatch):
        code, out, err = reconcile()
        assert (code, out.count("orphan\t"), out.count("unjudged\t")) == (0, 1, 0)

        monkeypatch.setattr(reconciliation, "RESTART_GRACE_S", 10**6)
        code, out, err = reconcile("--settle")

        kind, requests, hold, why, within_s = out.splitlines()[-1].split("\t")
        assert (kind, requests, hold, why) == ("unjudged", "1", "20", "database just started")
        assert 0 < int(within_s) <= 10**6
        assert err.strip() == "agree: 0 broken, 0 orphans, 0 ended, 1 not judged yet"
        assert reconcile("--user", "ria")[1] == ""

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--since", "yesterday"),
            ("--since", "2026-01-01T00:00:00"),
            ("--since", "2026-01-01"),
            ("--user", "nobody"),
        ],
    )
    def test_exits_with_two_when_called_wrongly(self, arguments):
        code, out, err = reconcile(*arguments)

        assert (code, out) == (2, "")
        assert err

    def test_refuses_to_write_in_a_transaction_of_somebody_else(self, books):
        with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
            reconcile()
