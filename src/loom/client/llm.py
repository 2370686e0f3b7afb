"""Who answers an agent: a client, a provider, or a name, as one value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from loom.catalog.lookup import Catalog
from loom.client.blocking_calls import Client
from loom.client.calls import AsyncClient
from loom.client.defaults import Defaults
from loom.client.facts import provider as make_provider
from loom.client.options import build_request
from loom.core.ambient import Clock, SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Timeouts, ToolSpec

__all__ = ["Llm", "LlmLike", "llm_of"]

LlmLike: TypeAlias = str | AsyncClient | Client | LLMProvider
"""Who answers: `"mistral:MODEL"`, a client of either kind, or any provider."""

# A request is built with the tools that are offered; the conversation takes this one's place.
_PLACE = (Message(role="user", content="."),)


class Llm(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who answers an agent.

    Attributes:
        provider: With all its layers.
        build: Makes a request of tools and options, as the client's `chat` would.
        clock: Tells the time to the client's layers.
        window: Gives a model's window in tokens; None when unknown.
        close: Closes what was made for this agent; None: somebody else's.
    """

    provider: LLMProvider
    build: Callable[[Sequence[ToolSpec], Mapping[str, Any]], ChatRequest]
    clock: Clock
    window: Callable[[str], int | None]
    close: Callable[[], Awaitable[None]] | None = None


def llm_of(given: LlmLike, changes: Mapping[str, Any], clock: Clock | None = None) -> Llm:
    """
    Read who answers.

    Args:
        given: A name, a client or a provider.
        changes: Arguments of `with_options` that the agent sets: `budget`, `rate_limit`, ...
        clock: Tells the time where there is no client that has one; None: the machine's.

    Returns:
        The value.

    Raises:
        ConfigInvalid: If it is none of these, or a bare provider is to have a budget or a limit.
        LoomError: As making a client.
    """
    close = None
    if isinstance(given, str):
        given = make_provider(given)
        close = given.aclose
    if isinstance(given, Client):
        given = given._async  # noqa: SLF001 - the blocking twin's own
    if isinstance(given, AsyncClient):
        client = given.with_options(**changes) if changes else given
        return _of_client(client, close)
    if not isinstance(given, LLMProvider):
        raise ConfigInvalid(
            "LLM provider is required: llm= takes 'mistral:MODEL', a client such as Mistral(...),"
            f" or an LLMProvider, not {type(given).__name__}"
        )
    if changes:
        raise ConfigInvalid(
            f"'{min(changes)}' needs a client: make one (Mistral(...)) and give it that, for a bare"
            " LLMProvider has no layers"
        )
    return _of_provider(given, clock or SystemClock(), close)


def _of_client(client: AsyncClient, close: Callable[[], Awaitable[None]] | None) -> Llm:
    catalog = client._assembled.catalog  # noqa: SLF001 - of the same room

    def window(model: str) -> int | None:
        card = catalog.find(model, client._day())  # noqa: SLF001 - of the same room
        return None if card is None else card.context_window

    return Llm(
        provider=client.provider,
        build=lambda tools, options: client.request(_PLACE, tools or None, **options),
        clock=client._clock,  # noqa: SLF001 - of the same room
        window=window,
        close=close,
    )


def _of_provider(
    provider: LLMProvider, clock: Clock, close: Callable[[], Awaitable[None]] | None
) -> Llm:
    catalog = Catalog.builtin()
    defaults = Defaults(
        model=provider.model, max_tokens=None, temperature=None, timeouts=Timeouts()
    )

    def build(tools: Sequence[ToolSpec], options: Mapping[str, Any]) -> ChatRequest:
        on = clock.now().date()
        return build_request(
            _PLACE, tools or None, options, defaults=defaults, catalog=catalog, on=on
        )

    def window(model: str) -> int | None:
        card = catalog.find(model, clock.now().date())
        return None if card is None else card.context_window

    return Llm(provider=provider, build=build, clock=clock, window=window, close=close)
