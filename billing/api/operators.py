"""`/api/admin` of billing: what operators do from programs, with the console's permissions."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http import HttpRequest
from django.utils import timezone
from ninja import Router
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic.alias_generators import to_camel

from accounts import operators
from accounts.auth import KeyAuth
from airi_server.kernel.schemas import ErrorBody
from airi_server.runtime.audit import Actor
from billing import grants
from billing.grants import GrantRefusal

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

    def order(self) -> grants.GrantOrder:
        # "" is a valid key; a missing field means no key (contract §10).
        has_key = "idempotency_key" in self.model_fields_set
        key = self.idempotency_key if has_key else None
        return grants.GrantOrder.of(self.emails, self.amount, self.description, key)


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
    def of(cls, plan: grants.GrantPlan) -> Self:
        skipped = {refusal: plan.refused(refusal) for refusal in GrantRefusal}
        return cls(
            total_emails=len(plan.recipients),
            will_grant=len(plan.will_grant),
            will_skip=WillSkip(
                not_found=len(skipped[GrantRefusal.NOT_FOUND]),
                user_deleted=len(skipped[GrantRefusal.DELETED]),
                duplicate_in_input=len(skipped[GrantRefusal.DUPLICATE]),
            ),
            total_flux_to_issue=plan.total_flux,
            samples=Samples(
                will_grant=_sample(plan.will_grant),
                not_found=_sample(skipped[GrantRefusal.NOT_FOUND]),
                user_deleted=_sample(skipped[GrantRefusal.DELETED]),
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
    reason: GrantRefusal


class Failed(_Shape):
    email: str
    user_id: str
    error: str


class Outcomes(_Shape):
    granted: list[Granted]
    skipped: list[Skipped]
    failed: list[Failed]

    @classmethod
    def of(cls, result: grants.GrantResult) -> Self:
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


router = Router(tags=["Operators"], by_alias=True)

REFUSALS: Final[dict[int, Any]] = {400: ErrorBody, 401: ErrorBody, 403: ErrorBody}


class GranterAuth(KeyAuth):
    """Who may grant. Asked before the body is read: a stranger learns nothing from its faults."""

    def __call__(self, request: HttpRequest) -> Actor:  # type: ignore[override]  # the operator
        return operators.ensure(super().__call__(request), grants.PERMISSION)


class GranterRequest(HttpRequest):
    """An `HttpRequest` of somebody who may grant. Exists for the type checker."""

    auth: Actor


@router.post(
    "/flux-grants",
    auth=GranterAuth(),
    response={200: Preview | GrantOut, **REFUSALS},
)
def grant_flux(
    request: GranterRequest,
    payload: GrantIn,
    dryRun: str = "",  # noqa: N803  its name on the wire
) -> Any:
    """Grant Flux to up to 200 people by e-mail address; `dryRun=true` only says what would happen.

    Answers 200 also if some or all fail: `failed` says who and why. With an `idempotencyKey` a
    retry pays nobody twice and reports everybody as granted again.
    """
    order = payload.order()
    if dryRun == "true":
        plan = grants.preview(order)
        return Preview(preview=Summary.of(plan))
    result = grants.apply(order, by=request.auth, at=timezone.now())
    return GrantOut(
        summary=Summary.of(result.plan),
        result=Outcomes.of(result),
    )
