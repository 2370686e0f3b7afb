"""
The file: its form in each version, who may write it, what a new one is made with.

Version 1 had no prices per second or tier; version 2 can be priced again to the last digit, finds
tags by an index, and remembers sums of rows that were pruned.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from loom.core.errors import LedgerUnavailable
from loom.ledger.sqlite.trouble import trouble_of, unavailable

__all__ = [
    "APPLICATION_ID",
    "VERSION",
    "Connect",
    "closed_on_failure",
    "connect_read_only",
    "lock_for_writing",
    "open_for_writing",
    "plain_connect",
    "sync_commits",
    "touch",
    "transaction",
    "version_of",
]

Connect: TypeAlias = Callable[[Path, float], sqlite3.Connection]
"""Opens a file to write to; the second argument is how long to wait for a lock, in seconds."""

APPLICATION_ID = 0x4C4F4F4D  # "LOOM": tells the file from another program's
VERSION = 2

# Reading it whole takes a tenth of a second; a larger one is checked when somebody asks for it.
_CHECKED_BYTES = 16 << 20

_CALLS = """
CREATE TABLE calls (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, state TEXT NOT NULL, provider TEXT NOT NULL,
    model TEXT NOT NULL, asked_model TEXT NOT NULL, kind TEXT NOT NULL, stream INTEGER NOT NULL,
    key TEXT NOT NULL, client TEXT NOT NULL, session TEXT, tenant TEXT NOT NULL,
    tags TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, audio_tokens INTEGER NOT NULL, price_id TEXT NOT NULL,
    cost_usd TEXT, reserved_usd TEXT, attempts TEXT NOT NULL, latency_s REAL, first_byte_s REAL,
    code TEXT NOT NULL, request_id TEXT
) WITHOUT ROWID;
CREATE INDEX calls_open ON calls (state) WHERE state = 'open';
CREATE INDEX calls_session ON calls (session, id) WHERE session IS NOT NULL;
CREATE INDEX calls_tenant ON calls (tenant, id) WHERE tenant <> '';
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID
"""
_REPRICING = """
ALTER TABLE calls ADD COLUMN audio_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE calls ADD COLUMN service_tier TEXT;
CREATE TABLE tags (
    name TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (name, value, id)
) WITHOUT ROWID;
INSERT OR IGNORE INTO tags (name, value, id)
    SELECT tag.key, tag.value, calls.id FROM calls, json_each(calls.tags) AS tag
    WHERE calls.tags <> '';
CREATE TABLE carried (
    per TEXT NOT NULL, value TEXT NOT NULL, usd TEXT NOT NULL, PRIMARY KEY (per, value)
) WITHOUT ROWID
"""
_MIGRATIONS = {0: _CALLS, 1: _REPRICING}
"""What makes a file of one version one of the next; 0 is a new file."""


class _Writer(msgspec.Struct, frozen=True):
    pid: int
    since: str


def plain_connect(path: Path, busy_s: float) -> sqlite3.Connection:
    """
    Open a file to write to.

    Args:
        path: The file.
        busy_s: How long to wait for a lock, in seconds.

    Returns:
        A connection that begins and ends its transactions only when told to.
    """
    return sqlite3.connect(path, timeout=busy_s, isolation_level=None)


def connect_read_only(path: Path) -> sqlite3.Connection:
    """
    Open a file to read, beside its writer.

    Args:
        path: The file.

    Returns:
        A connection.

    Raises:
        LedgerUnavailable: If the file is not a ledger that this version can read.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    with closed_on_failure(connection):
        _recognize(connection, path)
    return connection


def version_of(path: Path) -> int:
    """
    The version of a file.

    Args:
        path: The file.

    Returns:
        The version; 0 for one that is being made.

    Raises:
        LedgerUnavailable: If the file is not a ledger that this version can read.
    """
    try:
        with closing(connect_read_only(path)) as connection:
            version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise unavailable(path, trouble_of(error), error) from error
    return version


def lock_for_writing(path: Path, wait_s: float = 0.0) -> sqlite3.Connection:
    """
    Become the one process that writes a file; the lock ends with the process, however it ends.

    Args:
        path: The ledger's file.
        wait_s: How long to wait for another process to end, in seconds.

    Returns:
        What holds the lock until it is closed.

    Raises:
        LedgerUnavailable: If another process writes the file.
    """
    beside = path.with_name(f"{path.name}.writer")
    touch(beside)
    # A lock of SQLite's, in a file of its own: it works on every system, ends with a killed
    # process, and a child after a fork does not have it.
    lock = sqlite3.connect(beside, timeout=wait_s, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        lock.close()
        if trouble_of(error) != "locked":
            raise
        raise LedgerUnavailable(
            f"the ledger {path} is written by {_other(path)}",
            hint="One process writes a ledger at a time: give each its own file.",
            attempts=0,
        ) from None
    return lock


def open_for_writing(
    path: Path, connect: Connect, busy_s: float, since: str
) -> tuple[sqlite3.Connection, int]:
    """
    Open a file that this process has locked; make it, or bring it up to this version.

    Args:
        path: The ledger's file.
        connect: How to open it.
        busy_s: How long to wait for a lock of another program, in seconds.
        since: When this writer began.

    Returns:
        A connection in write-ahead mode that syncs each commit, and which writer of the file
        this is, from 1.

    Raises:
        LedgerUnavailable: If the file is damaged, another program's, or a newer version's.
        sqlite3.Error: If it cannot be opened.
        OSError: If it cannot be made.
    """
    touch(path)
    connection = connect(path, busy_s)
    with closed_on_failure(connection):
        _recognize(connection, path)
        if path.stat().st_size <= _CHECKED_BYTES:
            _check(connection, path)
        sync_commits(connection)
        number = _migrate(connection, since)
    return connection, number


def sync_commits(connection: sqlite3.Connection) -> None:
    """
    Have each commit reach the disk before it is acknowledged; readers do not wait for it.

    Args:
        connection: Of a file to write to.

    Raises:
        sqlite3.Error: If the file is locked, or cannot be written.
    """
    # WAL with NORMAL may lose the last commits.
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")


def touch(path: Path) -> None:
    """
    Make a file and its folder for their owner's eyes only; what exists stays as it is.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be made.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


@contextmanager
def closed_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    """
    Close a connection that cannot be made ready.

    Args:
        connection: One that was just opened.
    """
    try:
        yield
    except BaseException:
        # Whatever it was, Ctrl-C too: nobody else has it yet.
        connection.close()
        raise


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """
    Do all or nothing, with the lock for writing from the beginning.

    Args:
        connection: Of the file.

    Yields:
        The same connection.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        # Whatever it was, Ctrl-C too: the lock is not kept.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _recognize(connection: sqlite3.Connection, path: Path) -> None:
    try:
        # Tables first: a file that another process makes meanwhile has its id when it has tables.
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise unavailable(path, trouble_of(error), error) from error
    if tables and application != APPLICATION_ID:
        raise unavailable(path, "foreign")
    if version > VERSION:
        raise unavailable(path, "newer")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        raise unavailable(path, trouble_of(error), error) from error
    if found != "ok":
        raise unavailable(path, "corrupt", sqlite3.DatabaseError(found))


def _migrate(connection: sqlite3.Connection, since: str) -> int:
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for step in range(version, VERSION):
            for statement in _MIGRATIONS[step].split(";"):
                connection.execute(statement)
        if version < VERSION:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        last = connection.execute("SELECT value FROM meta WHERE name = 'writers'").fetchone()
        number = 1 if last is None else int(last[0]) + 1
        writer = msgspec.json.encode(_Writer(os.getpid(), since)).decode()
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('writers', ?)", (str(number),))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('writer', ?)", (writer,))
    return number


def _other(path: Path) -> str:
    """Name the process that writes a file."""
    try:
        with closing(connect_read_only(path)) as connection:
            (told,) = connection.execute("SELECT value FROM meta WHERE name = 'writer'").fetchone()
        writer = msgspec.json.decode(told, type=_Writer)
    except (sqlite3.Error, LedgerUnavailable, msgspec.MsgspecError, TypeError):
        return "another process"
    return f"process {writer.pid} since {writer.since}"
