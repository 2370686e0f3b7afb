"""
What is wrong with a file of sessions, and what to do about it: errors by their kind, once.

What somebody must correct (a path that cannot be, a file that is another program's, a newer
version's or damaged) is `ConfigInvalid`. What passes (a lock, a full disk) is
`SessionUnavailable`. `LedgerUnavailable` would send people to the wrong file, and
`ServiceUnavailable` is the vendor's.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Literal, TypeAlias

from loom.core.errors import ConfigInvalid, LoomError, SessionUnavailable
from loom.ledger.sqlite.trouble import Trouble, trouble_of

__all__ = ["SessionTrouble", "in_trouble", "trouble_error"]

SessionTrouble: TypeAlias = Trouble | Literal["nowhere"]
"""`nowhere` is a path that cannot be a file."""

_FULL = {errno.ENOSPC, errno.EDQUOT}

_PASSES: dict[SessionTrouble, tuple[str, str]] = {
    "locked": (
        "is locked by another program",
        "Try again, or end the program that holds it: a writer needs it for moments only.",
    ),
    "full": (
        "cannot grow: the disk is full",
        "Make room on the disk and try again; what was acknowledged is kept.",
    ),
    "io": (
        "cannot be read or written",
        "Look at the disk and try again; what was acknowledged is kept.",
    ),
}
_STAYS: dict[SessionTrouble, tuple[str, str]] = {
    "readonly": (
        "is read-only, or lies in a folder that is",
        "Let this user write to the file and to its folder, or name another file.",
    ),
    "nowhere": (
        "cannot be a file",
        "Name a file in a folder that exists or can be made.",
    ),
    "corrupt": (
        "is damaged and is left as it is",
        "Take it from a backup, or move it away; `sqlite3 FILE .recover` finds what is left.",
    ),
    "newer": (
        "was written by a newer version of looms",
        "Update this one; nothing is lost.",
    ),
    "foreign": (
        "is the database of another program",
        "Name another file.",
    ),
}


def in_trouble(
    path: Path,
    error: Exception,
    *,
    named: str = "the session store",
    passing: type[LoomError] = SessionUnavailable,
) -> LoomError:
    """
    The error that a caller gets for one of SQLite or of the machine.

    Args:
        path: The file.
        error: What was said.
        named: What kind of file it is, for people.
        passing: The error for what passes.

    Returns:
        The error; it names the file and what to do.
    """
    kind = _kind_of(path, error)
    return trouble_error(path, kind, error, named=named, passing=passing)


def trouble_error(
    path: Path,
    trouble: SessionTrouble,
    cause: Exception | None = None,
    *,
    named: str = "the session store",
    passing: type[LoomError] = SessionUnavailable,
) -> LoomError:
    """
    The error that a caller gets.

    Args:
        path: The file.
        trouble: What is wrong with it.
        cause: What SQLite or the machine said.
        named: What kind of file it is, for people.
        passing: The error for what passes.

    Returns:
        `passing` for what passes, `ConfigInvalid` for what somebody must correct.
    """
    said = "" if cause is None else f" ({cause})"
    if trouble in _PASSES:
        what, hint = _PASSES[trouble]
        return passing(f"{named} {path} {what}{said}", hint=hint, attempts=0)
    what, hint = _STAYS[trouble]
    return ConfigInvalid(f"{named} {path} {what}{said}", hint=hint, attempts=0)


def _kind_of(path: Path, error: Exception) -> SessionTrouble:
    if isinstance(
        error, FileExistsError | NotADirectoryError | IsADirectoryError | FileNotFoundError
    ):
        return "nowhere"
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return "full"
        if error.errno == errno.EROFS:
            return "readonly"
        if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP):
            return "nowhere"
    if getattr(error, "sqlite_errorname", "").startswith("SQLITE_CANTOPEN"):
        # A file that is there lies where its log cannot be made beside it.
        return "readonly" if path.is_file() else "nowhere"
    return trouble_of(error)
