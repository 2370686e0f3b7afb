"""The names of a SQLite file: what there is, and what of it a query may read."""

from __future__ import annotations

import re
import sqlite3

import msgspec

__all__ = ["Known", "Table", "known_of", "quoted", "text_of"]

# What each module keeps its own data in; https://sqlite.org/fts5.html, fts3.html, rtree.html.
_SHADOWS = {
    "fts3": ("content", "segdir", "segments"),
    "fts4": ("content", "docsize", "segdir", "segments", "stat"),
    "fts5": ("config", "content", "data", "docsize", "idx"),
    "rtree": ("node", "parent", "rowid"),
    "rtree_i32": ("node", "parent", "rowid"),
    "geopoly": ("node", "parent", "rowid"),
}
_MODULE = re.compile(r"\bUSING\s+(\w{1,20})", re.IGNORECASE)


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """
    A table or a view.

    Attributes:
        name: As it is written in the file.
        kind: "table" or "view".
    """

    name: str
    kind: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is in a file; names in small letters where nothing else is said.

    Attributes:
        names: Of every table and view.
        readable: Those that a query may read.
        whole: Whether that is all of them.
        listed: What a query may read and people look for, sorted, as it is written.
        virtual: Virtual tables, as they are written.
    """

    names: frozenset[str]
    readable: frozenset[str]
    whole: bool
    listed: tuple[Table, ...]
    virtual: tuple[str, ...]


def known_of(connection: sqlite3.Connection, tables: frozenset[str] | None) -> Known:
    """
    Read the names of a file.

    Args:
        connection: To it.
        tables: Those that a query may read, in small letters; None for all.

    Returns:
        The names. What a virtual table keeps its data in may be read with it, and is not listed.
    """
    found = [
        Table(name=name, kind=kind)
        for name, kind in connection.execute(
            "SELECT name, type FROM main.sqlite_master WHERE type IN ('table', 'view')"
            " AND name IS NOT NULL ORDER BY name"
        )
    ]
    modules = _modules(connection)
    shadows = {
        f"{name.lower()}_{part}": name.lower()
        for name, module in modules.items()
        for part in _SHADOWS.get(module, ())
    }
    names = frozenset(one.name.lower() for one in found)
    open_ones = names if tables is None else names & tables
    kept = {shadow for shadow, owner in shadows.items() if owner in open_ones}
    return Known(
        names=names,
        readable=(open_ones | kept) & names,
        whole=tables is None,
        listed=tuple(
            one
            for one in found
            if one.name.lower() in open_ones
            and one.name.lower() not in shadows
            and not one.name.lower().startswith("sqlite_")
        ),
        virtual=tuple(modules),
    )


def _modules(connection: sqlite3.Connection) -> dict[str, str]:
    """Each virtual table's module; one that cannot be told is left out."""
    rows = connection.execute(
        "SELECT name, substr(sql, 1, 1000) FROM main.sqlite_master"
        " WHERE type = 'table' AND rootpage = 0 AND name IS NOT NULL"
    )
    told = ((name, _MODULE.search(sql or "")) for name, sql in rows)
    return {name: module[1].lower() for name, module in told if module}


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def text_of(name: str, most: int = 100) -> str:
    """
    A name for a message or a prompt: one line, quoted unless it is plain.

    Names come from the file, and so from anybody: none may look like a line of its own.

    Args:
        name: As it is written in the file.
        most: Characters of it that are told.
    """
    cut = name if len(name) <= most else f"{name[:most]}…"
    if cut.isascii() and cut.isidentifier():
        return cut
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in quoted(cut))
    return "".join(shown)
