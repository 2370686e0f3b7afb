"""
The portal: an event loop on a thread of its own, and the ways for blocking code to use it.

The laws of this file:

1. A call makes one hop and a stream none per event: a pump on the loop fills a bounded queue.
2. A finalizer posts to the loop and neither waits nor takes a lock: it may run on any thread, in
   the middle of anything, the portal's own thread included.
3. Nothing at interpreter exit needs a new thread or an executor. Who still waits then is left
   waiting: only daemon threads can be, and an error would only be printed by them (fault matrix,
   row 61).
"""

from __future__ import annotations

import asyncio
import os
import threading
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from loom.client.refusals import CANCELLED, CLOSED, EXITING, ON_THE_PORTAL

__all__ = ["CANCEL_WAIT_S", "Closer", "Portal", "Source", "Waiter"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

# Ctrl-C, and closing a stream, wait no longer than this for the request to be taken back.
CANCEL_WAIT_S = 1.0
# A task that will not end must not keep the interpreter from ending.
_WIND_UP_WAIT_S = 1.0

Closer: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Closes an async client."""


class Source(Protocol[T_co]):
    """An async iterator that can be closed: an async generator, an `AsyncStream`."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[T_co]:
        """Itself."""

    @abstractmethod
    def aclose(self) -> Awaitable[None]:
        """Give back what is held."""


class Waiter(Protocol):
    """What a thread waits for."""

    @abstractmethod
    def lost(self, error: RuntimeError) -> None:
        """Nothing will come any more; `error` says why."""


class Portal:
    """
    One event loop, run by one daemon thread.

    The thread runs at once. `close` ends it in order: tasks cancelled, clients closed, the loop
    closed, the thread joined.

    Attributes:
        pid: The process that it was made in; in a forked child it has no thread.
        closers: How to close the clients that use it; run when the interpreter exits.
        waiters: Whose threads wait for something; whom nobody serves is told at the end.
        exiting: Whether the interpreter exits: nobody is woken any more.
        loop: The event loop.

    Raises:
        RuntimeError: If no thread can be started any more, because the interpreter exits.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.closers: dict[object, Closer] = {}
        self.waiters: set[Waiter] = set()
        self.exiting = False
        self._ending = False
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loom-portal", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # Python 3.12 starts no thread while it exits.
            self.loop.close()
            raise RuntimeError(EXITING) from None

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """
        Run a coroutine on the loop and wait for what it gives.

        Ctrl-C cancels it, waits for its end at most a second, and is raised.

        Args:
            make: Gives the coroutine; it is called on the loop, in a copy of the caller's context.

        Returns:
            What the coroutine returned.

        Raises:
            RuntimeError: On the portal's own thread, or when the portal was closed meanwhile.
            BaseException: Whatever the coroutine raised.
        """
        self.refuse_own_thread()
        return _Call(self, make).wait()

    def post(self, callback: Callable[[], object]) -> None:
        """
        Have something run on the loop soon, in a copy of the caller's context; never waits.

        Args:
            callback: What to run; what it raises is logged.

        Raises:
            RuntimeError: If the loop is closed.
        """
        self.loop.call_soon_threadsafe(callback)

    def refuse_own_thread(self) -> None:
        """
        Refuse to wait on the thread that would have to do the work.

        Raises:
            RuntimeError: If this is the portal's thread.
        """
        if threading.get_ident() == self._thread.ident:
            raise RuntimeError(ON_THE_PORTAL)

    def tell(self, waiter: Waiter) -> None:
        """
        Tell someone that nothing will come, unless the interpreter is exiting.

        Args:
            waiter: Who waits.
        """
        if not self.exiting:
            waiter.lost(RuntimeError(CLOSED if self._ending else CANCELLED))

    def close(self, *, exiting: bool = False) -> None:
        """
        Stop the loop in order and wait for its thread, at most three seconds.

        Args:
            exiting: At interpreter exit: close the clients too, and wake no one.
        """
        self.exiting = exiting
        with suppress(RuntimeError):
            self.post(self._begin_to_end)
            self._thread.join(3 * _WIND_UP_WAIT_S)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()
            # Who enlisted before the loop closed, and was not served, is served here: nobody hangs.
            while self.waiters:
                self.tell(self.waiters.pop())

    def _begin_to_end(self) -> None:
        self._ending = True
        ending = self.loop.create_task(self._end())
        ending.add_done_callback(lambda _: self.loop.stop())

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_WIND_UP_WAIT_S)
        closers = [asyncio.ensure_future(close()) for close in self.closers.values()]
        if closers:
            await asyncio.wait(closers, timeout=_WIND_UP_WAIT_S)
        await self.loop.shutdown_asyncgens()


class _Call(Generic[T]):
    __slots__ = ("_answer", "_make", "_portal", "_task")

    def __init__(self, portal: Portal, make: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._portal = portal
        self._make = make
        self._task: asyncio.Task[None] | None = None
        # Measured: a hop costs 22 us of CPU with a SimpleQueue, 39 with concurrent.futures.Future.
        self._answer: SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = SimpleQueue()

    def wait(self) -> T:
        interrupted = True
        self._portal.waiters.add(self)
        try:
            self._post(self._start)
            value, error = self._answer.get()
            interrupted = False
        finally:
            self._portal.waiters.discard(self)
            if interrupted:  # By Ctrl-C, or what another signal handler raised.
                self._take_back()
        if error is None:
            return value  # type: ignore[return-value]  # mypy does not join the two tuples
        try:
            raise error
        finally:
            del error  # Its traceback holds this frame: a cycle, if the frame held it too.

    def lost(self, error: RuntimeError) -> None:
        self._answer.put((None, error))

    def _post(self, callback: Callable[[], object]) -> None:
        try:
            self._portal.post(callback)
        except RuntimeError:
            raise RuntimeError(CLOSED) from None

    def _take_back(self) -> None:
        with suppress(RuntimeError, Empty):
            self._portal.post(self._cancel)
            self._answer.get(timeout=CANCEL_WAIT_S)

    def _start(self) -> None:
        self._task = self._portal.loop.create_task(self._work())

    def _cancel(self) -> None:
        if self._task is None:  # The interrupt came before the start was posted.
            self.lost(RuntimeError(CANCELLED))
        else:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            value = await self._make()
        except asyncio.CancelledError:
            self._portal.tell(self)
        except BaseException as error:  # noqa: BLE001  # the border: the caller's thread raises it
            self._answer.put((None, error))
        else:
            self._answer.put((value, None))
        self._task = None
