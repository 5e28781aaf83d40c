"""Grant records: what a grant was and what became of each person, written with the entries.

Both tables are evidence and only grow. An address may be erased, when its user leaves for good.
"""

from __future__ import annotations

from django.db import models
from django.db.models import CheckConstraint, Exists, F, Index, OuterRef, Q, UniqueConstraint
from django.db.models.functions import Length, Lower
from django.db.models.lookups import Exact, GreaterThan

from billing.claims import agree, one_of

REFUSALS = ("duplicate_in_input", "not_found", "user_deleted")


class FluxGrant(models.Model):
    """One decision to give Flux, by its idempotency key. The first call under a key makes the row.

    `amount` is what each person gets; NULL where each has an amount of their own. `granted_by` is
    a user's id, or the name of a command.
    """

    key = models.TextField(null=True)  # noqa: DJ001  NULL: cannot be retried
    description = models.TextField()
    amount = models.BigIntegerField(null=True)
    granted_by = models.TextField()
    granted_at = models.DateTimeField()

    class Meta:
        db_table = "flux_grant"
        verbose_name = "grant"
        constraints = [
            CheckConstraint(name="flux_grant_amount_positive", condition=Q(amount__gt=0)),
            CheckConstraint(name="flux_grant_has_a_granter", condition=~Q(granted_by="")),
            UniqueConstraint(
                name="flux_grant_key_uniq", fields=["key"], condition=Q(key__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"Grant {self.pk}"


class FluxGrantPerson(models.Model):
    """One address of a grant and what came of it: an entry, a refusal or a failure.

    `pasted` is what the operator gave and `email` how it was read; both NULL where nobody typed
    one, or once it is erased. `position` is the place in the list. Who fails and is tried again
    has a row for each time.
    """

    class Result(models.TextChoices):
        GRANTED = "granted", "Granted"
        DUPLICATE = "duplicate_in_input", "Named before in this list"
        NOT_FOUND = "not_found", "No user has this address"
        DELETED = "user_deleted", "The account was deleted"
        FAILED = "failed", "Failed"

    grant = models.ForeignKey(FluxGrant, on_delete=models.PROTECT, db_index=False)
    position = models.IntegerField()
    pasted = models.TextField(null=True)  # noqa: DJ001  NULL: erased, or given by id
    email = models.TextField(null=True)  # noqa: DJ001  NULL: erased, or given by id
    user_id = models.TextField(null=True)  # noqa: DJ001  NULL: nobody was found
    amount = models.BigIntegerField()
    result = models.TextField(choices=Result)
    error = models.TextField(blank=True)
    entry = models.ForeignKey(
        "billing.FluxTransaction", on_delete=models.PROTECT, null=True, db_index=False
    )
    at = models.DateTimeField()

    class Meta:
        db_table = "flux_grant_person"
        verbose_name = "person of a grant"
        verbose_name_plural = "people of grants"
        default_permissions = ()
        constraints = [
            CheckConstraint(
                name="flux_grant_person_result_known",
                condition=one_of("result", ("granted", *REFUSALS, "failed")),
            ),
            CheckConstraint(
                name="flux_grant_person_amount_positive",
                condition=GreaterThan(F("amount"), 0),
            ),
            CheckConstraint(
                name="flux_grant_person_position_not_negative", condition=Q(position__gte=0)
            ),
            CheckConstraint(
                name="flux_grant_person_granted_has_entry",
                condition=agree(Exact(F("result"), "granted"), Q(entry__isnull=False)),
            ),
            CheckConstraint(
                name="flux_grant_person_failed_says_why",
                condition=agree(Exact(F("result"), "failed"), GreaterThan(Length("error"), 0)),
            ),
            CheckConstraint(
                name="flux_grant_person_granted_is_somebody",
                condition=Q(one_of("result", ("not_found", "duplicate_in_input")))
                | Q(user_id__isnull=False),
            ),
            CheckConstraint(
                name="flux_grant_person_erased_whole",
                condition=agree(Q(pasted__isnull=True), Q(email__isnull=True)),
            ),
            UniqueConstraint(name="flux_grant_person_entry_uniq", fields=["entry"]),
            UniqueConstraint(
                name="flux_grant_person_refused_once",
                fields=["grant", "position", "email", "result"],
                condition=Q(result__in=REFUSALS),
            ),
        ]
        indexes = [
            Index(name="flux_grant_person_of_grant", fields=["grant", "position", "id"]),
            Index(name="flux_grant_person_of_user", fields=["user_id"]),
            Index(Lower("email"), name="flux_grant_person_address"),
        ]

    def __str__(self) -> str:
        return f"{self.email or self.user_id or 'erased'}: {self.result}"


def missing(grant: FluxGrant) -> list[FluxGrantPerson]:
    """Return who failed and has nothing by this grant so far, each once, as they stood last."""
    paid = FluxGrantPerson.objects.filter(
        grant=grant, user_id=OuterRef("user_id"), result=FluxGrantPerson.Result.GRANTED
    )
    failed = FluxGrantPerson.objects.filter(
        ~Exists(paid), grant=grant, result=FluxGrantPerson.Result.FAILED
    )
    newest = {row.user_id: row for row in failed.order_by("id")}
    return [row for row in newest.values() if row.email is not None]
