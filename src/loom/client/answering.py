"""Who answers an agent, as callers say it: a name, a client, any provider."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.catalog.lookup import Catalog
from loom.client.defaults import Defaults
from loom.client.llm import Llm, LlmLike, LlmSource
from loom.client.options import build_request
from loom.core.ambient import Clock, SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Timeouts, ToolSpec

__all__ = ["llm_of"]


def llm_of(
    given: LlmLike | Llm, changes: Mapping[str, Any] | None = None, clock: Clock | None = None
) -> Llm:
    """
    Read who answers.

    Args:
        given: A name, a client, a provider, or what was read before.
        changes: Arguments of `with_options` that the agent sets: `budget`, `rate_limit`, ...
        clock: Tells the time where there is no client that has one; None: the machine's.

    Returns:
        The value.

    Raises:
        ConfigInvalid: If it is none of these, or a bare provider is to have a budget or a limit.
        LoomError: As making a client.
    """
    if isinstance(given, Llm):
        return given
    if isinstance(given, str):
        from loom.client.facts import provider  # noqa: PLC0415 - brings every vendor's client

        client = provider(given, **(changes or {}))
        return msgspec.structs.replace(client.as_llm(), close=client.aclose)
    if isinstance(given, LlmSource):
        return (given.with_options(**changes) if changes else given).as_llm()
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
    return _bare(given, clock or SystemClock())


def _bare(provider: LLMProvider, clock: Clock) -> Llm:
    catalog = Catalog.builtin()
    defaults = Defaults(
        model=provider.model, max_tokens=None, temperature=None, timeouts=Timeouts()
    )

    def build(tools: Sequence[ToolSpec], options: Mapping[str, Any]) -> ChatRequest:
        on = clock.now().date()
        place = Message.user("?")
        return build_request(place, tools, options, defaults=defaults, catalog=catalog, on=on)

    def window(model: str) -> int | None:
        card = catalog.find(model, clock.now().date(), provider.name)
        return None if card is None else card.context_window

    return Llm(provider=provider, build=build, clock=clock, window=window)
