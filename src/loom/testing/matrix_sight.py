"""What is seen of a call that meets a fault, and the clock that it is seen on."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import msgspec

from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.core.request import Timeouts
from loom.core.response import LLMResponse
from loom.testing.turns import turn

__all__ = ["HELD", "SHORT_S", "HastyClock", "Sight", "cancelled", "limits", "nothing"]

SHORT_S = 0.2
"""A limit that a busy machine keeps and that nobody minds to wait for."""

HELD = ("1 slots are taken", "1 rows are open")
"""What another call holds that is meant to go on (`Sight.without`)."""

# Everything that is not the limit in question: far from what a busy machine needs.
_LONG_S = 20.0


class HastyClock(SystemClock):
    """
    The machine's clock, but a wait moves it instead of taking time.

    Attributes:
        slept: Every wait that was asked for, in seconds, in order.
        wall_jump: Added to the wall clock alone.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.wall_jump = timedelta()
        self._skipped_s = 0.0

    def now(self) -> datetime:
        """The wall clock, UTC."""
        return super().now() + timedelta(seconds=self._skipped_s) + self.wall_jump

    def monotonic_s(self) -> float:
        """Seconds that only grow."""
        return super().monotonic_s() + self._skipped_s

    def skip(self, seconds: float) -> None:
        """
        Move it.

        Args:
            seconds: How far.
        """
        self._skipped_s += seconds

    async def sleep(self, seconds: float) -> None:
        """Note a wait, move the clock, and let the loop turn."""
        self.slept.append(seconds)
        self.skip(max(0.0, seconds))
        await turn()


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was seen of a call.

    Attributes:
        code: The error's code; empty: an answer; `cancelled`, `left`.
        phase: The error's phase.
        wire: Requests that the vendor read.
        attempts: Attempts that the caller was told of; None: nobody was told.
        charge: What they may have cost, in turn; None: nobody was told.
        broken: What was not as it must be.
        took_s: Seconds that the call took.
        failures: How many attempts the breaker counted as failures; None: nobody looked.
        error: The error.
        response: The answer.
    """

    code: str
    phase: str = ""
    wire: int = 0
    attempts: int | None = None
    charge: str | None = None
    broken: tuple[str, ...] = ()
    took_s: float = 0.0
    failures: int | None = None
    error: LoomError | None = None
    response: LLMResponse | None = None

    def but(self, *broken: str | bool) -> Sight:
        """
        The same, with what else is not as it must be.

        Args:
            broken: Sentences; False is left out (`len(x) != 2 and "there are not two"`).
        """
        said = tuple(text for text in broken if isinstance(text, str))
        return msgspec.structs.replace(self, broken=self.broken + said)

    def without(self, *broken: str) -> Sight:
        """
        The same, where something is as it must be after all.

        Args:
            broken: Sentences.
        """
        left = tuple(text for text in self.broken if text not in broken)
        return msgspec.structs.replace(self, broken=left)


def nothing() -> int:
    """What nobody has read."""
    return 0


async def cancelled(task: asyncio.Task[Any], times: int = 1) -> str:
    """
    Cancel a task.

    Args:
        task: It.
        times: How often; a turn of the loop lies between.

    Returns:
        How it ended: `cancelled`, or what else happened.
    """
    for _ in range(times):
        task.cancel()
        await turn()
    await asyncio.wait([task])
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return "an answer" if error is None else type(error).__name__


def limits(short: str) -> Timeouts:
    """
    Limits of which one is short.

    Args:
        short: Its phase; "total" for the deadline; empty: none is.

    Returns:
        Them.
    """
    names = ("pool", "connect", "write", "first_byte", "idle")
    chosen = {f"{name}_s": SHORT_S if name == short else _LONG_S for name in names}
    return Timeouts(**chosen, total_s=SHORT_S if short == "total" else 600.0)
