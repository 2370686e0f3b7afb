"""
The emergency file: settled rows that the database could not take, one JSON line each.

It stands beside the database as `NAME.emergency`. Rows come out of it into the database when that
can be written again, and at the next start; a line that a crash cut off is left out.

That file is the writer's own. A process that cannot become the writer leaves each row in a file of
its own, `NAME.emergency-...`, written whole or not at all; the next writer takes it in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from glob import escape
from pathlib import Path

import msgspec

from loom.ledger.sqlite.rows import FIELDS

__all__ = ["Spill"]


class Spill:
    """
    Appends rows, gives them back, goes away.

    Args:
        path: The ledger's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.emergency")
        self._taken: list[Path] = []

    def append(self, rows: Iterable[bytes]) -> None:
        """
        Write rows down; they are on the disk when this returns.

        Args:
            rows: JSON arrays.

        Raises:
            OSError: If that fails.
        """
        # A line may have been cut off when the disk was full: the next begins on its own.
        text = b"".join(b"\n" + row for row in rows)
        handle = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            while text:
                text = text[os.write(handle, text) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def rows(self) -> list[bytes]:
        """
        The rows that lie here, whole ones only.

        Returns:
            JSON arrays, the oldest first.
        """
        self._taken = self._left()
        lines = [line for path in self._taken for line in path.read_bytes().splitlines()]
        return [line for line in lines if _whole(line)]

    def leave(self, name: str, row: bytes) -> Path:
        """
        Leave a row without being the writer; it is on the disk when this returns.

        Args:
            name: Hexadecimal digits; of forms of one row the one of the larger name counts.
            row: A JSON array.

        Returns:
            The file.

        Raises:
            OSError: If that fails.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path.with_name(f"{self.path.name}-{name}")
        draft = path.with_name(f"{path.name}.part")
        handle = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        try:
            os.write(handle, row)
            os.fsync(handle)
        finally:
            os.close(handle)
        draft.replace(path)
        return path

    def clear(self) -> None:
        """Remove the writer's file, and those that were taken in: their rows are saved."""
        for path in (self.path, *self._taken):
            with suppress(FileNotFoundError):
                path.unlink()
        self._taken = []

    def _left(self) -> list[Path]:
        beside = self.path.parent.glob(f"{escape(self.path.name)}-*[0-9a-f]")
        return [path for path in (self.path, *sorted(beside)) if path.exists()]


def _whole(line: bytes) -> bool:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return isinstance(row, list) and len(row) == len(FIELDS)
