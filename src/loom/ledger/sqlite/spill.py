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
from typing import Annotated, Any, TypeAlias

import msgspec

from loom.ledger.sqlite.rows import FIELDS

__all__ = ["Spill"]

# What a column may be, as SQLite has it.
_Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Value: TypeAlias = str | _Int64 | float | bool | None
_ROW = msgspec.json.Decoder(tuple[_Value, ...])


class Spill:
    """
    Appends rows, gives them back, goes away.

    Args:
        path: The ledger's file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(f"{path.name}.emergency")
        # Files with rows that the database may not have yet.
        self._taken: set[Path] = set()

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
        self._taken.add(self.path)
        handle = os.open(self.path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        try:
            while text:
                text = text[os.write(handle, text) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def rows(self) -> list[tuple[Any, ...]]:
        """
        The rows that lie here, whole ones only.

        Returns:
            Values in the order of `FIELDS`, the oldest row first.
        """
        left = self._left()
        self._taken.update(left)
        lines = [line for path in left for line in path.read_bytes().splitlines()]
        return [row for line in lines if (row := _row(line)) is not None]

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
        while self._taken:
            path = next(iter(self._taken))
            with suppress(FileNotFoundError):
                path.unlink()
            self._taken.remove(path)

    def _left(self) -> list[Path]:
        beside = self.path.parent.glob(f"{escape(self.path.name)}-*[0-9a-f]")
        return [path for path in (self.path, *sorted(beside)) if path.exists()]


def _row(line: bytes) -> tuple[Any, ...] | None:
    try:
        row = _ROW.decode(line)
    except msgspec.MsgspecError:
        return None
    return row if len(row) == len(FIELDS) else None
