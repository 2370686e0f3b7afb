"""One provider that hands each request to the one that serves its kind."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping

from loom.core.errors import InvalidRequest
from loom.core.events import StreamEvent
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Kind

__all__ = ["ByKind"]

_TITLES: dict[Kind, str] = {
    "chat": "chats",
    "fim": "filling in the middle",
    "embeddings": "embeddings",
}


class ByKind(LLMProvider):
    """
    Answers requests of several kinds.

    It stands innermost, so that every kind has the same layers around it: one breaker and one
    limiter for an account, whatever is asked of it.

    Args:
        chat: Who answers chats; its name and model are those of all. It is closed with this.
        others: Makes who answers requests of another kind, when the first one comes; it holds
            nothing that is to be closed.
    """

    def __init__(self, chat: LLMProvider, others: Mapping[Kind, Callable[[], LLMProvider]]) -> None:
        self._chat = chat
        self._name, self._model = chat.name, chat.model
        self._others = others
        self._made: dict[Kind, LLMProvider] = {}

    @property
    def name(self) -> str:
        """The name of who answers chats."""
        return self._name

    @property
    def model(self) -> str:
        """The model for chats when a request names none."""
        return self._model

    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Hand a request on.

        Args:
            request: What is asked.

        Returns:
            The events of who serves its kind.

        Raises:
            InvalidRequest: If nobody does; nothing was sent.
        """
        if request.kind == "chat":
            return self._chat.stream(request)
        provider = self._made.get(request.kind) or self._make(request)
        return provider.stream(request)

    def _make(self, request: ChatRequest) -> LLMProvider:
        make = self._others.get(request.kind)
        if make is None:
            raise InvalidRequest(
                f"{self.name} offers no {_TITLES[request.kind]}",
                model=request.model,
                provider=self.name,
                attempts=0,
            )
        return self._made.setdefault(request.kind, make())

    async def aclose(self) -> None:
        """Close who answers chats."""
        await self._chat.aclose()
