"""The caps of a files backend, and the watch that ends what takes too long."""

from __future__ import annotations

import msgspec

from loom.agent.backend_thread import Stop
from loom.core.ambient import Clock
from loom.core.errors import ToolFailed, ToolTimedOut

__all__ = ["FileBounds", "Watch"]


class FileBounds(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much one operation may take or give.

    Attributes:
        max_bytes: Bytes of text that reading gives.
        max_entries: Files and folders in a list.
        max_found: Lines that a search gives.
        max_searched_bytes: Bytes that a search looks at.
        max_visited: Files and folders that a list or a search looks at.
        max_file_bytes: Bytes of a file that is written.
        timeout_s: Seconds.
    """

    max_bytes: int = 32_768
    max_entries: int = 500
    max_found: int = 100
    max_searched_bytes: int = 67_108_864
    max_visited: int = 20_000
    max_file_bytes: int = 1_048_576
    timeout_s: float = 10.0


class Watch:
    """
    Ends an operation that takes too long, or for which nobody waits any more.

    Args:
        bounds: With the time it may take.
        clock: Tells the time.
        stop: Set when nobody waits.
    """

    def __init__(self, bounds: FileBounds, clock: Clock, stop: Stop) -> None:
        self._clock = clock
        self._stop = stop
        self._limit_s = bounds.timeout_s
        self._until_s = clock.monotonic_s() + bounds.timeout_s

    def look(self) -> None:
        """
        Go on, or not.

        Raises:
            ToolTimedOut: If the time is over.
            ToolFailed: If nobody waits.
        """
        if self._stop.is_set:
            raise ToolFailed("the operation was stopped", attempts=0)
        if self._clock.monotonic_s() >= self._until_s:
            raise ToolTimedOut(
                f"took longer than {self._limit_s:g} s: name a smaller folder or file", attempts=0
            )
