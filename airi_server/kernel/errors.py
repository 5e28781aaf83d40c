"""Domain errors: outcomes a caller can name, each with one wire code and one status."""

from __future__ import annotations

from typing import Any, ClassVar


class DomainError(Exception):
    """An anticipated refusal. Safe to show to the client, never logged as a crash.

    Subclasses live beside the function that raises them (`billing.ledger.InsufficientFlux`),
    so one import gives a caller both the verb and the ways it can say no.

    Args:
        message: For people; clients display it.
        details: JSON for programs, shown under `details`; never a secret or an upstream body.
        retry_after_s: Sent as `Retry-After`, whole seconds.
        param: The request field at fault, for OpenAI's error object.
    """

    code: ClassVar[str] = "BAD_REQUEST"
    status: ClassVar[int] = 400

    def __init__(
        self,
        message: str,
        *,
        details: Any = None,
        retry_after_s: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s
        self.param = param
        self.closes_connection = False


class InvalidRequest(DomainError):
    """The request does not have the shape we document."""

    code = "INVALID_REQUEST"
    status = 400


class Unauthorized(DomainError):
    """No credential, or one that does not stand."""

    code = "UNAUTHORIZED"
    status = 401


class Forbidden(DomainError):
    """The credential stands, but not for this."""

    code = "FORBIDDEN"
    status = 403


class NotFound(DomainError):
    """It does not exist, or it is not yours: the same answer for both."""

    code = "NOT_FOUND"
    status = 404


class Conflict(DomainError):
    """The request contradicts what is already stored."""

    code = "CONFLICT"
    status = 409


class TooManyRequests(DomainError):
    """A limit per minute or in parallel is used up."""

    code = "TOO_MANY_REQUESTS"
    status = 429


class Unavailable(DomainError):
    """A part we cannot work without is away; trying again later is right."""

    code = "SERVICE_UNAVAILABLE"
    status = 503


class ServerError(DomainError):
    """A bug. The client learns nothing about it; the log does."""

    code = "INTERNAL_SERVER_ERROR"
    status = 500
