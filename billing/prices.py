"""The price book: immutable versions, the newest of a model counts, the default for the rest.

`FLUX_PER_1K_TOKENS` and `FLUX_PER_REQUEST` are the default book: changing one publishes a new
default version in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction

from airi_server.kernel import database, resources
from airi_server.runtime import audit
from airi_server.runtime.published import Published, announce
from billing import options
from billing.models import PriceVersion
from billing.pricing import Price, micro

LOAD_PRICES_SQL = resources.read_text("billing", "sql/load_prices.sql")
WHOLE = ("flux_per_request", "minimum_flux")


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


def _follow_options(by: str, at: datetime) -> None:
    publish(model="", by=by, at=at, note="operator settings changed")


options.FLUX_PER_1K_TOKENS.after_change.append(_follow_options)
options.FLUX_PER_REQUEST.after_change.append(_follow_options)


def _price(
    version: int, input_rate: Decimal, output_rate: Decimal, cached_rate: Decimal, *rest: Any
) -> Price:
    return Price(version, micro(input_rate), micro(output_rate), micro(cached_rate), *rest)
