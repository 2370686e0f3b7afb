"""Ids of rows, which sort by time, and texts that every store can hold."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["Ids", "clean", "id_at", "micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def id_at(at: datetime) -> str:
    """
    What the ids of rows of a moment begin with: ids sort by time.

    Args:
        at: The moment, with a time zone.

    Returns:
        Fourteen hexadecimal digits: microseconds since 1970.
    """
    return f"{max(0, micros(at)):014x}"


def micros(at: datetime) -> int:
    """
    A moment as a whole number: a float would not hold every microsecond.

    Args:
        at: The moment, with a time zone.

    Returns:
        Microseconds since 1970, UTC.
    """
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def clean(text: str) -> str:
    """
    A text that every store can hold and give back.

    Args:
        text: Any text.

    Returns:
        The same without halves of characters and NUL.
    """
    if text.isprintable():
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class Ids:
    """
    Makes ids of rows: the time, who writes, and a count.

    Args:
        writer: Which writer of the store it is; a store never has two of one number.
    """

    def __init__(self, writer: int = 0) -> None:
        self._writer = f"{writer & 0xFFFFFF:06x}"
        self._count = 0

    def new(self, at: datetime) -> str:
        """
        An id that no other row has, even when the clock stands still or goes back.

        Args:
            at: When the row is made.

        Returns:
            28 hexadecimal digits.
        """
        self._count += 1
        return f"{id_at(at)}{self._writer}{self._count & 0xFFFFFFFF:08x}"
