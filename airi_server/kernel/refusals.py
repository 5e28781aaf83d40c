"""Error bodies: our envelope, or OpenAI's error object on its surface."""

from __future__ import annotations

from typing import Any, Final

from airi_server.kernel.errors import DomainError

TYPES: Final = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
}


def envelope(error: DomainError) -> dict[str, Any]:
    """Return `{error, message, details?}`."""
    body: dict[str, Any] = {"error": error.code, "message": error.message}
    if error.details is not None:
        body["details"] = error.details
    return body


def openai(error: DomainError) -> dict[str, Any]:
    """Return OpenAI's object; `message` beside it keeps it readable for the existing clients."""
    fallback = "server_error" if error.status >= 500 else "invalid_request_error"
    body: dict[str, Any] = {
        "error": {
            "message": error.message,
            "type": TYPES.get(error.status, fallback),
            "param": error.param,
            "code": getattr(error, "upstream_code", None) or error.code,
        },
        "message": error.message,
    }
    if error.details is not None:
        body["details"] = error.details
    return body


def headers(error: DomainError) -> dict[str, str]:
    """Return the headers a refusal carries."""
    found: dict[str, str] = {}
    if error.retry_after_s is not None:
        found["Retry-After"] = str(error.retry_after_s)
    if error.closes_connection:
        found["Connection"] = "close"
    if error.status == 402:
        # A balance does not grow by trying again; the official SDKs honor this.
        found["x-should-retry"] = "false"
    return found
