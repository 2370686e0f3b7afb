"""The one contract of a provider, and of a layer: a provider around a provider."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from typing import Protocol, TypeAlias, runtime_checkable

import msgspec

from loom.core.errors import StreamTruncated
from loom.core.events import Completed, StreamEvent
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse

__all__ = ["LLMProvider", "Layer", "LayerFactory", "compose", "fold"]


@runtime_checkable
class LLMProvider(Protocol):
    """
    Something that answers chat requests.

    Subclass it and write `name`, `model` and `stream`; `chat` comes with it.
    A plain answer is a stream of one model event.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Who answers, for example "mistral"."""

    @property
    @abstractmethod
    def model(self) -> str:
        """The model that answers when a request names none."""

    @abstractmethod
    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Answer as events, the last of which is `Completed`.

        Args:
            request: What is asked; `request.stream` says whether the wire shall stream.

        Returns:
            An async generator; whoever leaves it early closes it (`contextlib.aclosing`).

        Raises:
            LoomError: Any kind of the tree in `core/errors.py`.
        """

    async def chat(self, request: ChatRequest) -> LLMResponse:
        """
        Answer in one piece.

        Args:
            request: What is asked.

        Returns:
            The whole answer.

        Raises:
            LoomError: Any kind of the tree in `core/errors.py`.
        """
        if request.stream:
            request = msgspec.structs.replace(request, stream=False)
        return await fold(self.stream(request))

    async def aclose(self) -> None:
        """Give back sockets and whatever else is held; safe to call twice."""


async def fold(events: AsyncGenerator[StreamEvent, None]) -> LLMResponse:
    """
    Read a stream to its end and give its answer.

    Args:
        events: A provider's stream; it is closed in every case.

    Returns:
        The response of `Completed`.

    Raises:
        StreamTruncated: If the stream ended without `Completed`.
        LoomError: What the stream raised.
    """
    try:
        async for event in events:
            if type(event) is Completed:
                return event.response
    finally:
        await events.aclose()
    raise StreamTruncated("the stream ended before the answer was complete")


class Layer(LLMProvider):
    """
    A provider around a provider; a subclass overrides `stream` and nothing else.

    Whoever reads a stream closes it. The layers that every call passes do so with `try` and
    `finally`: the two coroutines of `contextlib.aclosing` would cost each of them 1 us a call.

    Args:
        inner: The provider that this one wraps; it is closed with it.
    """

    def __init__(self, inner: LLMProvider) -> None:
        self.inner = inner
        # They do not change, and are asked for often: through all layers it would be 40 calls.
        self._name, self._model = inner.name, inner.model

    @property
    def name(self) -> str:
        """The inner provider's name."""
        return self._name

    @property
    def model(self) -> str:
        """The inner provider's model."""
        return self._model

    def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Pass the request on as it is."""
        return self.inner.stream(request)

    async def aclose(self) -> None:
        """Close the inner provider."""
        await self.inner.aclose()


LayerFactory: TypeAlias = Callable[[LLMProvider], LLMProvider]


def compose(provider: LLMProvider, *layers: LayerFactory) -> LLMProvider:
    """
    Wrap a provider in layers.

    Args:
        provider: The innermost.
        layers: Makers of layers, outermost first, as `config/assemble.py` lists them.

    Returns:
        The outermost layer, or `provider` when there are none.
    """
    for layer in reversed(layers):
        provider = layer(provider)
    return provider
