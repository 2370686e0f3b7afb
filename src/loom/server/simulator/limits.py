"""
Three ways in which servers count a minute, as values: taking from a window gives a new window.

    sliding    at most the limit in any 60 seconds
    calendar   at most the limit from one full minute of the clock to the next
    bucket     fills with limit / 60 each second, and holds 5 seconds' worth: never more than
               limit * (t + 5) / 60 in any t seconds, but for a request larger than the bucket,
               which a full bucket lets through and pays for afterwards

No window reads a clock: the time is passed in. It is Unix time for `CalendarWindow`, any time
that only grows for the others.
"""

from __future__ import annotations

import bisect
import math
from abc import abstractmethod
from typing import Protocol, Self

import msgspec

from loom.server.simulator.options import WindowKind

__all__ = ["BucketWindow", "CalendarWindow", "SlidingWindow", "Window", "new_window"]

_MINUTE_S = 60.0
# The smallest burst that the design's study of rate limiters gives a server.
_BURST_S = 5.0
# More entries than this are joined in pairs; each then counts until the later one is forgotten.
_ENTRIES = 512
# Time is a float: a bucket that is full but for this much is full.
_DUST = 1e-6


class Window(Protocol):
    """What was used of a limit."""

    @abstractmethod
    def take(self, n: int, now_s: float) -> Self | None:
        """
        Use some of it, if there is room.

        Args:
            n: How much, at least 0.
            now_s: The time, in seconds.

        Returns:
            The window after it; None if there is no room.
        """

    @abstractmethod
    def charge(self, n: int, at_s: float, now_s: float) -> Self:
        """
        Use some of it whether there is room or not.

        Args:
            n: How much; negative gives back.
            at_s: The time for which it counts.
            now_s: The time, in seconds.

        Returns:
            The window after it.
        """

    @abstractmethod
    def remaining(self, now_s: float) -> int:
        """
        What is free.

        Args:
            now_s: The time, in seconds.

        Returns:
            At least 0.
        """


def new_window(kind: WindowKind, limit: int) -> Window:
    """
    An unused window.

    Args:
        kind: How a minute is counted.
        limit: What a minute allows.

    Returns:
        It.
    """
    match kind:
        case "sliding":
            return SlidingWindow(limit=limit)
        case "calendar":
            return CalendarWindow(limit=limit)
        case "bucket":
            return BucketWindow(limit=limit)


class SlidingWindow(msgspec.Struct, frozen=True, kw_only=True):
    """
    At most the limit in any 60 seconds.

    Attributes:
        limit: What a minute allows.
        entries: When how much was used, the oldest first.
        used: The sum of them.
    """

    limit: int
    entries: tuple[tuple[float, int], ...] = ()
    used: int = 0

    def take(self, n: int, now_s: float) -> Self | None:
        """The window after it; None if there is no room."""
        entries, used = self._of_last_minute(now_s)
        return self._with(n, now_s, entries, used) if used + n <= self.limit else None

    def charge(self, n: int, at_s: float, now_s: float) -> Self:
        """The window after it; what would be forgotten already is not counted."""
        entries, used = self._of_last_minute(now_s)
        return self._with(n if at_s > now_s - _MINUTE_S else 0, at_s, entries, used)

    def remaining(self, now_s: float) -> int:
        """What is free."""
        return max(0, self.limit - self._of_last_minute(now_s)[1])

    def _of_last_minute(self, now_s: float) -> tuple[tuple[tuple[float, int], ...], int]:
        entries = self.entries
        if not entries or entries[0][0] > now_s - _MINUTE_S:
            return entries, self.used
        # What is a minute old is forgotten.
        first = bisect.bisect_right(entries, now_s - _MINUTE_S, key=_time)
        return entries[first:], self.used - sum(n for _, n in entries[:first])

    def _with(self, n: int, at_s: float, entries: tuple[tuple[float, int], ...], used: int) -> Self:
        if n:
            if len(entries) >= _ENTRIES:
                entries = _joined(entries)
            if not entries or entries[-1][0] <= at_s:
                entries = (*entries, (at_s, n))
            else:
                place = bisect.bisect_right(entries, at_s, key=_time)
                entries = (*entries[:place], (at_s, n), *entries[place:])
        return type(self)(limit=self.limit, entries=entries, used=used + n)


def _time(entry: tuple[float, int]) -> float:
    return entry[0]


def _joined(entries: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    pairs = zip(entries[::2], entries[1::2], strict=False)
    joined = tuple((later, n + m) for (_, n), (later, m) in pairs)
    return joined + entries[len(joined) * 2 :]


class CalendarWindow(msgspec.Struct, frozen=True, kw_only=True):
    """
    At most the limit from one full minute to the next.

    Attributes:
        limit: What a minute allows.
        minute: The minute that is counted, since 1970.
        used: What was used in it.
    """

    limit: int
    minute: int = 0
    used: int = 0

    def take(self, n: int, now_s: float) -> Self | None:
        """The window after it; None if there is no room."""
        used = self._used(now_s)
        if used + n > self.limit:
            return None
        return type(self)(limit=self.limit, minute=_minute(now_s), used=used + n)

    def charge(self, n: int, at_s: float, now_s: float) -> Self:
        """The window after it; what belongs to a minute that is over is not counted."""
        here = n if _minute(at_s) == _minute(now_s) else 0
        used = self._used(now_s) + here
        return type(self)(limit=self.limit, minute=_minute(now_s), used=used)

    def remaining(self, now_s: float) -> int:
        """What is free."""
        return max(0, self.limit - self._used(now_s))

    def _used(self, now_s: float) -> int:
        return self.used if self.minute == _minute(now_s) else 0


def _minute(now_s: float) -> int:
    return math.floor(now_s / _MINUTE_S)


class BucketWindow(msgspec.Struct, frozen=True, kw_only=True):
    """
    A bucket that fills slowly and holds little.

    Attributes:
        limit: What flows into it in a minute.
        missing: How much it held less than it can hold, at `at_s`; may be more than it can hold.
        at_s: When that was.
    """

    limit: int
    missing: float = 0.0
    at_s: float = -math.inf

    @property
    def capacity(self) -> float:
        """What it can hold: five seconds' worth, and one request at least; 0 if nothing flows."""
        return max(1.0, self.limit * _BURST_S / _MINUTE_S) if self.limit else 0.0

    def take(self, n: int, now_s: float) -> Self | None:
        """The window after it; None if there is no room."""
        missing = self._missing(now_s)
        full = self.limit > 0 and missing <= _DUST
        if n > self.capacity - missing + _DUST and not full:
            return None
        return type(self)(limit=self.limit, missing=missing + n, at_s=now_s)

    def charge(self, n: int, at_s: float, now_s: float) -> Self:
        """The window after it; a bucket does not remember when."""
        del at_s
        return type(self)(limit=self.limit, missing=max(0.0, self._missing(now_s) + n), at_s=now_s)

    def remaining(self, now_s: float) -> int:
        """What it holds."""
        return max(0, math.floor(self.capacity - self._missing(now_s) + _DUST))

    def _missing(self, now_s: float) -> float:
        if not self.missing:
            return 0.0
        flowed = max(0.0, now_s - self.at_s) * self.limit / _MINUTE_S
        return max(0.0, self.missing - flowed)
