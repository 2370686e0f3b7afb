"""One statement of a model: run under the guard, its rows cut, its errors put into words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from loom.agent.backend import QueryResult
from loom.agent.backend_thread import Stop
from loom.agent.sqlite.bounds import BUILT_IN, LONGEST_QUERY, Bounds
from loom.agent.sqlite.copies import MOST_COPIES, copies
from loom.agent.sqlite.guard import Guard, opened
from loom.agent.sqlite.names import Known, known_of, quoted, text_of
from loom.agent.sqlite.words import explained, problem_of
from loom.core.ambient import Clock
from loom.core.errors import ToolError, ToolFailed, ToolTimedOut

__all__ = ["Place", "Question", "ask", "run"]

T = TypeVar("T")

Question: TypeAlias = Callable[[sqlite3.Connection, Known, Guard], T]
"""Asks about the form of a file."""

# As often as a person would look whether a lock is gone; a cancellation wakes it at once.
_LOCK_POLL_S = 0.05
_LONGEST_NAME = 200
_MOST_VIRTUAL = 100


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a statement runs.

    Attributes:
        path: The file.
        name: What the model knows it by.
        tables: Tables that it may read, in small letters; None for all.
        bounds: The caps.
    """

    path: Path
    name: str
    tables: frozenset[str] | None
    bounds: Bounds


def _with_connection(
    place: Place,
    clock: Clock,
    stop: Stop,
    work: Callable[[sqlite3.Connection, Guard], T],
    *,
    write: bool = False,
) -> T:
    """
    Do something on a connection of its own, again while the file is locked.

    Args:
        place: Where.
        clock: Tells the time.
        stop: Ends it.
        work: What to do; it is done again after a lock, so it must leave nothing behind.
        write: Whether the file may be changed.

    Returns:
        What `work` gave.

    Raises:
        ToolError: If SQLite or the guard refuses, or a cap is passed.
    """
    guard = Guard(place.bounds, clock, stop)
    # With a clock that stands, the number of tries ends the wait.
    for _ in range(int(place.bounds.timeout_s / _LOCK_POLL_S) + 2):
        try:
            return _once(place, stop, guard, work, write=write)
        except sqlite3.Error as error:
            if problem_of(error) != "locked":
                raise ToolFailed(explained(error, place.name), attempts=0) from None
            if guard.left_s <= 0 or stop.wait(_LOCK_POLL_S):
                break
    raise ToolTimedOut(
        f"{place.name} is locked by another program: waited {place.bounds.timeout_s:g} s;"
        " try again later",
        attempts=0,
    )


def _once(
    place: Place,
    stop: Stop,
    guard: Guard,
    work: Callable[[sqlite3.Connection, Guard], T],
    *,
    write: bool,
) -> T:
    with closing(opened(place.path, place.bounds, write=write)) as connection:
        stop.interrupt_with(connection.interrupt)
        guard.watch(connection)
        try:
            # What was set before is not interrupted by it.
            if guard.look():
                raise _passed(guard.over, place.bounds)
            return work(connection, guard)
        except (sqlite3.Error, MemoryError) as error:
            # The cap is the reason; that SQLite was interrupted follows from it. Some steps are
            # interrupted before the guard could look.
            if guard.over or (_is_interrupt(error) and guard.look()):
                raise _passed(guard.over, place.bounds) from None
            if isinstance(error, MemoryError):
                raise ToolFailed(
                    "the query is too long for one statement, or needs too much memory", attempts=0
                ) from None
            raise
        finally:
            stop.interrupt_with(None)


def _is_interrupt(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT


def _passed(over: str, bounds: Bounds) -> ToolError:
    advice = "filter with WHERE, join on keys, or aggregate less"
    if over == "memory":
        mib = bounds.max_memory_bytes // 1_048_576
        return ToolFailed(f"the query needs more than {mib:,} MiB of memory: {advice}", attempts=0)
    if over == "steps":
        return ToolTimedOut(
            f"the query took more than {bounds.max_steps:,} steps: {advice}", attempts=0
        )
    if over == "stopped":
        return ToolFailed("the query was stopped", attempts=0)
    return ToolTimedOut(f"the query took longer than {bounds.timeout_s:g} s: {advice}", attempts=0)


def ask(place: Place, clock: Clock, stop: Stop, question: Question[T]) -> T:
    """
    Ask something of the form, not of the data: the question is ours, and nothing refuses it.

    Args:
        place: Where.
        clock: Tells the time.
        stop: Ends it.
        question: Gets the connection, the file's names and the guard.

    Returns:
        Its answer.

    Raises:
        ToolError: If the file cannot be read, or it takes too long.
    """

    def work(connection: sqlite3.Connection, guard: Guard) -> T:
        return question(connection, known_of(connection, place.tables), guard)

    return _with_connection(place, clock, stop, work)


def run(
    place: Place,
    clock: Clock,
    stop: Stop,
    query: str,
    parameters: Sequence[Any],
    *,
    write: bool = False,
) -> QueryResult:
    """
    Run one statement.

    Args:
        place: Where.
        clock: Tells the time.
        stop: Ends it.
        query: The statement; a semicolon and comments may follow it.
        parameters: Values for `?`, in order.
        write: Whether it may change the file: then it is one transaction.

    Returns:
        Its rows within the caps; for a statement without rows, how many it changed.

    Raises:
        ToolError: If it is refused, wrong, or passes a cap.
    """
    begun_s = clock.monotonic_s()

    def work(connection: sqlite3.Connection, guard: Guard) -> QueryResult:
        known = known_of(connection, place.tables)
        _bound(connection, known, query)
        _connect_virtual(connection, known)
        try:
            if not write:
                with guard.authorizing(connection, known, write=False):
                    return _answer(connection.execute(query, parameters), place.bounds)
            return _changed(connection, (query, parameters), guard, known, place.bounds)
        except (sqlite3.Error, UnicodeError, OverflowError, ValueError) as error:
            locked = isinstance(error, sqlite3.Error) and problem_of(error) == "locked"
            if guard.over or _is_interrupt(error) or (locked and not guard.refusal):
                raise
            said = f"refused: {guard.refusal}" if guard.refusal else ""
            words = said or explained(error, place.name, connection, known, query)
            raise ToolFailed(words, attempts=0) from None

    result = _with_connection(place, clock, stop, work, write=write)
    return msgspec.structs.replace(result, duration_s=clock.monotonic_s() - begun_s)


def _bound(connection: sqlite3.Connection, known: Known, query: str) -> None:
    """Refuse what would be copied without end before it begins."""

    def view(name: str) -> str | None:
        if name not in known.names:
            return None
        asked = "SELECT sql FROM main.sqlite_master WHERE type = 'view' AND lower(name) = ?"
        row = connection.execute(asked, (name,)).fetchone()
        return None if row is None else str(row[0])

    # A longer text is refused by SQLite's own limit.
    if len(query) <= LONGEST_QUERY and copies(query, view) > MOST_COPIES:
        raise ToolFailed(
            "the query multiplies its parts: write WITH ... AS MATERIALIZED (...), name each column"
            " less often, or take fewer steps",
            attempts=0,
        )


def _connect_virtual(connection: sqlite3.Connection, known: Known) -> None:
    """Virtual tables prepare writing statements when they are first named: before the guard."""
    for name in (*BUILT_IN, *known.virtual[:_MOST_VIRTUAL]):
        try:
            connection.execute(f"SELECT 1 FROM {quoted(name)} LIMIT 0").fetchall()  # noqa: S608 - quoted
        except sqlite3.Error:
            continue  # whoever asks for it is told


def _changed(
    connection: sqlite3.Connection,
    asked: tuple[str, Sequence[Any]],
    guard: Guard,
    known: Known,
    bounds: Bounds,
) -> QueryResult:
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = connection.total_changes
        with guard.authorizing(connection, known, write=True):
            cursor = connection.execute(*asked)
            rows = _answer(cursor, bounds) if cursor.description is not None else None
            cursor.close()
        connection.execute("COMMIT")
    except BaseException:
        # Whatever it was, an interrupt too: nothing is done by half.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if rows is not None:
        return rows
    changed = connection.total_changes - before
    return QueryResult(columns=("rows_changed",), rows=((changed,),))


def _answer(cursor: sqlite3.Cursor, bounds: Bounds) -> QueryResult:
    """Take rows while they fit; the rest is never asked for."""
    if cursor.description is None:
        raise ToolFailed("the query is empty: give one SELECT statement", attempts=0)
    columns = tuple(_legal(name[0])[:_LONGEST_NAME] for name in cursor.description)
    rows: list[tuple[Any, ...]] = []
    left = bounds.max_bytes - sum(len(name) + 1 for name in columns)
    cut_cells, reason = 0, ""
    for row in cursor:
        if len(rows) == bounds.max_rows:
            reason = f"only the first {len(rows):,} rows are shown"
            break
        values, cuts, size = _fitted(row, bounds.max_cell_bytes)
        left -= size
        if left < 0:
            reason = f"only the first {len(rows):,} rows are shown: more is too long"
            break
        cut_cells += cuts
        rows.append(values)
    parts = [f"{reason}; go on with LIMIT and OFFSET, name fewer columns, or aggregate"]
    parts = parts if reason else []
    if cut_cells:
        parts.append(
            f"{cut_cells:,} long {'value is' if cut_cells == 1 else 'values are'} cut;"
            " read on with substr(column, start, length)"
        )
    told = "; ".join(parts)
    return QueryResult(columns=columns, rows=tuple(rows), truncated=bool(told), reason=told)


def _fitted(row: tuple[Any, ...], most: int) -> tuple[tuple[Any, ...], int, int]:
    """A row with its long values cut, how many were, and its bytes as text."""
    values: list[Any] = []
    cuts = size = 0
    for value in row:
        fitted, length = value, 8
        if isinstance(value, bytes):
            # Bytes tell a model nothing, but how many there are may.
            fitted, length = f"<blob: {len(value):,} bytes>", 24
        elif isinstance(value, str):
            length = len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
            if length > most:
                fitted = _head(value, most, length)
                length = most
                cuts += 1
        values.append(fitted)
        size += length + 1
    return tuple(values), cuts, size


def _head(text: str, most: int, length: int) -> str:
    head = text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
    return f"{head}… ({length:,} bytes)"


def _legal(name: str) -> str:
    return name if name.isprintable() else text_of(name, _LONGEST_NAME)
