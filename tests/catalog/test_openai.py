"""OpenAI's rows: November 2024, today, long prompts, tiers, the model when nobody names one."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import pairwise

import pytest

from loom.catalog.cost import cost
from loom.catalog.lookup import Catalog
from loom.catalog.rows import read_sheet
from loom.client import facts
from loom.core.model import ModelCard

CATALOG = Catalog.builtin()
NOVEMBER = date(2024, 11, 30)
TODAY = date(2026, 11, 26)

# Source: openai.toml names one for each row.
THEN = [
    ("gpt-4o", "2.50", "1.25", "10.00", 128_000, 16_384),
    ("gpt-4o-mini", "0.15", "0.075", "0.60", 128_000, 16_384),
    ("gpt-4-turbo", "10.00", None, "30.00", 128_000, 4_096),
    ("gpt-4", "30.00", None, "60.00", 8_192, 8_192),
    ("gpt-3.5-turbo", "0.50", None, "1.50", 16_385, 4_096),
]
NOW = [
    ("gpt-4.1", "2.00", "0.50", "8.00", 1_047_576, 32_768),
    ("gpt-4.1-mini", "0.40", "0.10", "1.60", 1_047_576, 32_768),
    ("gpt-5", "1.25", "0.125", "10.00", 400_000, 128_000),
    ("gpt-5-mini", "0.25", "0.025", "2.00", 400_000, 128_000),
    ("gpt-5.4", "2.50", "0.25", "15.00", 1_050_000, 128_000),
    ("o3", "2.00", "0.50", "8.00", 200_000, 100_000),
]


def card(model: str, on: date) -> ModelCard:
    found = CATALOG.find(model, on, "openai")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("day", "row"), [*((NOVEMBER, row) for row in THEN), *((TODAY, row) for row in NOW)], ids=str
)
def test_prices_and_windows(day: date, row: tuple[str, str, str | None, str, int, int]) -> None:
    """Input, cached input, output, window and longest answer are those of the sources."""
    model, given, cached, said, window, longest = row
    found = card(model, day)
    price = found.price
    assert price is not None
    assert (Decimal(given), Decimal(said)) == (
        price.input_usd_per_mtok,
        price.output_usd_per_mtok,
    )
    assert (None if cached is None else Decimal(cached)) == price.cached_input_usd_per_mtok
    assert (window, longest) == (found.context_window, found.max_output)


def test_a_price_that_fell_is_dated() -> None:
    """o3 cost five times as much until 2025-06-10."""
    assert Decimal("0.01") == facts.cost("o3", 1000, 0, as_of="2025-06-09")
    assert Decimal("0.002") == facts.cost("o3", 1000, 0, as_of="2025-06-10")


def test_snapshots_mean_their_model() -> None:
    """Answers name a snapshot; May's GPT-4o is another model, and dearer."""
    assert "gpt-4o" == card("gpt-4o-2024-08-06", TODAY).id
    assert Decimal("0.0025") == facts.cost("gpt-4o-2024-08-06", 1000, 0, as_of="2024-11")
    assert Decimal("0.005") == facts.cost("gpt-4o-2024-05-13", 1000, 0, as_of="2024-11")


def test_a_vendor_may_stand_before_the_id() -> None:
    """`openai:gpt-4o` is asked of OpenAI alone."""
    assert Decimal("0.0025") == facts.cost("openai:gpt-4o", 1000, 0, as_of="2024-11")
    assert facts.cost("mistral:gpt-4o", 1000, 0, as_of="2024-11") is None


def test_long_prompts_pay_for_all_their_tokens() -> None:
    """Above 272,000 tokens input is twice as dear, output half as much again."""
    price = card("gpt-5.4", TODAY).price
    assert price is not None
    short = cost(price, input_tokens=272_000, output_tokens=1000, cached_tokens=1000)
    long = cost(price, input_tokens=272_001, output_tokens=1000, cached_tokens=1000)
    assert Decimal("0.69275") == short
    assert Decimal("1.378005") == long


def test_a_tier_whose_price_nobody_wrote_is_unknown() -> None:
    """Priority is priced where a row says how; flex never is."""
    for model, tier, dollars in (
        ("gpt-4.1", "priority", Decimal("0.0035")),
        ("gpt-4.1", "flex", None),
        ("gpt-4.1", "default", Decimal("0.002")),
        ("gpt-5", "priority", None),
    ):
        price = card(model, TODAY).price
        assert price is not None
        assert dollars == cost(price, input_tokens=1000, output_tokens=0, tier=tier)


def test_what_bills_cache_writes_has_no_price() -> None:
    """Their usage does not tell them apart, so the cost is unknown and not too low."""
    for model in ("gpt-5.6", "gpt-5.6-luna", "gpt-6-sol", "gpt-6.2-sol"):
        assert card(model, TODAY).price is None


@pytest.mark.parametrize(
    ("day", "model"),
    [
        (date(2024, 10, 31), None),
        (NOVEMBER, "gpt-3.5-turbo"),
        (date(2024, 12, 1), "gpt-4o"),
        (date(2025, 5, 1), "gpt-4.1"),
        (date(2025, 8, 7), "gpt-5"),
        (TODAY, "gpt-5.4"),
    ],
)
def test_the_model_when_nobody_names_one(day: date, model: str | None) -> None:
    """The newest general model of the day; the page's default in November 2024."""
    found = CATALOG.default(day, "openai")
    assert model == (None if found is None else found.id)


def test_the_usual_model_of_mistral_is_the_clients_default() -> None:
    """And what it means on that day."""
    found = CATALOG.default(TODAY, "mistral")
    assert found is not None
    assert found == CATALOG.find("mistral-large-latest", TODAY)
    assert CATALOG.default(TODAY, "nobody") is None


def test_every_usual_model_can_be_asked_whole() -> None:
    """It is served, priced, and takes function tools."""
    for row in CATALOG._sheet.defaults:
        assert row.source
        assert row.reason
        found = CATALOG.find(row.model, row.valid_from, row.provider)
        assert found is not None
        assert found.state == "ga"
        assert found.price is not None
        assert {"chat", "tools"} <= found.abilities


def test_a_users_row_changes_the_usual_model() -> None:
    """A `[[default]]` table of the same day wins."""
    text = '[[default]]\nprovider = "openai"\nmodel = "o3"\nvalid_from = 2026-03-05\n'
    top = read_sheet(text, "prices.toml", "prices.toml")
    found = Catalog(top.on_top_of(CATALOG._sheet)).default(TODAY, "openai")
    assert found is not None
    assert "o3" == found.id


def test_announced_retirements() -> None:
    """Deprecated from the notice on, retired after the last day, still priced then."""
    assert "ga" == card("gpt-4-turbo", date(2026, 4, 21)).state
    assert "deprecated" == card("gpt-4-turbo", date(2026, 10, 23)).state
    assert "retired" == card("gpt-4-turbo", date(2026, 10, 24)).state
    assert Decimal("0.01") == facts.cost("gpt-4-turbo", 1000, 0, as_of=TODAY)
    assert "gpt-6-luna" == card("gpt-4o", TODAY).replacement


def test_rows_keep_the_laws_of_the_catalogue() -> None:
    """Ids never vanish, replacements are known, and one model claims an alias at a time."""
    days = sorted({p.valid_from for p in CATALOG._periods if p.card.provider == "openai"})
    for day, later in pairwise([*days, TODAY]):
        owners: dict[str, str] = {}
        for found in CATALOG.cards(day, "openai", retired=True):
            assert found.replacement is None or CATALOG.find(found.replacement, day, "openai")
            for name in (found.id, *found.aliases):
                assert found.id == owners.setdefault(name, found.id)
                assert CATALOG.find(name, later, "openai") is not None


def test_slips_are_seen_among_a_vendors_own_models() -> None:
    """A slip in OpenAI's id is none of Mistral's business."""
    assert CATALOG.misspelt("gpt-4o-mni", TODAY, "openai")
    assert "gpt-4o-mini" == CATALOG.nearest("gpt-4o-mni", TODAY, provider="openai")[0]
    assert not CATALOG.misspelt("gpt-4o-mni", TODAY)


def test_the_smallest_window_is_a_vendors_own() -> None:
    """GPT-4's 8,192 tokens must not slow down Mistral's calls."""
    assert 8_192 == CATALOG.smallest_window("openai")
    assert 32_768 == CATALOG.smallest_window("mistral")
    assert 0 == CATALOG.smallest_window("nobody")
