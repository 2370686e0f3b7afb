"""The comparison in docs/migration.md is what the catalogue says."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from loom.catalog.lookup import Catalog

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "migration.md").read_text(encoding="utf-8")
DAYS = {"November 2024": date(2024, 11, 30), "November 2026": date(2026, 11, 26)}


def prices(provider: str, on: date) -> str:
    """Give the lowest and the highest price of a million tokens of chat models."""
    found: list[Decimal] = [
        amount
        for card in Catalog.builtin().cards(on, provider)
        if card.price is not None and "chat" in card.abilities
        for amount in (card.price.input_usd_per_mtok, card.price.output_usd_per_mtok)
        if amount
    ]
    return f"${min(found):.2f} to ${max(found):.2f}"


def windows(provider: str, on: date) -> str:
    """Give the smallest and the largest window of chat models."""
    found = [
        card.context_window
        for card in Catalog.builtin().cards(on, provider)
        if card.context_window is not None and "chat" in card.abilities
    ]
    return f"{min(found):,} to {max(found):,}"


@pytest.mark.parametrize("month", DAYS)
@pytest.mark.parametrize(("row", "of"), [("price of 1M tokens", prices), ("window", windows)])
def test_the_comparison(month: str, row: str, of: object) -> None:
    """Each cell of the table, for both vendors; November 2024 is the reference page's."""
    assert callable(of)
    cells = [of(provider, DAYS[month]) for provider in ("openai", "mistral")]
    found = re.search(rf"(?m)^\| {row}, {month} \| (.+) \| (.+) \|$", TEXT)
    assert found is not None, f"| {row}, {month} | {cells[0]} | {cells[1]} |"
    assert cells == [found[1], found[2]]
