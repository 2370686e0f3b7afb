"""
An event loop on a thread of its own, for what must outlive the caller's loop.

The SDK's cancel scopes must be entered and left in one task, and a server that was started shall
serve every loop and thread of the program. So a connection lives here, and calls come over.

The laws of this file:

1. A caller's cancellation cancels what runs here, and the end of what runs here is never taken
   for a cancellation of the caller.
2. `stop_soon` neither waits nor takes a lock: a finalizer may run it on any thread.
3. At interpreter exit the threads wind up, for some seconds at most.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["Ended", "LoopThread"]

T = TypeVar("T")

# A server that ignores the end of its input is killed after 2 + 2 seconds (mcp.client.stdio).
_EXIT_PATIENCE_S = 6.0
_WIND_UP_S = 5.0
_JOIN_S = 1.0

_OPEN: set[LoopThread] = set()


class Ended(Exception):
    """The thread is over, or was ended while one waited."""


class LoopThread:
    """
    One event loop, run by one daemon thread from now on.

    Args:
        name: The thread's name.
        wind_up: Gives back what is held; it runs on the loop, once, at the end.

    Attributes:
        pid: The process that it was made in; in a forked child it has no thread.

    Raises:
        RuntimeError: If no thread can be started any more, because the interpreter exits.
    """

    def __init__(self, name: str, wind_up: Callable[[], Awaitable[None]]) -> None:
        self.pid = os.getpid()
        self._wind_up = wind_up
        self._gate = threading.Lock()
        self._over = False
        self._stop = asyncio.Event()
        self._wound_up = asyncio.Event()
        # Not the policy's choice: a loop that is not asyncio's own may watch no child from here.
        self._loop: asyncio.AbstractEventLoop = (
            asyncio.new_event_loop() if sys.platform == "win32" else asyncio.SelectorEventLoop()
        )
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # Python 3.12 starts no thread while it exits.
            self._loop.close()
            raise
        _OPEN.add(self)

    @property
    def usable(self) -> bool:
        """Whether something can be run here, by this process."""
        return self.pid == os.getpid() and not self._over and not self._stop.is_set()

    async def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """
        Run a coroutine here and wait for it on the caller's loop.

        Args:
            make: Gives the coroutine.

        Returns:
            What it returned.

        Raises:
            Ended: If the thread is over, or ended meanwhile.
            BaseException: Whatever the coroutine raised.
        """
        with self._gate:
            if self._over:
                raise Ended
            future = asyncio.run_coroutine_threadsafe(make(), self._loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if future.cancelled() and (task is None or not task.cancelling()):
                raise Ended from None
            raise

    def stop_soon(self) -> None:
        """Have the thread wind up and end; waits for nothing."""
        with suppress(RuntimeError):  # the loop is closed: it is over
            self._loop.call_soon_threadsafe(self._stop.set)

    async def stop(self) -> None:
        """Wind up and end the thread; if the caller is cancelled, it goes on without one."""
        self.stop_soon()
        with suppress(Ended):
            await self.run(self._until_wound_up)
        self._thread.join(_JOIN_S)  # nothing is left to do: it takes a few milliseconds

    def join(self, patience_s: float) -> None:
        """
        Wait for the thread's end.

        Args:
            patience_s: Seconds at most.
        """
        self._thread.join(patience_s)

    async def _until_wound_up(self) -> None:
        await self._wound_up.wait()

    def _work(self) -> None:
        try:
            self._loop.run_until_complete(self._main())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            with self._gate:
                self._over = True
            self._loop.close()
            _OPEN.discard(self)

    async def _main(self) -> None:
        await self._stop.wait()
        try:
            await self._wind_up()
        finally:
            self._wound_up.set()
            with self._gate:
                self._over = True
            # Whatever was handed over before the gate closed begins before this comes back.
            turn = self._loop.create_future()
            self._loop.call_soon(turn.set_result, None)
            await turn
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            if rest:
                await asyncio.wait(rest, timeout=_WIND_UP_S)


def _at_exit() -> None:
    mine = [thread for thread in list(_OPEN) if thread.pid == os.getpid()]
    for thread in mine:
        thread.stop_soon()
    for thread in mine:
        thread.join(_EXIT_PATIENCE_S)


atexit.register(_at_exit)
