"""The blocking twin of `Watched`: the events of an answer, its texts, and the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from loom.client.lease import Lease
from loom.client.reader import Reader
from loom.client.watched import Watched, begun_anew
from loom.core.events import Restarted, TextDelta

__all__ = ["WatchedReader"]

T = TypeVar("T")
R = TypeVar("R")


class WatchedReader(Reader[T], Generic[T, R]):
    """
    A blocking iterator over the events of an answer.

    Args:
        lease: The owner's share of the portal.
        events: The stream of the owner's twin for asyncio.
        last: The class of the event that ends it.
        owner: A client or an agent; it lives as long as its streams.
    """

    def __init__(
        self, lease: Lease, events: Watched[T, R], *, last: type[T], owner: object
    ) -> None:
        super().__init__(lease.portal, events, last=last, owner=owner)
        self._lease = lease
        self._events = events

    def final(self) -> R:
        """Read to the end; what it gives and raises is as of `Stream.final`."""
        for _ in self:
            pass
        return self._lease.portal().call(self._final)

    def _texts(self) -> Iterator[str]:
        given = False
        event: Any = None
        try:
            for event in self:
                if type(event) is TextDelta and event.choice == 0:
                    given = True
                    yield event.text
                elif given and type(event) is Restarted:
                    self.close()
                    raise begun_anew(event)
        finally:
            event = None  # an error shows this frame's locals

    async def _final(self) -> R:
        # Closed first: a stream that was closed before it began must not begin now.
        await self._events.aclose()
        return await self._events.final()
