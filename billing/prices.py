"""The price book: immutable versions, the newest of a model counts, the default for the rest.

`FLUX_PER_1K_TOKENS` and `FLUX_PER_REQUEST` are the default book: changing one publishes a new
default version in the same transaction.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import connection, transaction
from django.db.models import QuerySet

from airi_server.kernel import database, resources
from airi_server.kernel.errors import Conflict, InvalidRequest
from airi_server.runtime import audit
from airi_server.runtime.published import Published, announce
from billing import options, pricing
from billing.models import LLMRequestLog, PriceVersion
from billing.pricing import Price, TokenSource, Usage, micro

LOAD_PRICES_SQL = resources.read_text("billing", "sql/load_prices.sql")
FLUX: Final = (
    "flux_per_1k_input",
    "flux_per_1k_output",
    "flux_per_1k_cached",
    "flux_per_request",
    "minimum_flux",
)
"""What a request is charged by."""
COSTS: Final = ("usd_per_1m_input", "usd_per_1m_output", "usd_per_1m_cached")
"""What the provider charges; never decides a charge."""
WHOLE: Final = ("flux_per_request", "minimum_flux")
MAX_NAME: Final = 200
SAME: Final = "This is the price in force already."
NAMED: Final = 10
"""Models that a refusal names at most."""


class NotRouted(InvalidRequest):
    """There is no model of that name to have a price. Nothing was published."""


class SamePrice(InvalidRequest):
    """It is the price in force. Nothing was published."""


class PriceMoved(Conflict):
    """Somebody published another price since the caller looked. Nothing was published now."""

    def __init__(self, newest: PriceVersion | None) -> None:
        told = f"{newest.created_by} has published {newest}. " if newest else ""
        super().__init__(
            f"The price changed meanwhile. {told}Nothing was published now; decide again.",
            details={"version": newest.pk if newest else None},
        )


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What the router tells us of models: billing does not know what a model is.

    Attributes:
        routed: The public names there are now, from the database.
        judge: Raises `ValueError` for a name that no model may have.
    """

    routed: Callable[[], Collection[str]]
    judge: Callable[[str], Any]


model_names: Final[list[ModelNames]] = []
"""Whoever routes models adds itself."""


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Every price in force."""

    default: Price
    by_model: Mapping[str, Price]

    def of(self, model: str) -> Price:
        return self.by_model.get(model, self.default)


async def _load() -> PriceBook:
    rows = await database.fetch(
        LOAD_PRICES_SQL,
        {
            "rate": options.FLUX_PER_1K_TOKENS.current(),
            "flat": options.FLUX_PER_REQUEST.current(),
        },
    )
    prices = {model: _price(*columns) for model, *columns in rows}
    if "" not in prices:
        # Another process made the first default a moment ago: now it can be seen.
        return await _load()
    return PriceBook(default=prices.pop(""), by_model=prices)


PRICES: Published[PriceBook] = Published("prices", _load)


def of_model(model: str) -> Price:
    """Return the price a request for `model` pins now, from this process's copy."""
    return PRICES.current().of(model)


def of_version(version: int) -> Price:
    """Return any version ever published, from the database."""
    row = PriceVersion.objects.get(pk=version)
    return _price(
        row.pk,
        row.flux_per_1k_input,
        row.flux_per_1k_output,
        row.flux_per_1k_cached,
        row.flux_per_request,
        row.minimum_flux,
        row.usd_per_1m_input,
        row.usd_per_1m_output,
        row.usd_per_1m_cached,
    )


def publish(*, model: str, by: str, at: datetime, note: str = "", **rates: Any) -> PriceVersion:
    """Append a price version; requests that open from now on pin it.

    Args:
        model: Public model name, or empty for the default.
        by: Who decided, for the record.
        at: When.
        note: Why.
        rates: Columns of `PriceVersion`, never floats; what is missing is taken from the default
            options.

    Raises:
        ValueError: A rate has more than six decimals. Nothing was published.
    """
    rate = options.FLUX_PER_1K_TOKENS.read()
    defaults: dict[str, Any] = {
        "flux_per_1k_input": rate,
        "flux_per_1k_output": rate,
        "flux_per_1k_cached": rate,
        "flux_per_request": options.FLUX_PER_REQUEST.read(),
    }
    columns = {**defaults, **rates}
    for name, exact in columns.items():
        if name not in WHOLE and exact is not None:
            micro(Decimal(exact))
    with transaction.atomic():
        _lock(model)
        version = PriceVersion.objects.create(
            model=model, created_by=by, created_at=at, note=note, **columns
        )
        audit.record(
            action="billing.add_priceversion",
            subject=audit.Subject.of(version),
            by=by,
            at=at,
            sentence=f"Published price {version}. {note}".strip(),
        )
        announce("prices")
    return version


def change(
    *,
    model: str,
    seen: int | None,
    note: str,
    by: str,
    at: datetime,
    is_early: bool = False,
    **rates: Any,
) -> PriceVersion:
    """Publish a price on top of the version its author has looked at.

    Safe to repeat: the same from the same author is published once, and comes back.

    Args:
        model: A routed public name, or empty for the default.
        seen: The newest version of this model that the author knows of; None: there was none.
        note: Why.
        by: Who decided, for the record.
        at: When.
        is_early: The model is to come later: it need not be routed yet.
        rates: Every column of `FLUX` and `COSTS`.

    Raises:
        NotRouted: No such model. Nothing was published.
        PriceMoved: There is a newer version than was seen. Nothing was published.
        SamePrice: Nothing would change. Nothing was published.
    """
    ensure_routed(model, is_early=is_early)
    with transaction.atomic():
        _lock(model)
        newest = newest_of(model)
        if newest and _is_this(newest, seen=seen, by=by, note=note, rates=rates):
            return newest
        if seen != (newest.pk if newest else None):
            raise PriceMoved(newest)
        if newest and all(getattr(newest, name) == rate for name, rate in rates.items()):
            raise SamePrice(SAME)
        return publish(model=model, by=by, at=at, note=note, **rates)


def ensure_routed(model: str, *, is_early: bool = False) -> None:
    """Refuse a name that no request can be charged under; the default's, which is empty, can be.

    Args:
        model: As in `change`.
        is_early: Whether the name is enough, and a model can come later.

    Raises:
        NotRouted: The sentence says what is near it.
    """
    known = routed()
    if not model or model in known:
        return
    for source in model_names:
        try:
            source.judge(model)
        except ValueError as fault:
            raise NotRouted(f"No model can be called “{model}”: {fault}.") from None
    if not is_early:
        raise NotRouted(f"No model is called “{model}”. {_near(model, known)}")


def routed() -> list[str]:
    """Return the public names of the models there are, in the order of the alphabet."""
    return sorted({name for source in model_names for name in source.routed()})


def newest_of(model: str) -> PriceVersion | None:
    """Return the price that this model has of its own, from the database."""
    return PriceVersion.objects.filter(model=model).order_by("-id").first()


def in_force(model: str) -> dict[str, Any]:
    """Return every column that this model is priced by, from the database: its own or default."""
    version = newest_of(model) or newest_of("")
    if version is not None:
        return {name: getattr(version, name) for name in (*FLUX, *COSTS)}
    rate = options.FLUX_PER_1K_TOKENS.read()
    flat = options.FLUX_PER_REQUEST.read()
    return {
        **dict.fromkeys(FLUX[:3], rate),
        "flux_per_request": flat,
        "minimum_flux": 1,
        **dict.fromkeys(COSTS),
    }


def priced(columns: Mapping[str, Any]) -> Price:
    """Return the columns of a version, which need not be published, ready to compute with."""
    rates = (Decimal(columns[name]) for name in FLUX[:3])
    input_rate, output_rate, cached_rate = rates
    rest = (columns[name] for name in (*WHOLE, *COSTS))
    return _price(0, input_rate, output_rate, cached_rate, *rest)


def _is_this(
    version: PriceVersion, *, seen: int | None, by: str, note: str, rates: Mapping[str, Any]
) -> bool:
    """Return whether a version came of the very same click."""
    if (version.created_by, version.note) != (by, note):
        return False
    if any(getattr(version, name) != rate for name, rate in rates.items()):
        return False
    older = PriceVersion.objects.filter(model=version.model, pk__lt=version.pk).order_by("-pk")
    return older.values_list("pk", flat=True).first() == seen


def _near(model: str, known: Collection[str]) -> str:
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(model.casefold(), folded, NAMED)
    if near:
        return f"Near it: {', '.join(folded[name] for name in near)}."
    shown, rest = sorted(known)[:NAMED], max(0, len(known) - NAMED)
    if not shown:
        return "No model is routed yet."
    return f"There are: {', '.join(shown)}{f' and {rest} more' if rest else ''}."


def _lock(model: str) -> None:
    """Let nobody else publish a price of this model until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"price_version {model}"])


def _follow_options(by: str, at: datetime) -> None:
    publish(model="", by=by, at=at, note="operator settings changed")


options.FLUX_PER_1K_TOKENS.after_change.append(_follow_options)
options.FLUX_PER_REQUEST.after_change.append(_follow_options)


def _price(
    version: int, input_rate: Decimal, output_rate: Decimal, cached_rate: Decimal, *rest: Any
) -> Price:
    return Price(version, micro(input_rate), micro(output_rate), micro(cached_rate), *rest)


SAMPLE: Final = 1_000
LOOKED_AT: Final = 100_000
"""Requests of whatever model among which those are looked for: no index knows models."""


@dataclass(frozen=True, slots=True)
class Repriced:
    """Flux that some requests would have cost at two prices. No request: no times."""

    requests: int
    since: datetime | None
    until: datetime | None
    before: int
    after: int


def repriced(model: str, *, old: Price, new: Price) -> Repriced:
    """Charge the newest requests of a model once more, at both prices.

    Args:
        model: Public name; empty: those of all models that have no price of their own.
        old: The price to compare with.
        new: The other one.
    """
    rows = list(_newest(model)[:SAMPLE])
    charged = [(_usage(row), row.outcome == LLMRequestLog.Outcome.COMPLETED) for row in rows]
    before, after = (
        sum(pricing.charge_of(price, usage, completed=completed) for usage, completed in charged)
        for price in (old, new)
    )
    times = [row.opened_at for row in rows]
    return Repriced(len(rows), min(times, default=None), max(times, default=None), before, after)


def _newest(model: str) -> QuerySet[LLMRequestLog]:
    """Return settled requests of a model, newest first, from the newest of all along their ids."""
    newest = LLMRequestLog.objects.order_by("-id")
    edge = list(newest.values_list("id", flat=True)[LOOKED_AT - 1 : LOOKED_AT])
    rows = newest.filter(
        state=LLMRequestLog.State.SETTLED,
        prompt_tokens__isnull=False,
        completion_tokens__isnull=False,
        **({"id__gte": edge[0]} if edge else {}),
    ).only(
        "prompt_tokens", "completion_tokens", "cached_tokens", "usage_source", "outcome",
        "opened_at",
    )  # fmt: skip
    if model:
        return rows.filter(model=model)
    own = PriceVersion.objects.exclude(model="").values_list("model", flat=True).distinct()
    return rows.exclude(model__in=list(own))


def _usage(row: LLMRequestLog) -> Usage:
    return Usage(
        row.prompt_tokens or 0,
        row.completion_tokens or 0,
        row.cached_tokens or 0,
        TokenSource(row.usage_source),
    )
