"""
Looks whether the file of keys changed since the last look: one thread's, never the event loop's.

A look that finds nothing new reads one page. SQLite's `data_version` counts the commits of others
as this connection sees them, so no commit is missed, however many fall into one tick of a clock.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from loom.ledger.sqlite.file import Connect, plain_connect
from loom.server.gateway.keys import VirtualKey
from loom.server.gateway.keys_file import open_reader, trouble_of_keys
from loom.server.gateway.keys_rows import all_keys

__all__ = ["KeyWatch"]

# A look that waits for a lock is late for the second in which a revocation must be seen.
_BUSY_S = 0.25


class KeyWatch:
    """
    A file of keys, looked at again and again.

    Args:
        path: The file; it may come later, and may be replaced.
        connect: How it is opened.
        busy_s: How long a look waits for another process, in seconds.
    """

    def __init__(
        self, path: Path, *, connect: Connect = plain_connect, busy_s: float = _BUSY_S
    ) -> None:
        self._path = path
        self._connect = connect
        self._busy_s = busy_s
        self._file: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._version: int | None = None
        self._empty = False

    def look(self) -> tuple[VirtualKey, ...] | None:
        """
        Read the keys if they changed since the last look that went well.

        Returns:
            Every key there ever was; none if there is no file; None if nothing changed.

        Raises:
            ConfigInvalid: If the file cannot be used.
            KeysUnavailable: If it cannot be used now.
        """
        try:
            return self._look()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise trouble_of_keys(self._path, error) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go; the next look opens it anew, and reads it."""
        file, self._file = self._file, None
        self._identity, self._version, self._empty = None, None, False
        if file is not None:
            file.close()

    def _look(self) -> tuple[VirtualKey, ...] | None:
        identity = _identity_of(self._path)
        if self._file is None or identity != self._identity:
            return self._looked_anew(identity)
        # Before the rows: what is committed between the two is read twice, and never missed.
        (version,) = self._file.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return None
        keys = all_keys(self._file)
        self._version = version
        return keys

    def _looked_anew(self, identity: tuple[int, int] | None) -> tuple[VirtualKey, ...] | None:
        """Open the file that is there now: it is new, or stands in another one's place."""
        was_empty = self._empty
        self.close()
        file = open_reader(self._path, connect=self._connect, busy_s=self._busy_s)
        if file is None:
            self._empty = True
            return None if was_empty else ()
        self._file, self._identity = file, identity
        (self._version,) = file.execute("PRAGMA data_version").fetchone()
        return all_keys(file)


def _identity_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
