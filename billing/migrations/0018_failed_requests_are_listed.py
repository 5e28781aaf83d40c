"""Index requests that failed: few rows of many, which a number on the start page leads to."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

FAILED = (
    "failed",
    "shutdown",
    "deadline",
    "upstream_broken",
    "upstream_stalled",
    "upstream_error",
    "server_error",
    "orphaned",
)


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0017_checks_keep_what_they_found")]
    operations = [
        AddIndexConcurrently(
            model_name="llmrequestlog",
            index=models.Index(
                fields=["id"],
                name="llm_request_log_failed",
                condition=models.Q(outcome__in=FAILED),
            ),
        ),
    ]
