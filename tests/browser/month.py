"""A month of two users' requests, as their books would have it: what there is to see on pages."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from django.db import connection
from django.utils import timezone

from accounts.models import User
from airi_server.kernel import resources
from airi_server.runtime.models import AuditEntry
from billing.models import APIKeySpend, FluxAccount, FluxTransaction, LLMRequestLog
from tests.browser import people
from tests.factories import accounts, billing

DAYS: Final = 30
DAILY: Final = 24
MODELS: Final = (
    "chat-default",
    "chat-default",
    "chat-default",
    "chat-large",
    "chat-large",
    "embed",
)
FLUX_PER_1K: Final = 90
LOW, ALLOWANCE = 1_000, 8_000


def make() -> User:
    """Write the month, ending now, and return the busier of the two users."""
    numbers, now = random.Random(7), timezone.now()
    rates = ("flux_per_1k_input", "flux_per_1k_output", "flux_per_1k_cached")
    price = billing.price_row(model="", **dict.fromkeys(rates, Decimal(FLUX_PER_1K)))
    key, _ = accounts.api_key(owner=people.person("mio"), name="laptop")
    other, _ = accounts.api_key(owner=people.person("ren"), name="phone")
    books = {each.user_id: _Book(each.user_id, each.public_id) for each in (key, other)}
    for day in range(DAYS, -1, -1):
        morning = now - timedelta(days=day)
        count = 8 * DAILY if day == 1 else numbers.randrange(DAILY // 2, DAILY)
        for number in range(count):
            at = morning + timedelta(days=number / count)
            if at < now - timedelta(minutes=1):
                book = books[numbers.choice((key, key, other)).user_id]
                book.request(numbers, at, price.pk)
    _write(list(books.values()))
    return key.user


def _write(books: list[_Book]) -> None:
    """Write both books as one: ids follow time in a ledger, whosever the entries are."""
    entries = [entry for book in books for entry in book.entries]
    FluxTransaction.objects.bulk_create(sorted(entries, key=lambda entry: entry.created_at))
    AuditEntry.objects.bulk_create(_audited(entry) for entry in entries if entry.kind == "promo")
    with connection.cursor() as cursor:
        cursor.execute(resources.read_text("billing", "sql/name_grants.sql"))
    LLMRequestLog.objects.bulk_create(row for book in books for row in book.requests)
    APIKeySpend.objects.bulk_create(
        APIKeySpend(user_id=book.user_id, api_key_id=book.public_id, day=day, flux=flux)
        for book in books
        for day, flux in book.spent.items()
    )
    for book in books:
        FluxAccount.objects.create(
            user_id=book.user_id,
            balance=book.balance,
            ledger_seq=len(book.entries),
            updated_at=timezone.now(),
        )


def _audited(grant: FluxTransaction) -> AuditEntry:
    return AuditEntry(
        at=grant.created_at,
        actor="allowances",
        action="billing.grant_flux",
        subject_kind="billing.fluxaccount",
        subject_id=grant.user_id,
        sentence=grant.description,
        facts={"entry": grant.pk, "amount": grant.amount},
    )


class _Book:
    """One user's rows, in the order in which they happened."""

    def __init__(self, user_id: str, public_id: str) -> None:
        self.user_id, self.public_id = user_id, public_id
        self.spent: Counter[date] = Counter()
        self.balance = 0
        self.entries: list[FluxTransaction] = []
        self.requests: list[LLMRequestLog] = []
        self._post("initial", 0, timezone.now() - timedelta(days=DAYS + 1), "Initial grant")

    def credit(self, amount: int, at: datetime) -> None:
        self._post("promo", amount, at, "Monthly allowance")

    def request(self, numbers: random.Random, at: datetime, price: int) -> None:
        failed = numbers.random() < 0.06
        prompt, completion = numbers.randrange(200, 4_000), numbers.randrange(40, 900)
        took, first = numbers.randrange(900, 6_000), int(numbers.lognormvariate(6, 0.5))
        row = self._opened(at, numbers, price, prompt)
        row.settled_at, row.duration_ms, row.attempts = at + timedelta(milliseconds=took), took, 1
        if failed:
            row.state, row.outcome, row.status = "voided", "failed", 502
            row.error_code = "BAD_GATEWAY"
        else:
            if self.balance < LOW:
                self.credit(ALLOWANCE, at)
            charge = -(-(prompt + completion) * FLUX_PER_1K // 1000)
            row.state, row.outcome, row.status = "settled", "completed", 200
            row.prompt_tokens, row.completion_tokens, row.cached_tokens = prompt, completion, 0
            row.usage_source, row.flux_charged, row.ttft_ms = "reported", charge, first
            row.first_byte_at = at + timedelta(milliseconds=first)
            row.upstream, row.upstream_key_id = "openrouter", "k1"
            facts = {"model": row.model, "requestId": str(row.id)}
            self.spent[row.settled_at.date()] += charge
            self._post("debit", charge, row.settled_at, "llm_request", f"llm:{row.id}", facts)
        self.requests.append(row)

    def _opened(
        self, at: datetime, numbers: random.Random, price: int, prompt: int
    ) -> LLMRequestLog:
        milliseconds = int(at.timestamp() * 1000)
        low = (7 << 76) | (numbers.getrandbits(12) << 64) | (2 << 62) | numbers.getrandbits(62)
        return LLMRequestLog(
            id=UUID(int=(milliseconds << 80) | low),
            user_id=self.user_id,
            api_key_id=self.public_id,
            kind="chat",
            hold=100,
            model=numbers.choice(MODELS),
            stream=True,
            prompt_estimate=prompt,
            price_version=price,
            instance_id="one",
            opened_at=at,
            deadline_at=at + timedelta(minutes=10),
        )

    def _post(
        self,
        kind: str,
        amount: int,
        at: datetime,
        description: str,
        request_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        before = self.balance
        self.balance += -amount if kind == "debit" else amount
        entry = FluxTransaction(
            user_id=self.user_id,
            user_seq=len(self.entries) + 1,
            kind=kind,
            amount=amount,
            balance_before=before,
            balance_after=self.balance,
            request_id=request_id,
            description=description,
            metadata=metadata,
            created_at=at,
        )
        self.entries.append(entry)
