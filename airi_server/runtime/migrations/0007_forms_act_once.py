"""Remember which forms of the console were sent: none of them acts twice."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runtime", "0006_also_what_was_done_before"),
    ]

    operations = [
        migrations.CreateModel(
            name="UsedForm",
            fields=[
                ("token", models.TextField(primary_key=True, serialize=False)),
                ("location", models.TextField(blank=True)),
                ("used_at", models.DateTimeField()),
            ],
            options={
                "db_table": "used_form",
                "default_permissions": (),
                "indexes": [models.Index(fields=["used_at"], name="used_form_oldest")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("token", ""), _negated=True),
                        name="used_form_has_a_token",
                    )
                ],
            },
        ),
    ]
