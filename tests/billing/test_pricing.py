"""Usage to whole Flux: the contract's price table (cases 24 to 33), and what a hold pays for."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import pricing
from billing.pricing import Price, TokenSource, Usage
from llmrouter.gateway import usage as reports


def default_book(rate: str, flat: int) -> Price:
    micro = pricing.micro(Decimal(rate))
    return Price(1, micro, micro, micro, flat, minimum=1)


def charge(price, prompt, completion, source=TokenSource.REPORTED, *, completed=True, cached=0):
    usage = Usage(prompt, completion, cached, source)
    return pricing.charge_of(price, usage, completed=completed)


class TestChargeOf:
    @pytest.mark.parametrize(
        ("prompt", "completion", "rate", "flat", "flux"),
        [
            (100, 200, "1", 5, 1),
            (1000, 1, "1", 5, 2),
            (0, 0, "1", 5, 1),
            (1000, 1000, "5", 1, 10),
            (1000, 1000, "0.5", 3, 1),
            (1000, 1000, "1", 5, 2),
            (1_000_000, 1_000_000, "1", 5, 2000),
            # Upward and once, never half up: each of these is a whisker above a whole number.
            (1, 0, "1", 5, 1),
            (1001, 0, "1", 5, 2),
            (500, 500, "1.000001", 5, 2),
            (2000, 0, "0.5", 5, 1),
            (2001, 0, "0.5", 5, 2),
            (100_000_000, 0, "0.000001", 5, 1),
            (100_000_000, 100_000_000, "0.01", 5, 2000),
        ],
    )
    def test_is_the_price_of_what_was_reported(self, prompt, completion, rate, flat, flux):
        assert charge(default_book(rate, flat), prompt, completion) == flux

    @pytest.mark.parametrize(
        ("report", "flat"),
        [
            ({"prompt_tokens": 900}, 7),
            (None, 3),
            (0, 3),
            ({"prompt_tokens": None, "completion_tokens": None}, 9),
        ],
    )
    def test_is_at_least_the_flat_price_where_usage_is_missing(self, report, flat):
        said = reports.Reports()
        said.add({"usage": report})
        guess = reports.read(
            said, reports.Asked(10, 5_000, 100), has_text=True, generated=lambda: 100
        ).usage

        assert charge(default_book("1", flat), guess.prompt, guess.completion, guess.source) == flat

    def test_a_guess_above_the_flat_price_counts(self):
        assert charge(default_book("1", 3), 5000, 5000, TokenSource.ESTIMATED) == 10

    def test_a_cut_answer_costs_what_was_delivered_of_it(self):
        book = default_book("1", 50)

        assert charge(book, 1000, 200, TokenSource.ESTIMATED, completed=False) == 2
        assert charge(book, 1000, 200, TokenSource.ESTIMATED, completed=True) == 50

    def test_an_explicit_zero_costs_nothing_at_a_minimum_of_zero(self):
        free = dataclasses.replace(default_book("1", 5), minimum=0)

        assert charge(free, 0, 0) == 0

    def test_cached_tokens_have_their_own_rate(self):
        price = Price(1, pricing.micro(Decimal(10)), 0, pricing.micro(Decimal(1)), 0, minimum=0)

        assert charge(price, 1000, 0, cached=900) == 2  # 1.0 + 0.9, rounded once
        assert charge(price, 1000, 0) == 10

    @given(
        prompt=st.integers(0, pricing.MAX_TOKENS),
        completion=st.integers(0, pricing.MAX_TOKENS),
        cached_share=st.integers(0, 100),
        rates=st.tuples(*[st.integers(0, 10**12)] * 3),
        minimum=st.integers(0, 10),
    )
    def test_is_the_exact_sum_rounded_up_once(
        self, prompt, completion, cached_share, rates, minimum
    ):
        cached = prompt * cached_share // 100
        price = Price(1, rates[0], rates[1], rates[2], 0, minimum)
        exact = (
            (prompt - cached) * Fraction(rates[0], 10**9)
            + completion * Fraction(rates[1], 10**9)
            + cached * Fraction(rates[2], 10**9)
        )

        flux = charge(price, prompt, completion, cached=cached)

        assert type(flux) is int
        assert flux == max(minimum, -(-exact.numerator // exact.denominator))


class TestMicro:
    def test_takes_six_decimals(self):
        assert pricing.micro(Decimal("0.000001")) == 1
        assert pricing.micro(Decimal("12.345678")) == 12_345_678

    @pytest.mark.parametrize("rate", ["0.0000001", "1.2345678", "1E-7"])
    def test_refuses_to_round(self, rate):
        with pytest.raises(ValueError, match="six decimals"):
            pricing.micro(Decimal(rate))


class TestHold:
    @given(
        rates=st.tuples(st.integers(0, 10**10), st.integers(1, 10**10)),
        flat=st.integers(0, 50),
        estimate=st.integers(0, 10_000),
        slack=st.integers(0, 10_000),
        max_tokens=st.integers(1, 100_000),
        free=st.integers(0, 10**6),
    )
    def test_what_it_affords_is_what_it_pays_for(
        self, rates, flat, estimate, slack, max_tokens, free
    ):
        price = Price(1, rates[0], rates[1], rates[0], flat, 1)
        bound = estimate + slack
        hold = pricing.hold_for(
            price, prompt_estimate=estimate, prompt_bound=bound, max_tokens=max_tokens
        )
        assert hold.wanted >= hold.floor >= flat
        granted = min(hold.wanted, max(free, hold.floor))

        tokens = pricing.affordable_tokens(
            price, hold=granted, prompt=estimate, max_tokens=max_tokens
        )

        assert type(tokens) is int
        least = min(pricing.USEFUL_TOKENS, max_tokens)
        assert least <= tokens <= max_tokens
        if tokens > least:
            assert price.of_tokens(estimate, tokens) <= granted

    def test_affords_whole_tokens_and_any_number_of_free_ones(self):
        price = Price(1, pricing.MICRO, 300 * pricing.MICRO, 0, 0, 0)
        free = dataclasses.replace(price, output=0)

        def affords(price):
            return pricing.affordable_tokens(price, hold=10, prompt=1000, max_tokens=99)

        assert affords(price) == 30  # 9 Flux are left at 0.3 each
        assert affords(dataclasses.replace(price, output=310 * pricing.MICRO)) == 29
        assert affords(free) == 99


class TestCostOf:
    def test_is_exact_and_unknown_without_rates(self):
        known = Price(
            1, 0, 0, 0, 0, 0, usd_input=Decimal("0.15"), usd_output=Decimal("0.6"), usd_cached=None
        )

        assert pricing.cost_of(known, Usage(1000, 500)) == Decimal("0.000450000")
        cheaper = dataclasses.replace(known, usd_cached=Decimal("0.075"))
        assert pricing.cost_of(cheaper, Usage(1000, 0, cached=1000)) == Decimal("0.000075000")
        assert pricing.cost_of(default_book("1", 5), Usage(1, 1)) is None
        half_known = (
            dataclasses.replace(known, usd_input=None),
            dataclasses.replace(known, usd_output=None),
        )
        assert [pricing.cost_of(each, Usage(1, 1)) for each in half_known] == [None, None]
