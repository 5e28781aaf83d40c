"""A CHECK on every enumerated column, count and amount, in as few words as PostgreSQL can keep.

On the big tables they hold for what is written from here on; the next migration looks at what is
there. What had a CHECK before never goes without: it is replaced within this transaction.
"""

from django.contrib.postgres.operations import AddConstraintNotValid
from django.db import migrations, models
from django.db.models import CheckConstraint, F, Func, Q
from django.db.models.functions import Abs, Greatest, Least
from django.db.models.lookups import (
    Exact,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
)


def one_of(column, words):
    return Func(
        F(column),
        template=f"%(expressions)s = ANY ('{{{words}}}'::text[])",
        output_field=models.BooleanField(),
    )


def agree(one, other):
    return Func(
        one,
        other,
        template="(%(expressions)s)",
        arg_joiner=") = (",
        output_field=models.BooleanField(),
    )


REPLACED = {
    "fluxaccount": ["user_flux_held_not_negative"],
    "fluxtransaction": [
        "flux_transaction_amount_positive",
        "flux_transaction_balance_adds_up",
        "flux_transaction_balance_not_negative",
        "flux_transaction_kind_known",
        "flux_transaction_reversal_names_an_entry",
    ],
    "llmrequestlog": [
        "llm_request_log_state_known",
        "llm_request_log_closed_rows_say_when",
        "llm_request_log_only_settled_rows_charge",
        "llm_request_log_charge_not_negative",
        "llm_request_log_tokens_not_negative",
    ],
}
BIG = {
    "fluxaccount": {
        "user_flux_held_and_seq_not_negative": GreaterThanOrEqual(Least("held", "ledger_seq"), 0),
    },
    "fluxtransaction": {
        "flux_transaction_amount_positive": Q(amount__gt=0) | Q(kind="initial"),
        "flux_transaction_balance_adds_up": Q(
            Exact(Abs(F("balance_after") - F("balance_before")), F("amount"))
        )
        & (
            Q(one_of("kind", "reversal,admin_set"))
            | Q(agree(Exact(F("kind"), "debit"), LessThan(F("balance_after"), F("balance_before"))))
        ),
        "flux_transaction_balance_not_negative": GreaterThanOrEqual(
            Least("balance_before", "balance_after"), 0
        ),
        "flux_transaction_kind_known": one_of(
            "kind", "initial,credit,promo,debit,reversal,admin_set"
        ),
        "flux_transaction_reversal_names_an_entry": agree(
            Exact(F("kind"), "reversal"), Q(reverses_seq__isnull=False)
        ),
    },
    "llmrequestlog": {
        "llm_request_log_state_known": one_of("state", "open,streaming,settled,voided"),
        "llm_request_log_kind_known": one_of("kind", "chat,tts,embedding"),
        "llm_request_log_outcome_known": one_of(
            "outcome",
            "completed,failed,client_gone,shutdown,deadline,upstream_broken,upstream_stalled,"
            "upstream_error,server_error,orphaned",
        ),
        "llm_request_log_usage_source_known": one_of(
            "usage_source", "reported,completed,bounded,counted,estimated,none"
        ),
        "llm_request_log_closed_rows_say_when": agree(
            Q(settled_at__isnull=True), one_of("state", "open,streaming")
        ),
        "llm_request_log_closed_rows_say_how": agree(
            Q(settled_at__isnull=True), Q(outcome__isnull=True)
        ),
        "llm_request_log_first_byte_of_streams": Q(state="settled")
        | Q(agree(Exact(F("state"), "streaming"), Q(first_byte_at__isnull=False))),
        "llm_request_log_only_settled_rows_charge": Q(state="settled")
        | Q(Exact(Greatest("flux_charged", "unbilled"), 0)),
        "llm_request_log_only_settled_rows_have_usage": Q(state="settled") | Q(usage_source="none"),
        "llm_request_log_charge_not_negative": GreaterThanOrEqual(
            Least("flux_charged", "unbilled", "hold"), 0
        ),
        "llm_request_log_counts_not_negative": GreaterThanOrEqual(
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
        "llm_request_log_cached_among_prompt": Q(cached_tokens__lte=F("prompt_tokens")),
        "llm_request_log_tokens_plausible": LessThanOrEqual(
            Greatest("prompt_tokens", "completion_tokens"), 100_000_000
        ),
        "llm_request_log_status_of_http": Q(status__gte=100, status__lte=599),
        "llm_request_log_cost_not_negative": Q(provider_cost_usd__gte=0),
    },
}
SMALL = {
    "llmrequestresult": {
        "llm_request_result_body_bounded": LessThanOrEqual(
            Func("body", function="octet_length", output_field=models.IntegerField()), 65_536
        ),
    },
    "priceversion": {
        "price_version_costs_not_negative": GreaterThanOrEqual(
            Least("usd_per_1m_input", "usd_per_1m_output", "usd_per_1m_cached"), 0
        ),
        "price_version_has_a_publisher": ~Q(created_by=""),
    },
    "reconciliationrun": {"reconciliation_run_has_an_author": ~Q(by="")},
}


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_reports_are_kept")]
    operations = [
        *(
            migrations.RemoveConstraint(model_name=model, name=name)
            for model, names in REPLACED.items()
            for name in names
        ),
        *(
            AddConstraintNotValid(model, CheckConstraint(name=name, condition=condition))
            for model, claims in BIG.items()
            for name, condition in claims.items()
        ),
        *(
            migrations.AddConstraint(model, CheckConstraint(name=name, condition=condition))
            for model, claims in SMALL.items()
            for name, condition in claims.items()
        ),
    ]
