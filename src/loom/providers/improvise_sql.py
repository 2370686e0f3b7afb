"""
A query that a model might write: for a tool that takes SQL, about a table that the prompt tells of.

The instructions name tables and their columns, one table a line: `orders (3 rows): id INTEGER,
city TEXT`, as `SQLiteBackend` tells them, or `CREATE TABLE orders (id INTEGER, city TEXT)`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from loom.core.request import ToolSpec

__all__ = ["improvised_query", "sql_field"]

_TOLD = re.compile(r"(?m)^(?P<table>[A-Za-z_]\w*)(?: \([^)\n]*\))?: (?P<columns>\S.*)$")
_MADE = re.compile(r"(?is)create table (?P<table>[A-Za-z_]\w*)\s*\((?P<columns>[^;]*?)\)\s*(?:;|$)")
_NUMBERS = ("INT", "REAL", "NUM", "DEC", "DOUBLE", "FLOAT")
_ROWS = 5


class _Table(msgspec.Struct, frozen=True):
    name: str
    columns: tuple[tuple[str, str], ...]

    def numbers(self) -> list[str]:
        return [name for name, kind in self.columns if kind.upper().startswith(_NUMBERS)]

    def texts(self) -> list[str]:
        return [name for name, kind in self.columns if not kind.upper().startswith(_NUMBERS)]


def sql_field(tool: ToolSpec) -> str | None:
    """
    Which argument of a tool is a query in SQL.

    Args:
        tool: As the model is told of it.

    Returns:
        `query` or `sql`; None when the tool takes no SQL.
    """
    properties = tool.parameters.get("properties") or {}
    told = f"{tool.name} {tool.description or ''} {properties}".lower()
    field = next((name for name in ("query", "sql", "statement") if name in properties), None)
    return field if "sql" in told else None


def improvised_query(instructions: str, asked: str) -> str | None:
    """
    A query for a question.

    Args:
        instructions: What the model was told of the tables.
        asked: The question.

    Returns:
        A SELECT over the table that the question names; None when it names none.
    """
    said = re.findall(r"[a-z_]\w*", asked.lower())
    table = next((t for t in _tables(instructions) if _is_said(t.name, said)), None)
    if table is None:
        return None
    group = next((name for name in table.texts() if _is_said(name, said)), None)
    number = next((name for name in table.numbers() if _is_said(name, said)), None)
    adds = any(word in said for word in ("sum", "total", "revenue", "amount", "spent"))
    measure = f"sum({number})" if number is not None and adds else "count(*)"
    if group is not None:
        rest = f" GROUP BY {group} ORDER BY n DESC LIMIT {_ROWS}"
        return _select(f"{group}, {measure} AS n", table, rest)
    if adds or "many" in said or "count" in said:
        return _select(f"{measure} AS n", table)
    return _select("*", table, f" LIMIT {_ROWS}")


def _select(what: str, table: _Table, rest: str = "") -> str:
    # Names are letters, digits and underscores; nothing here runs what is written.
    return f"SELECT {what} FROM {table.name}{rest}"  # noqa: S608 - see above


def _tables(instructions: str) -> list[_Table]:
    found = [*_TOLD.finditer(instructions), *_MADE.finditer(instructions)]
    return [_Table(each["table"], _columns(each["columns"])) for each in found]


def _columns(told: str) -> tuple[tuple[str, str], ...]:
    columns = []
    for part in told.split(","):
        name, _, kind = part.strip().partition(" ")
        if re.fullmatch(r"[A-Za-z_]\w*", name):
            columns.append((name, kind.strip()))
    return tuple(columns)


def _is_said(name: str, said: Sequence[str]) -> bool:
    low = name.lower()
    # "orders" and "order", "city" and "cities".
    forms = {low, low.removesuffix("s"), f"{low}s", f"{low.removesuffix('y')}ies"}
    return any(word in forms for word in said)
