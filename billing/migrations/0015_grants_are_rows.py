"""A grant is a row, with its people, whoever was refused included; all of it only grows."""

from importlib import resources

import django.db.models.deletion
import django.db.models.functions.text
import django.db.models.lookups
from django.db import migrations, models

BACKWARD = """
DROP TRIGGER flux_grant_append_only ON flux_grant;
DROP TRIGGER flux_grant_person_append_only ON flux_grant_person;
DROP TRIGGER flux_grant_person_keeps_its_address ON flux_grant_person;
DROP FUNCTION flux_grant_person_keeps_its_address();
"""


def statement(name):
    return resources.files("billing").joinpath(f"sql/{name}.sql").read_text()


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0014_refusals_are_recorded"),
    ]

    operations = [
        migrations.CreateModel(
            name="FluxGrant",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.TextField(null=True)),
                ("description", models.TextField()),
                ("amount", models.BigIntegerField(null=True)),
                ("granted_by", models.TextField()),
                ("granted_at", models.DateTimeField()),
            ],
            options={
                "verbose_name": "grant",
                "db_table": "flux_grant",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0)), name="flux_grant_amount_positive"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("granted_by", ""), _negated=True),
                        name="flux_grant_has_a_granter",
                    ),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False)),
                        fields=("key",),
                        name="flux_grant_key_uniq",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="FluxGrantPerson",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("position", models.IntegerField()),
                ("pasted", models.TextField(null=True)),
                ("email", models.TextField(null=True)),
                ("user_id", models.TextField(null=True)),
                ("amount", models.BigIntegerField()),
                (
                    "result",
                    models.TextField(
                        choices=[
                            ("granted", "Granted"),
                            ("duplicate_in_input", "Named before in this list"),
                            ("not_found", "No user has this address"),
                            ("user_deleted", "The account was deleted"),
                            ("failed", "Failed"),
                        ]
                    ),
                ),
                ("error", models.TextField(blank=True)),
                ("at", models.DateTimeField()),
                (
                    "entry",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.fluxtransaction",
                    ),
                ),
                (
                    "grant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        to="billing.fluxgrant",
                    ),
                ),
            ],
            options={
                "verbose_name": "person of a grant",
                "verbose_name_plural": "people of grants",
                "db_table": "flux_grant_person",
                "default_permissions": (),
                "indexes": [
                    models.Index(
                        fields=["grant", "position", "id"], name="flux_grant_person_of_grant"
                    ),
                    models.Index(fields=["user_id"], name="flux_grant_person_of_user"),
                    models.Index(
                        django.db.models.functions.text.Lower("email"),
                        name="flux_grant_person_address",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Func(
                            models.F("result"),
                            output_field=models.BooleanField(),
                            template="%(expressions)s = ANY ('{granted,duplicate_in_input,not_found,user_deleted,failed}'::text[])",
                        ),
                        name="flux_grant_person_result_known",
                    ),
                    models.CheckConstraint(
                        condition=django.db.models.lookups.GreaterThan(models.F("amount"), 0),
                        name="flux_grant_person_amount_positive",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("position__gte", 0)),
                        name="flux_grant_person_position_not_negative",
                    ),
                    models.CheckConstraint(
                        condition=models.Func(
                            django.db.models.lookups.Exact(models.F("result"), "granted"),
                            models.Q(("entry__isnull", False)),
                            # In the order of billing.claims, by which Django compares them.
                            template="(%(expressions)s)",
                            arg_joiner=") = (",
                            output_field=models.BooleanField(),
                        ),
                        name="flux_grant_person_granted_has_entry",
                    ),
                    models.CheckConstraint(
                        condition=models.Func(
                            django.db.models.lookups.Exact(models.F("result"), "failed"),
                            django.db.models.lookups.GreaterThan(
                                django.db.models.functions.text.Length("error"), 0
                            ),
                            # In the order of billing.claims, by which Django compares them.
                            template="(%(expressions)s)",
                            arg_joiner=") = (",
                            output_field=models.BooleanField(),
                        ),
                        name="flux_grant_person_failed_says_why",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Func(
                                models.F("result"),
                                output_field=models.BooleanField(),
                                template="%(expressions)s = ANY ('{not_found,duplicate_in_input}'::text[])",
                            ),
                            ("user_id__isnull", False),
                            _connector="OR",
                        ),
                        name="flux_grant_person_granted_is_somebody",
                    ),
                    models.CheckConstraint(
                        condition=models.Func(
                            models.Q(("pasted__isnull", True)),
                            models.Q(("email__isnull", True)),
                            # In the order of billing.claims, by which Django compares them.
                            template="(%(expressions)s)",
                            arg_joiner=") = (",
                            output_field=models.BooleanField(),
                        ),
                        name="flux_grant_person_erased_whole",
                    ),
                    models.UniqueConstraint(fields=("entry",), name="flux_grant_person_entry_uniq"),
                    models.UniqueConstraint(
                        condition=models.Q(
                            ("result__in", ("duplicate_in_input", "not_found", "user_deleted"))
                        ),
                        fields=("grant", "position", "email", "result"),
                        name="flux_grant_person_refused_once",
                    ),
                ],
            },
        ),
        migrations.RunSQL(statement("grants_stay"), BACKWARD),
    ]
