"""Say two conditions so that Django can check them before it saves; the database's stay as they are."""

from django.db import migrations, models
from django.db.models import CheckConstraint, F, Func

CONSTRAINTS = {
    "routerdefaults": ("router_defaults_codes_of_http", "fallback_http_codes"),
    "routermodel": ("router_model_codes_of_http", "trigger_codes"),
}


def codes_of_http(column):
    return Func(
        F(column),
        F(column),
        template="100 <= ALL (%(expressions)s)",
        arg_joiner=") AND 599 >= ALL (",
        output_field=models.BooleanField(),
    )


class Migration(migrations.Migration):
    dependencies = [("llmrouter", "0006_timers_and_fields")]
    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                operation
                for model, (name, column) in CONSTRAINTS.items()
                for operation in (
                    migrations.RemoveConstraint(model, name),
                    migrations.AddConstraint(
                        model, CheckConstraint(name=name, condition=codes_of_http(column))
                    ),
                )
            ]
        )
    ]
