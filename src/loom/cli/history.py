"""What was typed in front of `looms chat`, for its owner alone: a line of JSON for each."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec

__all__ = ["History"]

# Enough to find what one asked; read whole at the start.
_MOST = 1000
_MOST_BYTES = 1_048_576


class History:
    """
    Lines that were typed, oldest first, in a file that only its owner may read.

    A file that cannot be read or written costs the history and nothing else.

    Args:
        path: The file; it and its folder are made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[str]:
        """
        What was typed before, the newest thousand.

        Returns:
            The texts; a line of the file that is none is left out.
        """
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _MOST_BYTES))
                rows = file.read().splitlines()
        except OSError:
            return []
        found: list[str] = []
        for row in rows[-_MOST:]:
            with suppress(msgspec.DecodeError):
                found.append(msgspec.json.decode(row, type=str))
        return found

    def add(self, text: str) -> None:
        """
        Keep a line.

        Args:
            text: What was typed; it may have several lines of its own.
        """
        data = msgspec.json.encode(text.encode("utf-8", "replace").decode()) + b"\n"
        with suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One write, behind whatever another program added meanwhile.
            number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(number, data)
            finally:
                os.close(number)
