"""Any history of writers, readers, deletions and crashes agrees with a plain model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.agent.stories import ENTRIES, answer
from tests.core.talk import MESSAGES

from loom.agent.session import Entry, Said, SessionStore
from loom.agent.session_memory import MemorySessions
from loom.agent.session_sqlite import SQLiteSessions
from loom.core.errors import Conflict
from loom.core.messages import Message
from loom.testing import FakeClock

IDS = st.sampled_from(["a", "b", "%", "\u00e9"])
_WORDS = st.sampled_from(["alpha", "ALPHA beta", "100%", "b_ta", "\u00c9t\u00e9", ""])
SOME: st.SearchStrategy[list[Entry]] = st.lists(
    ENTRIES
    | st.builds(lambda message: Said(message=message), MESSAGES)
    | st.builds(lambda text: Said(message=Message.user(text)), _WORDS)
    | st.builds(
        lambda text, cost: answer(text, cost=cost),
        _WORDS,
        st.sampled_from(["0.1", "0.0000000375", None]),
    ),
    max_size=4,
)


def texts(entries: Sequence[Entry]) -> list[str]:
    """Give what user and assistant said, as plain ASCII words are compared."""
    said = [entry.message for entry in entries if isinstance(entry, Said)]
    return [m.text.lower() for m in said if m.role in ("user", "assistant")]


class SessionMachine(RuleBasedStateMachine):
    """A store, beside a dict of lists whose last key has the newest entry."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.model: dict[str, list[Entry]] = {}
        self.store = self.opened()

    def opened(self) -> SessionStore:
        return MemorySessions(self.clock)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @rule(session=IDS, entries=SOME, wrong=st.sampled_from([0, 0, 0, 1, -1]))
    def append(self, session: str, entries: list[Entry], wrong: int) -> None:
        known = len(self.model.get(session, ()))
        try:
            count = self.run(self.store.append(session, entries, expected=known + wrong))
        except Conflict:
            assert wrong
            return
        assert not wrong
        assert known + len(entries) == count
        if entries:
            self.model[session] = [*self.model.pop(session, []), *entries]

    @rule(session=IDS, entries=SOME)
    def cancelled(self, session: str, entries: list[Entry]) -> None:
        known = self.model.get(session, [])

        async def leave() -> tuple[Entry, ...]:
            append = asyncio.ensure_future(self.store.append(session, entries, expected=len(known)))
            await asyncio.sleep(0)
            append.cancel()
            await asyncio.wait([append])
            return await self.store.read(session)

        found = [*self.run(leave())]
        assert found in (known, [*known, *entries])
        if found and found != known:
            self.model.pop(session, None)
            self.model[session] = found

    @rule(session=IDS)
    def delete(self, session: str) -> None:
        there = self.model.pop(session, None) is not None
        assert there == self.run(self.store.delete(session))

    @rule(session=IDS)
    def read(self, session: str) -> None:
        assert tuple(self.model.get(session, ())) == self.run(self.store.read(session))

    @rule(search=st.sampled_from(["alpha", "beta alpha", "%", "_", "100%"]))
    def search(self, search: str) -> None:
        found = [
            session
            for session, entries in reversed(self.model.items())
            if all(any(word in text for text in texts(entries)) for word in search.split())
        ]
        assert found == [info.id for info in self.run(self.store.list(search=search))]

    @rule(seconds=st.sampled_from([1, 3600]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @invariant()
    def sums_hold(self) -> None:
        infos = self.run(self.store.list())
        assert list(reversed(self.model)) == [info.id for info in infos]
        for info in infos:
            entries = self.model[info.id]
            usages = [usage for entry in entries if (usage := getattr(entry, "usage", None))]
            assert len(entries) == info.entries
            assert info.turns == sum(
                isinstance(entry, Said) and entry.message.role == "user" for entry in entries
            )
            assert sum(usage.input_tokens for usage in usages) == info.input_tokens
            assert sum(usage.output_tokens for usage in usages) == info.output_tokens
            assert sum(u.cost_usd is None for u in usages) == info.unpriced_calls
            assert sum((u.cost_usd or Decimal(0) for u in usages), Decimal(0)) == info.cost_usd
            assert info.title.isprintable()
            assert info.created_at <= info.updated_at

    def teardown(self) -> None:
        try:
            for session, entries in self.model.items():
                assert tuple(entries) == self.run(self.store.read(session))
        finally:
            self.run(self.store.aclose())
            self.runner.close()


class SqliteMachine(SessionMachine):
    """The same with a file, other stores of it, and crashes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.starts = 0
        super().__init__()

    def opened(self) -> SessionStore:
        return SQLiteSessions(self.path(), self.clock)

    def path(self) -> Path:
        return self.folder / f"{self.starts}.db"

    @rule()
    def reopen(self) -> None:
        """Go on with another store of the file, while the old one is still open."""
        old, self.store = self.store, self.opened()
        self.run(self.store.list())
        self.run(old.aclose())

    @rule()
    def crash(self) -> None:
        """Go on with a copy of the files as they lie on the disk at this moment."""
        # What a cancelled append has begun is over when this is.
        self.run(self.store.list())
        crashed, old = self.store, self.path()
        self.starts += 1
        for suffix in ("", "-wal"):
            if Path(f"{old}{suffix}").exists():
                shutil.copyfile(f"{old}{suffix}", f"{self.path()}{suffix}")
        self.run(crashed.aclose())
        self.store = self.opened()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


_FEW = settings(max_examples=25, stateful_step_count=30, suppress_health_check=list(HealthCheck))

TestMemory = SessionMachine.TestCase
TestMemory.settings = settings(_FEW, max_examples=50)
TestSqlite = SqliteMachine.TestCase
TestSqlite.settings = _FEW
