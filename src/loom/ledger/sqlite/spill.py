"""
The emergency file: settled rows that the database could not take, one JSON line each.

It stands beside the database as `NAME.emergency`. Rows come out of it into the database when that
can be written again, and at the next start; a line that a crash cut off is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
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
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if _whole(line)]

    def clear(self) -> None:
        """Remove the file: its rows are in the database."""
        with suppress(FileNotFoundError):
            self.path.unlink()


def _whole(line: bytes) -> bool:
    try:
        row = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    return isinstance(row, list) and len(row) == len(FIELDS)
