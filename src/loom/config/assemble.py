"""
The composition root: which layers stand around a provider, and in which order.

The order is said here and nowhere else, outermost first:

    Tracing(Accounting(Costing(FallingBack(
        [Fitting(Retrying(Breaking(Limiting(ByKind(WiredProvider, ...))))), ...]))))

*Tracing* is outermost, so that it tells of the whole call, with its price. *Accounting* keeps money
free before anything is sent and writes the row of the ledger, where there is one: one row for each
call, whoever answered. *Costing* is inside it, so that rows have prices, and outside
the routes, so that whoever answers is priced once. *FallingBack* stands there if there
are routes to fall back on; each has its own layers, for its own model, key and address. *Fitting*
is outside what waits: what does not fit into the model's window is not sent, and costs nothing.
*Retrying* is outside *Breaking*, so that the breaker counts every attempt, and ends the retries
when it opens. *Limiting* is innermost: the vendor counts every request, and an open breaker uses
no permits. *ByKind* is no layer: it hands chats, gaps and texts to those who send them, so that
all of them share the layers, and what these remember.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from loom.catalog.lookup import Catalog
from loom.config.load import user_file, wants_latest_genai_names
from loom.config.places import Place, place_beside
from loom.config.surroundings import Surroundings
from loom.config.vendors import Vendor, find_vendor
from loom.core.ambient import Clock, Dice, SystemDice
from loom.core.errors import ConfigInvalid
from loom.core.model import ModelCard
from loom.core.plan import TokenCount
from loom.core.provider import LayerFactory, LLMProvider, compose
from loom.core.request import Kind
from loom.core.route import Route
from loom.layers.account import Accounting
from loom.layers.breaker import Breaking
from loom.layers.cost import Costing
from loom.layers.limit import Limiting
from loom.layers.retry import Retrying
from loom.layers.trace import Tracing
from loom.layers.window import Fitting, Window
from loom.providers.by_kind import ByKind
from loom.providers.fallback import Branch, FallingBack
from loom.providers.wired import Endpoint, WiredProvider
from loom.transport.contract import Transport
from loom.wire.dialect import Dialect

__all__ = ["Assembled", "Elsewhere", "assemble", "load_catalog", "overlay_file"]

Elsewhere: TypeAlias = Callable[[Vendor, Route], Place]
"""Finds where a route to another vendor leads."""

_Scope: TypeAlias = Callable[[], tuple[str, str]]

_log = logging.getLogger("loom.catalog")
_warned: set[str] = set()


class Assembled(msgspec.Struct, frozen=True, kw_only=True):
    """
    A provider with everything around it.

    Attributes:
        provider: The outermost layer; it serves requests of every kind that the vendor has.
        catalog: The models and prices that it counts with.
        window: Counts requests, and makes them fit.
    """

    provider: LLMProvider
    catalog: Catalog
    window: Window


def assemble(
    vendor: Vendor,
    *,
    place: Place,
    model: str,
    elsewhere: Elsewhere,
    headers: Mapping[str, str] | None = None,
    dialect: Dialect | None = None,
    transport: Transport,
    clock: Clock,
    dice: Dice | None = None,
    as_of: date | None = None,
    billed: bool = True,
    surroundings: Surroundings = Surroundings(),  # noqa: B008 - a frozen value
) -> Assembled:
    """
    A vendor's provider with its layers.

    Args:
        vendor: Who is asked.
        place: Where, and as whom.
        model: The model when a request names none.
        elsewhere: Finds where the routes to other vendors lead.
        headers: Sent with each request to this vendor, beside ours.
        dialect: How the client's own place is spoken to; None: as the vendor is.
        transport: The door to the vendors; closed with the provider.
        clock: Tells time to every layer.
        dice: Draws the jitter of waits.
        as_of: The day whose models and prices hold; None: the day of each call.
        billed: False for the simulator: the age of a price that nobody pays is no news.
        surroundings: What stands around it.

    Returns:
        The provider and its catalogue.

    Raises:
        ConfigInvalid: If a header or a route is not one, or the user's price file is malformed.
        InvalidAPIKey: If there is no key for a route to another vendor.
    """
    catalog = load_catalog()
    if billed:
        _warn_if_stale(catalog, vendor.name, model, clock.now().date())
    dialect = dialect or vendor.dialect(place.own)
    assembly = _Assembly(
        vendor=vendor,
        place=place,
        model=model,
        elsewhere=elsewhere,
        headers=_checked_headers(headers or {}),
        dialect=dialect,
        transport=transport,
        clock=clock,
        dice=dice or SystemDice(),
        catalog=catalog,
        as_of=as_of,
        surroundings=surroundings,
    )
    provider = compose(assembly.provider(), *assembly.telling())
    return Assembled(provider=provider, catalog=catalog, window=Window(dialect, _count_prompt))


class _Assembly(msgspec.Struct, frozen=True, kw_only=True):
    """What the routes of a client have in common."""

    vendor: Vendor
    place: Place
    model: str
    elsewhere: Elsewhere
    headers: Mapping[str, str]
    dialect: Dialect
    transport: Transport
    clock: Clock
    dice: Dice
    catalog: Catalog
    as_of: date | None
    surroundings: Surroundings

    def telling(self) -> list[LayerFactory]:
        """The layers around all routes, which tell of a call, pay it and price it."""
        around, clock, catalog, as_of = self.surroundings, self.clock, self.catalog, self.as_of
        layers: list[LayerFactory] = [
            lambda inner: Tracing(
                inner,
                clock=clock,
                telemetry=around.telemetry,
                old_metrics=not wants_latest_genai_names(),
                title=self.vendor.title,
            )
        ]
        ledger, key = around.ledger, self.place.key
        if ledger is not None:
            layers.append(
                lambda inner: Accounting(
                    inner,
                    ledger=ledger,
                    budgets=around.budgets,
                    catalog=catalog,
                    clock=clock,
                    as_of=as_of,
                    scope=lambda: ("", "" if key is None else key.fingerprint),
                    client=around.client,
                    owned=around.owned,
                )
            )
        layers.append(lambda inner: Costing(inner, catalog=catalog, clock=clock, as_of=as_of))
        return layers

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
        vendor = self.vendor
        if route.provider not in (None, vendor.name):
            vendor = find_vendor(route.provider)
        if vendor is not self.vendor:
            model: str | None = route.model or self.usual(vendor)
            place, headers = self.elsewhere(vendor, route), {}
        else:
            model = route.model
            place, headers = place_beside(vendor, self.place, route), dict(self.headers)
        # The client's own dialect may have been chosen by its caller: for its own address.
        here = vendor is self.vendor and place.address == self.place.address
        dialect = self.dialect if here else vendor.dialect(place.own)
        inner, scope = self.innermost(vendor, place, model or self.model, dialect, headers)
        provider = compose(
            inner,
            lambda inner: Fitting(
                inner,
                window=Window(dialect, _count_prompt),
                catalog=self.catalog,
                clock=self.clock,
                as_of=self.as_of,
            ),
            *self.steadying(vendor.name, scope, last=last),
        )
        return Branch(provider=provider, model=model, scope=scope)

    def innermost(
        self,
        vendor: Vendor,
        place: Place,
        model: str,
        dialect: Dialect,
        headers: Mapping[str, str],
    ) -> tuple[LLMProvider, _Scope]:
        """Who answers, and the account that it is answered on."""
        if vendor.provider is not None:
            made = vendor.provider(model)
            return ByKind(made, {}), lambda: (made.name, "")

        def at(path: str) -> Endpoint:
            url = f"{place.address}/{path}"
            return Endpoint(name=vendor.name, url=url, headers=headers, key=place.key)

        endpoint, way = at("chat/completions"), (self.transport, self.clock)

        def embeddings() -> LLMProvider:
            from loom.providers.wired_embeddings import (  # noqa: PLC0415 - who asks for them pays
                WiredEmbeddings,
            )

            return WiredEmbeddings(at("embeddings"), model, dialect, *way)

        others: dict[Kind, Callable[[], LLMProvider]] = {"embeddings": embeddings}
        infill = vendor.infill
        if infill is not None:
            others["fim"] = lambda: WiredProvider(at("fim/completions"), model, infill(), *way)
        wired = WiredProvider(endpoint, model, dialect, *way)
        return ByKind(wired, others), lambda: endpoint.scope

    def usual(self, vendor: Vendor) -> str:
        """The model of another vendor when a route names none."""
        card = self.catalog.default(self.day(), vendor.name)
        model = vendor.model if card is None else card.id
        if not model:
            raise ConfigInvalid(
                f"'fallback': name a model of {vendor.title}, as in '{vendor.name}:MODEL'"
            )
        return model

    def day(self) -> date:
        """The day whose models hold."""
        return self.as_of or self.clock.now().date()

    def group(self, vendor: str, model: str) -> str:
        """What a vendor counts a model's calls under: the model, whatever alias it was asked by."""
        card = self.catalog.find(model, self.day(), vendor)
        return model if card is None else card.id

    def steadying(self, vendor: str, scope: _Scope, *, last: bool) -> list[LayerFactory]:
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
            layers.append(lambda inner: Breaking(inner, breaker=kept, clock=clock, scope=scope))
        limiter = self.surroundings.limiter
        if limiter is not None:
            layers.append(
                lambda inner: Limiting(
                    inner,
                    limiter=limiter,
                    clock=clock,
                    scope=scope,
                    group=lambda model: self.group(vendor, model),
                )
            )
        return layers


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


def _warn_if_stale(catalog: Catalog, vendor: str, model: str, today: date) -> None:
    card = catalog.find(model, today, vendor)
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
