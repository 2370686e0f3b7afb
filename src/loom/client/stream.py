"""`AsyncStream`: the events of one answer, as people iterate over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

from loom.client.discreet import discreet_async
from loom.client.output import parsed_response
from loom.client.watched import Watched
from loom.core.events import Completed, StreamEvent
from loom.core.response import LLMResponse

__all__ = ["AsyncStream"]


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
        read = None if output is None else partial(parsed_response, type_=output)
        super().__init__(events, Completed, read)

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
        return await super().final()
