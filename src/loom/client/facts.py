"""
Questions about models and money that need today's date, and clients by name: a thin layer.

`loom.catalog` is pure and asks for a day; here the day is `as_of`, else the setting of that name
(`LOOM_AS_OF`), else today, UTC. The user's `prices.toml` is laid over the built-in rows.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from loom.catalog import cost as money
from loom.catalog.dates import parse_as_of
from loom.client.discreet import discreet
from loom.config.assemble import load_catalog
from loom.config.load import load_settings
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.core.model import ModelCard
from loom.core.route import named_model

if TYPE_CHECKING:
    from loom.client.calls import AsyncClient

__all__ = ["cost", "models", "provider", "recommend"]


def cost(
    model: str, input_tokens: int, output_tokens: int, as_of: str | date | None = None
) -> Decimal | None:
    """
    What so many tokens cost with a model, in US dollars, exact.

    cost = input / 1,000,000 * input price + output / 1,000,000 * output price

    Args:
        model: A model id, an alias or a legacy id, of any vendor: "gpt-4o", "openai:gpt-4o".
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
    card = load_catalog().anywhere(model, _day(as_of))
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


def models(
    as_of: str | date | None = None, provider: str | None = "mistral"
) -> tuple[ModelCard, ...]:
    """
    A vendor's models on a day, retired ones left out.

    Args:
        as_of: A month or a day; None for the setting, else today.
        provider: Whose, for example "openai"; None: the models of all.

    Returns:
        Their cards, in the catalogue's order.

    Raises:
        ConfigInvalid: If `as_of` is neither a month nor a day, or a settings file is malformed.
    """
    return load_catalog().cards(_day(as_of), provider)


@discreet
def provider(name: str, **arguments: Any) -> AsyncClient:
    """
    Make a client from a vendor's name and a model: `loom.provider("openai:gpt-4.1")`.

    Other packages register vendors in the entry point group `loom.providers`.

    Args:
        name: `VENDOR:MODEL`, or a vendor alone, whose usual model is then taken.
        arguments: Those of `AsyncMistral`, and what a vendor's own class has beyond them.

    Returns:
        A client for asyncio; its `provider` is an `LLMProvider` with all layers.

    Raises:
        ConfigInvalid: If there is no such vendor; the nearest is named.
        InvalidAPIKey: If there is no key, or it cannot be one.
        TypeError: If an argument is none.
    """
    # Not at import: a question about a price needs no client, and so no dialect and no layer.
    from loom.client.aio import AsyncClient, AsyncMistral, AsyncOpenAI  # noqa: PLC0415 - see above
    from loom.client.arguments import Arguments  # noqa: PLC0415 - the same
    from loom.config.vendors import MISTRAL, OPENAI, find_vendor  # noqa: PLC0415 - the same

    vendor_name, model = named_model(name)
    if vendor_name is None:
        vendor_name, model = name.strip(), ""
    elif not model:
        raise ConfigInvalid(f"{name!r} names no model, as '{vendor_name}:MODEL' does")
    vendor = find_vendor(vendor_name)
    if model:
        arguments["model"] = model
    if vendor is MISTRAL:
        return AsyncMistral(**arguments)
    if vendor is OPENAI:
        return AsyncOpenAI(**arguments)
    return AsyncClient(vendor, arguments.pop("api_key", None), Arguments(**arguments))


def _day(as_of: str | date | None) -> date:
    if as_of is not None:
        return parse_as_of(as_of)
    return load_settings().as_of or SystemClock().now().date()
