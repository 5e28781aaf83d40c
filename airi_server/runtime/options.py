"""Operator settings: typed, bounded, kept in PostgreSQL, changed while the server runs.

Each app defines its own in its `options` module; the names and defaults are the contract's
(§11.1). A value is read with `option.current()` on the hot path, from the process copy, and with
`option.read()` in synchronous code, from the database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import orjson
from django.db import connection, transaction
from pydantic import TypeAdapter, ValidationError

from airi_server.kernel import database, validation
from airi_server.kernel.errors import Conflict, DomainError, InvalidRequest, Unavailable
from airi_server.runtime import audit, published
from airi_server.runtime.models import OptionRevision

__all__ = [
    "REGISTRY",
    "UNSET",
    "ChangedMeanwhile",
    "ConfigNotSet",
    "Option",
    "OptionRevision",
    "UnknownOption",
    "define",
    "put",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")
UNSET: Final[Any] = object()
NEWEST_SQL: Final = (
    "SELECT DISTINCT ON (name) name, value::text FROM config_kv ORDER BY name, id DESC"
)


class ConfigNotSet(Unavailable):
    """A required operator setting has no value yet."""

    code = "CONFIG_NOT_SET"


class UnknownOption(DomainError):
    """No setting of that name exists."""

    code = "NOT_FOUND"
    status = 404


class ChangedMeanwhile(Conflict):
    """Somebody else gave the setting a value after the caller looked."""


@dataclass(frozen=True)
class Option(Generic[T]):
    """One setting. `default` is `UNSET` where an operator has to decide first.

    `shown` is there if the value holds secrets: it takes the stored JSON and returns what may be
    seen of it. Such a setting is changed by what seals the secrets, and by no form. `judge` raises
    `ValueError` for a value that may be stored, from before, and may not be given any more.
    """

    name: str
    adapter: TypeAdapter[T]
    default: T
    help: str
    shown: Callable[[Any], Any] | None = None
    judge: Callable[[T], Any] | None = None
    after_change: list[Callable[[str, datetime], None]] = field(default_factory=list)

    def parse(self, value: Any) -> T:
        """Validate a JSON value strictly: a boolean is not a number, ranges hold.

        Raises:
            InvalidRequest: The value does not fit; `details` lists where and why.
        """
        try:
            return self.adapter.validate_json(orjson.dumps(value), strict=True)
        except (ValidationError, TypeError) as invalid:
            faults = invalid.errors() if isinstance(invalid, ValidationError) else []
            details = validation.details_of(faults)
            said = "; ".join(each["message"] for each in details) or "is not JSON"
            raise InvalidRequest(f"{self.name} {said}", details=details) from invalid

    def current(self) -> T:
        """Return the value in force on the hot path.

        Raises:
            ConfigNotSet: It has neither a value nor a default.
        """
        return self._or_default(_copies.current().get(self.name, UNSET))

    def current_or_none(self) -> T | None:
        """Return the value in force on the hot path; None if nobody has decided."""
        found: T = _copies.current().get(self.name, self.default)
        return None if found is UNSET else found

    def read(self) -> T:
        """Return the value in force, from the database.

        Raises:
            ConfigNotSet: It has neither a value nor a default.
        """
        newest = OptionRevision.objects.filter(name=self.name).order_by("-id").first()
        return self._or_default(self.parse(newest.value) if newest else UNSET)

    def _or_default(self, value: Any) -> T:
        found: T = self.default if value is UNSET else value
        if found is UNSET:
            raise ConfigNotSet("Service configuration is incomplete")
        return found


REGISTRY: Final[dict[str, Option[Any]]] = {}


def define(
    name: str,
    annotation: Any,
    *,
    default: Any = UNSET,
    help: str,  # noqa: A002  the admin's word for it
    shown: Callable[[Any], Any] | None = None,
    judge: Callable[[Any], Any] | None = None,
) -> Option[Any]:
    """Declare a setting; its bounds live in the annotation."""
    option: Option[Any] = Option(name, TypeAdapter(annotation), default, help, shown, judge)
    REGISTRY[name] = option
    return option


def put(
    name: str,
    value: Any,
    *,
    by: str,
    at: datetime,
    note: str = "",
    seen: int | None = None,
) -> OptionRevision:
    """Give a setting a new value; the next request on every instance uses it.

    Putting the value already in force changes nothing and returns the revision that set it.

    Args:
        name: Of the setting.
        value: JSON.
        by: Who decided.
        at: When.
        note: Why.
        seen: The newest revision the caller knows of, 0 if there was none; None: whatever it is.

    Raises:
        UnknownOption: There is no such setting.
        InvalidRequest: The value is out of range or of the wrong type. Nothing was written.
        ChangedMeanwhile: `seen` is not the newest any more. Nothing was written.
    """
    option = REGISTRY.get(name)
    if option is None:
        raise UnknownOption(f"There is no setting {name}.")
    parsed = option.parse(value)
    with transaction.atomic():
        newest = _newest_locked(name)
        if seen is not None and seen != (newest.pk if newest else 0):
            raise ChangedMeanwhile(f"{name} was changed meanwhile: open its page anew.")
        if newest is not None and newest.value == value:
            return newest
        _judge(option, parsed)
        revision = OptionRevision.objects.create(
            name=name, value=value, note=note, changed_by=by, changed_at=at
        )
        audit.record(
            action="runtime.change_options",
            subject=audit.Subject("runtime.option", name),
            by=by,
            at=at,
            sentence=f"Set {name}. {note}".strip(),
            facts={"revision": revision.pk},
        )
        published.announce("options")
        for follow in option.after_change:
            follow(by, at)
    return revision


def _judge(option: Option[Any], value: Any) -> None:
    try:
        if option.judge is not None:
            option.judge(value)
    except ValueError as fault:
        raise InvalidRequest(f"{option.name}: {fault}") from None


def _newest_locked(name: str) -> OptionRevision | None:
    """Return the newest revision; nobody adds another until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"config_kv {name}"])
    return OptionRevision.objects.filter(name=name).order_by("-id").first()


async def _load() -> dict[str, Any]:
    """Read every value; one that this version cannot read counts as not set."""
    values = {}
    for name, value in await database.fetch(NEWEST_SQL, {}):
        try:
            if name in REGISTRY:
                values[name] = REGISTRY[name].parse(orjson.loads(value))
        except InvalidRequest:
            logger.exception("A setting cannot be read: its default counts", extra={"option": name})
    return values


_copies: published.Published[dict[str, Any]] = published.Published("options", _load)
