"""Every enumerated column of the configuration is one of its words, every code one of HTTP's."""

from django.db import migrations, models
from django.db.models import CheckConstraint, F, Func
from django.db.models.lookups import Exact


def codes_of_http(column):
    return Func(
        F(column),
        template="100 <= ALL (%(expressions)s) AND 599 >= ALL (%(expressions)s)",
        output_field=models.BooleanField(),
    )


def one_of(column, words):
    """Stored as one constant, which a dump and its restore leave as it is."""
    return Func(
        F(column),
        template=f"(%(expressions)s)::text = ANY ('{{{words}}}'::text[])",
        output_field=models.BooleanField(),
    )


def is_an_object(column):
    return Exact(
        Func(F(column), function="jsonb_typeof", output_field=models.TextField()), "object"
    )


ADDED = {
    "routerdefaults": {"router_defaults_codes_of_http": codes_of_http("fallback_http_codes")},
    "routermodel": {
        "router_model_surface_known": one_of("surface", "llm,tts"),
        "router_model_provider_known": one_of(
            "provider", '"",azure,dashscope-cosyvoice,volcengine,stepfun,openai'
        ),
        "router_model_max_tokens_field_known": one_of(
            "max_tokens_field", "max_tokens,max_completion_tokens"
        ),
        "router_model_tokenizer_known": one_of("tokenizer", '"",o200k_base,cl100k_base'),
        "router_model_codes_of_http": codes_of_http("trigger_codes"),
    },
    "routerupstream": {
        "router_upstream_adapter_params_are_an_object": is_an_object("adapter_params"),
    },
    "routerrevision": {"router_revision_tree_is_an_object": is_an_object("tree")},
}


class Migration(migrations.Migration):
    dependencies = [("llmrouter", "0004_always_append_only")]
    operations = [
        migrations.AddConstraint(model, CheckConstraint(name=name, condition=condition))
        for model, claims in ADDED.items()
        for name, condition in claims.items()
    ]
