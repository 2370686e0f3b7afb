"""
Questions about models and money that need today's date: a thin layer over the catalogue.

`loom.catalog` is pure and asks for a day; here the day is `as_of`, else the setting of that name
(`LOOM_AS_OF`), else today, UTC. The user's `prices.toml` is laid over the built-in rows.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from loom.catalog import cost as money
from loom.catalog.dates import parse_as_of
from loom.config.assemble import load_catalog
from loom.config.load import load_settings
from loom.core.ambient import SystemClock
from loom.core.errors import InvalidRequest
from loom.core.model import ModelCard

__all__ = ["cost", "models", "recommend"]


def cost(
    model: str, input_tokens: int, output_tokens: int, as_of: str | date | None = None
) -> Decimal | None:
    """
    What so many tokens cost with a model, in US dollars, exact.

    cost = input / 1,000,000 * input price + output / 1,000,000 * output price

    Args:
        model: A model id, an alias or a legacy id.
        input_tokens: Prompt tokens, at least 0.
        output_tokens: Answer tokens, at least 0.
        as_of: A month ("2024-11": its last day) or a day; None for the setting, else today.

    Returns:
        US dollars, or None when the model or its price is unknown: never 0, never a guess.

    Raises:
        InvalidRequest: If a number of tokens is negative.
        ConfigInvalid: If `as_of` is neither a month nor a day, or a settings file is malformed.
    """
    if input_tokens < 0 or output_tokens < 0:
        raise InvalidRequest(
            f"{input_tokens} and {output_tokens} tokens have no cost: give numbers from 0"
        )
    card = load_catalog().find(model, _day(as_of))
    if card is None or card.price is None:
        return None
    return money.cost(card.price, input_tokens=input_tokens, output_tokens=output_tokens)


def recommend(task: str, as_of: str | date | None = None) -> ModelCard:
    """
    The model to take for a task.

    Args:
        task: "development", "cost_sensitive", "high_volume", "complex_reasoning" or
            "long_context".
        as_of: A month or a day; None for the setting, else today.

    Returns:
        Its card.

    Raises:
        InvalidRequest: If there is no such task, or no advice for that day.
        ConfigInvalid: If `as_of` is neither a month nor a day, or a settings file is malformed.
    """
    return load_catalog().recommend(task, _day(as_of))


def models(as_of: str | date | None = None) -> tuple[ModelCard, ...]:
    """
    All models of a day, retired ones left out.

    Args:
        as_of: A month or a day; None for the setting, else today.

    Returns:
        Their cards, in the catalogue's order.

    Raises:
        ConfigInvalid: If `as_of` is neither a month nor a day, or a settings file is malformed.
    """
    return load_catalog().cards(_day(as_of))


def _day(as_of: str | date | None) -> date:
    if as_of is not None:
        return parse_as_of(as_of)
    return load_settings().as_of or SystemClock().now().date()
