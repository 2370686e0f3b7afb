"""
The file of keys: its form, and how a process opens it for a moment.

It is one file without a log beside it, so that a copy of it is whole; it is written a few times a
day, and each commit reaches the disk before it is acknowledged: a revoked key stays revoked. What
may not happen is forbidden in the file itself: no key is deleted, comes back or changes its
secret, and what the audit says stays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loom.agent.session_trouble import in_trouble, trouble_error
from loom.core.errors import KeysUnavailable, LoomError
from loom.ledger.sqlite.file import Connect, plain_connect, touch, transaction

__all__ = ["BUSY_S", "open_reader", "opened", "trouble_of_keys"]

BUSY_S = 5.0
"""How long a process waits for another one's lock, in seconds: commits take milliseconds."""

_NAMED = "the file of keys"
_APPLICATION_ID = 0x4C4F4F4B  # "LOOK": tells the file from a ledger, sessions and other programs
_VERSION = 1
_OTHERS_MAY = 0o077

_SCHEMA = (
    """
    CREATE TABLE keys (
        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
        hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32), terms TEXT NOT NULL,
        created INTEGER NOT NULL, revoked INTEGER
    )
    """,
    "CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked IS NULL",
    """
    CREATE TABLE audit (
        number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, actor TEXT NOT NULL,
        action TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL, hash BLOB NOT NULL,
        change TEXT NOT NULL
    )
    """,
    """
    CREATE TRIGGER keys_stay BEFORE DELETE ON keys
    BEGIN SELECT RAISE(ABORT, 'a key is never deleted'); END
    """,
    """
    CREATE TRIGGER keys_same BEFORE UPDATE OF number, id, name, hash, created ON keys
    BEGIN SELECT RAISE(ABORT, 'a key stays the same'); END
    """,
    """
    CREATE TRIGGER keys_gone BEFORE UPDATE ON keys WHEN OLD.revoked IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a revoked key is never changed'); END
    """,
    """
    CREATE TRIGGER audit_same BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is never changed'); END
    """,
    """
    CREATE TRIGGER audit_stays BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit is never shortened'); END
    """,
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


@contextmanager
def opened(
    path: Path, *, connect: Connect = plain_connect, busy_s: float = BUSY_S
) -> Iterator[sqlite3.Connection]:
    """
    The file for the length of a change; it is made where there is none.

    Args:
        path: The file.
        connect: How it is opened.
        busy_s: How long to wait for another process, in seconds.

    Yields:
        A connection in a transaction that holds the lock for writing.

    Raises:
        ConfigInvalid: If the file cannot be used.
        KeysUnavailable: If it cannot be used now.
    """
    try:
        touch(path)
        # An older copy, or somebody's `umask`: who may write the file may let anyone in.
        if path.stat().st_mode & _OTHERS_MAY:
            path.chmod(0o600)
        connection = connect(path, busy_s)
        try:
            _check(connection, path)
            # EXTRA: a power cut after the acknowledgement brings nothing back.
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("PRAGMA fullfsync = ON")
            with transaction(connection):
                if connection.execute("PRAGMA user_version").fetchone() == (0,):
                    for statement in _SCHEMA:
                        connection.execute(statement)
                yield connection
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise trouble_of_keys(path, error) from error


def open_reader(
    path: Path, *, connect: Connect = plain_connect, busy_s: float = BUSY_S
) -> sqlite3.Connection | None:
    """
    Open a file that is there, to read.

    Args:
        path: The file.
        connect: How it is opened.
        busy_s: How long to wait for another process, in seconds.

    Returns:
        A connection that refuses to write; None if there is no file, or nothing in it yet.

    Raises:
        ConfigInvalid: If the file cannot be used.
        KeysUnavailable: If it cannot be used now.
    """
    try:
        if not path.exists():
            return None
        connection = connect(path, busy_s)
        try:
            made = _check(connection, path)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        raise trouble_of_keys(path, error) from error
    if made:
        return connection
    connection.close()
    return None


def trouble_of_keys(path: Path, error: Exception) -> LoomError:
    """
    The error that a caller gets for one of SQLite or of the machine.

    Args:
        path: The file of keys.
        error: What was said.

    Returns:
        `KeysUnavailable` for what passes, `ConfigInvalid` for what somebody must correct.
    """
    return in_trouble(path, error, named=_NAMED, passing=KeysUnavailable)


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Refuse what is no file of keys; say whether it is made already."""
    # Tables first: a file that another process makes meanwhile has its id when it has tables.
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if tables and application != _APPLICATION_ID:
        raise trouble_error(path, "foreign", named=_NAMED, passing=KeysUnavailable)
    if version > _VERSION:
        raise trouble_error(path, "newer", named=_NAMED, passing=KeysUnavailable)
    return bool(version)
