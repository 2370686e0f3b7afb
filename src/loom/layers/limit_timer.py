"""A timer of a clock that may be a test's, on a loop that need not be the one that sets it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from loom.core.ambient import Clock

if TYPE_CHECKING:
    import asyncio

__all__ = ["Timer"]

# Times are floats: a wait that ends a moment early would be waited again and again.
_LEAST_S = 0.001


class Timer:
    """
    Rings once.

    Args:
        loop: Where it waits and rings.
        clock: Whose time.
        at_s: When, in seconds of its monotonic time.
        ring: Called on the loop, with this timer.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        at_s: float,
        ring: Callable[[Timer], None],
    ) -> None:
        self.loop = loop
        self.at_s = at_s
        self._clock = clock
        self._ring = ring
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def start(self) -> None:
        """Begin to wait; on any thread."""
        self._on_loop(self._begin)

    def cancel(self) -> None:
        """Do not ring; on any thread."""
        self._over = True
        self._on_loop(self._stop)

    def _begin(self) -> None:
        if not self._over:
            wait_s = max(_LEAST_S, self.at_s - self._clock.monotonic_s())
            self._task = self.loop.create_task(self._wait(wait_s), name="loom-limit-timer")
            self._task.add_done_callback(self._ended)

    async def _wait(self, wait_s: float) -> None:
        await self._clock.sleep(wait_s)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._over:
            return
        if task.cancelled():
            # Somebody cancelled every task of the loop: those who wait are about to leave, and
            # must not be overtaken by a new timer.
            self.loop.call_soon(self._ring, self)
            return
        task.result()
        self._ring(self)

    def _on_loop(self, callback: Callable[[], None]) -> None:
        from asyncio import _get_running_loop  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        if _get_running_loop() is self.loop:
            callback()
            return
        # When the loop was closed, whoever comes next sets another timer.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback)
