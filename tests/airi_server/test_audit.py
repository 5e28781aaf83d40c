from datetime import UTC, datetime

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.transaction import TransactionManagementError

from airi_server.kernel import context
from airi_server.runtime import audit, options
from airi_server.runtime.models import OptionRevision, PublishedVersion
from tests.factories import accounts as make

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
SUBJECT = audit.Subject("billing.fluxaccount", "u1")


def record(**facts):
    entry = {
        "action": "billing.grant_flux",
        "subject": SUBJECT,
        "by": audit.Actor("op@example.com", user_id="u9"),
        "at": AT,
        "sentence": "Granted 5 flux: welcome",
    }
    audit.record(**{**entry, **facts})


@pytest.mark.django_db
class TestRecording:
    def test_keeps_who_did_what_to_whom_and_in_which_request(self):
        before = context.request_id.set("0198-request")

        record(facts={"amount": 5})
        context.request_id.reset(before)

        (entry,) = audit.of(SUBJECT)
        assert (entry.actor, entry.actor_id) == ("op@example.com", "u9")
        assert (entry.action, entry.sentence) == ("billing.grant_flux", "Granted 5 flux: welcome")
        assert (entry.at, entry.facts, entry.request_id) == (AT, {"amount": 5}, "0198-request")

    def test_lists_the_newest_first_and_only_its_own(self):
        record(sentence="first")
        record(sentence="second")
        record(subject=audit.Subject("billing.fluxaccount", "u2"))

        assert [entry.sentence for entry in audit.of(SUBJECT)] == ["second", "first"]

    def test_a_command_has_a_name_and_no_account(self):
        record(by=audit.COMMAND)

        (entry,) = audit.of(SUBJECT)
        assert (entry.actor, entry.actor_id) == ("manage.py", "")

    def test_a_long_sentence_is_cut_and_does_not_stop_the_action(self):
        record(sentence="x" * 5000)

        assert len(audit.of(SUBJECT)[0].sentence) == audit.MAX_SENTENCE

    def test_outlives_the_operator(self):
        operator = make.user()
        record(by=audit.Actor.of(operator))

        operator.delete()

        assert audit.of(SUBJECT)[0].actor == operator.email

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_entry SET sentence = 'nothing happened'",
            "DELETE FROM audit_entry",
            "TRUNCATE audit_entry",
        ],
    )
    def test_the_database_refuses_to_change_what_was_recorded(self, statement):
        record()

        with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(statement)

        assert len(audit.of(SUBJECT)) == 1


@pytest.mark.django_db
class TestConstraints:
    @pytest.mark.parametrize(
        ("row", "name"),
        [
            ({"subject": audit.Subject("", "u1")}, "audit_entry_has_a_subject"),
            ({"facts": [1]}, "audit_entry_facts_are_an_object"),
            ({"by": ""}, "audit_entry_has_an_actor"),
        ],
    )
    def test_the_database_wants_who_and_what(self, row, name):
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            record(**row)

    @pytest.mark.parametrize(
        ("row", "name"),
        [
            (OptionRevision(name="A", value=1, changed_at=AT), "config_kv_has_an_author"),
            (PublishedVersion(name="", version=1), "published_version_has_a_name"),
        ],
    )
    def test_and_by_whom_settings_change(self, row, name):
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            row.save(force_insert=True)


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_needs_the_transaction_of_what_it_is_about(self):
        with pytest.raises(TransactionManagementError):
            record()

    def test_what_is_rolled_back_was_never_done(self):
        with pytest.raises(RuntimeError), transaction.atomic():
            record()
            raise RuntimeError

        assert audit.of(SUBJECT) == []

    def test_a_setting_that_changes_leaves_its_row(self):
        by = audit.Actor("op@example.com", user_id="u9")

        options.put("FLUX_PER_REQUEST", 7, by=by, at=AT, note="dearer")
        options.put("FLUX_PER_REQUEST", 7, by=by, at=AT, note="again")

        entries = audit.of(audit.Subject("runtime.option", "FLUX_PER_REQUEST"))
        assert [(entry.actor_id, entry.sentence) for entry in entries] == [
            ("u9", "Set FLUX_PER_REQUEST. dearer")
        ]
