"""
Who begins next: callers in turns, so that none waits behind a crowd of another's calls.

One core serves all callers in the order of coming: two hundred calls of one would stand before a
single call of another, sixty milliseconds. Here few calls begin in each turn of the event loop, and
callers take turns; the rest waits outside, where it costs nothing. What has begun goes on freely,
so neither a slow disk nor a slow vendor holds anybody up: while the loop has time, its turns are
short. A caller who is alone begins as it likes: short turns cost an eighth of what a busy core can
do, and there is nobody to gain from it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

__all__ = ["Turns"]

# Fewer would leave commits of the ledger half empty; more would be felt by others.
# Source: `benchmarks/gateway.py --tenants`.
_AT_ONCE = 4
# How long another caller's last call counts.
_SHARED_S = 10.0


class Turns:
    """
    Lets calls begin; for one event loop.

    Args:
        at_once: How many begin in a turn of the loop, at least 1.
        shared_s: For how many seconds after a call of somebody else nobody is alone.
    """

    def __init__(self, at_once: int = _AT_ONCE, shared_s: float = _SHARED_S) -> None:
        self._at_once = at_once
        self._shared_s = shared_s
        self._last: str | None = None
        self._shared_until_s = 0.0
        self._left = at_once
        self._due = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many calls wait to begin."""
        return sum(len(each) for each in self._waiting.values())

    async def take(self, whose: str) -> None:
        """
        Wait until a call may begin: at once, unless many begin now and callers are several.

        Args:
            whose: The caller; those of one name begin in the order of coming.
        """
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        if whose != self._last:
            if self._last is not None:
                self._shared_until_s = now_s + self._shared_s
            self._last = whose
        if now_s >= self._shared_until_s and not self._waiting:
            return
        if not self._due:
            self._due = True
            loop.call_soon(self._turn)
        if self._left and not self._waiting:
            self._left -= 1
            return
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.setdefault(whose, deque()).append(mine)
        await mine

    def _turn(self) -> None:
        """Let the next ones begin."""
        self._due = False
        self._left = self._at_once
        while self._left and self._waiting:
            whose, calls = self._waiting.popitem(last=False)
            mine = calls.popleft()
            if calls:
                self._waiting[whose] = calls
            # Who hung up meanwhile has no turn.
            if not mine.done():
                mine.set_result(None)
                self._left -= 1
        if self._waiting:
            self._due = True
            asyncio.get_running_loop().call_soon(self._turn)
