"""What operators change while the server runs: revisions, and a version for each kind."""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, Index, Q


class PublishedVersion(models.Model):
    """A counter for each kind of published thing; a process copy is stale when it is behind."""

    name = models.CharField(primary_key=True, max_length=32)
    version = models.BigIntegerField()

    class Meta:
        db_table = "published_version"
        constraints = [
            CheckConstraint(name="published_version_positive", condition=Q(version__gt=0)),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}"


class OptionRevision(models.Model):
    """One value an operator gave a runtime option. Newest wins; never edited."""

    name = models.CharField(max_length=64)
    value = models.JSONField()
    note = models.CharField(max_length=200, blank=True)
    changed_by = models.CharField(max_length=150)
    changed_at = models.DateTimeField()

    class Meta:
        db_table = "config_kv"
        verbose_name = "setting"
        permissions = [("change_options", "Can change operator settings")]
        indexes = [Index(name="config_kv_newest", fields=["name", "-id"])]
        constraints = [
            CheckConstraint(name="config_kv_name_not_empty", condition=~Q(name="")),
        ]

    def __str__(self) -> str:
        return f"{self.name} r{self.pk}"
