"""The clock of one exchange: which phase is running, and when it is too late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loom.core.errors import Phase

__all__ = ["Watch"]


class Watch:
    """
    One timer for all phases of an exchange.

    A phase that ends in time costs one assignment: the timer is moved only when the new limit
    is nearer than the one it stands at, and looks at the limit again when it rings. It cancels
    no task: it tells the exchange, which breaks what is waited for, so that a time limit and a
    cancellation by the caller cannot be taken for one another (fault matrix, rows 56 and 62).

    Args:
        loop: The event loop, running.
        deadline: When the whole call is too late, on the loop's clock.
        too_late: Called when a limit has passed; `expired` then says which.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deadline: float, too_late: Callable[[], None]
    ) -> None:
        self.phase: Phase | None = None
        self.expired: Phase | None = None
        self.deadline = deadline
        self._loop = loop
        self._until = deadline
        self._timer: asyncio.TimerHandle | None = None
        self._too_late: Callable[[], None] | None = too_late

    @property
    def left_s(self) -> float:
        """Seconds until the deadline; negative when it has passed."""
        return self.deadline - self._loop.time()

    def now(self) -> float:
        """Tell the loop's time, in seconds."""
        return self._loop.time()

    def start(self, phase: Phase, limit_s: float) -> None:
        """
        Begin a phase.

        Args:
            phase: Which.
            limit_s: It may take so many seconds, from now.
        """
        self.phase = phase
        self._until = until = min(self._loop.time() + limit_s, self.deadline)
        timer = self._timer
        if timer is None:
            self._timer = self._loop.call_at(until, self._ring)
        elif until < timer.when():
            timer.cancel()
            self._timer = self._loop.call_at(until, self._ring)

    def pause(self) -> None:
        """End the phase: nothing is waited for, only the deadline goes on."""
        self.phase = None
        self._until = self.deadline

    def stop(self) -> None:
        """Put the clock away."""
        # Without this the exchange and its clock would hold each other until the next collection.
        self._too_late = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._ring)
        elif self._too_late is not None:
            self.expired = "total" if self._until >= self.deadline else self.phase
            self._too_late()
