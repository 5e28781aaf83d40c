"""Record what is refused: each request for a week, and how many by hour."""

import django.db.models.functions.text
import django.db.models.lookups
from django.db import migrations, models

# An hour's count is updated many times: room on the page keeps that out of the indexes.
STORAGE = "ALTER TABLE refusal_hour SET (fillfactor = 70)"
STORAGE_REVERSE = "ALTER TABLE refusal_hour RESET (fillfactor)"


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0013_grants_have_audit_entries"),
    ]

    operations = [
        migrations.CreateModel(
            name="RefusalHour",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "user_id",
                        "hour",
                        "api_key_id",
                        "model",
                        "code",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("user_id", models.TextField()),
                ("hour", models.DateTimeField()),
                ("api_key_id", models.TextField()),
                ("model", models.TextField()),
                ("code", models.TextField()),
                ("status", models.SmallIntegerField()),
                ("count", models.BigIntegerField()),
                ("first_at", models.DateTimeField()),
                ("last_at", models.DateTimeField()),
            ],
            options={
                "db_table": "refusal_hour",
                "default_permissions": (),
                "indexes": [models.Index(fields=["hour"], name="refusal_hour_time")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("count__gt", 0)), name="refusal_hour_count_positive"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="RefusedRequest",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("user_id", models.TextField()),
                ("api_key_id", models.TextField()),
                ("model", models.TextField()),
                ("kind", models.TextField()),
                ("status", models.SmallIntegerField()),
                ("code", models.TextField()),
                ("message", models.TextField()),
                ("at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "refused request",
                "db_table": "refused_request",
                "default_permissions": ("view",),
                "indexes": [
                    models.Index(fields=["user_id", "-id"], name="refused_request_user_newest")
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("user_id", ""), _negated=True),
                        name="refused_request_is_of_a_user",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("status__gte", 400), ("status__lte", 599)),
                        name="refused_request_status_refuses",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            django.db.models.lookups.LessThanOrEqual(
                                django.db.models.functions.text.Length("message"), 200
                            ),
                            django.db.models.lookups.LessThanOrEqual(
                                django.db.models.functions.text.Length("model"), 64
                            ),
                        ),
                        name="refused_request_is_short",
                    ),
                ],
            },
        ),
        migrations.RunSQL(STORAGE, STORAGE_REVERSE),
    ]
