"""Index what operators filter by and almost no row has: the hot path never writes into these."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0004_operator_actions")]
    operations = [
        AddIndexConcurrently(
            model_name="fluxaccount",
            index=models.Index(
                fields=["user_id"], name="user_flux_frozen", condition=models.Q(frozen=True)
            ),
        ),
        AddIndexConcurrently(
            model_name="fluxtransaction",
            index=models.Index(
                fields=["kind", "-id"],
                name="flux_transaction_not_usage",
                condition=~models.Q(kind="debit"),
            ),
        ),
        AddIndexConcurrently(
            model_name="llmrequestlog",
            index=models.Index(
                fields=["state", "-id"],
                name="llm_request_log_unbilled",
                condition=models.Q(unbilled__gt=0),
            ),
        ),
    ]
