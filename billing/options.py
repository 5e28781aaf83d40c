"""Operator settings of billing; names and defaults are the contract's (§11.1)."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from airi_server.runtime.options import Option, define
from billing import pricing


def _six_decimals(rate: float) -> Decimal:
    """Take the number as it was written, so that 2.5 is exactly 2.5."""
    exact = Decimal(str(rate))
    pricing.micro(exact)
    return exact


Rate = Annotated[float, Field(ge=0, le=1_000_000), AfterValidator(_six_decimals)]
WholeFlux = Annotated[int, Field(ge=0, le=1_000_000_000)]

INITIAL_USER_FLUX: Final[Option[int]] = define(
    "INITIAL_USER_FLUX", WholeFlux, default=0, help="Flux granted when an account is opened."
)
FLUX_PER_REQUEST: Final[Option[int]] = define(
    "FLUX_PER_REQUEST",
    WholeFlux,
    default=5,
    help="Flat price of a request without usage, and the least balance a request needs.",
)
FLUX_PER_1K_TOKENS: Final[Option[Decimal]] = define(
    "FLUX_PER_1K_TOKENS", Rate, default=Decimal(1), help="Flux for each 1,000 tokens."
)
FLUX_TYPED_TWICE_ABOVE: Final[Option[int]] = define(
    "FLUX_TYPED_TWICE_ABOVE",
    WholeFlux,
    default=10_000,
    help="An adjustment or a changed price above this is typed a second time before it counts.",
)
