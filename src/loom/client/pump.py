"""The loop's half of a blocking iterator: it reads the source and fills a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

from loom.client.portal import CANCEL_WAIT_S, Portal, Source
from loom.client.refusals import CLOSED

__all__ = ["AHEAD_LOW", "AHEAD_MAX", "Pump"]

T = TypeVar("T")

# How far a stream runs ahead of its reader, in events. A short event weighs some 200 bytes, so this
# is 100 kB; with a reader slower than this the socket waits (fault matrix, row 62).
AHEAD_MAX = 512
AHEAD_LOW = 128


class Pump(Generic[T]):
    """
    The loop's half of a reader.

    It never refers to the reader, so that a forgotten reader can be collected while this runs.

    Attributes:
        portal: Whose loop it runs on.
        queue: What was read ahead, and at last `end`.
        error: What ended the source; the reader raises it once.
        ended: Whether the source is closed.
        room: Set while the source waits for its reader.

    Args:
        portal: Whose loop to run on.
        source: What is read.
        last: The class of item after which nothing is read any more; None for no such class.
        end: Stands in the queue for the end.
    """

    __slots__ = (
        "_end",
        "_last",
        "_source",
        "_stopped",
        "_stopping",
        "_task",
        "ended",
        "error",
        "portal",
        "queue",
        "room",
    )

    def __init__(self, portal: Portal, source: Source[T], last: type[T] | None, end: T) -> None:
        self.portal = portal
        self.queue: SimpleQueue[T] = SimpleQueue()
        self.error: BaseException | None = None
        self.ended = False
        self.room: asyncio.Future[None] | None = None
        self._end = end
        self._source = source
        self._last = last
        self._task: asyncio.Task[None]
        self._stopping = False
        self._stopped = threading.Lock()
        self._stopped.acquire()

    def start(self) -> None:
        """
        Have the source read.

        Raises:
            RuntimeError: If the portal is closed.
        """
        self.portal.waiters.add(self)
        try:
            self.portal.post(self._start)
        except RuntimeError:
            self.portal.waiters.discard(self)
            raise RuntimeError(CLOSED) from None

    def lost(self, error: RuntimeError) -> None:
        """End with an error."""
        self._finish(error)

    def make_room(self) -> None:
        """Let a source that waits for its reader go on, if enough was taken."""
        if self.queue.qsize() <= AHEAD_LOW:
            with suppress(RuntimeError):
                self.portal.post(self._on_room)

    def stop(self) -> None:
        """Have the source closed; does not wait, so finalizers may."""
        with suppress(RuntimeError):
            self.portal.post(self._cancel)

    def join(self) -> None:
        """Wait until the source is closed, but at most a second."""
        if self._stopped.acquire(timeout=CANCEL_WAIT_S):
            self._stopped.release()

    def _start(self) -> None:
        self._task = self.portal.loop.create_task(self._run())

    def _cancel(self) -> None:
        # Only who saw the start stops, and callbacks run in the order they were posted.
        self._stopping = True
        self._task.cancel()

    def _on_room(self) -> None:
        if self.room is not None and not self.room.done():
            self.room.set_result(None)

    async def _run(self) -> None:
        try:
            await self._carry()
        except asyncio.CancelledError:
            if not self._stopping:
                self.portal.tell(self)
            self._finish(None)
        except BaseException as error:  # noqa: BLE001  # the border: the reader's thread raises it
            self._finish(error)
        else:
            self._finish(None)

    async def _carry(self) -> None:
        queue, last = self.queue, self._last
        async with aclosing(self._source):
            async for item in self._source:
                if type(item) is last:
                    break
                queue.put(item)
                if queue.qsize() >= AHEAD_MAX:
                    await self._wait_for_room()
            else:
                return
        # The last item is handed on when the source is closed: its reader may not come again.
        queue.put(item)

    async def _wait_for_room(self) -> None:
        self.room = self.portal.loop.create_future()
        # The reader may have emptied the queue before it could see that somebody waits.
        if self.queue.qsize() > AHEAD_LOW:
            await self.room
        self.room = None

    def _finish(self, error: BaseException | None) -> None:
        if self.ended:
            return
        self.ended = True
        self.error = error
        self.portal.waiters.discard(self)
        if not self.portal.exiting:
            self.queue.put(self._end)
        self._stopped.release()
