"""Look at the rows that were there before their CHECKs. Locks nobody out, and may take a while."""

from django.contrib.postgres.operations import ValidateConstraint
from django.db import migrations

ADDED = {
    "fluxaccount": [
        "user_flux_held_and_seq_not_negative",
    ],
    "fluxtransaction": [
        "flux_transaction_amount_positive",
        "flux_transaction_balance_adds_up",
        "flux_transaction_balance_not_negative",
        "flux_transaction_kind_known",
        "flux_transaction_reversal_names_an_entry",
    ],
    "llmrequestlog": [
        "llm_request_log_state_known",
        "llm_request_log_kind_known",
        "llm_request_log_outcome_known",
        "llm_request_log_usage_source_known",
        "llm_request_log_closed_rows_say_when",
        "llm_request_log_closed_rows_say_how",
        "llm_request_log_first_byte_of_streams",
        "llm_request_log_only_settled_rows_charge",
        "llm_request_log_only_settled_rows_have_usage",
        "llm_request_log_charge_not_negative",
        "llm_request_log_counts_not_negative",
        "llm_request_log_cached_among_prompt",
        "llm_request_log_tokens_plausible",
        "llm_request_log_status_of_http",
        "llm_request_log_cost_not_negative",
    ],
}


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0009_the_database_insists")]
    operations = [
        ValidateConstraint(model_name=model, name=name)
        for model, names in ADDED.items()
        for name in names
    ]
