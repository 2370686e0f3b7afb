"""The simulator's time: the machine's, and what it was moved forward."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

from loom.core.ambient import Clock

__all__ = ["SimulatedClock"]


class SimulatedClock(Clock):
    """
    A clock that goes on by itself and can be moved forward, from any thread.

    Args:
        inner: The time that it starts from and goes on with.
    """

    def __init__(self, inner: Clock) -> None:
        self._inner = inner
        self._moved_s = 0.0
        self._lock = threading.Lock()
        self._wakers: set[Callable[[], None]] = set()

    def now(self) -> datetime:
        """The wall clock, UTC."""
        moved_s = self._moved_s
        now = self._inner.now()
        return now + timedelta(seconds=moved_s) if moved_s else now

    def monotonic_s(self) -> float:
        """Seconds that only grow."""
        return self._inner.monotonic_s() + self._moved_s

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds, or until the clock was moved past them."""
        if seconds <= 0:
            await self._inner.sleep(seconds)
            return
        due_s = self.monotonic_s() + seconds
        moved = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(moved.set)

        with self._lock:
            self._wakers.add(wake)
        try:
            left_s = seconds
            while left_s > 0:
                moved.clear()
                if await self._passed(left_s, moved):
                    return
                left_s = due_s - self.monotonic_s()
        finally:
            with self._lock:
                self._wakers.discard(wake)

    async def _passed(self, seconds: float, moved: asyncio.Event) -> bool:
        """Whether the time passed by itself, and not because the clock was moved."""
        passing = asyncio.ensure_future(self._inner.sleep(seconds))
        moving = asyncio.ensure_future(moved.wait())
        try:
            await asyncio.wait({passing, moving}, return_when=asyncio.FIRST_COMPLETED)
            return passing.done()
        finally:
            passing.cancel()
            moving.cancel()
            await asyncio.gather(passing, moving, return_exceptions=True)

    def advance(self, seconds: float) -> None:
        """
        Move the time forward and wake who is due.

        Args:
            seconds: How far, 0 to 10**9.

        Raises:
            ValueError: If it is out of this range.
        """
        # A hundred years and more would leave the calendar.
        if not 0 <= seconds <= 10**9:
            raise ValueError(f"a clock goes forward, 0 to 10**9 seconds, not {seconds!r}")
        with self._lock:
            self._moved_s += seconds
            wakers = tuple(self._wakers)
        for wake in wakers:
            wake()
