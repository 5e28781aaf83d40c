"""What operators change while the server runs, a version for each kind, and who did what."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, Func, Index, Q
from django.db.models.lookups import Exact


class PublishedVersion(models.Model):
    """A counter for each kind of published thing; a process copy is stale when it is behind."""

    name = models.CharField(primary_key=True, max_length=32)
    version = models.BigIntegerField()

    class Meta:
        db_table = "published_version"
        constraints = [
            CheckConstraint(name="published_version_positive", condition=Q(version__gt=0)),
            CheckConstraint(name="published_version_has_a_name", condition=~Q(name="")),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class OptionRevision(models.Model):
    """One value an operator gave a runtime option. Newest wins; never edited."""

    name = models.CharField(max_length=64)
    value = models.JSONField()
    note = models.CharField(max_length=200, blank=True)
    changed_by = models.CharField(max_length=254)
    changed_at = models.DateTimeField()

    class Meta:
        db_table = "config_kv"
        verbose_name = "setting"
        permissions = [("change_options", "Can change operator settings")]
        indexes = [Index(name="config_kv_newest", fields=["name", "-id"])]
        constraints = [
            CheckConstraint(name="config_kv_name_not_empty", condition=~Q(name="")),
            CheckConstraint(name="config_kv_has_an_author", condition=~Q(changed_by="")),
        ]

    def __str__(self) -> str:
        return f"{self.name} r{self.pk}"


class UsedForm(models.Model):
    """A form of the console that did something, and the page that told what. Kept for a day."""

    token = models.TextField(primary_key=True)
    location = models.TextField(blank=True)
    used_at = models.DateTimeField()

    class Meta:
        db_table = "used_form"
        default_permissions = ()
        constraints = [CheckConstraint(name="used_form_has_a_token", condition=~Q(token=""))]
        indexes = [Index(name="used_form_oldest", fields=["used_at"])]

    def __str__(self) -> str:
        return f"{self.token}: {self.location}"


class AuditEntry(models.Model):
    """One thing an operator did, written in the transaction that did it. Append-only.

    `action` is the permission that allowed it, or `refused` followed by the one that was missing.
    `subject_kind` is a model's label and `subject_id` its key; neither is a foreign key, because
    this outlives what it is about. `request_id` names the log line of the same exchange.
    """

    at = models.DateTimeField()
    actor_id = models.TextField(blank=True, help_text="Empty: a command on the server.")
    actor = models.CharField(max_length=254, help_text="E-mail address at the time.")
    action = models.CharField(max_length=120)
    subject_kind = models.CharField(max_length=64)
    subject_id = models.TextField()
    sentence = models.CharField(max_length=1000)
    facts = models.JSONField(default=dict)
    request_id = models.TextField(blank=True)

    class Meta:
        db_table = "audit_entry"
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        indexes = [
            Index(name="audit_entry_of_subject", fields=["subject_kind", "subject_id", "-id"]),
            Index(name="audit_entry_of_actor", fields=["actor_id", "-id"]),
        ]
        constraints = [
            CheckConstraint(name="audit_entry_has_an_actor", condition=~Q(actor="")),
            CheckConstraint(name="audit_entry_has_an_action", condition=~Q(action="")),
            CheckConstraint(name="audit_entry_has_a_sentence", condition=~Q(sentence="")),
            CheckConstraint(name="audit_entry_has_a_subject", condition=~Q(subject_kind="")),
            CheckConstraint(
                name="audit_entry_facts_are_an_object",
                condition=Exact(
                    Func("facts", function="jsonb_typeof", output_field=models.TextField()),
                    "object",
                ),
            ),
        ]

    def __str__(self) -> str:
        return self.sentence
