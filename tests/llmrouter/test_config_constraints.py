from __future__ import annotations

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from llmrouter.configuration.models import (
    RouterDefaults,
    RouterKey,
    RouterModel,
    RouterRevision,
    RouterUpstream,
)
from tests.factories.llmrouter import published


@pytest.mark.django_db
class TestConstraints:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE router_revision SET note = 'x'",
            "DELETE FROM router_revision",
            "TRUNCATE router_revision",
        ],
    )
    def test_revisions_are_append_only(self, statement):
        published()

        with pytest.raises(DatabaseError, match="append-only"), connection.cursor() as cursor:
            cursor.execute(statement)

    @pytest.mark.parametrize(
        ("model", "fields", "name"),
        [
            (RouterModel, {"name": ""}, "router_model_name_without_separator"),
            (RouterModel, {"name": "a|b"}, "router_model_name_without_separator"),
            (RouterModel, {"provider": "azure"}, "router_model_surface_has_its_provider"),
            (RouterModel, {"surface": "tts"}, "router_model_surface_has_its_provider"),
            (RouterModel, {"surface": "x"}, "router_model_surface_(known|has_its_provider)"),
            (
                RouterModel,
                {"surface": "tts", "provider": "azzure"},
                "router_model_provider_known",
            ),
            (RouterModel, {"tokenizer": "p50k"}, "router_model_tokenizer_known"),
            (RouterModel, {"max_tokens_field": "n"}, "router_model_max_tokens_field_known"),
            (RouterModel, {"trigger_codes": [500, 99]}, "router_model_codes_of_http"),
            (RouterModel, {"trigger_codes": [600]}, "router_model_codes_of_http"),
            (RouterDefaults, {"fallback_http_codes": [42]}, "router_defaults_codes_of_http"),
            (
                RouterUpstream,
                {"adapter_params": []},
                "router_upstream_adapter_params_are_an_object",
            ),
            (RouterModel, {"max_output_tokens": 0}, "router_model_output_tokens_positive"),
            (RouterUpstream, {"position": 0}, "router_upstream_position_from_1"),
            (RouterUpstream, {"slug": "a|b"}, "router_upstream_slug_without_separator"),
            (RouterUpstream, {"base_url": "ftp://x"}, "router_upstream_base_url_is_http"),
            (RouterUpstream, {"header_template": "x"}, "router_upstream_header_has_a_key"),
            (RouterUpstream, {"timeout_ms": 0}, "router_upstream_timeout_positive"),
            (RouterUpstream, {"priority": -1}, "router_upstream_priority_not_negative"),
            (RouterUpstream, {"weight": 0}, "router_upstream_weight_positive"),
            (RouterKey, {"position": 0}, "router_key_position_from_1"),
            (RouterKey, {"key_id": "a|b"}, "router_key_id_without_separator"),
            (RouterKey, {"sealed": ""}, "router_key_is_sealed"),
            (RouterKey, {"fingerprint": "XYZ"}, "router_key_fingerprint_is_8_hex"),
        ],
    )
    def test_the_database_insists(self, model, fields, name):
        published()

        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            model.objects.update(**fields)

    def test_a_revision_is_a_tree(self):
        published()
        newest = RouterRevision.objects.get()
        newest.number, newest.tree = newest.number + 1, []

        with pytest.raises(IntegrityError, match="tree_is_an_object"), transaction.atomic():
            newest.save(force_insert=True)
