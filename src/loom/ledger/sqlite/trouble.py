"""What is wrong with a ledger's file, and what to do about it: errors by their code, once."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Literal, TypeAlias

from loom.core.errors import LedgerUnavailable

__all__ = ["CHECK_COMMAND", "DamagedRow", "Trouble", "trouble_of", "unavailable"]

Trouble: TypeAlias = Literal["locked", "full", "readonly", "io", "corrupt", "newer", "foreign"]
"""Fault matrix, rows G17 to G19; `newer` and `foreign` are files that are not ours to write."""

CHECK_COMMAND = "looms cost check"
"""The command that a message about a damaged file names."""

_MASK = 0xFF  # an extended code holds its kind in the lowest byte
_KINDS: dict[int, Trouble] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_CANTOPEN: "io",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
}
_SAYS: dict[Trouble, str] = {
    "locked": "is locked by another program; it is tried again",
    "full": "cannot grow: the disk is full; it is tried again when there is room",
    "readonly": "is read-only; it is tried again when it can be written",
    "io": "cannot be read or written; it is tried again",
    "corrupt": "is damaged and is left as it is",
    "newer": "was written by a newer version of looms: update this one",
    "foreign": "is the database of another program: name another file",
}


class DamagedRow(sqlite3.DatabaseError):
    """A row that is not as it was written."""


def trouble_of(error: Exception) -> Trouble:
    """
    What kind of trouble an error is.

    Args:
        error: Of SQLite or of the machine.

    Returns:
        The kind; what is not known is one of reading and writing.
    """
    if isinstance(error, DamagedRow):
        return "corrupt"
    if isinstance(error, PermissionError):
        return "readonly"
    code = getattr(error, "sqlite_errorcode", None)
    return "io" if code is None else _KINDS.get(code & _MASK, "io")


def unavailable(path: Path, trouble: Trouble, cause: Exception | None = None) -> LedgerUnavailable:
    """
    The error that a caller gets before anything is sent.

    Args:
        path: The ledger's file.
        trouble: What is wrong with it.
        cause: What SQLite or the machine said.

    Returns:
        The error; it names the file and what to do.
    """
    said = "" if cause is None else f" ({cause})"
    hint = f"See what is left with `{CHECK_COMMAND} {path}`, and move the file away to begin anew."
    return LedgerUnavailable(
        f"the ledger {path} {_SAYS[trouble]}{said}",
        hint=hint if trouble == "corrupt" else None,
        attempts=0,
    )
