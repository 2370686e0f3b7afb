"""Slots for sockets: taken at once when one is free, else in the order of asking."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Slots"]


class Slots:
    """
    A semaphore of one event loop whose waiting has a limit and whose giving back is synchronous.

    `asyncio.Semaphore` under `asyncio.timeout` costs a task switch and a timer for each call even
    when a slot is free, and a slot that arrives together with a cancellation is easily lost.

    Args:
        count: How many there are, at least 1.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = count
        self._waiters: deque[asyncio.Future[bool]] = deque()

    @property
    def taken(self) -> int:
        """How many are in use."""
        return self.count - self._free

    def try_take(self) -> bool:
        """
        Take a slot if one is free.

        Returns:
            Whether it was taken; each taken one is given back once, with `give_back`.
        """
        # A slot goes straight to whoever waits: one is free only when nobody does.
        if self._free:
            self._free -= 1
            return True
        return False

    async def wait(self, limit_s: float) -> bool:
        """
        Wait for a slot.

        Args:
            limit_s: At most so many seconds.

        Returns:
            Whether one was taken; False when the time is over, or `close` was called.
        """
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[bool] = loop.create_future()
        self._waiters.append(mine)
        timer = loop.call_later(limit_s, _settle, mine)
        try:
            return await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.result():
                self.give_back()
            raise
        finally:
            timer.cancel()

    def give_back(self) -> None:
        """Give one back: to the first who waits, if anyone does."""
        while self._waiters:
            first = self._waiters.popleft()
            if not first.done():
                first.set_result(True)
                return
        self._free += 1

    def close(self) -> None:
        """Send everyone who waits away."""
        while self._waiters:
            _settle(self._waiters.popleft())


def _settle(waiter: asyncio.Future[bool]) -> None:
    if not waiter.done():
        waiter.set_result(False)
