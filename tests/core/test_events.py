"""A stream of events folds into its answer, and is closed whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
import pytest

from loom.core.errors import RateLimited, StreamTruncated
from loom.core.events import (
    Completed,
    Finished,
    PartReceived,
    Restarted,
    Retried,
    Sending,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    Throttled,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import Message, TextPart
from loom.core.provider import fold
from loom.core.response import Choice, LLMResponse, Usage

pytestmark = pytest.mark.anyio

RESPONSE = LLMResponse(
    choices=(Choice(message=Message.assistant("Hello"), finish_reason="stop"),),
    usage=Usage(total_tokens=3),
    model="mistral-small-latest",
)
EVERY: list[StreamEvent] = [
    Sending(),
    Retried(1, 0.5, RateLimited("slow down")),
    Throttled(0.1),
    Restarted("rescue", "mistral", "mistral-large-latest"),
    ThinkingDelta("hm"),
    TextDelta("Hel"),
    TextDelta("lo", choice=1),
    ToolCallDelta(0, "a", "now", "{}"),
    PartReceived(TextPart("x")),
    Finished("stop"),
    UsageReported(Usage(total_tokens=3)),
]


class Source:
    """A stream that knows whether it was closed, and how far it was read."""

    def __init__(self, *events: StreamEvent, error: BaseException | None = None) -> None:
        self.events = events
        self.error = error
        self.read = 0
        self.closed = False

    async def stream(self) -> AsyncGenerator[StreamEvent, None]:
        try:
            for event in self.events:
                self.read += 1
                yield event
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def test_the_answer_is_that_of_completed() -> None:
    """Notices and pieces pass; `Completed` holds the answer."""
    source = Source(*EVERY, Completed(RESPONSE))
    assert RESPONSE is await fold(source.stream())
    assert source.closed


async def test_nothing_is_read_after_completed() -> None:
    """The stream is closed at `Completed`, whatever would come after it."""
    source = Source(Completed(RESPONSE), TextDelta("more"), error=ValueError("never"))
    assert RESPONSE is await fold(source.stream())
    assert (1, True) == (source.read, source.closed)


@pytest.mark.parametrize("events", [[], EVERY], ids=["empty", "all but the last"])
async def test_a_stream_without_completed_is_truncated(events: list[StreamEvent]) -> None:
    """A stream that ends without its answer is an error, even if all text came."""
    source = Source(*events)
    with pytest.raises(StreamTruncated, match="before the answer was complete"):
        await fold(source.stream())
    assert source.closed


async def test_an_error_passes_through() -> None:
    """The stream's own error comes out as it is."""
    error = RateLimited("slow down", retry_after_s=2.0)
    source = Source(TextDelta("Hel"), error=error)
    with pytest.raises(RateLimited) as caught:
        await fold(source.stream())
    assert error is caught.value
    assert source.closed


async def test_a_cancelled_fold_closes_the_stream() -> None:
    """Cancelling while the stream waits closes it at once."""
    closed = asyncio.Event()
    waiting = asyncio.Event()

    async def stream() -> AsyncGenerator[StreamEvent, None]:
        try:
            yield Sending()
            waiting.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with anyio.create_task_group() as group:
        group.start_soon(fold, stream())
        await waiting.wait()
        group.cancel_scope.cancel()
    assert closed.is_set()


def test_events_are_equal_by_value() -> None:
    """Two events that say the same are the same; each kind is its own."""
    assert TextDelta("a") == TextDelta("a", choice=0)
    pieces: list[StreamEvent] = [TextDelta("a"), ThinkingDelta("a")]
    assert pieces[0] != pieces[1]
    assert Sending(attempt=1) == Sending()
