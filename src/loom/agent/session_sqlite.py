"""
Sessions in one SQLite file that many processes share.

Laws: an append returns when its entries, and the sums with them, are on the disk; entries are
never changed; every store has one thread, so what was asked first is done first, and the event
loop's thread never touches the disk. The file is locked for the moment of a commit only.

The search is SQLite's `instr` over folded text. FTS5 is not in every build, does not find a part
of a word, and keeps deleted words in its index until it is merged.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from loom.agent.session import Entry, SessionInfo, SessionStore, check_session_id
from loom.agent.session_entry import decode_entry, encode_entries, kind_of
from loom.agent.session_file import SessionFile, Worker
from loom.agent.session_sums import check_expected, check_page, said_in, summed, words_of
from loom.core.ambient import Clock, SystemClock
from loom.core.errors import ConfigInvalid
from loom.ledger.ids import micros
from loom.ledger.money import ZERO
from loom.ledger.sqlite.file import Connect, plain_connect, transaction
from loom.ledger.sqlite.rows import amount_of, moment
from loom.ledger.sqlite.trouble import DamagedRow

__all__ = ["SQLiteSessions"]

T = TypeVar("T")

_INFO = (
    "id, title, created, updated, entries, turns, input_tokens, output_tokens, cost_usd, unpriced"
)
_SAVE = (
    "INSERT INTO sessions (id, title, created, updated, entries, turns, input_tokens,"
    " output_tokens, cost_usd, unpriced, touched) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
    " 1 + (SELECT coalesce(max(touched), 0) FROM sessions))"
    " ON CONFLICT (id) DO UPDATE SET title = excluded.title, updated = excluded.updated,"
    " entries = excluded.entries, turns = excluded.turns, input_tokens = excluded.input_tokens,"
    " output_tokens = excluded.output_tokens, cost_usd = excluded.cost_usd,"
    " unpriced = excluded.unpriced, touched = excluded.touched"
)
_FOUND = (
    "EXISTS (SELECT 1 FROM entries WHERE entries.session = sessions.number"
    " AND instr(entries.said, ?))"
)


class SQLiteSessions(SessionStore):
    """
    Durable sessions: what was acknowledged is there after a crash, a kill or a power cut.

    Nothing is opened before the first call, and nothing is made before the first entry. Any number
    of processes, threads and event loops may use one file; a child after a fork opens its own.
    What a method takes, gives and raises stands in `SessionStore`.

    Args:
        path: The file; it is made for its owner's eyes only.
        clock: Dates the entries.
        patience_s: How long to wait for another program's lock, in seconds.
        connect: How the file is opened, for a test.

    Raises:
        ConfigInvalid: If no file can have such a path.
    """

    def __init__(
        self,
        path: str | Path,
        clock: Clock | None = None,
        *,
        patience_s: float = 10.0,
        connect: Connect = plain_connect,
    ) -> None:
        if not str(path) or "\0" in str(path):
            raise ConfigInvalid(f"{str(path)!r} cannot be the file of a session store", attempts=0)
        # Also when the program changes its folder meanwhile, and not SQLite's ":memory:".
        self._path = Path(path).absolute()
        self._clock = clock or SystemClock()
        self._patience_s = patience_s
        self._connect = connect
        self._closed = False
        # By process: a child after a fork has neither the parent's thread nor its file.
        self._workers: dict[int, Worker] = {}

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    async def append(self, session: str, entries: Sequence[Entry], *, expected: int) -> int:
        """Add entries, all or none; they are on the disk when this returns."""
        check_session_id(session)
        listed = tuple(entries)
        encoded = encode_entries(listed)

        def work(file: SessionFile) -> int:
            return self._append(file, session, listed, encoded, expected)

        return await self._answer(work)

    async def read(self, session: str) -> tuple[Entry, ...]:
        """All entries; () for a session that is not there."""
        check_session_id(session)

        def work(file: SessionFile) -> tuple[Entry, ...]:
            return () if file.missing else _read(file, session)

        return await self._answer(work)

    async def info(self, session: str) -> SessionInfo | None:
        """What is known of a session without reading it."""
        check_session_id(session)

        def work(file: SessionFile) -> SessionInfo | None:
            return None if file.missing else _info(file.connection, session)

        return await self._answer(work)

    async def list(
        self, *, search: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[SessionInfo, ...]:
        """A page of sessions, the one with the newest entry first."""
        check_page(limit, offset)
        words = words_of(search)
        where = " AND ".join([_FOUND] * len(words)) or "true"
        # Every word of the statement is our own; what is a caller's travels as a parameter.
        order = (
            f"SELECT {_INFO} FROM sessions WHERE {where}"  # noqa: S608 - our own columns
            " ORDER BY touched DESC LIMIT ? OFFSET ?"
        )

        def work(file: SessionFile) -> tuple[SessionInfo, ...]:
            if file.missing:
                return ()
            rows = file.connection.execute(order, (*words, limit, offset))
            return tuple(_info_of(row) for row in rows)

        return await self._answer(work)

    async def delete(self, session: str) -> bool:
        """
        Remove a session with every trace of what was said.

        What was deleted is overwritten in the file, and the log beside it is emptied.
        """
        check_session_id(session)

        def work(file: SessionFile) -> bool:
            if file.missing:
                return False
            there = _delete(file.connection, session)
            if there:
                file.wipe()
            return there

        return await self._answer(work)

    async def aclose(self) -> None:
        """Finish what was begun, and close the file."""
        self._closed = True
        worker = self._workers.pop(os.getpid(), None)
        if worker is not None:
            await worker.aclose()

    async def _answer(self, work: Callable[[SessionFile], T]) -> T:
        if self._closed:
            raise RuntimeError("the session store is closed")
        worker = self._workers.get(os.getpid())
        if worker is None:
            new = Worker(SessionFile(self._path, self._patience_s, self._connect))
            worker = self._workers.setdefault(os.getpid(), new)
        # Who is cancelled takes out what has not begun; what has is done whole.
        return await asyncio.wrap_future(worker.do(work))

    def _append(
        self,
        file: SessionFile,
        session: str,
        entries: Sequence[Entry],
        encoded: Sequence[bytes],
        expected: int,
    ) -> int:
        if file.missing and not encoded:
            check_expected(session, expected, 0)
            return 0
        with transaction(file.connection) as connection:
            info = _info(connection, session)
            count = 0 if info is None else info.entries
            check_expected(session, expected, count)
            if not encoded:
                return count
            told = summed(info, session, entries, self._clock.now())
            connection.execute(_SAVE, _row_of(told))
            number = _number(connection, session)
            connection.executemany(
                "INSERT INTO entries (session, position, kind, body, said) VALUES (?, ?, ?, ?, ?)",
                (
                    (number, place, kind_of(body), body, said_in(entry))
                    for place, (entry, body) in enumerate(zip(entries, encoded, strict=True), count)
                ),
            )
        file.wipe_again()
        return told.entries


def _read(file: SessionFile, session: str) -> tuple[Entry, ...]:
    rows = file.connection.execute(
        "SELECT sessions.entries, entries.position, entries.body FROM sessions"
        " JOIN entries ON entries.session = sessions.number WHERE sessions.id = ?"
        " ORDER BY entries.position",
        (session,),
    ).fetchall()
    if [position for _, position, _ in rows] != list(range(rows[0][0] if rows else 0)):
        raise DamagedRow(f"entries of the session {session!r} are missing")
    return tuple(
        decode_entry(body, f"entry {position} of the session {session!r} in {file.path}")
        for _, position, body in rows
    )


def _info(connection: sqlite3.Connection, session: str) -> SessionInfo | None:
    row = connection.execute(
        f"SELECT {_INFO} FROM sessions WHERE id = ?",  # noqa: S608 - our own columns
        (session,),
    ).fetchone()
    return None if row is None else _info_of(row)


def _delete(connection: sqlite3.Connection, session: str) -> bool:
    with transaction(connection):
        number = _number(connection, session)
        if number is None:
            return False
        connection.execute("DELETE FROM entries WHERE session = ?", (number,))
        connection.execute("DELETE FROM sessions WHERE number = ?", (number,))
    return True


def _number(connection: sqlite3.Connection, session: str) -> int | None:
    found = connection.execute("SELECT number FROM sessions WHERE id = ?", (session,)).fetchone()
    return None if found is None else int(found[0])


def _row_of(info: SessionInfo) -> tuple[Any, ...]:
    return (
        info.id,
        info.title,
        micros(info.created_at),
        micros(info.updated_at),
        info.entries,
        info.turns,
        info.input_tokens,
        info.output_tokens,
        str(info.cost_usd),
        info.unpriced_calls,
    )


def _info_of(row: tuple[Any, ...]) -> SessionInfo:
    session, title, created, updated, entries, turns, read, wrote, cost, unpriced = row
    try:
        return SessionInfo(
            id=session,
            title=title,
            created_at=moment(created),
            updated_at=moment(updated),
            entries=entries,
            turns=turns,
            input_tokens=read,
            output_tokens=wrote,
            cost_usd=amount_of(cost) or ZERO,
            unpriced_calls=unpriced,
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise DamagedRow(f"the sums of the session {session!r} cannot be read: {error}") from error
