"""A session as one turn sees it: read at its beginning, and added to as things happen."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Self

from loom.agent.history import OpenCall, messages_of, open_calls
from loom.agent.session import Condensed, Entry, Said, SessionStore, Withdrawn
from loom.core.messages import Message
from loom.core.response import Usage
from loom.ledger.money import total

__all__ = ["Log"]


class Log:
    """
    The entries of a session; what is added is durable before it counts.

    Args:
        store: Where they are kept; None: nowhere.
        session: Which session; None: none.
        entries: What is there already.
    """

    def __init__(
        self, store: SessionStore | None, session: str | None, entries: Iterable[Entry]
    ) -> None:
        self._store = store
        self._session = session
        self._entries = list(entries)
        self._waiting: list[Entry] = []
        # What came before this turn is read once: a turn asks again and again.
        self._mark = 0
        self._before: tuple[Message, ...] = ()
        self.mark(len(self))

    @classmethod
    async def open(cls, store: SessionStore | None, session: str | None) -> Self:
        """
        Read a session.

        Args:
            store: Where it is kept; None: nowhere.
            session: Which one; None: a new one that is not kept.

        Returns:
            Its log; empty when the session is new.

        Raises:
            LoomError: What the store raises.
        """
        if store is None or session is None:
            return cls(None, session, ())
        return cls(store, session, await store.read(session))

    def __len__(self) -> int:
        """How many entries there are, those that wait among them."""
        return len(self._entries) + len(self._waiting)

    @property
    def kept(self) -> int:
        """How many entries are durable."""
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything so far."""
        return (*self._entries, *self._waiting)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What the model is told, oldest first."""
        left = max(0, self._mark - len(self._entries))
        since = [*self._entries[self._mark :], *self._waiting[left:]]
        for entry in since:
            if isinstance(entry, Condensed | Withdrawn):
                return messages_of(self.entries)
        return (*self._before, *messages_of(since))

    @property
    def before(self) -> tuple[Message, ...]:
        """What the model was told before this turn."""
        return self._before

    @property
    def open_calls(self) -> tuple[OpenCall, ...]:
        """Calls that have no result yet."""
        return open_calls(self.entries)

    @property
    def cost_usd(self) -> Decimal:
        """What the session has cost, as far as prices are known."""
        return total(usage.cost_usd for usage in self.usages if usage.cost_usd is not None)

    @property
    def usages(self) -> list[Usage]:
        """What each call of a model used."""
        return [
            entry.usage
            for entry in self.entries
            if isinstance(entry, Said | Condensed) and entry.usage is not None
        ]

    def hold(self, *entries: Entry) -> None:
        """
        Add entries that become durable with the next ones, or not at all.

        What a user says waits for its answer: a turn that fails before it leaves nothing behind.

        Args:
            entries: What to add.
        """
        self._waiting += entries

    async def add(self, *entries: Entry) -> None:
        """
        Add entries; they are durable when this returns.

        Args:
            entries: What to add.

        Raises:
            Conflict: If somebody else added to the session meanwhile.
            LoomError: What the store raises.
        """
        every = (*self._waiting, *entries)
        if self._store is not None and self._session is not None:
            await self._store.append(self._session, every, expected=len(self._entries))
        self._waiting.clear()
        self._entries += every

    def mark(self, at: int) -> int:
        """
        Begin a turn: what was said before it does not change any more.

        Args:
            at: The entry that it begins with.

        Returns:
            The same.
        """
        self._mark = at
        self._before = messages_of(self.entries[:at])
        return at
