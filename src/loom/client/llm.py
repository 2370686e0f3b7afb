"""What an agent needs of whoever answers, as one value."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import msgspec

from loom.core.ambient import Clock
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, ToolSpec
from loom.layers.trace import Telemetry

__all__ = ["Llm", "LlmLike", "LlmSource"]


class Llm(msgspec.Struct, frozen=True, kw_only=True):
    """
    Who answers an agent.

    Attributes:
        provider: With all its layers.
        build: Makes a request of tools and options, as the client's `chat` would; its one message
            only holds the place of the conversation.
        clock: Tells the time to the client's layers.
        window: Gives a model's window in tokens; None when unknown.
        close: Closes what was made for this agent; None: somebody else's.
        telemetry: Where the client's spans and metrics go; None: nowhere.
    """

    provider: LLMProvider
    build: Callable[[Sequence[ToolSpec], Mapping[str, Any]], ChatRequest]
    clock: Clock
    window: Callable[[str], int | None]
    close: Callable[[], Awaitable[None]] | None = None
    telemetry: Telemetry | None = None


@runtime_checkable
class LlmSource(Protocol):
    """A client that may answer an agent: `Mistral`, `AsyncMistral`, `OpenAI`, `AsyncOpenAI`."""

    @abstractmethod
    def as_llm(self) -> Llm:
        """What an agent needs of it."""

    @abstractmethod
    def with_options(self, **changes: Any) -> Self:
        """The same client with other defaults."""


LlmLike: TypeAlias = str | LlmSource | LLMProvider
"""Who answers: `"mistral:MODEL"`, a client of either kind, or any provider."""
