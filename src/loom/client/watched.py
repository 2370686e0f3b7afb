"""An async generator as people iterate over it: closed by itself, and never silently forgotten."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Generic, Self, TypeVar

from loom.client.closing import AsyncClosing
from loom.client.discreet import forget
from loom.core.errors import StreamTruncated
from loom.core.events import Restarted, TextDelta

__all__ = ["Watched", "begun_anew"]

T = TypeVar("T")
R = TypeVar("R")


class _Standing(Generic[R]):
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


class Watched(AsyncClosing, Generic[T, R]):
    """
    An async iterator and async context manager over a generator.

    The generator knows how things stand and not this object: a cycle of the two would keep a
    dropped stream, and its socket, until the collector of cycles comes.

    Args:
        events: What is iterated over; it is closed before its last event is given.
        last: The class of that event, which holds the answer as its `response`.
        read: What becomes of the answer before it is given; None: nothing.
    """

    def __init__(
        self,
        events: AsyncGenerator[T, None],
        last: Callable[[R], T],
        read: Callable[[R], R] | None = None,
    ) -> None:
        self._state: _Standing[R] = _Standing()
        self._events = _watched(events, self._state, last, read)

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

    async def final(self) -> R:
        """Read to the end; what it gives and raises is as of `AsyncStream.final`."""
        async for _ in self:
            pass
        if self._state.response is None:
            raise StreamTruncated("the stream was closed before its answer was complete")
        return self._state.response

    async def aclose(self) -> None:
        """Close the stream and what it holds; safe to call twice."""
        self._state.ended = True
        await self._events.aclose()

    def __del__(self) -> None:
        """Warn of a stream that nobody closed; the generator's own finalizer closes it."""
        # Fault matrix, row 54.
        state: _Standing[R] | None = getattr(self, "_state", None)
        if state is not None and state.begun and not state.ended:
            warnings.warn(
                "a stream was dropped before its end: read it to the end, close it, or use it"
                " in a with block",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    async def _texts(self) -> AsyncGenerator[str, None]:
        given = False
        event: Any = None
        try:
            async with aclosing(self):
                async for event in self._events:
                    if type(event) is TextDelta and event.choice == 0:
                        given = True
                        yield event.text
                    elif given and type(event) is Restarted:
                        raise begun_anew(event)
        finally:
            event = None  # an error shows this frame's locals


def begun_anew(event: Restarted) -> StreamTruncated:
    """
    The error of a reader of texts whose answer begins anew.

    Args:
        event: Why, and where.

    Returns:
        The error.
    """
    return StreamTruncated(
        f"the answer begins anew with {event.provider}:{event.model}, and the text so far cannot"
        f" be taken back ({event.reason})",
        hint="Iterate over the events and begin anew at `Restarted`, or use final() or chat().",
        provider=event.provider,
        model=event.model,
        retryable=False,
    )


async def _watched(
    events: AsyncGenerator[T, None],
    state: _Standing[R],
    last: Callable[[R], T],
    read: Callable[[R], R] | None,
) -> AsyncGenerator[T, None]:
    state.begun = True
    event: Any = None
    try:
        async with aclosing(events):
            async for event in events:
                if type(event) is last:
                    break
                yield event
            else:
                return
        # The source is closed by now, and its socket given back, before the caller sees the
        # answer: he may never come back for more.
        response = event.response if read is None else read(event.response)
        state.response = response
        state.ended = True
        yield last(response)
    except BaseException as error:  # a cancellation too: whatever it is, it ends the stream
        state.ended = True
        event = None  # an error shows this frame's locals
        forget(error)
        raise
