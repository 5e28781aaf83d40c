"""Usage to whole Flux: pure, exact, rounded once and upward.

Rates are integers in millionths of a Flux for each 1,000 tokens, so a charge is integer
arithmetic from the row alone (invariant I7) and no float ever touches money.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

MICRO: Final = 1_000_000
PER_RATE: Final = 1_000 * MICRO
MAX_TOKENS: Final = 100_000_000
"""Above this a reported count is nonsense and treated as missing."""


class TokenSource(StrEnum):
    """Where token counts came from.

    `completed` is a report with gaps filled by estimates, `bounded` one beyond what was asked for,
    charged at the plausible bound. `none`: nothing was generated, and nothing is charged.
    """

    REPORTED = "reported"
    COMPLETED = "completed"
    BOUNDED = "bounded"
    COUNTED = "counted"
    ESTIMATED = "estimated"
    NONE = "none"


GUESSES: Final = (TokenSource.ESTIMATED, TokenSource.COMPLETED)
"""Where a complete answer costs at least the flat price."""


class Usage(NamedTuple):
    """Tokens of one request. `cached` are among `prompt`."""

    prompt: int
    completion: int
    cached: int = 0
    source: TokenSource = TokenSource.REPORTED


@dataclass(frozen=True, slots=True)
class Price:
    """One version of the price book, ready to compute with.

    `input`, `output` and `cached` are millionths of a Flux for each 1,000 tokens; `flat` is the
    price of a completed request whose usage nobody reported or could count; the `usd_` rates are
    the provider's cost in USD for each million tokens, or None where it is unknown.
    """

    version: int
    input: int
    output: int
    cached: int
    flat: int
    minimum: int
    usd_input: Decimal | None = None
    usd_output: Decimal | None = None
    usd_cached: Decimal | None = None

    def of_tokens(self, prompt: int, completion: int, cached: int = 0) -> int:
        total = (prompt - cached) * self.input + cached * self.cached + completion * self.output
        return max(self.minimum, -(-total // PER_RATE))


def charge_of(price: Price, usage: Usage, *, completed: bool) -> int:
    """Return the Flux a delivered answer costs.

    A guess never makes a complete answer cheaper than the flat price; an answer that was cut
    off costs what was delivered of it; one that generated nothing costs nothing.
    """
    if usage.source is TokenSource.NONE:
        return 0
    charge = price.of_tokens(usage.prompt, usage.completion, usage.cached)
    if completed and usage.source in GUESSES:
        return max(price.flat, charge)
    return charge


def cost_of(price: Price, usage: Usage) -> Decimal | None:
    """Return what the provider charges us in USD, if the price book knows."""
    if price.usd_input is None or price.usd_output is None:
        return None
    cached_rate = price.usd_input if price.usd_cached is None else price.usd_cached
    total = (
        (usage.prompt - usage.cached) * price.usd_input
        + usage.cached * cached_rate
        + usage.completion * price.usd_output
    )
    return (total / MICRO).quantize(Decimal("1e-9"))


class Hold(NamedTuple):
    """What to reserve: `wanted` covers the largest answer, `floor` the smallest useful one."""

    floor: int
    wanted: int


USEFUL_TOKENS: Final = 16
"""An answer shorter than this is not worth sending a request for."""


def hold_for(price: Price, *, prompt_estimate: int, prompt_bound: int, max_tokens: int) -> Hold:
    """Return the hold of a request.

    Args:
        price: The version the request pins.
        prompt_estimate: What the prompt probably is; decides whether the balance is worth it.
        prompt_bound: What the prompt can hardly exceed.
        max_tokens: The most the answer may have, as will be sent upstream.
    """
    smallest = price.of_tokens(prompt_estimate, min(USEFUL_TOKENS, max_tokens))
    largest = price.of_tokens(prompt_bound, max_tokens)
    floor = max(price.flat, smallest)
    return Hold(floor=floor, wanted=max(floor, largest))


def affordable_tokens(price: Price, *, hold: int, prompt: int, max_tokens: int) -> int:
    """Return how long an answer the hold pays for: at most `max_tokens`, at least a useful one."""
    if price.output == 0:
        return max_tokens
    left = hold * PER_RATE - prompt * price.input
    return max(min(USEFUL_TOKENS, max_tokens), min(max_tokens, left // price.output))


def micro(rate: Decimal) -> int:
    """Return a rate of the price book as an integer number of millionths.

    Raises:
        ValueError: The rate has more than six decimals.
    """
    scaled = rate * MICRO
    if scaled != scaled.to_integral_value():
        raise ValueError("a rate has at most six decimals")
    return int(scaled)
