"""A blocking iterator over an async one: a pump on the portal's loop fills a bounded queue."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from loom.client.closing import Closing
from loom.client.discreet import forget
from loom.client.refusals import CLOSED_WHILE_READING, FORKED

if TYPE_CHECKING:
    from loom.client.portal import Portal, Source
    from loom.client.pump import Pump

__all__ = ["Reader"]

T = TypeVar("T")

_END: Any = object()


class Reader(Closing, Generic[T]):
    """
    A blocking iterator over an async iterator that runs on the portal.

    Nothing runs before the first item is asked for. It closes itself at the end, at `last`, on an
    error and on Ctrl-C; when it is forgotten it warns and has its source closed.

    Args:
        portal: Gives the portal when the first item is asked for.
        source: What is read; closed in every case, if it was begun.
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
        self._pump: Pump[T] | None = None
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
        if pump.room is not None:
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

    def __del__(self) -> None:
        """Have the source of a forgotten reader closed, and say that it was forgotten."""
        pump: Pump[T] | None = getattr(self, "_pump", None)
        if pump is None or self._closed or pump.ended or pump.portal.pid != os.getpid():
            return
        pump.stop()
        warnings.warn(
            f"{type(self).__name__} was neither read to its end nor closed: use `with`",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )

    def _open(self) -> Pump[T]:
        from loom.client.pump import Pump  # noqa: PLC0415 - asyncio costs 25 ms

        with self._opening:
            if self._closed:
                raise StopIteration
            if self._pump is None:
                portal = self._portal()
                portal.refuse_own_thread()
                pump = Pump(portal, self._source, self._last, _END)
                pump.start()
                self._pump = pump
            return self._pump

    def _wait(self, pump: Pump[T]) -> T:
        if pump.portal.pid != os.getpid():
            raise RuntimeError(FORKED)
        pump.portal.refuse_own_thread()
        was_closed, interrupted = self._closed, True
        try:
            item = pump.queue.get()
            interrupted = False
        finally:
            if interrupted:  # By Ctrl-C, or what another signal handler raised.
                self.close()
        if item is _END and self._closed and not was_closed:
            pump.queue.put(_END)
            raise RuntimeError(CLOSED_WHILE_READING)
        return item

    def _raise_end(self, pump: Pump[T]) -> None:
        pump.queue.put(_END)  # For whoever asks next.
        error, pump.error = pump.error, None
        if error is None:
            raise StopIteration
        forget(error)
        try:
            raise error
        finally:
            del error  # Its traceback holds this frame: a cycle, if the frame held it too.
