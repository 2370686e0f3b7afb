"""Sessions in memory: as long as the process runs."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from loom.agent.session import Entry, SessionInfo, SessionStore, check_session_id
from loom.agent.session_entry import decode_entry, encode_entries
from loom.agent.session_sums import (
    check_expected,
    check_page,
    said_in,
    summed,
    words_of,
)
from loom.core.ambient import Clock, SystemClock

__all__ = ["MemorySessions"]


class _Kept:
    """A session: its entries as they were encoded, what was said in them, its sums."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.said: list[str] = []
        self.info: SessionInfo | None = None


class MemorySessions(SessionStore):
    """
    Sessions that end with the process; any thread and any event loop may use them.

    What a method takes, gives and raises stands in `SessionStore`.

    Args:
        clock: Dates the entries.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        # In the order of their last entries.
        self._sessions: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._closed = False

    async def append(self, session: str, entries: Sequence[Entry], *, expected: int) -> int:
        """Add entries, all or none; the first ones make the session."""
        check_session_id(session)
        encoded = encode_entries(entries)
        said = [text for entry in entries if (text := said_in(entry))]
        with self._lock:
            self._check_open()
            kept = self._sessions.get(session) or _Kept()
            check_expected(session, expected, len(kept.entries))
            if encoded:
                kept.info = summed(kept.info, session, entries, self._clock.now())
                kept.entries += encoded
                kept.said += said
                self._sessions.pop(session, None)
                self._sessions[session] = kept
            return len(kept.entries)

    async def read(self, session: str) -> tuple[Entry, ...]:
        """All entries; () for a session that is not there."""
        check_session_id(session)
        with self._lock:
            self._check_open()
            kept = self._sessions.get(session)
            entries = tuple(kept.entries) if kept else ()
        return tuple(
            decode_entry(data, f"entry {place} of the session {session!r}")
            for place, data in enumerate(entries)
        )

    async def info(self, session: str) -> SessionInfo | None:
        """What is known of a session without reading it."""
        check_session_id(session)
        with self._lock:
            self._check_open()
            kept = self._sessions.get(session)
            return kept.info if kept else None

    async def list(
        self, *, search: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[SessionInfo, ...]:
        """A page of sessions, the one with the newest entry first."""
        check_page(limit, offset)
        words = words_of(search)
        with self._lock:
            self._check_open()
            found = [
                kept.info
                for kept in reversed(self._sessions.values())
                if kept.info is not None
                and all(any(word in text for text in kept.said) for word in words)
            ]
        return tuple(found[offset : offset + limit])

    async def delete(self, session: str) -> bool:
        """Remove a session with every trace of what was said."""
        check_session_id(session)
        with self._lock:
            self._check_open()
            return self._sessions.pop(session, None) is not None

    async def aclose(self) -> None:
        """Forget everything."""
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the session store is closed")
