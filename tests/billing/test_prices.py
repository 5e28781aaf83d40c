"""The price book: immutable versions, and the options that are its default."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from airi_server.kernel import database
from airi_server.kernel.errors import InvalidRequest
from airi_server.kernel.threads import in_thread
from airi_server.runtime import audit, published
from airi_server.runtime.options import put
from billing import options, prices
from billing.models import PriceVersion
from tests.billing.corruption import corrupt
from tests.billing.test_ledger import at_once
from tests.factories import billing as make
from tests.factories import gateway
from tests.fakes.upstream import answer, completion, usage

NOW = make.NOW


def set_option(option, value):
    return put(option.name, value, by="tester", at=NOW)


@pytest.mark.django_db
class TestPublish:
    def test_takes_what_is_missing_from_the_options(self):
        set_option(options.FLUX_PER_1K_TOKENS, 2.5)

        version = prices.publish(
            model="m", by="mio", at=NOW, note="why", flux_per_1k_output=Decimal("7.25"),
            usd_per_1m_cached=None,
        )  # fmt: skip

        price = prices.of_version(version.pk)
        assert (price.input, price.output, price.cached) == (2_500_000, 7_250_000, 2_500_000)
        assert (price.flat, price.minimum) == (5, 1)
        assert (price.usd_input, price.usd_output, price.usd_cached) == (None, None, None)
        assert (version.created_by, version.created_at, version.note) == ("mio", NOW, "why")
        (row,) = audit.of(audit.Subject.of(version))
        assert (row.action, row.actor, row.at) == ("billing.add_priceversion", "mio", NOW)
        assert row.sentence == f"Published price {version}. why"

    def test_keeps_what_the_provider_charges(self):
        cost = (Decimal(3), Decimal(15), Decimal("0.3"))
        names = ("usd_per_1m_input", "usd_per_1m_output", "usd_per_1m_cached")

        price = make.price(**dict(zip(names, cost, strict=True)))

        assert (price.usd_input, price.usd_output, price.usd_cached) == cost

    @pytest.mark.parametrize("rate", [Decimal("0.0000001"), 0.1, 1.0000001])
    @pytest.mark.parametrize("column", ["flux_per_1k_input", "usd_per_1m_output"])
    def test_refuses_what_cannot_be_kept_exactly(self, column, rate):
        with pytest.raises(ValueError, match="six decimals"):
            prices.publish(model="m", by="mio", at=NOW, **{column: rate})

        assert not PriceVersion.objects.exists()


RATES = {
    **dict.fromkeys(prices.FLUX[:3], Decimal(2)),
    "flux_per_request": 5,
    "minimum_flux": 1,
    **dict.fromkeys(prices.COSTS),
}


def change(seen, by="mio", **facts):
    ordinary = {"model": "", "note": "why", "at": NOW, **RATES}
    return prices.change(**{**ordinary, "seen": seen, "by": by, **facts})


@pytest.mark.django_db
class TestChange:
    def test_is_published_on_top_of_what_was_seen(self):
        first = change(None)
        second = change(first.pk, flux_per_1k_input=Decimal(3))

        assert prices.newest_of("") == second
        assert prices.in_force("any")["flux_per_1k_input"] == 3

    def test_the_same_again_is_the_same_version(self):
        first = change(None)
        second = change(first.pk, minimum_flux=2)

        assert change(first.pk, minimum_flux=2) == second
        assert PriceVersion.objects.count() == 2

    @pytest.mark.parametrize(
        "other", [{"by": "ren"}, {"note": "another"}, {"minimum_flux": 2}, {"usd_per_1m_input": 1}]
    )
    def test_anything_else_on_what_is_not_the_newest_any_more_is_refused(self, other):
        first = change(None)

        with pytest.raises(prices.PriceMoved, match=f"mio has published {first}"):
            change(None, **other)
        with pytest.raises(prices.PriceMoved):
            change(first.pk + 1)
        assert PriceVersion.objects.count() == 1

    def test_what_is_in_force_is_not_published_again(self):
        first = change(None)

        with pytest.raises(prices.SamePrice):
            change(first.pk, note="another")

    def test_a_model_that_is_not_routed_has_none(self):
        with pytest.raises(prices.NotRouted, match="No model is routed yet"):
            change(None, model="m")
        with pytest.raises(prices.NotRouted, match="reserved"):
            change(None, model="auto", is_early=True)
        assert change(None, model="m", is_early=True).model == "m"


@pytest.mark.django_db(transaction=True)
class TestRaces:
    def test_a_double_click_is_one_version_and_of_two_operators_one_wins(self):
        clicks = at_once(8, lambda _: change(None))

        assert len({version.pk for version in clicks}) == 1
        assert PriceVersion.objects.count() == 1

        seen = clicks[0].pk
        outcomes = at_once(8, lambda n: change_or_refuse(seen, Decimal(n + 3)))

        assert sorted(outcomes) == ["published"] + ["refused"] * 7
        assert PriceVersion.objects.count() == 2

    def test_a_changed_setting_is_not_overwritten_either(self):
        seen = change(None).pk

        outcomes = at_once(
            2,
            lambda n: (
                change_or_refuse(seen, Decimal(9))
                if n
                else set_option(options.FLUX_PER_1K_TOKENS, 4)
            ),
        )

        # Whichever came first: the operator's price is never on top of one that was not seen.
        last = PriceVersion.objects.order_by("-id")[0]
        assert ("refused" in outcomes) == (PriceVersion.objects.count() == 2)
        assert last.created_by == "tester"


def change_or_refuse(seen, rate):
    try:
        change(seen, flux_per_1k_input=rate)
    except prices.PriceMoved:
        return "refused"
    return "published"


@pytest.mark.django_db
class TestOptions:
    def test_a_change_is_a_new_default_version(self):
        set_option(options.FLUX_PER_1K_TOKENS, 2)
        set_option(options.FLUX_PER_REQUEST, 9)

        older, newer = PriceVersion.objects.filter(model="").order_by("id")
        assert (older.flux_per_1k_input, older.flux_per_request) == (Decimal(2), 5)
        assert (newer.flux_per_1k_input, newer.flux_per_request) == (Decimal(2), 9)
        assert newer.created_by == "tester"

    def test_the_same_value_again_is_none(self):
        first = set_option(options.FLUX_PER_1K_TOKENS, 2)
        again = set_option(options.FLUX_PER_1K_TOKENS, 2)

        assert again == first
        assert PriceVersion.objects.count() == 1

    @pytest.mark.parametrize("value", [-1, 1.0000001, "1", True, None, 10**7])
    def test_a_value_out_of_bounds_changes_nothing(self, value):
        with pytest.raises(InvalidRequest):
            set_option(options.FLUX_PER_1K_TOKENS, value)

        assert not PriceVersion.objects.exists()


@pytest.mark.asyncio
class TestInForce:
    async def test_the_next_request_uses_the_new_rate_and_older_ones_keep_theirs(
        self, served, upstream
    ):
        caller = await gateway.caller(flux=100)
        await gateway.route(upstream.base_url)
        upstream.script(answer(completion(use=usage(1000, 1000))))
        change = in_thread(set_option)

        async def ask():
            body = {"messages": [{"role": "user", "content": "hi"}]}
            response = await served.post("/v1/chat/completions", body, caller.key)
            return int(response.headers["x-airi-flux-charged"])

        charges = [await ask()]
        await change(options.FLUX_PER_1K_TOKENS, 5)
        charges.append(await ask())
        await in_thread(make.price_row)(flux_per_1k_input=Decimal(20), flux_per_1k_output=1)
        charges.append(await ask())
        await change(options.FLUX_PER_1K_TOKENS, 7)  # a model with its own price keeps it
        charges.append(await ask())

        assert charges == [2, 10, 21, 21]
        versions = [row.price_version for row in await gateway.requests()]
        assert len(set(versions)) == 3
        assert await make.broken() == []

    async def test_processes_that_start_at_once_make_one_first_default(self, hot, settings):
        await database.close()
        # A dozen new connections may take a busy machine longer than a request would wait.
        settings.HOT_POOL_TIMEOUT_S = 30
        await in_thread(corrupt)("DELETE FROM price_version", None)
        books = await asyncio.gather(*(prices._load() for _ in range(12)))

        columns = ("id", "model", "minimum_flux", "created_by")
        rows = await in_thread(lambda: list(PriceVersion.objects.values_list(*columns)))()
        assert rows == [(0, "", 1, "server")]
        assert {(book.default.version, book.default.input) for book in books} == {(0, 1_000_000)}

    async def test_an_operator_who_is_first_is_not_overruled(self, hot):
        await in_thread(corrupt)("DELETE FROM price_version", None)
        await in_thread(make.price_row)(model="", flux_per_1k_input=Decimal(3))
        await published.refresh()

        book = await prices._load()

        assert book.default.input == 3_000_000
        assert await in_thread(PriceVersion.objects.count)() == 1
