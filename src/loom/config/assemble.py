"""
The composition root: which layers stand around a provider, and in which order.

The order is said here and nowhere else, outermost first:

    Costing(Fitting(WiredProvider))

*Costing* is outside, so that whoever answers is priced once. *Fitting* is inside it: what does not
fit into the model's window is not sent, and costs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from loom.catalog.lookup import Catalog
from loom.config.load import user_file
from loom.core.ambient import Clock
from loom.core.errors import ConfigInvalid
from loom.core.model import ModelCard
from loom.core.plan import TokenCount
from loom.core.provider import LLMProvider, compose
from loom.core.secret import Secret
from loom.layers.cost import Costing
from loom.layers.window import Fitting, Window
from loom.providers.wired import Endpoint, WiredProvider
from loom.transport.contract import Transport
from loom.wire.mistral.dialect import MistralDialect

__all__ = ["MISTRAL_BASE_URL", "Assembled", "assemble_mistral", "load_catalog", "overlay_file"]

MISTRAL_BASE_URL = "https://api.mistral.ai/v1"
"""Source: contract/mistral.md section 1."""

_log = logging.getLogger("loom.catalog")
_warned: set[str] = set()


class Assembled(msgspec.Struct, frozen=True, kw_only=True):
    """
    A provider with everything around it.

    Attributes:
        provider: The outermost layer.
        catalog: The models and prices that it counts with.
        window: Counts requests, and makes them fit.
        as_of: The day whose facts hold; None: the day of each call.
    """

    provider: LLMProvider
    catalog: Catalog
    window: Window
    as_of: date | None = None


def assemble_mistral(
    *,
    key: Secret,
    model: str,
    base_url: str = MISTRAL_BASE_URL,
    headers: Mapping[str, str] | None = None,
    transport: Transport,
    clock: Clock,
    as_of: date | None = None,
    billed: bool = True,
) -> Assembled:
    """
    A Mistral provider with its layers.

    Args:
        key: Sent as the bearer token, to `base_url` only.
        model: The model when a request names none.
        base_url: Ends in `/v1`.
        headers: Sent with each request, beside ours.
        transport: The door to the vendor; closed with the provider.
        clock: Tells time to every layer.
        as_of: The day whose models and prices hold; None: the day of each call.
        billed: False for the simulator: the age of a price that nobody pays is no news.

    Returns:
        The provider and its catalogue.

    Raises:
        ConfigInvalid: If a header is not one, or the user's price file is malformed.
    """
    catalog = load_catalog()
    if billed:
        _warn_if_stale(catalog, model, clock.now().date())
    endpoint = Endpoint(
        name="mistral",
        url=f"{base_url}/chat/completions",
        headers={
            **_checked_headers(headers or {}),
            "authorization": Secret(f"Bearer {key.reveal()}"),
        },
    )
    dialect = MistralDialect()
    window = Window(dialect, _count_prompt)
    provider = compose(
        WiredProvider(endpoint, model, dialect, transport, clock),
        lambda inner: Costing(inner, catalog=catalog, clock=clock, as_of=as_of),
        lambda inner: Fitting(inner, window=window, catalog=catalog, clock=clock, as_of=as_of),
    )
    return Assembled(provider=provider, catalog=catalog, window=window, as_of=as_of)


def load_catalog() -> Catalog:
    """
    The built-in facts, corrected by the user's `prices.toml` where there is one.

    Returns:
        The catalogue.

    Raises:
        ConfigInvalid: If the file is malformed; it names file, row and field.
    """
    overlay = overlay_file()
    catalog = Catalog.builtin()
    return catalog.with_overlay(overlay) if overlay.is_file() else catalog


def overlay_file() -> Path:
    """Where a user corrects prices and adds models: `prices.toml` beside the settings."""
    return user_file().with_name("prices.toml")


def _count_prompt(body: Mapping[str, Any], card: ModelCard | None) -> TokenCount:
    from loom.catalog.tokens import count_prompt  # noqa: PLC0415 - most calls are never counted

    return count_prompt(body, card)


def _warn_if_stale(catalog: Catalog, model: str, today: date) -> None:
    card = catalog.find(model, today)
    if card is None or card.checked_on is None or card.id in _warned:
        return
    age_days = (today - card.checked_on).days
    if age_days > 90:
        # Once a process and model: a warning with each client would be read by nobody.
        _warned.add(card.id)
        _log.warning(
            "the price of %s was last checked %d days ago (%s); correct it in %s",
            card.id, age_days, card.checked_on, overlay_file(),
        )  # fmt: skip


def _checked_headers(headers: Mapping[Any, Any]) -> dict[str, str]:
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigInvalid("'headers' must map names to values, both strings")
        lowered = name.lower()
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ConfigInvalid(f"'headers': {name!r} is not a header's name")
        if any(ord(character) < 32 or ord(character) == 127 for character in value):
            raise ConfigInvalid(f"'headers': the value of {name!r} holds control characters")
        if lowered in ("authorization", "content-length", "host", "transfer-encoding"):
            raise ConfigInvalid(f"'headers' must not set {name!r}; give the key as api_key")
        checked[lowered] = value
    return checked
