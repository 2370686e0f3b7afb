"""A blocking iterator over an async one: a pump on the portal's loop fills a bounded queue."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import Callable
from contextlib import aclosing, suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from loom.client.portal import CANCEL_WAIT_S, CLOSED, Portal, Source

__all__ = ["AHEAD_LOW", "AHEAD_MAX", "Reader"]

T = TypeVar("T")

# How far a stream runs ahead of its reader, in events. A short event weighs some 200 bytes, so this
# is 100 kB; with a reader slower than this the socket waits.
AHEAD_MAX = 512
AHEAD_LOW = 128

_END: Any = object()
_CLOSED_WHILE_READING = "the stream was closed by another thread while this one was reading it"
_FORKED = "the stream was opened before this process was forked: open one of its own"


class _Pump(Generic[T]):
    """
    The loop's half of a reader.

    It never refers to the reader, so that a forgotten reader can be collected while this runs.
    """

    __slots__ = (
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

    def __init__(self, portal: Portal, source: Source[T], last: type[T] | None) -> None:
        self.portal = portal
        self.queue: SimpleQueue[T] = SimpleQueue()
        self.error: BaseException | None = None
        self.ended = False
        self._source = source
        self._last = last
        self.room: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._stopped = threading.Lock()
        self._stopped.acquire()

    def start(self) -> None:
        self.portal.waiters.add(self)
        try:
            self.portal.post(self._start)
        except RuntimeError:
            self.portal.waiters.discard(self)
            raise RuntimeError(CLOSED) from None

    def lost(self, error: RuntimeError) -> None:
        self._finish(error)

    def make_room(self) -> None:
        with suppress(RuntimeError):
            self.portal.post(self._on_room)

    def stop(self) -> None:
        with suppress(RuntimeError):
            self.portal.post(self._cancel)

    def join(self) -> None:
        if self._stopped.acquire(timeout=CANCEL_WAIT_S):
            self._stopped.release()

    def _start(self) -> None:
        if not self.ended:
            self._task = self.portal.loop.create_task(self._run())

    def _cancel(self) -> None:
        self._stopping = True
        if self._task is not None:
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
        self._task = None

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
            self.queue.put(_END)
        self._stopped.release()


class Reader(Generic[T]):
    """
    A blocking iterator over an async iterator that runs on the portal.

    Nothing runs before the first item is asked for. It closes itself at the end, at `last`, on an
    error and on Ctrl-C; when it is forgotten it warns and has its source closed.

    Args:
        portal: Gives the portal when the first item is asked for.
        source: What is read, any items but None; closed in every case, if it was begun.
        last: The class of item after which nothing is read any more; None for no such class.
        owner: Kept alive as long as this is.
    """

    def __init__(
        self,
        portal: Callable[[], Portal],
        source: Source[T],
        *,
        last: type[T] | None = None,
        owner: object = None,
    ) -> None:
        self._pump: _Pump[T] | None = None
        self._closed = False
        self._portal = portal
        self._source = source
        self._last = last
        self._owner = owner
        self._opening = threading.Lock()

    def __iter__(self) -> Self:
        """Itself."""
        return self

    def __next__(self) -> T:
        """
        Wait for the next item.

        Raises:
            StopIteration: At the end, and after `close`.
            RuntimeError: In a forked child, on the portal's thread, or when another thread closed
                the client or the stream meanwhile.
            BaseException: What the source raised.
        """
        pump = self._pump or self._open()
        queue = pump.queue
        item = self._wait(pump) if queue.empty() else queue.get()
        if item is _END:
            self._raise_end(pump)
        if pump.room is not None and queue.qsize() <= AHEAD_LOW:
            pump.make_room()
        return item

    def close(self) -> None:
        """
        Stop reading and give back what is held; safe to call twice.

        It waits for that at most one second; the rest is done behind it.

        Raises:
            RuntimeError: On the portal's own thread.
        """
        pump, self._closed = self._pump, True
        if pump is None:
            return
        if not pump.ended and pump.portal.pid == os.getpid():
            pump.portal.refuse_own_thread()
            pump.stop()
            pump.join()
        with suppress(Empty):
            while True:
                pump.queue.get_nowait()
        pump.queue.put(_END)

    def __enter__(self) -> Self:
        """Itself; nothing is sent yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def __del__(self) -> None:
        """Have the source of a forgotten reader closed, and say that it was forgotten."""
        pump: _Pump[T] | None = getattr(self, "_pump", None)
        if pump is None or self._closed or pump.ended or pump.portal.pid != os.getpid():
            return
        pump.stop()
        warnings.warn(
            f"{type(self).__name__} was neither read to its end nor closed: use `with`",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def _open(self) -> _Pump[T]:
        with self._opening:
            if self._closed:
                raise StopIteration
            if self._pump is None:
                portal = self._portal()
                portal.refuse_own_thread()
                pump = _Pump(portal, self._source, self._last)
                pump.start()
                self._pump = pump
            return self._pump

    def _wait(self, pump: _Pump[T]) -> T:
        if pump.portal.pid != os.getpid():
            raise RuntimeError(_FORKED)
        pump.portal.refuse_own_thread()
        was_closed, item = self._closed, None
        try:
            item = pump.queue.get()
        finally:
            if item is None:  # Ctrl-C, or what another signal handler raised.
                self.close()
        if item is _END and self._closed and not was_closed:
            pump.queue.put(_END)
            raise RuntimeError(_CLOSED_WHILE_READING)
        return item

    def _raise_end(self, pump: _Pump[T]) -> None:
        pump.queue.put(_END)  # For whoever asks next.
        error, pump.error = pump.error, None
        if error is None:
            raise StopIteration
        try:
            raise error
        finally:
            del error  # Its traceback holds this frame: a cycle, if the frame held it too.
