"""Shapes of `/api/admin/flux-grants` (contract §10)."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from billing import grants
from billing.grants import Refusal

SAMPLES: Final = 5
MAX_EMAIL: Final = 254


def _storable(text: str) -> str:
    """Refuse what PostgreSQL cannot keep: NUL, and halves of surrogate pairs."""
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("must not contain NUL or lone surrogates")
    return text


def _address(text: str) -> str:
    try:
        validate_email(text)
    except ValidationError:
        raise ValueError("is not an e-mail address") from None
    return text


def _whole(value: Any) -> Any:
    """Read 100.0 as the integer that it is in JSON."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Email = Annotated[str, StringConstraints(max_length=MAX_EMAIL), AfterValidator(_address)]
Description = Annotated[
    str,
    StringConstraints(min_length=1, max_length=grants.MAX_DESCRIPTION),
    AfterValidator(_storable),
]
Key = Annotated[str, StringConstraints(max_length=grants.MAX_KEY), AfterValidator(_storable)]
Amount = Annotated[int, BeforeValidator(_whole), Field(ge=1, le=grants.MAX_AMOUNT)]


class _Shape(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class GrantIn(_Shape):
    """What to grant and to whom. With the same `idempotencyKey` a retry pays nobody twice."""

    model_config = ConfigDict(strict=True)

    description: Description
    amount: Amount
    emails: Annotated[list[Email], Field(min_length=1, max_length=grants.MAX_EMAILS)]
    idempotency_key: Key = ""

    def order(self) -> grants.Order:
        # An empty key is a key, and none is none (contract §10).
        has_key = "idempotency_key" in self.model_fields_set
        key = self.idempotency_key if has_key else None
        return grants.Order(tuple(self.emails), self.amount, self.description, key)


class WillSkip(_Shape):
    not_found: int
    user_deleted: int
    duplicate_in_input: int


class Samples(_Shape):
    """At most five of each, as they were typed."""

    will_grant: list[str]
    not_found: list[str]
    user_deleted: list[str]


class Summary(_Shape):
    total_emails: int
    will_grant: int
    will_skip: WillSkip
    total_flux_to_issue: int
    samples: Samples

    @classmethod
    def of(cls, plan: grants.Plan) -> Self:
        skipped = {refusal: plan.refused(refusal) for refusal in Refusal}
        return cls(
            total_emails=len(plan.recipients),
            will_grant=len(plan.will_grant),
            will_skip=WillSkip(
                not_found=len(skipped[Refusal.NOT_FOUND]),
                user_deleted=len(skipped[Refusal.DELETED]),
                duplicate_in_input=len(skipped[Refusal.DUPLICATE]),
            ),
            total_flux_to_issue=plan.total_flux,
            samples=Samples(
                will_grant=_sample(plan.will_grant),
                not_found=_sample(skipped[Refusal.NOT_FOUND]),
                user_deleted=_sample(skipped[Refusal.DELETED]),
            ),
        )


def _sample(recipients: list[grants.Recipient]) -> list[str]:
    return [each.email for each in recipients[:SAMPLES]]


class Preview(_Shape):
    """The answer to a dry run: nothing was written."""

    preview: Summary


class Granted(_Shape):
    email: str
    user_id: str
    flux_transaction_id: str
    balance_after: int


class Skipped(_Shape):
    email: str
    reason: Refusal


class Failed(_Shape):
    email: str
    user_id: str
    error: str


class Outcomes(_Shape):
    granted: list[Granted]
    skipped: list[Skipped]
    failed: list[Failed]

    @classmethod
    def of(cls, result: grants.Result) -> Self:
        return cls(
            granted=[
                Granted(
                    email=recipient.email,
                    user_id=recipient.user_id,
                    flux_transaction_id=str(posting.entry_id),
                    balance_after=posting.balance_after,
                )
                for recipient, posting in result.granted
            ],
            skipped=[
                Skipped(email=each.email, reason=each.refusal)
                for each in result.plan.recipients
                if each.refusal is not None
            ],
            failed=[
                Failed(email=each.recipient.email, user_id=each.recipient.user_id, error=each.error)
                for each in result.failed
            ],
        )


class GrantOut(_Shape):
    """What was asked for, and what became of each address."""

    summary: Summary
    result: Outcomes
