"""
A connection that can do no harm: SQLite itself refuses what is not allowed.

Four walls stand behind one another: the file is opened with `mode=ro`, the connection has
`query_only`, the authorizer allows reading and a list of functions, and SQLite's limits cap each
value. None of them looks at the text of a query.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from loom.agent.backend_thread import Stop
from loom.agent.sqlite.bounds import BUILT_IN, FUNCTIONS, LONGEST_QUERY, Bounds
from loom.agent.sqlite.functions import Guarded, replace_functions
from loom.agent.sqlite.memory import process_bytes
from loom.agent.sqlite.names import Known, text_of
from loom.core.ambient import Clock

__all__ = ["Guard", "opened"]

# A look costs as much as about ten of SQLite's instructions.
_STEPS_BETWEEN_LOOKS = 200
_LONGEST_PROGRAM = 6000  # instructions; a query of ten tables has some hundreds

_WRITES = {
    sqlite3.SQLITE_INSERT: "INSERT",
    sqlite3.SQLITE_UPDATE: "UPDATE",
    sqlite3.SQLITE_DELETE: "DELETE",
}
_FORMS = {
    sqlite3.SQLITE_CREATE_TABLE: "CREATE TABLE",
    sqlite3.SQLITE_CREATE_INDEX: "CREATE INDEX",
    sqlite3.SQLITE_CREATE_VIEW: "CREATE VIEW",
    sqlite3.SQLITE_DROP_TABLE: "DROP TABLE",
    sqlite3.SQLITE_DROP_INDEX: "DROP INDEX",
    sqlite3.SQLITE_DROP_VIEW: "DROP VIEW",
    sqlite3.SQLITE_ALTER_TABLE: "ALTER TABLE",
    sqlite3.SQLITE_ANALYZE: "ANALYZE",
    sqlite3.SQLITE_REINDEX: "REINDEX",
}
_NEVER = {
    sqlite3.SQLITE_ATTACH: "ATTACH",
    sqlite3.SQLITE_DETACH: "DETACH",
    sqlite3.SQLITE_TRANSACTION: "a transaction of its own",
    sqlite3.SQLITE_SAVEPOINT: "SAVEPOINT",
    sqlite3.SQLITE_CREATE_TRIGGER: "CREATE TRIGGER",
    sqlite3.SQLITE_DROP_TRIGGER: "DROP TRIGGER",
    sqlite3.SQLITE_CREATE_VTABLE: "CREATE VIRTUAL TABLE",
    sqlite3.SQLITE_DROP_VTABLE: "dropping a virtual table",
    sqlite3.SQLITE_CREATE_TEMP_TABLE: "a temporary table",
    sqlite3.SQLITE_CREATE_TEMP_INDEX: "a temporary index",
    sqlite3.SQLITE_CREATE_TEMP_VIEW: "a temporary view",
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: "a temporary trigger",
    sqlite3.SQLITE_DROP_TEMP_TABLE: "a temporary table",
    sqlite3.SQLITE_DROP_TEMP_INDEX: "a temporary index",
    sqlite3.SQLITE_DROP_TEMP_VIEW: "a temporary view",
    sqlite3.SQLITE_DROP_TEMP_TRIGGER: "a temporary trigger",
}
_MASTERS = frozenset({"sqlite_master", "sqlite_schema", "sqlite_temp_master", "sqlite_temp_schema"})
# ALTER TABLE calls these of SQLite's own; SQL cannot.
_INNER = ("sqlite_rename_", "sqlite_drop_column", "sqlite_fail")

_Authorizer: TypeAlias = Callable[[int, str | None, str | None, str | None, str | None], int]


class Guard:
    """
    Watches one query: what it asks for, how long it takes, how much memory.

    Attributes:
        refusal: What was refused and why, in words for a model; empty if nothing was.
        over: Which cap ended the query: "time", "steps", "memory" or "stopped"; empty if none.

    Args:
        bounds: The caps.
        clock: Tells the time.
        stop: Set when nobody waits any more.
    """

    def __init__(self, bounds: Bounds, clock: Clock, stop: Stop) -> None:
        self.refusal = ""
        self.over = ""
        self._bounds = bounds
        self._clock = clock
        self._stop = stop
        self._until_s = clock.monotonic_s() + bounds.timeout_s
        self._looks_left = max(1, bounds.max_steps // _STEPS_BETWEEN_LOOKS)
        self._memory = process_bytes()
        self._remembered_s = 0.0

    @property
    def left_s(self) -> float:
        """Seconds until the time is over; below 0 afterwards."""
        return self._until_s - self._clock.monotonic_s()

    @contextmanager
    def at_most(self, seconds: float) -> Iterator[None]:
        """Let the time be over in so many seconds, for an extra that may be left out."""
        until_s = self._until_s
        self._until_s = min(until_s, self._clock.monotonic_s() + seconds)
        try:
            yield
        finally:
            self._until_s = until_s
            if self.over == "time" and self.left_s > 0:
                self.over = ""

    def look(self) -> int:
        """SQLite asks every few instructions: anything but 0 ends the query."""
        now_s = self._clock.monotonic_s()
        self._looks_left -= 1
        if now_s >= self._until_s:
            self.over = "time"
        elif self._stop.is_set:
            self.over = "stopped"
        elif self._looks_left <= 0:
            self.over = "steps"
        elif now_s - self._remembered_s >= 0.001:
            # A thousand times a second: reading it costs more than two hundred instructions.
            self._remembered_s = now_s
            now = process_bytes()
            if now is not None and self._memory is not None:
                self.over = "memory" if now - self._memory > self._bounds.max_memory_bytes else ""
        return 1 if self.over else 0

    def watch(self, connection: sqlite3.Connection) -> None:
        """Watch time, steps and memory from here on."""
        connection.set_progress_handler(self.look, _STEPS_BETWEEN_LOOKS)

    @contextmanager
    def authorizing(
        self, connection: sqlite3.Connection, known: Known, *, write: bool
    ) -> Iterator[None]:
        """Let SQLite ask for every thing that a statement does, while one is run."""
        connection.set_authorizer(self._authorizer(known, write=write))
        # SQLite looks at the caps only where its machine jumps: what stands between is bounded
        # by its length.
        longest = connection.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, _LONGEST_PROGRAM)
        try:
            yield
        finally:
            connection.set_authorizer(None)
            connection.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, longest)

    def _authorizer(self, known: Known, *, write: bool) -> _Authorizer:
        def asked(action: int, one: str | None, two: str | None, *_: str | None) -> int:
            # A query that is made of copies of its parts takes long before it begins.
            if self.look():
                return sqlite3.SQLITE_DENY
            why = _refusal(action, (one or "", two or ""), known, write=write)
            if why:
                self.refusal = self.refusal or why
                return sqlite3.SQLITE_DENY
            return sqlite3.SQLITE_OK

        return asked


def _refusal(action: int, names: tuple[str, str], known: Known, *, write: bool) -> str:
    """Why an action is refused; empty if it is not."""
    one, two = names
    match action:
        case sqlite3.SQLITE_SELECT | sqlite3.SQLITE_RECURSIVE:
            why = ""
        case sqlite3.SQLITE_READ:
            why = _unreadable(one, two, known, write=write)
        case sqlite3.SQLITE_FUNCTION:
            own = two.lower() in FUNCTIONS or (write and two.startswith(_INNER))
            why = "" if own else f"the function {text_of(two)}() is not allowed"
        case sqlite3.SQLITE_PRAGMA:
            # Full-text search asks this for itself when it reads.
            version = one == "data_version" and not two
            why = "" if version else "PRAGMA is not allowed; the schema is told by get_schema"
        case _:
            why = _unwritable(action, names, known, write=write)
    return why


def _unreadable(table: str, column: str, known: Known, *, write: bool) -> str:
    name = table.lower()
    if name in known.readable or name in BUILT_IN:
        return ""
    if name in _MASTERS:
        open_to_all = known.whole or write
        return "" if open_to_all else f"{name} may not be read; the schema is told by get_schema"
    # A common table expression of which no column is read goes by its own name here.
    made_up = not column and name not in known.names
    if made_up and not name.startswith(("pragma_", "sqlite_", "dbstat", "fts")):
        return ""
    if not known.whole and name in known.names:
        return f"the table {text_of(table)} may not be read"
    if name.startswith("pragma_"):
        return f"{text_of(table)} may not be read; the schema is told by get_schema"
    return f"{text_of(table)} may not be read: it is no table of the database"


def _unwritable(action: int, names: tuple[str, str], known: Known, *, write: bool) -> str:
    if action == sqlite3.SQLITE_UPDATE and names[0] in _MASTERS and not write:
        # So a table that is in no file makes itself known: `dbstat`, `pragma_table_info`.
        return "this table is not open; the schema is told by get_schema"
    word = _WRITES.get(action) or _FORMS.get(action)
    if word is None:
        return f"{_NEVER.get(action, 'this kind of statement')} is not allowed"
    if not write:
        return f"{word} is not allowed: the database is read-only; only SELECT works"
    # These name the table second.
    second = action in (
        sqlite3.SQLITE_ALTER_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_DROP_INDEX,
    )
    name = names[1 if second else 0].lower()
    # A change of the form writes to SQLite's own tables; SQLite keeps every other from them.
    if known.whole or name in known.readable or name.startswith("sqlite_"):
        return ""
    return f"{word} is not allowed for {text_of(name)}: it is not among the tables that are open"


def opened(
    path: Path, bounds: Bounds, *, write: bool, timeout_s: float = 0.0
) -> sqlite3.Connection:
    """
    A connection with its limits set and its schema read.

    Args:
        path: The file.
        bounds: The caps.
        write: Whether it may change the file, or make it.
        timeout_s: Seconds that SQLite itself waits for a lock; cannot be broken off.

    Returns:
        The connection; the caller closes it.

    Raises:
        sqlite3.Error: If it cannot be opened.
    """
    mode = "rwc" if write else "ro"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=0,
        factory=Guarded,
    )
    try:
        _limit(connection, bounds, write=write)
    except BaseException:
        # Whatever it was, an interrupt too: nobody else has it yet.
        connection.close()
        raise
    return connection


def _limit(connection: Guarded, bounds: Bounds, *, write: bool) -> None:
    connection.text_factory = _decoded
    connection.execute("PRAGMA mmap_size=0")
    connection.execute("PRAGMA cell_size_check=ON")
    if process_bytes() is not None:
        # Where memory is watched, nothing of the data goes to files beside.
        connection.execute("PRAGMA temp_store=MEMORY")
    # Views may call `trim` and `printf`, which are ours here. What reaches outside, SQLite lets no
    # view and no column call in any case, and the authorizer is asked for the rest.
    connection.execute("PRAGMA trusted_schema=ON")
    if not write:
        connection.execute("PRAGMA query_only=ON")
    if write:
        # A statement may not fill the disk.
        (pages,), (size,) = (
            connection.execute(f"PRAGMA {fact}").fetchone() for fact in ("page_count", "page_size")
        )
        most = pages + max(1, bounds.max_memory_bytes // size)
        connection.execute(f"PRAGMA max_page_count={most}")
    # The schema is read here: below, its own statements would be too long and too wide.
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    for limit, most in (
        (sqlite3.SQLITE_LIMIT_LENGTH, bounds.max_value_bytes),
        (sqlite3.SQLITE_LIMIT_SQL_LENGTH, min(LONGEST_QUERY, bounds.max_value_bytes)),
        (sqlite3.SQLITE_LIMIT_COLUMN, 200),
        (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
        (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
        (sqlite3.SQLITE_LIMIT_FUNCTION_ARG, 100),
        (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
        (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000),
        (sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999),
        (sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 20),
        (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
    ):
        connection.setlimit(limit, most)
    replace_functions(connection, bounds.max_value_bytes)


def _decoded(text: bytes) -> str:
    # What is not UTF-8 stays readable, and the text can be sent as JSON.
    return text.decode("utf-8", "backslashreplace")
