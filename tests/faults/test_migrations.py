"""A migration that fails half-way has not happened."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.postgres.operations import AddIndexConcurrently, ValidateConstraint
from django.db import ProgrammingError, connection, migrations
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

OURS = {"accounts", "airi_server", "billing", "chats", "llmrouter"}


class HalfWay(migrations.Migration):
    operations = [
        migrations.RunSQL("CREATE TABLE half_way (id int)"),
        migrations.RunSQL("SELECT FROM nothing_of_this_name"),
    ]


@pytest.mark.django_db
def test_each_of_ours_is_one_transaction_or_only_an_index():
    """Or a look at what is there already: beside the traffic, which no transaction can.

    Neither changes data.
    """
    labels = {each.label for each in apps.get_app_configs() if each.name.split(".")[0] in OURS}
    loader = MigrationLoader(connection)

    ours = [each for key, each in loader.disk_migrations.items() if key[0] in labels]
    beside = {type(step) for each in ours if not each.atomic for step in each.operations}

    assert len(ours) > 10
    assert beside <= {AddIndexConcurrently, ValidateConstraint, migrations.AlterModelOptions}


@pytest.mark.django_db(transaction=True)
def test_one_that_fails_at_its_second_statement_leaves_nothing():
    failing = HalfWay("half_way", "billing")
    executor = MigrationExecutor(connection)

    with pytest.raises(ProgrammingError):
        executor.apply_migration(executor.loader.project_state(), failing)

    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('half_way')")
        assert cursor.fetchone() == (None,)
    assert ("billing", "half_way") not in MigrationLoader(connection).applied_migrations
