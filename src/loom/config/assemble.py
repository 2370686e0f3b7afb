"""
The composition root: which layers stand around a provider, and in which order.

The order is said here and nowhere else, outermost first:

    Tracing(Accounting(Costing(FallingBack(
        [Fitting(Retrying(Breaking(Limiting(WiredProvider)))), ...]))))

*Tracing* is outermost, so that it tells of the whole call, with its price. *Accounting* keeps money
free before anything is sent and writes the row of the ledger, where there is one: one row for each
call, whoever answered. *Costing* is inside it, so that rows have prices, and outside
the routes, so that whoever answers is priced once. *FallingBack* stands there if there
are routes to fall back on; each has its own layers, for its own model, key and address. *Fitting*
is outside what waits: what does not fit into the model's window is not sent, and costs nothing.
*Retrying* is outside *Breaking*, so that the breaker counts every attempt, and ends the retries
when it opens. *Limiting* is innermost: the vendor counts every request, and an open breaker uses
no permits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from loom.catalog.lookup import Catalog
from loom.config.load import normalise_base_url, user_file, wants_latest_genai_names
from loom.config.secrets import find_api_key
from loom.config.surroundings import Surroundings
from loom.core.ambient import Clock, Dice, SystemDice
from loom.core.errors import ConfigInvalid
from loom.core.model import ModelCard
from loom.core.plan import TokenCount
from loom.core.provider import LayerFactory, LLMProvider, compose
from loom.core.route import Route
from loom.layers.account import Accounting
from loom.layers.breaker import Breaking
from loom.layers.cost import Costing
from loom.layers.limit import Limiting
from loom.layers.retry import Retrying
from loom.layers.trace import Tracing
from loom.layers.window import Fitting, Window
from loom.providers.fallback import Branch, FallingBack
from loom.providers.key import Key
from loom.providers.wired import Endpoint, WiredProvider
from loom.transport.contract import Transport
from loom.wire.dialect import Dialect
from loom.wire.mistral.dialect import MistralDialect

__all__ = [
    "MISTRAL_BASE_URL",
    "Assembled",
    "assemble_mistral",
    "load_catalog",
    "overlay_file",
]

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
    key: Key,
    model: str,
    base_url: str = MISTRAL_BASE_URL,
    headers: Mapping[str, str] | None = None,
    transport: Transport,
    clock: Clock,
    dice: Dice | None = None,
    as_of: date | None = None,
    billed: bool = True,
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - a frozen value
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
        dice: Draws the jitter of waits.
        as_of: The day whose models and prices hold; None: the day of each call.
        billed: False for the simulator: the age of a price that nobody pays is no news.
        surroundings: What stands around it.

    Returns:
        The provider and its catalogue.

    Raises:
        ConfigInvalid: If a header or a route is not one, or the user's price file is malformed.
    """
    catalog = load_catalog()
    if billed:
        _warn_if_stale(catalog, model, clock.now().date())
    dialect = MistralDialect()
    window = Window(dialect, _count_prompt)

    def group(model: str) -> str:
        # The vendor counts for a model, whatever alias it was asked by.
        card = catalog.find(model, as_of or clock.now().date())
        return model if card is None else card.id

    assembly = _Assembly(
        key=key,
        model=model,
        base_url=base_url,
        headers=_checked_headers(headers or {}),
        dialect=dialect,
        transport=transport,
        clock=clock,
        dice=dice or SystemDice(),
        fitting=lambda inner: Fitting(
            inner, window=window, catalog=catalog, clock=clock, as_of=as_of
        ),
        group=group,
        surroundings=surroundings,
    )
    around: list[LayerFactory] = [
        lambda inner: Tracing(
            inner,
            clock=clock,
            telemetry=surroundings.telemetry,
            old_metrics=not wants_latest_genai_names(),
        )
    ]
    ledger = surroundings.ledger
    if ledger is not None:
        around.append(
            lambda inner: Accounting(
                inner,
                ledger=ledger,
                budgets=surroundings.budgets,
                catalog=catalog,
                clock=clock,
                as_of=as_of,
                scope=lambda: ("", key.fingerprint),
                client=surroundings.client,
                owned=surroundings.owned,
            )
        )
    provider = compose(
        assembly.provider(),
        *around,
        lambda inner: Costing(inner, catalog=catalog, clock=clock, as_of=as_of),
    )
    return Assembled(provider=provider, catalog=catalog, window=window, as_of=as_of)


class _Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """What the routes of a client have in common."""

    key: Key
    model: str
    base_url: str
    headers: Mapping[str, str]
    dialect: Dialect
    transport: Transport
    clock: Clock
    dice: Dice
    fitting: LayerFactory
    group: Callable[[str], str]
    surroundings: Surroundings

    def provider(self) -> LLMProvider:
        """The client's own route, with those that it falls back on behind it."""
        fallback = self.surroundings.fallback
        if fallback is None:
            return self.branch(Route(), last=True).provider
        *others, last = fallback.routes
        routes = [self.branch(route, last=False) for route in (Route(), *others)]
        return FallingBack(
            [*routes, self.branch(last, last=True)],
            clock=self.clock,
            first_token_s=fallback.first_token_s,
            rescue=self.surroundings.rescue,
        )

    def branch(self, route: Route | LLMProvider, *, last: bool) -> Branch:
        """A route with its layers."""
        if isinstance(route, LLMProvider):
            return Branch(provider=route, model=route.model, owned=False)
        address, key = _where(route, self.base_url, self.key)
        endpoint = Endpoint(
            name="mistral", url=f"{address}/chat/completions", headers=self.headers, key=key
        )
        model = route.model or self.model
        wired = WiredProvider(endpoint, model, self.dialect, self.transport, self.clock)
        provider = compose(wired, self.fitting, *self.steadying(endpoint, last=last))
        return Branch(provider=provider, model=route.model, scope=lambda: endpoint.scope)

    def steadying(self, endpoint: Endpoint, *, last: bool) -> list[LayerFactory]:
        """The layers that keep a route up, outermost first."""
        layers: list[LayerFactory] = []
        policy, breaker = self.surroundings.retry, self.surroundings.breaker
        clock, dice = self.clock, self.dice
        if policy is not None:
            changes: dict[str, int] = {}
            if not last:
                # Failover scenario FB06: a silent route is not asked again while there is another;
                # and a full one not longer than a failing one.
                fewer = min(policy.rate_limit_attempts, policy.attempts)
                changes = {"silent_attempts": 1, "rate_limit_attempts": fewer}
            chosen = msgspec.structs.replace(policy, **changes)
            layers.append(lambda inner: Retrying(inner, policy=chosen, clock=clock, dice=dice))
        if breaker is not None:
            kept = breaker
            layers.append(
                lambda inner: Breaking(
                    inner, breaker=kept, clock=clock, scope=lambda: endpoint.scope
                )
            )
        limiter = self.surroundings.limiter
        if limiter is not None:
            layers.append(
                lambda inner: Limiting(
                    inner,
                    limiter=limiter,
                    clock=clock,
                    scope=lambda: endpoint.scope,
                    group=self.group,
                )
            )
        return layers


def _where(route: Route, base_url: str, key: Key) -> tuple[str, Key]:
    """Address and key of a route; no key goes where it does not belong."""
    address = base_url if route.base_url is None else normalise_base_url(route.base_url)
    if route.api_key is not None:
        return address, Key(find_api_key(route.api_key).secret)
    if _origin(address) != _origin(base_url):
        raise ConfigInvalid(
            f"'fallback': the route to {_origin(address)} needs an api_key of its own:"
            " a key is never sent to another address"
        )
    return address, key


def _origin(address: str) -> str:
    return "/".join(address.split("/", 3)[:3])


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
