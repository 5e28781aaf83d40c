"""Flux: the account, its append-only ledger, and the requests that explain it."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, F, Index, Q, UniqueConstraint

from billing.by_products import APIKeySpend, LLMRequestResult

__all__ = [
    "APIKeySpend", "FluxAccount", "FluxTransaction", "LLMRequestLog", "LLMRequestResult",
    "PriceVersion",
]  # fmt: skip


class FluxAccount(models.Model):
    """The spendable Flux of one user.

    `balance` always equals the newest entry's `balance_after` and `held` the sum of the holds of
    the user's open requests. Written by `billing.ledger` and by the statements of
    `billing.requests`, and by nothing else; `frozen` by `billing.freezes`, `deleted_at` by
    `billing.closures`. `ledger_seq` is the newest entry's `user_seq`.
    """

    user_id = models.TextField(primary_key=True)
    balance = models.BigIntegerField(db_column="flux", default=0)
    held = models.BigIntegerField(default=0)
    ledger_seq = models.BigIntegerField(default=0)
    frozen = models.BooleanField(default=False)
    stripe_customer_id = models.TextField(null=True)  # noqa: DJ001  NULL: never met Stripe
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "user_flux"
        verbose_name = "account"
        permissions = [
            ("grant_flux", "Can grant Flux"),
            ("adjust_flux", "Can adjust a balance"),
            ("freeze_account", "Can freeze and thaw accounts"),
            ("export_books", "Can export the books"),
            ("settle_requests", "Can end orphaned requests"),
        ]
        constraints = [
            CheckConstraint(name="user_flux_balance_not_negative", condition=Q(balance__gte=0)),
            CheckConstraint(name="user_flux_held_not_negative", condition=Q(held__gte=0)),
            CheckConstraint(
                name="user_flux_held_covered_unless_frozen",
                condition=Q(balance__gte=F("held")) | Q(frozen=True),
            ),
        ]
        # Nothing that a request changes may be indexed here: updates would leave their page.
        indexes = [Index(name="user_flux_frozen", fields=["user_id"], condition=Q(frozen=True))]

    def __str__(self) -> str:
        return f"{self.user_id}: {self.balance} flux"


class FluxTransaction(models.Model):
    """One posted movement of Flux. Append-only: the database refuses to change or delete it.

    `amount` is unsigned whole Flux; `kind` carries the sign. `user_seq` is 1, 2, 3 … for each
    user and is the only order of the ledger: `created_at` is when the transaction ran.
    """

    class Kind(models.TextChoices):
        INITIAL = "initial", "Opening grant"
        CREDIT = "credit", "Purchase"
        PROMO = "promo", "Grant"
        DEBIT = "debit", "Usage"
        REVERSAL = "reversal", "Reversal of another entry"
        ADMIN_SET = "admin_set", "Adjustment"

    user_id = models.TextField()  # no foreign key: ledgers outlive users (ADR 0002)
    user_seq = models.BigIntegerField()
    kind = models.TextField(db_column="type", choices=Kind)
    amount = models.BigIntegerField()
    balance_before = models.BigIntegerField()
    balance_after = models.BigIntegerField()
    request_id = models.TextField(null=True)  # noqa: DJ001  NULL: cannot be retried
    reverses_seq = models.BigIntegerField(null=True)
    description = models.TextField()
    metadata = models.JSONField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "flux_transaction"
        verbose_name = "ledger entry"
        verbose_name_plural = "ledger entries"
        constraints = [
            CheckConstraint(
                name="flux_transaction_amount_positive",
                condition=Q(amount__gt=0) | Q(kind="initial", amount=0),
            ),
            CheckConstraint(
                name="flux_transaction_balance_adds_up",
                condition=Q(
                    kind__in=("initial", "credit", "promo"),
                    balance_after=F("balance_before") + F("amount"),
                )
                | Q(kind="debit", balance_after=F("balance_before") - F("amount"))
                | Q(
                    Q(balance_after=F("balance_before") + F("amount"))
                    | Q(balance_after=F("balance_before") - F("amount")),
                    kind__in=("reversal", "admin_set"),
                ),
            ),
            CheckConstraint(
                name="flux_transaction_balance_not_negative",
                condition=Q(balance_before__gte=0, balance_after__gte=0),
            ),
            CheckConstraint(
                name="flux_transaction_kind_known",
                condition=Q(
                    kind__in=("initial", "credit", "promo", "debit", "reversal", "admin_set")
                ),
            ),
            CheckConstraint(name="flux_transaction_seq_positive", condition=Q(user_seq__gt=0)),
            CheckConstraint(
                name="flux_transaction_reversal_names_an_entry",
                condition=Q(kind="reversal", reverses_seq__isnull=False)
                | (~Q(kind="reversal") & Q(reverses_seq__isnull=True)),
            ),
            UniqueConstraint(name="flux_transaction_user_seq_uniq", fields=["user_id", "user_seq"]),
            UniqueConstraint(
                name="flux_transaction_user_request_uniq",
                fields=["user_id", "request_id"],
                condition=Q(request_id__isnull=False),
            ),
            UniqueConstraint(
                name="flux_transaction_reversed_once",
                fields=["user_id", "reverses_seq"],
                condition=Q(reverses_seq__isnull=False),
            ),
        ]
        indexes = [
            Index(
                name="flux_transaction_not_usage",
                fields=["kind", "-id"],
                condition=~Q(kind="debit"),
            )
        ]

    def __str__(self) -> str:
        return f"{self.user_id} #{self.user_seq} {self.kind} {self.amount}"


class LLMRequestLog(models.Model):
    """One paid request. The row is the request: opened with a hold, closed exactly once.

    `state`: open → streaming → settled | voided. Everything the charge was computed from is on
    the row, so that it can be computed again (`billing.pricing.charge_of`).
    """

    class State(models.TextChoices):
        OPEN = "open"
        STREAMING = "streaming"
        SETTLED = "settled"
        VOIDED = "voided"

    class UsageSource(models.TextChoices):
        REPORTED = "reported"
        COUNTED = "counted"
        ESTIMATED = "estimated"
        NONE = "none"

    id = models.UUIDField(primary_key=True)
    user_id = models.TextField()
    api_key_id = models.TextField(null=True)  # noqa: DJ001  NULL: not called with a key
    kind = models.TextField()
    client_key = models.TextField(null=True)  # noqa: DJ001  NULL: sent no Idempotency-Key
    input_hash = models.BinaryField(null=True)
    state = models.TextField(choices=State)
    hold = models.BigIntegerField()
    model = models.TextField()
    upstream = models.TextField(null=True)  # noqa: DJ001  NULL: none answered
    upstream_key_id = models.TextField(null=True)  # noqa: DJ001  NULL: none answered
    attempts = models.SmallIntegerField(default=0)
    failures = models.JSONField(null=True)
    stream = models.BooleanField()
    status = models.SmallIntegerField(null=True)
    prompt_estimate = models.IntegerField()
    prompt_tokens = models.IntegerField(null=True)
    completion_tokens = models.IntegerField(null=True)
    cached_tokens = models.IntegerField(null=True)
    units = models.IntegerField(null=True)
    usage_source = models.TextField(choices=UsageSource, default=UsageSource.NONE)
    price_version = models.IntegerField()
    flux_charged = models.BigIntegerField(db_column="flux_consumed", default=0)
    unbilled = models.BigIntegerField(default=0)
    provider_cost_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    outcome = models.TextField(null=True)  # noqa: DJ001  NULL: not ended yet
    error_code = models.TextField(null=True)  # noqa: DJ001  NULL: no error
    instance_id = models.TextField()
    opened_at = models.DateTimeField()
    deadline_at = models.DateTimeField()
    first_byte_at = models.DateTimeField(null=True)
    checkpoint = models.IntegerField(default=0)
    settled_at = models.DateTimeField(null=True)
    duration_ms = models.IntegerField(null=True)
    ttft_ms = models.IntegerField(null=True)

    class Meta:
        db_table = "llm_request_log"
        verbose_name = "request"
        constraints = [
            CheckConstraint(
                name="llm_request_log_state_known",
                condition=Q(state__in=("open", "streaming", "settled", "voided")),
            ),
            CheckConstraint(
                name="llm_request_log_closed_rows_say_when",
                condition=Q(state__in=("open", "streaming"), settled_at__isnull=True)
                | Q(state__in=("settled", "voided"), settled_at__isnull=False),
            ),
            CheckConstraint(
                name="llm_request_log_only_settled_rows_charge",
                condition=Q(flux_charged=0, unbilled=0) | Q(state="settled"),
            ),
            CheckConstraint(
                name="llm_request_log_charge_not_negative",
                condition=Q(flux_charged__gte=0, unbilled__gte=0, hold__gte=0),
            ),
            CheckConstraint(
                name="llm_request_log_tokens_not_negative",
                condition=(Q(prompt_tokens__isnull=True) | Q(prompt_tokens__gte=0))
                & (Q(completion_tokens__isnull=True) | Q(completion_tokens__gte=0)),
            ),
            UniqueConstraint(
                name="llm_request_log_client_key_uniq",
                fields=["user_id", "kind", "client_key"],
                condition=Q(client_key__isnull=False) & ~Q(state="voided"),
            ),
        ]
        indexes = [
            Index(name="llm_request_log_user_newest", fields=["user_id", "-id"]),
            Index(
                name="llm_request_log_open",
                fields=["user_id", "id"],
                condition=Q(settled_at__isnull=True),
            ),
            Index(
                name="llm_request_log_unbilled",
                fields=["state", "-id"],
                condition=Q(unbilled__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.model} {self.state}"


class PriceVersion(models.Model):
    """One immutable price. The newest row of a model counts, else the newest default row.

    Rates are Flux for each 1,000 tokens with six decimals; `usd_*` is the provider's cost in USD
    for each million tokens and only serves the margin.
    """

    model = models.TextField(blank=True, help_text="Public model name; empty is the default.")
    flux_per_1k_input = models.DecimalField(max_digits=14, decimal_places=6)
    flux_per_1k_output = models.DecimalField(max_digits=14, decimal_places=6)
    flux_per_1k_cached = models.DecimalField(max_digits=14, decimal_places=6)
    flux_per_request = models.BigIntegerField()
    minimum_flux = models.BigIntegerField(default=1)
    usd_per_1m_input = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    usd_per_1m_output = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    usd_per_1m_cached = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    note = models.TextField(blank=True)
    created_by = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "price_version"
        verbose_name = "price"
        constraints = [
            CheckConstraint(
                name="price_version_rates_not_negative",
                condition=Q(
                    flux_per_1k_input__gte=0,
                    flux_per_1k_output__gte=0,
                    flux_per_1k_cached__gte=0,
                    flux_per_request__gte=0,
                    minimum_flux__gte=0,
                ),
            ),
        ]
        indexes = [Index(name="price_version_newest", fields=["model", "-id"])]

    def __str__(self) -> str:
        return f"v{self.pk} {self.model or 'default'}"
