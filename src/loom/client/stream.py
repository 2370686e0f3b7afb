"""`AsyncStream`: the events of one answer, as people iterate over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

from loom.client.discreet import discreet_async, forget
from loom.client.output import parsed_response
from loom.client.watched import Standing, Watched
from loom.core.errors import StreamTruncated
from loom.core.events import Completed, Restarted, StreamEvent, TextDelta
from loom.core.response import LLMResponse

__all__ = ["AsyncStream", "begun_anew"]


class AsyncStream(Watched[StreamEvent, LLMResponse]):
    """
    The events of one answer: an async iterator, and an async context manager.

    It closes itself at `Completed`, on an error, and when the block is left. One that is
    dropped in the middle is closed by the garbage collector, with a `ResourceWarning`.

    Args:
        events: A provider's stream.
        output: The type that the answer shall be read as; None: none.
    """

    def __init__(self, events: AsyncGenerator[StreamEvent, None], output: Any = None) -> None:
        standing: Standing[LLMResponse] = Standing()
        super().__init__(_watched(events, standing, output), standing)

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


async def _watched(
    events: AsyncGenerator[StreamEvent, None], state: Standing[LLMResponse], output: Any
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
