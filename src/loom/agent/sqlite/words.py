"""What SQLite says, in words from which a model learns; never with the file's path."""

from __future__ import annotations

import re
import sqlite3
from difflib import get_close_matches
from typing import Literal, TypeAlias

from loom.agent.sqlite.names import Known, quoted, text_of

__all__ = ["Problem", "explained", "problem_of"]

Problem: TypeAlias = Literal["locked", "corrupt", "readonly", "absent", "too_big", "full", "other"]

_MASK = 0xFF  # an extended code holds its kind in the lowest byte
_KINDS: dict[int, Problem] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_FORMAT: "corrupt",
    sqlite3.SQLITE_READONLY: "readonly",
    sqlite3.SQLITE_PERM: "readonly",
    sqlite3.SQLITE_CANTOPEN: "absent",
    sqlite3.SQLITE_IOERR: "absent",
    sqlite3.SQLITE_TOOBIG: "too_big",
    sqlite3.SQLITE_FULL: "full",
}
_SAYS: dict[Problem, str] = {
    "corrupt": "{name} is damaged, or is no SQLite database",
    "readonly": "{name} cannot be written, or must be repaired by a program that may write",
    "absent": "{name} cannot be opened or read",
    "full": "{name} cannot grow so much in one statement, or the disk is full",
    "too_big": "a value is too long to be read or made; leave that column out, or ask for"
    " length(column)",
}
_MOST_NAMES = 40
_MOST_TABLES = 3


def problem_of(error: sqlite3.Error) -> Problem:
    """
    What kind of trouble an error is.

    Args:
        error: Of SQLite.

    Returns:
        The kind.
    """
    code = getattr(error, "sqlite_errorcode", None)
    return "other" if code is None else _KINDS.get(code & _MASK, "other")


def explained(
    error: Exception,
    name: str,
    connection: sqlite3.Connection | None = None,
    known: Known | None = None,
    query: str = "",
) -> str:
    """
    An error in words for a model.

    Args:
        error: Of SQLite, or of a value that it cannot take.
        name: What the model knows the database by.
        connection: To look up names; None if there is none.
        known: The names of the file.
        query: What was asked.

    Returns:
        What is wrong and what there is instead.
    """
    if not isinstance(error, sqlite3.Error):
        return f"a text or a number of the query is not one that SQLite takes ({_plain(error)})"
    problem = problem_of(error)
    if problem in _SAYS:
        return _SAYS[problem].format(name=name)
    said = _plain(error)
    if connection is None or known is None:
        return said
    if said.startswith("no such table"):
        said += f"; {_tables(said, known)}"
    elif "no such column" in said or "has no column named" in said:
        said += _columns(connection, known, query)
    return said


def _plain(error: Exception) -> str:
    return "".join(c if c.isprintable() else " " for c in str(error))[:500]


def _tables(said: str, known: Known) -> str:
    names = [one.name for one in known.listed]
    if not names:
        return "there are no tables"
    wanted = said.rpartition(":")[2].strip().lower()
    near = get_close_matches(wanted, names[:1000], n=3)
    shown = [*near, *(name for name in names[:_MOST_NAMES] if name not in near)][:_MOST_NAMES]
    more = "" if len(names) <= len(shown) else f" and {len(names) - len(shown):,} more"
    return f"the tables are: {', '.join(map(text_of, shown))}{more}"


def _columns(connection: sqlite3.Connection, known: Known, query: str) -> str:
    words = list(dict.fromkeys(word.lower() for word in re.findall(r"\w+", query)))
    told = ""
    for table in [word for word in words if word in known.readable][:_MOST_TABLES]:
        try:
            rows = connection.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
        except sqlite3.Error:
            continue
        names = [text_of(row[1]) for row in rows]
        more = "" if len(names) <= _MOST_NAMES else f", and {len(names) - _MOST_NAMES:,} more"
        told += f"; {text_of(table)} has: {', '.join(names[:_MOST_NAMES])}{more}"
    return told
