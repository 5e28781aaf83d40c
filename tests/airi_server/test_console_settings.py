"""Operator settings in the console: seen, changed with a reason, refused with one, taken back."""

from __future__ import annotations

import pytest
from django.urls import reverse

from airi_server.runtime import audit
from airi_server.runtime import options as runtime
from airi_server.runtime.models import OptionRevision, PublishedVersion
from billing import options
from billing.models import PriceVersion
from chats.options import CHAT_STRANGERS
from llmrouter.configuration.options import DEFAULT_TTS_VOICES
from tests.airi_server.console import staff
from tests.factories import billing as make

pytestmark = pytest.mark.django_db
LIST = reverse("admin:settings")
SEALED = "v1.canary-of-a-provider-key"


def page(name="FLUX_PER_REQUEST"):
    return reverse("admin:setting", args=[name])


def put(value, name="FLUX_PER_REQUEST", **facts):
    return runtime.put(name, value, **{"by": "ria", "at": make.NOW, **facts})


@pytest.fixture
def operator(client):
    return staff(client, "runtime.change_options")


class TestList:
    def test_shows_every_setting_with_value_default_and_help(
        self, client, operator, django_assert_num_queries
    ):
        put(7)
        put(8, by="zoe")

        # session, user, permissions (2); newest ids, newest revisions
        with django_assert_num_queries(6):
            answer = client.get(LIST)

        rows = {row.name: row for row in answer.context["rows"]}
        assert set(rows) == set(runtime.REGISTRY)
        assert list(rows) == sorted(rows)
        changed = rows["FLUX_PER_REQUEST"]
        assert (changed.value, changed.default, changed.newest.changed_by) == ("8", "5", "zoe")
        assert changed.range == "0 to 1,000,000,000"
        assert rows["FLUX_PER_1K_TOKENS"].value == "1"
        unset = [row for row in rows.values() if row.default == "not set"]
        assert unset
        assert all(row.option.default is runtime.UNSET for row in unset)
        assert rows["INITIAL_USER_FLUX"].help in answer.content.decode()


class TestChange:
    def test_puts_the_value_with_who_and_why(self, client, operator):
        answer = client.post(page(), {"value": " 9 ", "note": "costs went up", "seen": "0"})

        assert (answer.status_code, answer.url) == (302, page())
        assert options.FLUX_PER_REQUEST.read() == 9
        revision = OptionRevision.objects.get()
        assert (revision.changed_by, revision.note) == (operator.email, "costs went up")
        (entry,) = audit.of(audit.Subject("runtime.option", "FLUX_PER_REQUEST"))
        assert (entry.actor_id, entry.action) == (operator.pk, "runtime.change_options")
        assert entry.sentence == "Set FLUX_PER_REQUEST. costs went up"
        assert PriceVersion.objects.get().flux_per_request == 9
        assert set(PublishedVersion.objects.values_list("name", flat=True)) == {"options", "prices"}
        (line,) = client.get(page()).context["history"]
        assert (line.text, line.note) == ("9", "costs went up")

    @pytest.mark.parametrize(
        ("fields", "field", "words"),
        [
            ({"value": "-1"}, "value", "greater than or equal to 0"),
            ({"value": "1" + 30 * "0"}, "value", "less than or equal to 1000000000"),
            ({"value": "1.5"}, "value", "whole number"),
            ({"value": "true"}, "value", "whole number"),
            ({"value": "nine"}, "value", "whole number"),
            ({"value": "\x00"}, "value", ""),
            ({"value": ""}, "value", "required"),
            ({"note": ""}, "note", "required"),
            ({"note": "x" * 201}, "note", "at most 200"),
            ({"seen": "x"}, "seen", "whole number"),
        ],
    )
    def test_a_mistake_is_shown_at_its_field_and_nothing_written(
        self, client, operator, fields, field, words
    ):
        answer = client.post(page(), {"value": "9", "note": "why", "seen": "0", **fields})

        assert answer.status_code == 200
        (errors,) = answer.context["form"].errors.values()
        assert list(answer.context["form"].errors) == [field]
        assert words in errors[0]
        assert not OptionRevision.objects.exists()
        assert not audit.AuditEntry.objects.exists()

    @pytest.mark.parametrize(
        ("given", "stored"), [("2.5", 2.5), ("3", 3), ("0.000001", 0.000001), ("3.0", 3)]
    )
    def test_a_decimal_is_stored_as_it_was_typed(self, client, operator, given, stored):
        fields = {"value": given, "note": "why", "seen": "0"}
        client.post(page("FLUX_PER_1K_TOKENS"), fields)

        assert OptionRevision.objects.get().value == stored

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("{", "not JSON"),
            ('{"m": {"en": 5}}', "must be a string"),
            ('{"m": {"en": "a\\u0000b"}}', "NUL"),
            ("[]", "must be an object"),
            ("[" * 5000, "not JSON"),
        ],
    )
    def test_an_object_is_edited_as_json_and_refused_with_a_reason(
        self, client, operator, given, words
    ):
        fields = {"note": "why", "seen": "0"}
        refused = client.post(page("DEFAULT_TTS_VOICES"), {"value": given, **fields})
        accepted = client.post(
            page("DEFAULT_TTS_VOICES"), {"value": '{"m": {"en": "anna"}}', **fields}
        )

        assert words in refused.context["form"].errors["value"][0]
        assert accepted.status_code == 302
        assert DEFAULT_TTS_VOICES.read() == {"m": {"en": "anna"}}

    def test_one_that_is_on_or_off_is_a_box_to_tick(self, client, operator):
        fields = {"note": "why", "seen": "0"}
        shown = client.get(page("CHAT_STRANGERS"))

        answer = client.post(page("CHAT_STRANGERS"), fields)
        switched_off = CHAT_STRANGERS.read()
        again = {**fields, "seen": OptionRevision.objects.get().pk, "value": "on"}
        client.post(page("CHAT_STRANGERS"), again)

        assert shown.context["form"].initial["value"] is True
        assert (answer.status_code, switched_off, CHAT_STRANGERS.read()) == (302, False, True)

    def test_an_unknown_setting_is_not_found(self, client, operator):
        for name in ("NOTHING", "1", "FLUX_PER_REQUEST%00"):
            assert client.get(LIST + f"{name}/").status_code == 404
            posted = client.post(LIST + f"{name}/", {"value": "1", "note": "x", "seen": "0"})
            assert posted.status_code == 404


class TestBack:
    def test_an_old_value_is_published_again_with_a_reason(self, client, operator):
        old, new = put(7), put(8)
        again = f"{page()}?again={old.pk}"

        asked = client.get(again)
        answer = client.post(again, {"note": "too dear", "seen": new.pk})

        assert "FLUX_PER_REQUEST is 8 now and will be 7." in asked.content.decode()
        assert answer.status_code == 302
        assert options.FLUX_PER_REQUEST.read() == 7
        values = OptionRevision.objects.order_by("id").values_list("value", "note")
        assert list(values) == [(7, ""), (8, ""), (7, "too dear")]

    def test_the_default_is_published_as_a_value(self, client, operator):
        seen = put(7)

        client.post(f"{page()}?again=default", {"note": "as it was", "seen": seen.pk})

        assert client.get(page()).context["row"].is_default
        assert OptionRevision.objects.latest("id").value == 5

    def test_nothing_is_taken_back_that_was_changed_meanwhile(self, client, operator):
        old, seen = put(7), put(8)
        put(9, by="zoe")

        fields = {"note": "too dear", "seen": seen.pk}
        answers = [
            client.post(f"{page()}?again={old.pk}", fields),
            client.post(page(), {"value": "6", **fields}),
        ]

        for answer in answers:
            assert "changed meanwhile" in answer.context["form"].errors["__all__"][0]
        assert options.FLUX_PER_REQUEST.read() == 9

    def test_a_value_of_another_setting_or_of_none_is_not_found(self, client, operator):
        other = put(7, name="INITIAL_USER_FLUX")

        for which in (other.pk, 10**30, "x", "", "²", "-1", "%00"):
            answer = client.get(f"{page()}?again={which}")
            assert answer.status_code == 404, which
        assert client.get(f"{page('DEFAULT_CHAT_MODEL')}?again=default").status_code == 404

    def test_without_a_reason_nothing_happens(self, client, operator):
        old, seen = put(7), put(8)

        answer = client.post(f"{page()}?again={old.pk}", {"note": "", "seen": seen.pk})

        assert "required" in answer.context["form"].errors["note"][0]
        assert options.FLUX_PER_REQUEST.read() == 8


class TestSealed:
    def test_sealed_keys_are_shown_nowhere_and_edited_nowhere(self, client, operator):
        OptionRevision.objects.create(
            name="UNSPEECH_UPSTREAM",
            value={"restBaseURL": "https://s", "streaming": {"keys": [{"ciphertext": SEALED}]}},
            changed_by="ria",
            changed_at=make.NOW,
        )
        fields = {"value": "{}", "note": "x", "seen": "1"}

        pages = [client.get(LIST), client.get(page("UNSPEECH_UPSTREAM"))]
        posted = client.post(page("UNSPEECH_UPSTREAM"), fields)

        for shown in pages:
            assert f"&lt;ciphertext: {len(SEALED)} chars&gt;" in shown.content.decode()
            assert SEALED not in shown.content.decode()
        assert pages[1].context["form"] is None
        assert posted.status_code == 403


class TestPermissions:
    def test_who_may_look_may_not_change(self, client):
        staff(client, "runtime.view_optionrevision")
        old = put(7, note="<b>why</b>")

        assert client.get(LIST).status_code == 200
        shown = client.get(page())
        assert shown.context["form"] is None
        assert "&lt;b&gt;why" in shown.content.decode()
        fields = {"value": "9", "note": "x", "seen": old.pk}
        assert client.post(page(), fields).status_code == 403
        assert client.post(f"{page()}?again={old.pk}", fields).status_code == 403
        assert options.FLUX_PER_REQUEST.read() == 7

    def test_others_see_nothing(self, client):
        staff(client, "billing.view_fluxaccount")

        assert client.get(LIST).status_code == client.get(page()).status_code == 403
