"""The form of a database for a prompt: its tables, columns, keys, and how many rows there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from loom.agent.backend import Resource
from loom.agent.sqlite.guard import Guard
from loom.agent.sqlite.names import Known, Table, quoted, text_of
from loom.core.errors import ToolFailed

__all__ = ["describe", "facts", "outline", "resources"]

# Counting is an extra: a count that would take longer is left out.
_COUNTING_S = 1.0
_COUNTED = 100_000
_SAMPLED_ROWS = 1000
_SAMPLES = 5
_LONGEST_SAMPLE = 30
_LONGEST_TYPE = 40
_DESCRIBED = 12_000


def resources(connection: sqlite3.Connection, known: Known, guard: Guard) -> tuple[Resource, ...]:
    """
    The same with the number of rows.

    Args:
        connection: To the file.
        known: Its names.
        guard: Ends the counting.
    """
    counts = _counts(connection, known.listed, guard)
    return tuple(
        Resource(name=one.name, kind=one.kind, description=counts.get(one.name, ""))
        for one in known.listed
    )


def outline(
    connection: sqlite3.Connection, known: Known, guard: Guard, *, most: int, samples: bool
) -> str:
    """
    The whole form, small enough for a prompt.

    Args:
        connection: To the file.
        known: Its names.
        guard: Ends the counting.
        most: Characters; where columns do not fit, names alone are told, as many as fit.
        samples: Whether a few values of the data are told.

    Returns:
        A line for each table.
    """
    if not known.listed:
        return "There are no tables."
    lines: list[str] = []
    size = 0
    counts = _counts(connection, known.listed, guard)
    for one in known.listed:
        lines.append(_line(connection, one, counts.get(one.name, ""), samples=samples))
        size += len(lines[-1]) + 1
        if size > most:
            return _names(known.listed, counts, most)
    return "\n".join(lines)


def describe(
    connection: sqlite3.Connection, known: Known, guard: Guard, name: str, *, samples: bool
) -> str:
    """
    The form of one table.

    Args:
        connection: To the file.
        known: Its names.
        guard: Ends the counting.
        name: The table's; capital letters do not matter.
        samples: Whether a few values of the data are told.

    Returns:
        Its line, however long; cut at 12,000 characters.

    Raises:
        ToolFailed: If there is no such table.
    """
    one = _found(known, name)
    count = _counts(connection, (one,), guard).get(one.name, "")
    line = _line(connection, one, count, samples=samples)
    return line if len(line) <= _DESCRIBED else f"{line[:_DESCRIBED]}… (cut)"


def facts(connection: sqlite3.Connection, known: Known, guard: Guard, name: str) -> dict[str, Any]:
    """
    Everything that is known of one table.

    Args:
        connection: To the file.
        known: Its names.
        guard: Ends the counting.
        name: The table's; capital letters do not matter.

    Returns:
        Values that JSON knows; `rows` is a text, because a count may end early.

    Raises:
        ToolFailed: If there is no such table.
    """
    one = _found(known, name)
    indexes = _pragma(connection, "index_list", one.name)
    return {
        "name": one.name,
        "kind": one.kind,
        "rows": _counts(connection, (one,), guard).get(one.name),
        "columns": [
            {
                "name": column[1],
                "type": column[2],
                "not_null": bool(column[3]),
                "primary_key": column[5],
                "generated": column[6] in (2, 3),
            }
            for column in _columns(connection, one.name)
        ],
        "foreign_keys": [
            {"column": key[3], "table": key[2], "to": key[4]}
            for key in _pragma(connection, "foreign_key_list", one.name)
        ],
        "indexes": [
            {
                "name": index[1],
                "unique": bool(index[2]),
                "columns": [part[2] for part in _pragma(connection, "index_info", index[1])],
            }
            for index in indexes
        ],
    }


def _found(known: Known, name: str) -> Table:
    found = known.listed
    for one in found:
        if one.name.lower() == name.lower():
            return one
    names = ", ".join(text_of(one.name) for one in found[:40])
    more = "" if len(found) <= 40 else f" and {len(found) - 40:,} more"
    raise ToolFailed(
        f"there is no table {text_of(name)}; the tables are: {names}{more}", attempts=0
    )


def _line(connection: sqlite3.Connection, one: Table, count: str, *, samples: bool) -> str:
    keys: dict[str, str] = {}
    for key in _pragma(connection, "foreign_key_list", one.name):
        target = text_of(key[2]) + (f".{text_of(key[4])}" if key[4] else "")
        keys.setdefault(key[3].lower(), target)
    columns = _columns(connection, one.name)
    several = sum(1 for column in columns if column[5]) > 1
    parts = []
    for column in columns:
        words = [text_of(column[1]), text_of(column[2], _LONGEST_TYPE).strip('"')]
        if column[5]:
            words.append(f"key {column[5]}" if several else "key")
        if column[1].lower() in keys:
            words.append(f"-> {keys[column[1].lower()]}")
        if samples and one.kind == "table":
            words.append(_samples(connection, one.name, column))
        parts.append(" ".join(word for word in words if word))
    kind = "view " if one.kind == "view" else ""
    rows = f" ({count})" if count else ""
    return f"{kind}{text_of(one.name)}{rows}: {', '.join(parts)}"


def _names(found: Iterable[Table], counts: dict[str, str], most: int) -> str:
    head = "Tables (get_schema with a name tells its columns): "
    told = []
    left = most - len(head) - len(" and 1,000,000 more")
    rest = list(found)
    while rest:
        one = rest[0]
        count = counts.get(one.name)
        word = text_of(one.name) + (f" ({count})" if count else "")
        left -= len(word) + 2
        if left < 0:
            break
        told.append(word)
        del rest[0]
    return head + ", ".join(told) + (f" and {len(rest):,} more" if rest else "")


def _columns(connection: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    # 1 is a hidden column of a virtual table: an argument, not a value.
    return [row for row in _pragma(connection, "table_xinfo", table) if row[6] != 1]


def _pragma(connection: sqlite3.Connection, pragma: str, name: str) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(f"PRAGMA main.{pragma}({quoted(name)})").fetchall()
    except sqlite3.OperationalError:
        return []  # a view of what is gone: it has no columns to tell


def _counts(connection: sqlite3.Connection, found: Iterable[Table], guard: Guard) -> dict[str, str]:
    """How many rows each table has, as far as a second of counting goes; views are not counted."""
    counts: dict[str, str] = {}
    with guard.at_most(_COUNTING_S):
        for one in found:
            if one.kind == "view":
                continue
            rows = f"SELECT 1 FROM main.{quoted(one.name)} LIMIT {_COUNTED + 1}"  # noqa: S608 - quoted
            try:
                cursor = connection.execute(f"SELECT count(*) FROM ({rows})")  # noqa: S608 - as above
                count = cursor.fetchone()[0]
            except sqlite3.Error:
                if guard.over:
                    break
                continue
            plus = "+" if count > _COUNTED else ""
            counts[one.name] = f"{min(count, _COUNTED):,}{plus} row{'' if count == 1 else 's'}"
    return counts


def _samples(connection: sqlite3.Connection, table: str, column: tuple[Any, ...]) -> str:
    """A column's few different texts, if there are only few."""
    if "CHAR" not in column[2].upper() and "TEXT" not in column[2].upper():
        return ""
    inner = f"SELECT {quoted(column[1])} AS v FROM main.{quoted(table)} LIMIT {_SAMPLED_ROWS}"  # noqa: S608 - quoted
    asked = f"SELECT DISTINCT v FROM ({inner}) WHERE typeof(v) = 'text' LIMIT {_SAMPLES + 1}"  # noqa: S608 - as above
    try:
        values = [row[0] for row in connection.execute(asked)]
    except sqlite3.Error:
        return ""
    if not values or len(values) > _SAMPLES or max(map(len, values)) > _LONGEST_SAMPLE:
        return ""
    shown = " | ".join(f"'{value}'" for value in values)
    return f"({shown if shown.isprintable() else text_of(shown)})"
