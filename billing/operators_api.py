"""`/api/admin` of billing: what operators do from programs, with the console's permissions."""

from __future__ import annotations

from typing import Any, Final

from django.http import HttpRequest
from django.utils import timezone
from ninja import Router

from accounts import operators
from accounts.auth import KeyAuth
from airi_server.kernel.schemas import ErrorBody
from airi_server.runtime.audit import Actor
from billing import grants, operator_schemas

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
    response={200: operator_schemas.Preview | operator_schemas.GrantOut, **REFUSALS},
)
def grant_flux(
    request: GranterRequest,
    payload: operator_schemas.GrantIn,
    dryRun: str = "",  # noqa: N803  its name on the wire
) -> Any:
    """Grant Flux to up to 200 people by e-mail address; `dryRun=true` only says what would happen.

    Answers 200 also if some or all fail: `failed` says who and why. With an `idempotencyKey` a
    retry pays nobody twice and reports everybody as granted again.
    """
    order = payload.order()
    if dryRun == "true":
        plan = grants.preview(order)
        return operator_schemas.Preview(preview=operator_schemas.Summary.of(plan))
    result = grants.apply(order, by=request.auth, at=timezone.now())
    return operator_schemas.GrantOut(
        summary=operator_schemas.Summary.of(result.plan),
        result=operator_schemas.Outcomes.of(result),
    )
