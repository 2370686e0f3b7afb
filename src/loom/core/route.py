"""Where else a call may go: routes, and how they are taken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from loom.core.errors import ConfigInvalid
from loom.core.provider import LLMProvider
from loom.core.secret import Secret

__all__ = ["Fallback", "Route", "RouteLike", "named_model"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """
    Another way to an answer: another model, another key, another address.

    What is None is as the client has it.

    Attributes:
        model: The model that is asked there; None: the model of the call.
        api_key: The key that is sent there.
        base_url: The address, with or without a trailing `/v1`; with one of another origin
            `api_key` must be given too, for a key is never sent where it does not belong.
        provider: Whose API that is, for example "openai"; its key is found by its own name.
            None: the client's own vendor.
    """

    model: str | None = None
    api_key: str | Secret | None = None
    base_url: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        """Put the key away before anybody can print it."""
        if isinstance(self.api_key, str):
            msgspec.structs.force_setattr(self, "api_key", Secret(self.api_key))

    def __repr__(self) -> str:
        """Everything but the key."""
        key = "" if self.api_key is None else ", api_key='***'"
        where = "" if self.base_url is None else f", base_url={self.base_url!r}"
        whose = "" if self.provider is None else f", provider={self.provider!r}"
        return f"Route(model={self.model!r}{whose}{where}{key})"

    @classmethod
    def parse(cls, text: str) -> Route:
        """
        Read a route as a command line gives it.

        Args:
            text: A model of the client's own vendor, or `provider:model`, for example
                `openai:gpt-4.1-mini`. Who is meant is looked up when a client is made.

        Returns:
            The route.

        Raises:
            ConfigInvalid: If it names no model.
        """
        provider, model = named_model(text)
        if not model:
            raise ConfigInvalid(f"'fallback': {text!r} names no model, as 'mistral:MODEL' does")
        return cls(model=model, provider=provider)


def named_model(text: str) -> tuple[str | None, str]:
    """
    Part `provider:model`.

    Args:
        text: A model, perhaps with its provider before it, which is a word of letters, digits
            and `_`.

    Returns:
        The provider, None where none is named, and the model; empty when it is missing, or no id.
    """
    name, colon, model = text.strip().partition(":")
    # Ids of models have colons too: `ft:open-mistral-7b:...`, `llama3.1:8b`. A vendor is a word.
    if not colon or name == "ft" or not name.isidentifier():
        return None, text.strip()
    return name, model if model == model.strip() else ""


RouteLike: TypeAlias = str | Route | LLMProvider
"""A route as people write it: `"openai:gpt-4.1-mini"`, a `Route`, or any provider."""


class Fallback:
    """
    Routes that are taken, one after the other, when the client's own one fails.

    A route is left before any of its answer came. Which errors leave it stands in
    `core/error_table.py`: those that may be different elsewhere. A plain call travels as a stream
    on every route but the last, so that a silent one is noticed after `first_token_s` and a cut
    one costs nothing but time.

    Args:
        routes: At least one.
        first_token_s: Seconds after which a route that has sent no token is left, above 0; None:
            the call's own limits hold.

    Raises:
        ConfigInvalid: If there is no route, or one is not one.

    Source: the project's failover scenarios, "What 16/16 needs" (a limit of 10 to 15 s).
    """

    def __init__(self, routes: Iterable[RouteLike], *, first_token_s: float | None = 12.0) -> None:
        if isinstance(routes, str):
            routes = [routes]
        self.routes: tuple[Route | LLMProvider, ...] = tuple(_route(route) for route in routes)
        self.first_token_s = first_token_s
        if not self.routes:
            raise ConfigInvalid("'fallback' must name at least one route")
        if first_token_s is not None and not first_token_s > 0:
            raise ConfigInvalid("'first_token_s' must be above 0 seconds, or None")

    def __repr__(self) -> str:
        """The routes, without their keys."""
        return f"Fallback({list(self.routes)!r}, first_token_s={self.first_token_s!r})"


def _route(given: RouteLike) -> Route | LLMProvider:
    if isinstance(given, str):
        return Route.parse(given)
    # By descent and not by its methods: a client has the same ones, and takes other arguments.
    if isinstance(given, Route) or LLMProvider in type(given).__mro__:
        return given
    raise ConfigInvalid(
        "'fallback' takes models, as 'mistral:MODEL', Route(...) and providers,"
        f" not {type(given).__name__}"
    )
