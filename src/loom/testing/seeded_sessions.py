"""Sessions in memory that take their time: a turn can be cancelled before and after it is kept."""

from __future__ import annotations

from collections.abc import Sequence

from loom.agent.session import Entry
from loom.agent.session_memory import MemorySessions
from loom.core.ambient import Clock
from loom.testing.chance import Chance

__all__ = ["SlowSessions"]


class SlowSessions(MemorySessions):
    """
    Sessions in memory that take their time.

    Args:
        clock: Dates the entries, and waits.
        chance: Draws how long adding takes.
        most_s: The most seconds that it takes; 0: not a turn of the loop.
    """

    def __init__(self, clock: Clock, chance: Chance, most_s: float) -> None:
        super().__init__(clock)
        self._waits = clock
        self._chance = chance
        self._most_s = most_s

    async def append(self, session: str, entries: Sequence[Entry], *, expected: int) -> int:
        """Add entries, all or none, some time before it returns, or at its end."""
        if not self._most_s:
            return await super().append(session, entries, expected=expected)
        wait_s = self._chance.between(0.0, self._most_s)
        early = self._chance.happens(0.5)
        if not early:
            await self._waits.sleep(wait_s)
        count = await super().append(session, entries, expected=expected)
        if early:
            await self._waits.sleep(wait_s)
        return count
