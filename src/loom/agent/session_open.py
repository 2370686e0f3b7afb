"""Which store of sessions a setting means."""

from __future__ import annotations

from pathlib import Path

from loom.agent.session import SessionStore
from loom.agent.session_memory import MemorySessions
from loom.core.ambient import Clock
from loom.core.errors import ConfigInvalid

__all__ = ["open_sessions"]

_SQLITE = "sqlite:///"


def open_sessions(where: str | Path | SessionStore, clock: Clock | None = None) -> SessionStore:
    """
    Make the store that a setting names; nothing is opened yet.

    Args:
        where: "sqlite:///sessions.db" (with four slashes for a path from the root), a path,
            "memory:", or a store, which is given back.
        clock: Dates the entries.

    Returns:
        The store.

    Raises:
        ConfigInvalid: If there is no such kind of store.
    """
    if not isinstance(where, str | Path):
        return where
    if where == "memory:":
        return MemorySessions(clock)
    text = str(where)
    path = text.removeprefix(_SQLITE)
    scheme = text.partition("://")[0] if "://" in path else ""
    if scheme or not path or path == ":memory:":
        raise ConfigInvalid(
            f"a session store is 'sqlite:///FILE', a path or 'memory:', not {text!r}",
            attempts=0,
        )
    from loom.agent.session_sqlite import SQLiteSessions  # noqa: PLC0415 - sqlite3 costs 5 ms

    return SQLiteSessions(path, clock)
