"""
Time, sleep and chance: the only module that asks the machine for them.

Everything else is given a `Clock` and a `Dice`, so that a test can give its own
(`loom.testing.FakeClock`, `loom.testing.FakeDice`).
"""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "Dice", "SystemClock", "SystemDice", "secret_bytes"]


class Clock(Protocol):
    """Tells the time and waits."""

    @abstractmethod
    def now(self) -> datetime:
        """The wall clock, UTC; may jump."""

    @abstractmethod
    def monotonic_s(self) -> float:
        """Seconds that only grow; for durations and deadlines (fault matrix, row 57)."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""


class Dice(Protocol):
    """Draws numbers."""

    @abstractmethod
    def random(self) -> float:
        """Uniform in [0, 1)."""


class SystemClock(Clock):
    """The machine's clocks."""

    def now(self) -> datetime:
        """The machine's wall clock, UTC."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """The machine's monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait on the running event loop."""
        from asyncio import sleep  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        await sleep(seconds)


class SystemDice(Dice):
    """
    The machine's chance.

    Args:
        seed: Makes the draws repeat; None for a new sequence each time.
    """

    def __init__(self, seed: int | None = None) -> None:
        # Jitter needs no secrecy; nothing that guards anything is drawn here.
        self._random = random.Random(seed)

    def random(self) -> float:
        """Uniform in [0, 1)."""
        return self._random.random()


def secret_bytes(count: int) -> bytes:
    """
    Bytes that nobody can guess: for keys and for ids that guard something.

    Args:
        count: How many, at least 1.

    Returns:
        They come from the system's own source, and cannot be made to repeat.
    """
    from secrets import token_bytes  # noqa: PLC0415 - start-up time

    return token_bytes(count)
