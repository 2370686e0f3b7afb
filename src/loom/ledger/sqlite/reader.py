"""Questions to the file: rows, sums, damage. Every value of a caller is a parameter."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Container
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias, get_args

from loom.ledger.book import Account
from loom.ledger.budgets import Scope
from loom.ledger.contract import By, Query, Total
from loom.ledger.entry import Entry, State
from loom.ledger.ids import id_at
from loom.ledger.money import ZERO, add, less, total
from loom.ledger.sqlite.rows import FIELDS, amount_of, decode, moment, tags_of
from loom.ledger.sqlite.spill import Spill
from loom.ledger.sqlite.trouble import DamagedRow
from loom.ledger.totals import Fact, Tally, asked_fields, group_by, require_zone

__all__ = ["account", "carried", "entries", "findings", "old_rows", "one", "totals"]

_Part: TypeAlias = tuple[str, tuple[Any, ...]]

_ROWS = f"SELECT {', '.join(FIELDS)} FROM calls"  # noqa: S608 - names of our own columns
_AMOUNTS = "SELECT id, state, cost_usd, reserved_usd FROM calls"
_SUMMED = "state, code, input_tokens, output_tokens, cached_tokens, cost_usd, reserved_usd"
_STATES = get_args(State)


def one(connection: sqlite3.Connection, entry_id: str) -> Entry | None:
    """
    A row by its id.

    Args:
        connection: To the file.
        entry_id: The row's.

    Returns:
        The row; None if there is none.
    """
    row = connection.execute(f"{_ROWS} WHERE id = ?", (entry_id,)).fetchone()
    return None if row is None else decode(row)


def entries(connection: sqlite3.Connection, query: Query) -> tuple[Entry, ...]:
    """
    A page of rows.

    Args:
        connection: To the file.
        query: Which rows.

    Returns:
        The rows.
    """
    parts = _parts(query)
    if query.after is not None:
        parts.append(("id < ?" if query.newest_first else "id > ?", (query.after,)))
    where, values = _where(parts)
    order = "DESC" if query.newest_first else "ASC"
    found = connection.execute(
        f"{_ROWS}{where} ORDER BY id {order} LIMIT ?", (*values, query.limit)
    )
    return tuple(decode(row) for row in found)


def totals(connection: sqlite3.Connection, query: Query, by: By) -> tuple[Total, ...]:
    """
    Exact sums.

    Args:
        connection: To the file.
        query: Over which rows.
        by: What to group by.

    Returns:
        One for each group.
    """
    # SQLite would add amounts as floats: rows are added here, to the last digit.
    group, tally = group_by(by), Tally()
    where, values = _where(_parts(query))
    told = _FROM_FILE.get(group.field, _as_it_is)
    # The field is one of our own columns: `group_by` knows no other.
    rows = connection.execute(f"SELECT {group.field}, {_SUMMED} FROM calls{where}", values)  # noqa: S608 - names of columns
    for value, state, code, used, made, cached, cost, reserved in rows:
        name = group.name(told(value))
        tally.add(Fact(name, state, code, used, made, cached, amount_of(cost), amount_of(reserved)))
    return tally.totals()


def account(connection: sqlite3.Connection, scope: Scope, known: Container[str]) -> Account:
    """
    The sums of a scope over the rows of the file, and what was carried from pruned ones.

    Args:
        connection: To the file.
        scope: Which rows.
        known: Ids of rows that are left out: the caller has a newer form of them.

    Returns:
        The account.
    """
    parts = [_one_of(scope.per, scope.value)]
    if scope.start is not None and scope.end is not None:
        parts.append(("id >= ? AND id < ?", (id_at(scope.start), id_at(scope.end))))
    where, values = _where(parts)
    found = Account()
    for entry_id, state, cost, reserved in connection.execute(f"{_AMOUNTS}{where}", values):
        if entry_id in known:
            continue
        if state == "open":
            found.reserved = add(found.reserved, amount_of(reserved) or ZERO)
        elif state != "released":
            amount = amount_of(reserved if cost is None else cost)
            found.spent = add(found.spent, amount or ZERO)
    if scope.period is None:
        found.spent = add(found.spent, _carried_on(connection, scope))
    return found


def carried(connection: sqlite3.Connection, per: str, value: str) -> Decimal:
    """
    What pruned rows counted.

    Args:
        connection: To the file.
        per: As in `book.carried_by`.
        value: The same.

    Returns:
        US dollars.
    """
    row = connection.execute(
        "SELECT usd FROM carried WHERE per = ? AND value = ?", (per, value)
    ).fetchone()
    return ZERO if row is None else Decimal(row[0])


def old_rows(connection: sqlite3.Connection, end: str, limit: int) -> tuple[Entry, ...]:
    """
    Rows that may be pruned, the oldest first.

    Args:
        connection: To the file.
        end: Ids before this one.
        limit: How many at most.

    Returns:
        Rows of calls that are over.
    """
    found = connection.execute(
        f"{_ROWS} WHERE id < ? AND state <> 'open' ORDER BY id LIMIT ?", (end, limit)
    )
    return tuple(decode(row) for row in found)


def findings(connection: sqlite3.Connection, path: Path) -> tuple[str, ...]:
    """
    Look for damage in the file and in each row.

    Args:
        connection: To the file.
        path: Where it is.

    Returns:
        What is wrong, a line each.
    """
    found = [
        f"{path}: {told}"
        for (told,) in connection.execute("PRAGMA integrity_check")
        if told != "ok"
    ]
    for row in connection.execute(_ROWS):
        try:
            entry = decode(row)
        except DamagedRow as error:
            found.append(str(error))
            continue
        if entry.state not in _STATES or not entry.id.startswith(id_at(entry.at)):
            found.append(f"row {entry.id}: its state or its time makes no sense")
    left = Spill(path).rows()
    if left:
        found.append(f"{Spill(path).path}: {len(left)} rows wait for the next writer")
    return tuple(found)


def _parts(query: Query) -> list[_Part]:
    require_zone(query.since, query.until)
    parts: list[_Part] = []
    # Ids begin with the time, so the table itself is the index.
    if query.since is not None:
        parts.append(("id >= ?", (id_at(query.since),)))
    if query.until is not None:
        parts.append(("id < ?", (id_at(query.until),)))
    if query.states is not None:
        marks = ", ".join("?" * len(query.states))
        parts.append((f"state IN ({marks})", query.states))
    if query.tag is not None:
        parts.append(_one_of(f"tag:{query.tag[0]}", query.tag[1]))
    parts += (_one_of(column, value) for column, value in asked_fields(query))
    return parts


def _one_of(per: str, value: str) -> _Part:
    """Give the condition for rows of one client, session, key, tenant or tag."""
    if per.startswith("tag:"):
        name = per[len("tag:") :]
        if value:
            return "id IN (SELECT id FROM tags WHERE name = ? AND value = ?)", (name, value)
        return "id NOT IN (SELECT id FROM tags WHERE name = ? AND value <> '')", (name,)
    if per == "session" and not value:
        return "session IS NULL", ()
    return f"{per} = ?", (value,)


def _where(parts: list[_Part]) -> tuple[str, tuple[Any, ...]]:
    if not parts:
        return "", ()
    conditions = " AND ".join(condition for condition, _ in parts)
    return f" WHERE {conditions}", tuple(value for _, values in parts for value in values)


def _as_it_is(value: object) -> object:
    return value


_FROM_FILE: dict[str, Callable[[Any], object]] = {"at": moment, "tags": tags_of}


def _carried_on(connection: sqlite3.Connection, scope: Scope) -> Decimal:
    if not scope.per.startswith("tag:") or scope.value:
        return carried(connection, scope.per, scope.value)
    # Calls without the tag: all that went, less those that had it.
    tagged = connection.execute("SELECT usd FROM carried WHERE per = ?", (scope.per,))
    return less(carried(connection, "all", ""), total(Decimal(amount) for (amount,) in tagged))
