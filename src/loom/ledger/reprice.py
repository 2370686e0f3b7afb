"""Pricing again: what rows would have cost by the prices of any day. Nothing is written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import date
from decimal import Decimal
from typing import TypeAlias

import msgspec

from loom.core.response import Usage
from loom.ledger.contract import EVERY_ROW, Ledger, Query, all_entries
from loom.ledger.entry import Entry

__all__ = ["PriceOf", "Repriced", "reprice", "repriced"]

PriceOf: TypeAlias = Callable[[Usage, str, str, date], Usage]
"""
Prices a usage: of a provider, of a model, on a day; gives it with `cost_usd` and `price`, or
without both when the price is unknown. `catalog.cost.price_usage` with a card does it.
"""


class Repriced(msgspec.Struct, frozen=True, kw_only=True):
    """
    A row at other prices.

    Attributes:
        entry: The row as it stands.
        price_id: The row of the catalogue; empty: unpriced on that day.
        cost_usd: US dollars; None when unknown, never a guess.
    """

    entry: Entry
    price_id: str
    cost_usd: Decimal | None

    @property
    def changed(self) -> bool:
        """Whether the cost is another one, or is known now and was not, or the other way."""
        return self.cost_usd != self.entry.cost_usd


def repriced(entry: Entry, price_of: PriceOf, on: date | None = None) -> Repriced:
    """
    One row at other prices.

    Args:
        entry: The row. One that was released costs nothing on any day, and one that nobody
            answered keeps its cost.
        price_of: The prices.
        on: Whose prices; None: those of the row's own day, UTC.

    Returns:
        The row with its new price.
    """
    if entry.state == "released" or not entry.model:
        return Repriced(entry=entry, price_id=entry.price_id, cost_usd=entry.cost_usd)
    usage = Usage(
        input_tokens=entry.input_tokens,
        output_tokens=entry.output_tokens,
        cached_tokens=entry.cached_tokens,
        audio_tokens=entry.audio_tokens,
        audio_seconds=entry.audio_seconds,
        service_tier=entry.service_tier,
    )
    priced = price_of(usage, entry.provider, entry.model, on or entry.at.date())
    return Repriced(
        entry=entry,
        price_id="" if priced.price is None else priced.price.id,
        cost_usd=priced.cost_usd,
    )


async def reprice(
    ledger: Ledger, price_of: PriceOf, *, on: date | None = None, query: Query = EVERY_ROW
) -> AsyncGenerator[Repriced, None]:
    """
    Rows at other prices; unpriced ones are among them.

    Args:
        ledger: Whose rows.
        price_of: The prices.
        on: Whose prices; None: those of each row's own day, UTC.
        query: Which rows.

    Yields:
        Each row with its new price.
    """
    async for entry in all_entries(ledger, query):
        yield repriced(entry, price_of, on)
