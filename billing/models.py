"""Flux: the account, its append-only ledger, and the requests that explain it."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, F, Func, Index, Q, UniqueConstraint
from django.db.models.functions import Abs, Greatest, Least
from django.db.models.lookups import (
    Exact,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
)  # fmt: skip

from billing.claims import agree, one_of
from billing.grant_rows import FluxGrant, FluxGrantPerson
from billing.usage.models import RefusalHour, RefusedRequest

MAX_RESULT_BYTES = 65_536
"""The longest answer that is kept for a replay."""


class LLMRequestResult(models.Model):
    """The answer to a request that carried an `Idempotency-Key`, kept for its replay."""

    request = models.UUIDField(primary_key=True, db_column="request_id")
    user_id = models.TextField()
    body = models.BinaryField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "llm_request_result"
        indexes = [Index(name="llm_request_result_age", fields=["created_at"])]
        constraints = [
            CheckConstraint(
                name="llm_request_result_body_bounded",
                condition=LessThanOrEqual(
                    Func("body", function="octet_length", output_field=models.IntegerField()),
                    MAX_RESULT_BYTES,
                ),
            ),
        ]

    def __str__(self) -> str:
        return str(self.request)


class APIKeySpend(models.Model):
    """Flux one API key debited on one UTC day: a sum over the ledger, kept in its transaction."""

    pk = models.CompositePrimaryKey("user_id", "api_key_id", "day")
    user_id = models.TextField()
    api_key_id = models.TextField()
    day = models.DateField()
    flux = models.BigIntegerField()

    class Meta:
        db_table = "api_key_spend"
        constraints = [
            CheckConstraint(name="api_key_spend_flux_positive", condition=Q(flux__gt=0)),
        ]

    def __str__(self) -> str:
        return f"{self.api_key_id} {self.day}: {self.flux} flux"


__all__ = [
    "APIKeySpend", "FluxAccount", "FluxGrant", "FluxGrantPerson", "FluxTransaction",
    "LLMRequestLog", "LLMRequestResult", "PriceVersion", "RefusalHour", "RefusedRequest",
]  # fmt: skip

MAX_TOKENS = 100_000_000
"""As in `billing.pricing`, which knows no database."""
FAILED_OUTCOMES = (
    "failed",
    "shutdown",
    "deadline",
    "upstream_broken",
    "upstream_stalled",
    "upstream_error",
    "server_error",
    "orphaned",
)
"""All but `completed` and `client_gone`: whoever hangs up has not been failed."""


class FluxAccount(models.Model):
    """The spendable Flux of one user.

    `balance` always equals the newest entry's `balance_after` and `held` the sum of the holds of
    the user's open requests. Written by `billing.ledger` and by the statements of
    `billing.requests`, and by nothing else; `frozen` by `billing.account_state`, `deleted_at` by
    `billing.account_state`. `ledger_seq` is the newest entry's `user_seq`.
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
            CheckConstraint(
                name="user_flux_held_and_seq_not_negative",
                condition=GreaterThanOrEqual(Least("held", "ledger_seq"), 0),
            ),
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
            # Below 0 it would not add up.
            CheckConstraint(
                name="flux_transaction_amount_positive",
                condition=Q(amount__gt=0) | Q(kind="initial"),
            ),
            CheckConstraint(
                name="flux_transaction_balance_adds_up",
                condition=Q(Exact(Abs(F("balance_after") - F("balance_before")), F("amount")))
                & (
                    Q(one_of("kind", ("reversal", "admin_set")))
                    | Q(
                        agree(
                            Exact(F("kind"), "debit"),
                            LessThan(F("balance_after"), F("balance_before")),
                        )
                    )
                ),
            ),
            CheckConstraint(
                name="flux_transaction_balance_not_negative",
                condition=GreaterThanOrEqual(Least("balance_before", "balance_after"), 0),
            ),
            CheckConstraint(
                name="flux_transaction_kind_known",
                condition=one_of(
                    "kind", ("initial", "credit", "promo", "debit", "reversal", "admin_set")
                ),
            ),
            CheckConstraint(name="flux_transaction_seq_positive", condition=Q(user_seq__gt=0)),
            CheckConstraint(
                name="flux_transaction_reversal_names_an_entry",
                condition=agree(
                    Exact(F("kind"), "reversal"),
                    Q(reverses_seq__isnull=False),
                ),
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
    the row, so that it can be computed again (`billing.pricing.charge_of`). `reported` is the raw
    usage report as the upstream sent it, kept where it was not charged as it stands.
    """

    class State(models.TextChoices):
        OPEN = "open"
        STREAMING = "streaming"
        SETTLED = "settled"
        VOIDED = "voided"

    class Kind(models.TextChoices):
        CHAT = "chat"
        TTS = "tts"
        EMBEDDING = "embedding"

    class Outcome(models.TextChoices):
        COMPLETED = "completed"
        FAILED = "failed"
        CLIENT_GONE = "client_gone"
        SHUTDOWN = "shutdown"
        DEADLINE = "deadline"
        UPSTREAM_BROKEN = "upstream_broken"
        UPSTREAM_STALLED = "upstream_stalled"
        UPSTREAM_ERROR = "upstream_error"
        SERVER_ERROR = "server_error"
        ORPHANED = "orphaned"

    class UsageSource(models.TextChoices):
        REPORTED = "reported"
        COMPLETED = "completed"
        BOUNDED = "bounded"
        COUNTED = "counted"
        ESTIMATED = "estimated"
        NONE = "none"

    id = models.UUIDField(primary_key=True)
    user_id = models.TextField()
    api_key_id = models.TextField(null=True)  # noqa: DJ001  NULL: not called with a key
    kind = models.TextField(choices=Kind)
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
    reported = models.JSONField(null=True)
    price_version = models.IntegerField()
    flux_charged = models.BigIntegerField(db_column="flux_consumed", default=0)
    unbilled = models.BigIntegerField(default=0)
    provider_cost_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    outcome = models.TextField(choices=Outcome, null=True)  # noqa: DJ001  NULL: not ended yet
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
                condition=one_of("state", ("open", "streaming", "settled", "voided")),
            ),
            CheckConstraint(
                name="llm_request_log_kind_known",
                condition=one_of("kind", ("chat", "tts", "embedding")),
            ),
            CheckConstraint(
                name="llm_request_log_outcome_known",
                condition=one_of(
                    "outcome",
                    (
                        "completed",
                        "failed",
                        "client_gone",
                        "shutdown",
                        "deadline",
                        "upstream_broken",
                        "upstream_stalled",
                        "upstream_error",
                        "server_error",
                        "orphaned",
                    ),
                ),
            ),
            CheckConstraint(
                name="llm_request_log_usage_source_known",
                condition=one_of(
                    "usage_source",
                    ("reported", "completed", "bounded", "counted", "estimated", "none"),
                ),
            ),
            CheckConstraint(
                name="llm_request_log_closed_rows_say_when",
                condition=agree(
                    Q(settled_at__isnull=True),
                    one_of("state", ("open", "streaming")),
                ),
            ),
            CheckConstraint(
                name="llm_request_log_closed_rows_say_how",
                condition=agree(Q(settled_at__isnull=True), Q(outcome__isnull=True)),
            ),
            CheckConstraint(
                name="llm_request_log_first_byte_of_streams",
                condition=Q(state="settled")
                | Q(agree(Exact(F("state"), "streaming"), Q(first_byte_at__isnull=False))),
            ),
            CheckConstraint(
                name="llm_request_log_only_settled_rows_charge",
                condition=Q(state="settled") | Q(Exact(Greatest("flux_charged", "unbilled"), 0)),
            ),
            CheckConstraint(
                name="llm_request_log_only_settled_rows_have_usage",
                condition=Q(state="settled") | Q(usage_source="none"),
            ),
            CheckConstraint(
                name="llm_request_log_charge_not_negative",
                condition=GreaterThanOrEqual(Least("flux_charged", "unbilled", "hold"), 0),
            ),
            CheckConstraint(
                name="llm_request_log_counts_not_negative",
                condition=GreaterThanOrEqual(
                    Least(
                        "prompt_estimate",
                        "prompt_tokens",
                        "completion_tokens",
                        "cached_tokens",
                        "units",
                        "checkpoint",
                        "duration_ms",
                        "ttft_ms",
                        "attempts",
                        output_field=models.IntegerField(),
                    ),
                    0,
                ),
            ),
            CheckConstraint(
                name="llm_request_log_cached_among_prompt",
                condition=Q(cached_tokens__lte=F("prompt_tokens")),
            ),
            CheckConstraint(
                name="llm_request_log_tokens_plausible",
                condition=LessThanOrEqual(
                    Greatest("prompt_tokens", "completion_tokens"), MAX_TOKENS
                ),
            ),
            CheckConstraint(
                name="llm_request_log_status_of_http",
                condition=Q(status__gte=100, status__lte=599),
            ),
            CheckConstraint(
                name="llm_request_log_cost_not_negative", condition=Q(provider_cost_usd__gte=0)
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
            # An outcome is written once, with the end: no update more than before leaves its page.
            Index(
                name="llm_request_log_failed",
                fields=["id"],
                condition=Q(outcome__in=FAILED_OUTCOMES),
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
            CheckConstraint(
                name="price_version_costs_not_negative",
                condition=GreaterThanOrEqual(
                    Least("usd_per_1m_input", "usd_per_1m_output", "usd_per_1m_cached"), 0
                ),
            ),
            CheckConstraint(name="price_version_has_a_publisher", condition=~Q(created_by="")),
        ]
        indexes = [Index(name="price_version_newest", fields=["model", "-id"])]

    def __str__(self) -> str:
        return f"v{self.pk} {self.model or 'default'}"
