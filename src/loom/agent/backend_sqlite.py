"""A SQLite file for an agent: read-only by the engine itself, every query within caps."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loom.agent.backend import Capabilities, QueryResult, Resource
from loom.agent.backend_bounds import checked
from loom.agent.backend_thread import Stop, apart
from loom.agent.sqlite.bounds import LEAST, Bounds
from loom.core.ambient import Clock, SystemClock
from loom.core.errors import ConfigInvalid, ToolFailed

if TYPE_CHECKING:
    from loom.agent.sqlite.run import Place, Question

__all__ = ["SQLiteBackend"]

T = TypeVar("T")

_MAGIC = b"SQLite format 3\x00"  # https://sqlite.org/fileformat2.html, 1.3.1


class SQLiteBackend:
    """
    A SQLite file as what an agent's tools act on.

        SQLiteBackend("shop.db", tables=("orders", "customers"))

    Each query has a connection and a thread of its own, is one statement, and ends within its
    caps. A cancelled one ends at once and leaves no thread.

    Args:
        path: The file. It must be there, unless it may be written.
        name: What the model calls it; the file's name without its ending if None.
        read_only: Whether SQLite refuses every change. If False, a statement that changes
            something is one transaction of its own.
        tables: The only tables and views that may be read. A view needs what it reads in the
            list too: a query can give itself a view's name.
        samples: Whether the schema tells a few of the data's own values; they go to the model
            with every prompt.
        max_rows: Rows of a result, at least 1.
        max_bytes: Bytes of a result as text, at least 1,024.
        max_cell_bytes: Bytes of one text in a result, at least 16; a longer one is cut.
        max_value_bytes: Bytes of any value that a query touches or makes, at least 4,096.
        max_memory_bytes: How much the process may grow while a query runs (on Linux), and the
            file by one statement.
        max_steps: Instructions of SQLite's machine for one query.
        max_schema_chars: Characters of the schema for a prompt; beyond it only names are told.
        timeout_s: Seconds for one query, waits for a lock included.
        clock: Tells the time.

    Raises:
        ConfigInvalid: If the file is missing or no SQLite database, or a cap is too small.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        read_only: bool = True,
        tables: Iterable[str] | None = None,
        samples: bool = False,
        max_rows: int = 1000,
        max_bytes: int = 262_144,
        max_cell_bytes: int = 16_384,
        max_value_bytes: int = 524_288,
        max_memory_bytes: int = 268_435_456,
        max_steps: int = 1_000_000_000,
        max_schema_chars: int = 4000,
        timeout_s: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        self._path = _database(path, read_only=read_only)
        self._name = name or self._path.stem
        self._read_only = read_only
        self._tables = _table_names(tables)
        self._samples = samples
        self._schema_chars = max_schema_chars
        self._bounds = checked(
            Bounds(
                max_rows=max_rows,
                max_bytes=max_bytes,
                max_cell_bytes=max_cell_bytes,
                max_value_bytes=max_value_bytes,
                max_memory_bytes=max_memory_bytes,
                max_steps=max_steps,
                timeout_s=timeout_s,
            ),
            LEAST,
        )
        self._clock = clock or SystemClock()
        self._stops: set[Stop] = set()
        self._closed = False

    def __repr__(self) -> str:
        """Its name and whether it may write; not where it lies."""
        return f"SQLiteBackend(name={self._name!r}, read_only={self._read_only})"

    @property
    def name(self) -> str:
        """What people and the model call it."""
        return self._name

    @property
    def capabilities(self) -> Capabilities:
        """SQL; writing only if it was allowed."""
        return Capabilities(write=not self._read_only, language="sql")

    @property
    def timeout_s(self) -> float:
        """Seconds for one query."""
        return self._bounds.timeout_s

    async def execute_query(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """
        Run one SQL statement.

        Args:
            query: The statement; a semicolon and comments may follow it.
            parameters: Values for `?`, in order.

        Returns:
            Its rows within the caps. For a statement without rows: the column `rows_changed`.

        Raises:
            ToolFailed: If it is refused or wrong; the message is written for the model.
            ToolTimedOut: If it takes longer than `timeout_s`, or the file is locked so long.
        """
        return await self._run(query, parameters, write=not self._read_only)

    async def read_query(self, query: str, parameters: Sequence[Any] = ()) -> QueryResult:
        """
        Run one SQL statement that changes nothing, even where others may.

        Args:
            query: The statement.
            parameters: Values for `?`, in order.

        Returns:
            Its rows within the caps.

        Raises:
            ToolFailed: If it is refused or wrong.
            ToolTimedOut: If it takes too long.
        """
        return await self._run(query, parameters, write=False)

    async def get_schema(self, resource: str | None = None) -> str:
        """
        Tell tables, columns, types, keys and how many rows there are.

        Args:
            resource: One table's name; None for all.

        Returns:
            A line for each table, or only names where that is too long for a prompt.

        Raises:
            ToolFailed: If there is no such table.
        """
        from loom.agent.sqlite import schema  # noqa: PLC0415 - sqlite3 is needed here first

        if resource is None:
            return await self._asked(
                partial(schema.outline, most=self._schema_chars, samples=self._samples)
            )
        return await self._asked(partial(schema.describe, name=resource, samples=self._samples))

    async def list_resources(self) -> tuple[Resource, ...]:
        """List tables and views, sorted by name, with their number of rows as description."""
        from loom.agent.sqlite import schema  # noqa: PLC0415 - sqlite3 is needed here first

        return await self._asked(schema.resources)

    async def get_metadata(self, resource: str) -> Mapping[str, Any]:
        """
        Tell columns, keys and indexes of one table.

        Args:
            resource: The table's name.

        Returns:
            `name`, `kind`, `rows`, `columns`, `foreign_keys`, `indexes`.

        Raises:
            ToolFailed: If there is no such table.
        """
        from loom.agent.sqlite import schema  # noqa: PLC0415 - sqlite3 is needed here first

        return await self._asked(partial(schema.facts, name=resource))

    async def ping(self) -> None:
        """
        Read the names of the tables.

        Raises:
            ToolError: If the file cannot be read.
            ConfigInvalid: If one of `tables` is not there.
        """
        names = await self._asked(lambda _, known, __: known.names)
        if missing := sorted((self._tables or frozenset()) - names):
            raise ConfigInvalid(f"{self._name} has no table {', '.join(map(repr, missing))}")

    async def close(self) -> None:
        """End the queries that run; later ones are refused."""
        self._closed = True
        for stop in tuple(self._stops):
            stop.set()

    async def _run(self, query: str, parameters: Sequence[Any], *, write: bool) -> QueryResult:
        from loom.agent.sqlite.run import run  # noqa: PLC0415 - sqlite3 is needed here first

        values = _values(parameters)
        place, clock = self._place(), self._clock
        return await self._apart(lambda stop: run(place, clock, stop, query, values, write=write))

    async def _asked(self, question: Question[T]) -> T:
        from loom.agent.sqlite.run import ask  # noqa: PLC0415 - sqlite3 is needed here first

        place, clock = self._place(), self._clock
        return await self._apart(lambda stop: ask(place, clock, stop, question))

    async def _apart(self, work: Callable[[Stop], T]) -> T:
        if self._closed:
            raise RuntimeError(f"the backend {self._name!r} is closed")
        limit_s = self._bounds.timeout_s
        return await apart(work, stops=self._stops, name="loom-sqlite", limit_s=limit_s)

    def _place(self) -> Place:
        from loom.agent.sqlite.run import Place  # noqa: PLC0415 - sqlite3 is needed here first

        return Place(path=self._path, name=self._name, tables=self._tables, bounds=self._bounds)


def _database(path: str | os.PathLike[str], *, read_only: bool) -> Path:
    """The path of a file that may be a database; what is in it is seen by the first query."""
    given = os.fspath(path)
    if given in ("", ":memory:"):
        raise ConfigInvalid(f"{given!r} is no file: name a SQLite file")
    if "\x00" in given:
        raise ConfigInvalid("the path of the SQLite file has a null character in it")
    file = Path(given).absolute()
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigInvalid(f"{given!r} is not a file: name a SQLite file")
        with file.open("rb") as opened:
            head = opened.read(len(_MAGIC))
    except FileNotFoundError:
        if read_only or not file.parent.is_dir():
            raise ConfigInvalid(f"there is no file {given!r}: name a SQLite file") from None
        return file
    except OSError as error:
        raise ConfigInvalid(f"{given!r} cannot be read: {error.strerror}") from None
    if head not in (b"", _MAGIC):
        raise ConfigInvalid(f"{given!r} is not a SQLite database")
    return file


def _table_names(tables: Iterable[str] | None) -> frozenset[str] | None:
    if tables is None:
        return None
    if isinstance(tables, str):
        raise ConfigInvalid(f"tables is one text: write ({tables!r},)")
    return frozenset(table.lower() for table in tables)


def _values(parameters: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(parameters, str | bytes | Mapping):
        raise ToolFailed("parameters must be a list: one value for each ? of the query")
    for value in parameters:
        if value is not None and not isinstance(value, str | int | float | bytes):
            raise ToolFailed(
                f"a parameter is a {type(value).__name__}: only texts, numbers, true, false and"
                " null can be given"
            )
    return tuple(parameters)
