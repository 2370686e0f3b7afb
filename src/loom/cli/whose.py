"""Whose model is meant: `openai:gpt-4.1`, or an id that one vendor alone knows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from loom.config.load import load_settings
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.route import named_model

if TYPE_CHECKING:
    from loom.client.aio import AsyncClient
    from loom.client.blocking import Client

__all__ = ["async_client_of", "client_of", "whose"]


def whose(model: str, as_of: date | None, usual: str = "mistral") -> tuple[str, str]:
    """
    Who serves a model.

    Args:
        model: As it was written, perhaps with its vendor before it.
        as_of: The day whose models hold; None: the settings', or today.
        usual: Whose a model is that nobody knows.

    Returns:
        The vendor, and the model without it.

    Raises:
        ConfigInvalid: If a vendor is named, and no model.
    """
    vendor, rest = named_model(model)
    if vendor is not None:
        if not rest:
            raise ConfigInvalid(f"{model!r} names no model, as '{vendor}:MODEL' does")
        return vendor, rest
    from loom.config.assemble import load_catalog  # noqa: PLC0415 - start-up time

    on = as_of or load_settings().as_of or SystemClock().now().date()
    card = load_catalog().anywhere(model, on)
    return usual if card is None else card.provider, model


def client_of(arguments: Mapping[str, Any]) -> Client:
    """
    The blocking client that asks a model.

    Args:
        arguments: Those of the client; `model` may name its vendor.

    Returns:
        The client.

    Raises:
        ConfigInvalid: If there is no such vendor.
        InvalidAPIKey: If there is no key, or it cannot be one.
    """
    from loom.client.blocking import Client, Mistral, OpenAI  # noqa: PLC0415 - start-up time

    vendor, given = _parted(arguments)
    match vendor:
        case "mistral":
            return Mistral(**given)
        case "openai":
            return OpenAI(**given)
        case _:
            return Client(_registered(vendor, given))


def async_client_of(arguments: Mapping[str, Any]) -> AsyncClient:
    """Do for asyncio what `client_of` does: it takes and raises the same."""
    from loom.client.aio import AsyncMistral, AsyncOpenAI  # noqa: PLC0415 - start-up time

    vendor, given = _parted(arguments)
    match vendor:
        case "mistral":
            return AsyncMistral(**given)
        case "openai":
            return AsyncOpenAI(**given)
        case _:
            return _registered(vendor, given)


def _registered(vendor: str, given: dict[str, Any]) -> AsyncClient:
    from loom.client.facts import provider  # noqa: PLC0415 - start-up time

    return provider(f"{vendor}:{given.pop('model')}", **given)


def _parted(arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    given = dict(arguments)
    as_of: date | None = given.get("as_of")
    if "fallback" in given:
        given["fallback"] = [_route(text, as_of) for text in given["fallback"]]
    if "model" not in given:
        return "mistral", given
    vendor, given["model"] = whose(given["model"], as_of)
    return vendor, given


def _route(text: str, as_of: date | None) -> str:
    """A route as it was written, with its vendor where its id alone says who that is."""
    if named_model(text)[0] is not None:
        return text
    vendor, model = whose(text, as_of)
    return f"{vendor}:{model}"
