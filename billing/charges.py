"""Charge explanations: a request's charge computed again from its row alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from billing import pricing
from billing.models import LLMRequestLog, PriceVersion
from billing.pricing import PER_RATE, TokenSource, Usage, micro

COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class ChargeExplanation:
    """A charge in words.

    Attributes:
        price: The version the request pinned, None if nobody ever published it.
        steps: How the charge follows, a sentence each.
        computed: What the rules say; None if the row lacks what they need.
        asked: What was asked for when it was settled: debited and unbilled together.
    """

    price: PriceVersion | None
    steps: tuple[str, ...]
    computed: int | None
    asked: int

    @property
    def agrees(self) -> bool:
        return self.computed == self.asked


def explain(requests: Iterable[LLMRequestLog]) -> list[ChargeExplanation]:
    """Explain each request, with one read of the price book."""
    rows = list(requests)
    versions = PriceVersion.objects.in_bulk({row.price_version for row in rows})
    return [_explain(row, versions.get(row.price_version)) for row in rows]


def _explain(row: LLMRequestLog, version: PriceVersion | None) -> ChargeExplanation:
    asked = row.flux_charged + row.unbilled
    if row.state != LLMRequestLog.State.SETTLED:
        return ChargeExplanation(version, (_why_free(row),), 0, asked)
    if version is None:
        why = f"Price version {row.price_version} does not exist."
        return ChargeExplanation(None, (why,), None, asked)
    if row.prompt_tokens is None or row.completion_tokens is None:
        return ChargeExplanation(version, ("The tokens were not kept.",), None, asked)
    usage = Usage(
        row.prompt_tokens,
        row.completion_tokens,
        row.cached_tokens or 0,
        TokenSource(row.usage_source),
    )
    if usage.source is TokenSource.NONE:
        return ChargeExplanation(
            version, ("Nothing was generated, so it costs nothing.",), 0, asked
        )
    is_completed = row.outcome == COMPLETED
    computed = pricing.charge_of(_price(version), usage, completed=is_completed)
    steps = tuple(_steps(version, usage, computed, is_completed=is_completed))
    return ChargeExplanation(version, steps, computed, asked)


def _why_free(row: LLMRequestLog) -> str:
    if row.state == LLMRequestLog.State.VOIDED:
        return "Nothing was delivered, so it costs nothing and its hold was released."
    return "It is charged when it ends; until then its hold is reserved."


def _steps(
    version: PriceVersion, usage: Usage, charge: int, *, is_completed: bool
) -> Iterable[str]:
    parts = (
        (usage.prompt - usage.cached, version.flux_per_1k_input, "prompt"),
        (usage.cached, version.flux_per_1k_cached, "cached"),
        (usage.completion, version.flux_per_1k_output, "completion"),
    )
    exact = sum((tokens * micro(rate) for tokens, rate, _ in parts), 0)
    terms = " + ".join(f"{n:,} {name} at {_plain(rate)}" for n, rate, name in parts if n)
    yield (
        f"{terms or 'No tokens'}, for each 1,000 tokens: "
        f"{_plain(Decimal(exact) / PER_RATE)} Flux, rounded up {-(-exact // PER_RATE):,}."
    )
    if version.minimum_flux > -(-exact // PER_RATE):
        yield f"The minimum of this price is {version.minimum_flux:,}."
    if is_completed and usage.source in pricing.GUESSES:
        yield (
            "Not all of its usage was reported, so a complete answer costs at least the flat "
            f"price of {version.flux_per_request:,}."
        )
    yield f"Charge: {charge:,} Flux."


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}"


def _price(version: PriceVersion) -> pricing.Price:
    return pricing.Price(
        version.pk,
        micro(version.flux_per_1k_input),
        micro(version.flux_per_1k_output),
        micro(version.flux_per_1k_cached),
        version.flux_per_request,
        version.minimum_flux,
    )
