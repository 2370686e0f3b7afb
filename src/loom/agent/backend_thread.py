"""Work that may block, in a daemon thread of its own, that ends before its caller goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Stop", "apart"]

T = TypeVar("T")

_GRACE_S = 0.2


class Stop:
    """
    Tells a thread that nobody waits for it any more.

    The thread asks `is_set` between its steps; what cannot ask is ended by `interrupt`.
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._interrupt: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        """Whether to end."""
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until set; gives whether it is."""
        return self._event.wait(seconds)

    def interrupt_with(self, interrupt: Callable[[], None] | None) -> None:
        """Say what ends a step that runs; None once nothing does."""
        with self._lock:
            self._interrupt = interrupt

    def set(self) -> None:
        """End the work."""
        self._event.set()
        # Under the lock: what is interrupted is not closed meanwhile.
        with self._lock:
            if self._interrupt is not None:
                self._interrupt()


async def apart(work: Callable[[Stop], T], *, stops: set[Stop], name: str, limit_s: float) -> T:
    """
    Run work in a thread and wait for it; a cancellation ends it, and waits for that too.

    The thread is a daemon: nothing at exit waits for it.

    Args:
        work: What to run; it ends soon once its `Stop` is set.
        stops: Where its `Stop` stands while it runs, so that a `close` can set it.
        name: Of the thread.
        limit_s: Seconds in which the work ends by itself; a moment later its `Stop` is set.

    Returns:
        What `work` gave.

    Raises:
        BaseException: What `work` raised.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    stop = Stop()

    def main() -> None:
        try:
            value = work(stop)
        except BaseException as error:  # noqa: BLE001 - it is raised where the work is awaited
            told = _failed(done, error)
        else:
            told = _given(done, value)
        try:
            loop.call_soon_threadsafe(told)
        except RuntimeError:
            return  # the loop was closed over our heads: nobody waits

    thread = threading.Thread(target=main, name=name, daemon=True)
    thread.start()
    stops.add(stop)
    try:
        await _end_of(done, stop, limit_s + _GRACE_S)
    finally:
        # Without an end there was one all the same: the loop is being taken down.
        stop.set()
        thread.join()
        stops.discard(stop)
    return done.result()


async def _end_of(done: asyncio.Future[T], stop: Stop, limit_s: float) -> None:
    """Wait; when cancelled, again and again, set the stop and wait on, then be cancelled."""
    cancelled: asyncio.CancelledError | None = None
    while not done.done():
        try:
            # Some steps ask for no time and end by an interrupt only.
            await asyncio.wait({done}, timeout=None if stop.is_set else limit_s)
            if not done.done():
                stop.set()
        except asyncio.CancelledError as error:
            cancelled = error
            stop.set()
    if cancelled is not None:
        if not done.cancelled():
            done.exception()  # fetched, so that nobody is told that it never was
        raise cancelled


def _given(done: asyncio.Future[T], value: T) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_result(value)


def _failed(done: asyncio.Future[T], error: BaseException) -> Callable[[], None]:
    return lambda: None if done.done() else done.set_exception(error)
