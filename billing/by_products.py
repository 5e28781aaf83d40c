"""What a settled request leaves beside its row and its entry: an answer, a key's spending."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, Index, Q


class LLMRequestResult(models.Model):
    """The answer to a request that carried an `Idempotency-Key`, kept for its replay."""

    request = models.UUIDField(primary_key=True, db_column="request_id")
    user_id = models.TextField()
    body = models.BinaryField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "llm_request_result"
        indexes = [Index(name="llm_request_result_age", fields=["created_at"])]

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
