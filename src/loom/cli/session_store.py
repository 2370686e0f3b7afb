"""Where the command line keeps conversations, and which one is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.exceptions import UsageError

from loom.agent.session import SessionStore, check_session_id, new_session_id
from loom.agent.session_open import open_sessions
from loom.config.folders import data_folder
from loom.core.ambient import SystemDice

__all__ = ["fresh_session", "session_of", "sessions_path", "stored"]


def sessions_path() -> Path:
    """The sessions of the command line: `sessions.db` in the data folder."""
    return data_folder() / "sessions.db"


@contextmanager
def stored(runner: asyncio.Runner, where: str | Path | None) -> Iterator[SessionStore]:
    """
    Open a store of sessions, and close it.

    Args:
        runner: The event loop.
        where: As `open_sessions` takes it; None: the command line's own.

    Yields:
        The store.

    Raises:
        ConfigInvalid: If there is no such kind of store.
    """
    store = open_sessions(sessions_path() if where is None else where)
    try:
        yield store
    finally:
        runner.run(store.aclose())


async def session_of(store: SessionStore, named: str | None, *, go_on: bool = False) -> str:
    """
    Which session is meant.

    Args:
        store: Where they are kept.
        named: By its name; None: none is named.
        go_on: Whether the newest one is meant.

    Returns:
        Its id; a new one when nothing was said.

    Raises:
        UsageError: If both are meant, or there is none to go on with.
        InvalidRequest: If the name cannot be one.
    """
    if not go_on:
        if named is not None:
            check_session_id(named)
        return named or fresh_session()
    if named is not None:
        raise UsageError("--continue takes the newest conversation: leave out --session")
    newest = await store.list(limit=1)
    if not newest:
        raise UsageError("there is no conversation to go on with: --session NAME begins one")
    return newest[0].id


def fresh_session() -> str:
    """An id that no session has."""
    return new_session_id(SystemDice())
