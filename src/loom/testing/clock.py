"""Time that a test moves, and chance that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from loom.core.ambient import Clock, Dice, SystemClock
from loom.testing.turns import turn, turn_until

__all__ = ["FakeClock", "FakeDice", "no_waits"]

# In the reference page's month, so that a test without a date sees the prices of that page.
_START = datetime(2024, 11, 15, 12, tzinfo=UTC)
# Not 0: code that takes a time of 0 for "not set" shall fail.
_START_S = 1000.0


class FakeClock(Clock):
    """
    A clock that stands still until a test moves it.

    Attributes:
        slept: Every wait that was asked for, in seconds, in order.

    Args:
        start: The wall clock's first time; must have a time zone.
        auto: Whether `sleep` moves the clock itself and returns at the loop's next turn.
    """

    def __init__(self, start: datetime = _START, *, auto: bool = False) -> None:
        if start.tzinfo is None:
            raise ValueError("start has no time zone: give it one, for example datetime.UTC")
        self.slept: list[float] = []
        self._start = start
        self._auto = auto
        self._elapsed_s = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """The wall clock, UTC."""
        return (self._start + timedelta(seconds=self._elapsed_s)).astimezone(UTC)

    def monotonic_s(self) -> float:
        """Seconds that only grow; the first is 1000."""
        return _START_S + self._elapsed_s

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was moved so far; with `auto`, move it."""
        self.slept.append(seconds)
        if self._auto or seconds <= 0:
            self._elapsed_s += max(0.0, seconds) if self._auto else 0.0
            await turn()
            return
        sleeper = (self._elapsed_s + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    @property
    def sleepers(self) -> int:
        """How many tasks wait for this clock."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """
        Move the clock and wake who is due; they run at the next turn of their loop.

        Args:
            seconds: How far, at least 0.

        Raises:
            ValueError: If `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError("a clock goes forward: seconds must be at least 0")
        self._elapsed_s += seconds
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._elapsed_s]
        for sleeper in sorted(due, key=lambda one: one[0]):
            self._sleepers.remove(sleeper)
            future = sleeper[1]
            # A client may serve several loops: each sleeper is woken on its own.
            future.get_loop().call_soon_threadsafe(_wake, future)

    async def until_asleep(self, count: int = 1) -> None:
        """
        Let the loop turn until so many tasks wait for this clock.

        Args:
            count: How many, at least 1.

        Raises:
            AssertionError: If they do not within a thousand turns.
        """
        if not await turn_until(lambda: self.sleepers >= count):
            raise AssertionError(f"{count} were to sleep, {self.sleepers} do")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class FakeDice(Dice):
    """
    Chance that was chosen: the given numbers, in turn, again and again.

    Args:
        draws: One number or several, each in [0, 1).
    """

    def __init__(self, draws: float | Iterable[float] = 0.5) -> None:
        self._draws = (draws,) if isinstance(draws, (int, float)) else tuple(draws)
        if not self._draws or not all(0 <= draw < 1 for draw in self._draws):
            raise ValueError(f"draws must be numbers in [0, 1), at least one: {self._draws!r}")
        self._next = 0

    def random(self) -> float:
        """The next number."""
        draw = self._draws[self._next % len(self._draws)]
        self._next += 1
        return draw


@contextmanager
def no_waits() -> Generator[list[float], None, None]:
    """
    Let every client's waits return at once: the one-line switch for tests of a program.

    Inside, `SystemClock.sleep` only lets the loop turn. Where a clock can be given, give
    `FakeClock(auto=True)` instead, and the time moves too.

    Returns:
        A context manager that gives the list of waits that were asked for, in seconds.
    """
    waits: list[float] = []

    async def sleep(self: SystemClock, seconds: float) -> None:  # noqa: ARG001  # as the real one
        waits.append(seconds)
        await turn()

    real = SystemClock.sleep
    SystemClock.sleep = sleep  # type: ignore[method-assign]  # this is the switch
    try:
        yield waits
    finally:
        SystemClock.sleep = real  # type: ignore[method-assign]  # and back
