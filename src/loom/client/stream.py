"""`AsyncStream`: the events of one answer, as people iterate over them."""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from loom.client.discreet import discreet_async, forget
from loom.client.output import parsed_response
from loom.core.errors import StreamTruncated
from loom.core.events import Completed, Restarted, StreamEvent, TextDelta
from loom.core.response import LLMResponse

__all__ = ["AsyncStream", "begun_anew"]


class AsyncStream:
    """
    The events of one answer: an async iterator, and an async context manager.

    It closes itself at `Completed`, on an error, and when the block is left. One that is
    dropped in the middle is closed by the garbage collector, with a `ResourceWarning`.

    Args:
        events: A provider's stream.
        output: The type that the answer shall be read as; None: none.
    """

    def __init__(self, events: AsyncGenerator[StreamEvent, None], output: Any = None) -> None:
        self._state = _StreamState()
        # A generator that does not know this object: a cycle of the two would keep a dropped
        # stream, and its socket, until the collector of cycles comes.
        self._events = _watched(events, self._state, output)

    def __aiter__(self) -> Self:
        """Give the stream itself."""
        return self

    def __anext__(self) -> Awaitable[StreamEvent]:
        """
        The next event.

        Raises:
            StopAsyncIteration: After `Completed`.
            LoomError: Whatever ended the stream; `.partial` holds what came.
        """
        return self._events.__anext__()

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """
        The pieces of the first answer's text.

        What was given cannot be taken back: when the answer begins anew (`rescue=True`) after
        some of it was, this raises `StreamTruncated`. Iterate over the events to follow it.
        """
        return self._texts()

    @discreet_async
    async def final(self) -> LLMResponse:
        """
        Read to the end.

        Returns:
            The whole answer.

        Raises:
            LoomError: Whatever ended the stream.
            StreamTruncated: If the stream was closed before its end.
        """
        async for _ in self:
            pass
        if self._state.response is None:
            raise StreamTruncated("the stream was closed before its answer was complete")
        return self._state.response

    async def aclose(self) -> None:
        """Close the stream and its connection; safe to call twice."""
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
        state: _StreamState | None = getattr(self, "_state", None)
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
        event: StreamEvent | None = None
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


class _StreamState:
    """What a stream has come to."""

    __slots__ = ("begun", "ended", "response")

    def __init__(self) -> None:
        self.begun = self.ended = False
        self.response: LLMResponse | None = None


async def _watched(
    events: AsyncGenerator[StreamEvent, None], state: _StreamState, output: Any
) -> AsyncGenerator[StreamEvent, None]:
    state.begun = True
    event: StreamEvent | None = None
    try:
        async with aclosing(events):
            async for event in events:
                if type(event) is Completed:
                    break
                yield event
            else:
                return
        # The provider's generator is closed by now, and its socket given back, before the
        # caller sees the answer: he may never come back for more.
        response = event.response if output is None else parsed_response(event.response, output)
        state.response = response
        state.ended = True
        yield Completed(response)
    except BaseException as error:
        state.ended = True
        event = None  # an error shows this frame's locals
        forget(error)
        raise
