"""An async generator as people iterate over it: closed by itself, and never silently forgotten."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Awaitable
from types import TracebackType
from typing import Generic, Self, TypeVar

__all__ = ["Standing", "Watched"]

T = TypeVar("T")
R = TypeVar("R")


class Standing(Generic[R]):
    """
    What a stream has come to.

    Attributes:
        begun: Whether its first event was asked for.
        ended: Whether it is closed.
        response: Its answer; None until it is whole.
    """

    __slots__ = ("begun", "ended", "response")

    def __init__(self) -> None:
        self.begun = self.ended = False
        self.response: R | None = None


class Watched(Generic[T, R]):
    """
    An async iterator and async context manager over a generator.

    The generator knows `standing` and not this object: a cycle of the two would keep a dropped
    stream, and its socket, until the collector of cycles comes.

    Args:
        events: What is iterated over; it closes its own source.
        standing: What it has come to; the generator keeps it.
    """

    def __init__(self, events: AsyncGenerator[T, None], standing: Standing[R]) -> None:
        self._events = events
        self._state = standing

    def __aiter__(self) -> Self:
        """Give the stream itself."""
        return self

    def __anext__(self) -> Awaitable[T]:
        """
        The next event.

        Raises:
            StopAsyncIteration: After the last one.
            LoomError: Whatever ended the stream; `.partial` holds what came.
        """
        return self._events.__anext__()

    async def aclose(self) -> None:
        """Close the stream and what it holds; safe to call twice."""
        self._state.ended = True
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        """Give the stream itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the stream."""
        await self.aclose()

    def __del__(self) -> None:
        """Warn of a stream that nobody closed; the generator's own finalizer closes it."""
        # Fault matrix, row 54.
        state: Standing[R] | None = getattr(self, "_state", None)
        if state is not None and state.begun and not state.ended:
            warnings.warn(
                "a stream was dropped before its end: read it to the end, close it, or use it"
                " in a with block",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
