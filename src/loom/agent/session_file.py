"""The file of sessions, and the one thread of a store that opens and uses it."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from loom.agent.session_trouble import in_trouble, trouble_error
from loom.core.errors import InvalidRequest
from loom.ledger.sqlite.file import Connect, closed_on_failure, sync_commits, touch, transaction

__all__ = ["SessionFile", "Worker"]

T = TypeVar("T")

_LOG = logging.getLogger("loom.sessions")

_APPLICATION_ID = 0x4C4F4F53  # "LOOS": tells the file from another program's, and from a ledger
_VERSION = 1

# `touched` orders sessions by their last entries: two may have the same time, and clocks jump.
_SCHEMA = (
    """
    CREATE TABLE sessions (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
        created INTEGER NOT NULL, updated INTEGER NOT NULL, touched INTEGER NOT NULL,
        entries INTEGER NOT NULL, turns INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL, cost_usd TEXT NOT NULL, unpriced INTEGER NOT NULL
    )
    """,
    "CREATE INDEX sessions_touched ON sessions (touched)",
    """
    CREATE TABLE entries (
        session INTEGER NOT NULL, position INTEGER NOT NULL, kind TEXT NOT NULL,
        body BLOB NOT NULL, said TEXT NOT NULL, PRIMARY KEY (session, position)
    )
    """,
    """
    CREATE TRIGGER entries_stay BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'an entry is never changed'); END
    """,
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


# How long a deletion waits for readers.
_WIPE_S = 1.0


class SessionFile:
    """
    The file as the thread of a store sees it.

    Args:
        path: The file.
        patience_s: How long to wait for another program's lock, in seconds.
        connect: How it is opened.
    """

    def __init__(self, path: Path, patience_s: float, connect: Connect) -> None:
        self.path = path
        self._patience_s = patience_s
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._to_wipe = False

    @property
    def missing(self) -> bool:
        """Whether there is no such file: nothing was kept, and nothing is to be made."""
        return not self.path.exists()

    @property
    def connection(self) -> sqlite3.Connection:
        """The open file; it is made where there is none."""
        # Who moved the file away wants to begin anew: nothing may go into the one that is gone.
        if self._connection is not None and self._opened != self._identity():
            self.close()
        if self._connection is None:
            touch(self.path)
            self._connection = _open(self.path, self._connect, self._patience_s)
            self._opened = self._identity()
        return self._connection

    def wipe(self) -> None:
        """
        Empty the log beside the file, in which deleted entries may still stand.

        What another program is reading meanwhile cannot be emptied: `wipe_again` does it later.
        """
        if not self._emptied(min(_WIPE_S, self._patience_s)):
            self._to_wipe = True
            _LOG.warning(
                "Another program reads %s: what was deleted leaves its log with a later write",
                self.path,
            )

    def wipe_again(self) -> None:
        """Empty the log if somebody read it when it was to be emptied; this does not wait."""
        if self._to_wipe:
            self._to_wipe = not self._emptied(0.0)

    def close(self) -> None:
        """Close it; what the next call needs is opened again."""
        if self._connection is None:
            return
        # A file that was moved away leaves its log behind: it takes what is in it along.
        self._emptied(0.0)
        with suppress(sqlite3.Error):
            self._connection.close()
        self._connection = None
        self._to_wipe = False

    def _emptied(self, wait_s: float) -> bool:
        connection = self._connection
        if connection is None:
            return False
        try:
            _wait_for_locks(connection, wait_s)
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error:
            return False
        finally:
            _wait_for_locks(connection, self._patience_s)
        return not busy

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


class Worker:
    """
    The one thread that opens and uses a file.

    It is no daemon: a program that ends without closing its store still writes what is queued.

    Args:
        file: The file.
    """

    def __init__(self, file: SessionFile) -> None:
        self._file = file
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="loom-sessions")
        _LIVE.add(self)

    def do(self, work: Callable[[SessionFile], T]) -> Future[T]:
        """Have something done after what was asked before."""
        return self._pool.submit(self._done, work)

    async def aclose(self) -> None:
        """Close the file after what was asked before; cancelled or not."""
        closed = self._pool.submit(self._file.close)
        self._pool.shutdown(wait=False)
        await asyncio.shield(asyncio.wrap_future(closed))

    def _done(self, work: Callable[[SessionFile], T]) -> T:
        file = self._file
        try:
            return work(file)
        except sqlite3.DataError as error:  # a text or a blob of more than 1 GB
            raise InvalidRequest(f"an entry is too large: {error}", attempts=0) from error
        except (sqlite3.Error, OSError) as error:
            # What is wrong with a connection may be gone with the next one.
            file.close()
            raise in_trouble(file.path, error) from error


_LIVE: weakref.WeakSet[Worker] = weakref.WeakSet()
# Of the parent: a connection of SQLite must not be closed in a child, so it is never let go.
_INHERITED: list[Worker] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _INHERITED.extend(_LIVE))


def _wait_for_locks(connection: sqlite3.Connection, wait_s: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}").fetchone()


def _open(path: Path, connect: Connect, patience_s: float) -> sqlite3.Connection:
    connection = connect(path, patience_s)
    with closed_on_failure(connection):
        version = _recognize(connection, path)
        sync_commits(connection)
        connection.execute("PRAGMA secure_delete = ON").fetchone()
        if version < _VERSION:
            _make(connection)
    return connection


def _recognize(connection: sqlite3.Connection, path: Path) -> int:
    """Give the file's version, before anything in it is changed."""
    # Tables first: a file that another process makes meanwhile has its id when it has tables.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != _APPLICATION_ID:
        raise trouble_error(path, "foreign")
    if version > _VERSION:
        raise trouble_error(path, "newer")
    return int(version)


def _make(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        # Another process may have been faster.
        if connection.execute("PRAGMA user_version").fetchone() == (0,):
            for statement in _SCHEMA:
                connection.execute(statement)
