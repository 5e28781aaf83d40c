"""Refused requests: each for a week, and counts by hour for as long as usage is kept."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, Index, Q
from django.db.models.functions import Length
from django.db.models.lookups import LessThanOrEqual

MAX_MESSAGE = 200
MAX_MODEL = 64


class RefusedRequest(models.Model):
    """One request that was refused before it was opened: it has no row among the requests.

    Written by `billing.usage.refusals`, and deleted by it a week later. `model` is what the caller
    asked for, whether there is such a model or not; empty where nobody had looked.
    """

    id = models.UUIDField(primary_key=True)
    user_id = models.TextField()
    api_key_id = models.TextField()
    model = models.TextField()
    kind = models.TextField()
    status = models.SmallIntegerField()
    code = models.TextField()
    message = models.TextField()
    at = models.DateTimeField()

    class Meta:
        db_table = "refused_request"
        verbose_name = "refused request"
        default_permissions = ("view",)
        constraints = [
            CheckConstraint(name="refused_request_is_of_a_user", condition=~Q(user_id="")),
            CheckConstraint(
                name="refused_request_status_refuses", condition=Q(status__gte=400, status__lte=599)
            ),
            CheckConstraint(
                name="refused_request_is_short",
                condition=Q(
                    LessThanOrEqual(Length("message"), MAX_MESSAGE),
                    LessThanOrEqual(Length("model"), MAX_MODEL),
                ),
            ),
        ]
        indexes = [Index(name="refused_request_user_newest", fields=["user_id", "-id"])]

    def __str__(self) -> str:
        return f"{self.id} {self.code}"


class RefusalHour(models.Model):
    """How often one caller was refused with one code in one UTC hour; nothing else counts them.

    `user_id` is empty for strangers, `model` for names that no model has. `status` is that of the
    last one.
    """

    pk = models.CompositePrimaryKey("user_id", "hour", "api_key_id", "model", "code")
    user_id = models.TextField()
    hour = models.DateTimeField()
    api_key_id = models.TextField()
    model = models.TextField()
    code = models.TextField()
    status = models.SmallIntegerField()
    count = models.BigIntegerField()
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        db_table = "refusal_hour"
        default_permissions = ()
        constraints = [
            CheckConstraint(name="refusal_hour_count_positive", condition=Q(count__gt=0)),
        ]
        indexes = [Index(name="refusal_hour_time", fields=["hour"])]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}:00 {self.code}: {self.count}"
