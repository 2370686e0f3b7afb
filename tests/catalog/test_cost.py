"""Money: exact, additive, never negative, unknown when it is unknown."""

import decimal
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.catalog.cost import cost, price_usage
from loom.core.model import ModelCard, Price
from loom.core.response import Usage

LARGE = Price(
    id="large",
    input_usd_per_mtok=Decimal("0.5"),
    output_usd_per_mtok=Decimal("1.5"),
    cached_input_usd_per_mtok=Decimal("0.05"),
)
OLD = Price(id="old", input_usd_per_mtok=Decimal(4), output_usd_per_mtok=Decimal(12))
PAGES = Price(id="ocr", usd_per_page=Decimal("0.004"))
SOUND = Price(id="voxtral", usd_per_audio_second=Decimal("0.004") / 60)

counts = st.integers(0, 10**12)
amounts = st.decimals(0, 1000, places=6)
prices = st.builds(
    Price,
    id=st.just("p"),
    input_usd_per_mtok=amounts,
    output_usd_per_mtok=amounts,
    cached_input_usd_per_mtok=amounts,
)


@given(price=prices, a=counts, b=counts, c=counts, d=counts)
def test_cost_is_additive(price: Price, a: int, b: int, c: int, d: int) -> None:
    """Two calls cost together what they cost apart, to the last digit."""
    first = cost(price, input_tokens=a, output_tokens=b, cached_tokens=a // 3)
    second = cost(price, input_tokens=c, output_tokens=d, cached_tokens=c // 2)
    both = cost(price, input_tokens=a + c, output_tokens=b + d, cached_tokens=a // 3 + c // 2)
    assert first is not None
    assert second is not None
    assert first + second == both


@given(price=prices, a=counts, b=counts, batch=st.booleans())
def test_cost_is_exact_and_never_negative(price: Price, a: int, b: int, *, batch: bool) -> None:
    """The cost is the rational number of the formula, whatever the caller's decimal context."""
    with decimal.localcontext(prec=4):
        found = cost(price, input_tokens=a, output_tokens=b, batch=batch)
    paid_in, paid_out = price.input_usd_per_mtok, price.output_usd_per_mtok
    assert found is not None
    assert paid_in is not None
    assert paid_out is not None
    assert found >= 0
    whole = a * int(paid_in.scaleb(6)) + b * int(paid_out.scaleb(6))
    assert whole * (5 if batch else 10) == int(found.scaleb(13))
    assert found.scaleb(13) == int(found.scaleb(13))


@given(price=prices, a=counts, b=counts)
def test_more_never_costs_less(price: Price, a: int, b: int) -> None:
    """One token more costs at least as much."""
    less = cost(price, input_tokens=a, output_tokens=b)
    more = cost(price, input_tokens=a + 1, output_tokens=b + 1)
    assert less is not None
    assert more is not None
    assert less <= more


def test_cached_input_has_its_own_rate() -> None:
    """Cached tokens are part of the input, and cost a tenth here."""
    found = cost(LARGE, input_tokens=1_000_000, output_tokens=0, cached_tokens=400_000)
    assert Decimal("0.32") == found


def test_cached_input_without_a_rate_is_input() -> None:
    """Where the row knows no cache, a cached token costs what a token costs."""
    assert Decimal(4) == cost(OLD, input_tokens=10**6, output_tokens=0, cached_tokens=10**6)


def test_batch_is_half() -> None:
    """A batch job pays half."""
    assert Decimal(1) == cost(LARGE, input_tokens=10**6, output_tokens=10**6, batch=True)


def test_priority_costs_more() -> None:
    """The priority tier pays 1.75 times the price, the standard tier the price."""
    priority = cost(LARGE, input_tokens=10**6, output_tokens=10**6, tier="priority")
    standard = cost(LARGE, input_tokens=10**6, output_tokens=10**6, tier="standard")
    assert (Decimal("3.5"), Decimal(2)) == (priority, standard)


def test_pages() -> None:
    """Pages cost by the page, and half in a batch."""
    assert Decimal("0.012") == cost(PAGES, input_tokens=0, output_tokens=0, pages=3)
    assert Decimal("0.006") == cost(PAGES, input_tokens=0, output_tokens=0, pages=3, batch=True)


@pytest.mark.parametrize(
    ("seconds", "dollars"), [(60, "0.004"), (15, "0.001"), (1, "0.000066666666667")]
)
def test_sound_is_cut_far_below_a_cent(seconds: int, dollars: str) -> None:
    """A price per minute comes out even where it is even."""
    found = cost(SOUND, input_tokens=0, output_tokens=0, audio_seconds=seconds)
    assert Decimal(dollars) == found


@pytest.mark.parametrize(
    "used",
    [
        Usage(input_tokens=1),
        Usage(input_tokens=1, cached_tokens=1),
        Usage(output_tokens=1),
        Usage(audio_seconds=1),
    ],
)
def test_a_quantity_without_a_rate_is_unknown(used: Usage) -> None:
    """What has no rate makes the cost unknown, never 0."""
    assert price_usage(used, ModelCard(id="m", price=Price(id="empty"))).cost_usd is None


def test_pages_without_a_rate_are_unknown() -> None:
    """A model that is not billed by the page has no price for pages."""
    assert cost(LARGE, input_tokens=0, output_tokens=0, pages=1) is None


def test_nothing_costs_nothing() -> None:
    """Without any quantity no rate is needed."""
    assert Decimal(0) == cost(Price(id="empty"), input_tokens=0, output_tokens=0)


@pytest.mark.parametrize(
    ("paid_in", "paid_out", "cached"), [(-1, 0, 0), (0, -1, 0), (1, 0, 2), (1, 0, -1)]
)
def test_senseless_numbers_have_no_cost(paid_in: int, paid_out: int, cached: int) -> None:
    """A vendor's report that cannot be true is not turned into money."""
    found = cost(LARGE, input_tokens=paid_in, output_tokens=paid_out, cached_tokens=cached)
    assert found is None


def test_price_usage_fills_cost_and_row() -> None:
    """A priced usage says what it cost and by which row; the original is untouched."""
    usage = Usage(input_tokens=100, output_tokens=200, total_tokens=300, service_tier="priority")
    priced = price_usage(usage, ModelCard(id="m", price=LARGE))
    assert (Decimal("0.0006125"), LARGE) == (priced.cost_usd, priced.price)
    assert (300, "priority") == (priced.total_tokens, priced.service_tier)
    assert usage.cost_usd is None


@pytest.mark.parametrize("card", [None, ModelCard(id="m"), ModelCard(id="m", price=PAGES)])
def test_price_usage_of_the_unknown(card: ModelCard | None) -> None:
    """No model, no price or no rate: the cost is None, and an older one is forgotten."""
    usage = Usage(input_tokens=1, output_tokens=1, cost_usd=Decimal(7), price=LARGE)
    priced = price_usage(usage, card)
    assert (None, None) == (priced.cost_usd, priced.price)


def test_price_usage_counts_sound_pages_and_batch() -> None:
    """Everything that a usage can hold is priced."""
    voxtral = ModelCard(
        id="v",
        price=Price(
            id="v",
            input_usd_per_mtok=Decimal("0.1"),
            output_usd_per_mtok=Decimal("0.4"),
            usd_per_audio_second=Decimal("0.001"),
            usd_per_page=Decimal(1),
        ),
    )
    usage = Usage(input_tokens=9, output_tokens=248, audio_seconds=30)
    assert Decimal("0.0301001") == price_usage(usage, voxtral).cost_usd
    assert Decimal("0.51505005") == price_usage(usage, voxtral, pages=1, batch=True).cost_usd
