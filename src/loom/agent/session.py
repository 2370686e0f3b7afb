"""
What a session is: an append-only list of entries, and the protocol that every store keeps.

    count = await store.append("ann-1", [Said(message=Message.user("Hello"))], expected=0)
    entries = await store.read("ann-1")

Nothing is changed and nothing is taken out: what no longer counts is said by a later entry.
`agent/history.py` tells what of it a model is to read; `loom.testing.session_store_contract` puts
a store to the laws.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol, TypeAlias

import msgspec

from loom.core.ambient import Dice
from loom.core.errors import InvalidRequest
from loom.core.messages import Message
from loom.core.response import Usage

__all__ = [
    "Begun",
    "Condensed",
    "Entry",
    "Said",
    "SessionInfo",
    "SessionStore",
    "Withdrawn",
    "check_session_id",
    "new_session_id",
]

_LONGEST_ID = 200

# Without i, l, o and u: nobody takes one letter for another, and no words come up.
# Source: Douglas Crockford, "Base 32".
_LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
# Of five bits each: two of 10**12 sessions have the same id with a chance below 10**-6.
_NEW_ID = 20


class Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="said"):
    """
    A turn of the conversation.

    Attributes:
        message: What was said, by whom.
        model: Which model said it; None for people and tools.
        usage: Tokens and money of the call that made an assistant's turn; None otherwise.
    """

    message: Message
    model: str | None = None
    usage: Usage | None = None


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="begun"):
    """
    A tool began to run: without a result after it, nobody knows whether it was done.

    Attributes:
        call_id: The call's id.
        name: Which tool.
        position: Index of the call in its assistant turn, from 0 (ids may repeat in one turn).
    """

    call_id: str
    name: str
    position: int


class Condensed(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="condensed"):
    """
    A beginning is told by a summary from here on.

    Attributes:
        until: Entries before this index are told by the summary.
        summary: What the model reads in their place.
        model: Which model wrote it; None when nobody says.
        usage: Tokens and money of the call that wrote it; None when there was none.
    """

    until: int
    summary: str
    model: str | None = None
    usage: Usage | None = None


class Withdrawn(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="withdrawn"):
    """
    Entries no longer count for the model; people still read them, and their cost stays.

    Attributes:
        since: Entries from this index up to here.
    """

    since: int


Entry: TypeAlias = Said | Begun | Condensed | Withdrawn
"""One thing that happened in a session."""


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a session without reading it.

    Attributes:
        id: The session's id.
        title: The first words of the first user's turn that has any; without control characters.
        created_at: When its first entry came, UTC.
        updated_at: When its last entry came, UTC.
        entries: How many entries it has.
        turns: Turns of the user.
        input_tokens: Prompt tokens of all its calls.
        output_tokens: Answer tokens of all its calls.
        cost_usd: US dollars of all calls whose price is known.
        unpriced_calls: Calls whose price is not known: the bill will be more than `cost_usd`.
    """

    id: str
    title: str
    created_at: datetime
    updated_at: datetime
    entries: int = 0
    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced_calls: int = 0


class SessionStore(Protocol):
    """
    Keeps sessions.

    Every method of a closed store raises `RuntimeError`, but for `aclose`.
    """

    @abstractmethod
    async def append(self, session: str, entries: Sequence[Entry], *, expected: int) -> int:
        """
        Add entries, all or none; the first ones make the session.

        Args:
            session: The session's id, 1 to 200 printable characters.
            entries: What happened, the oldest first.
            expected: How many entries the writer knows.

        Returns:
            How many entries there are now. They are durable when this returns; who is cancelled
            meanwhile finds all of them, or none.

        Raises:
            Conflict: If the session has another number of entries: somebody else wrote to it.
            InvalidRequest: If the id, or an entry, cannot be kept.
            ConfigInvalid: If the place of the store cannot be used.
            SessionUnavailable: If it cannot be used now.
        """

    @abstractmethod
    async def read(self, session: str) -> tuple[Entry, ...]:
        """
        All entries.

        Args:
            session: The session's id.

        Returns:
            The oldest first; () for a session that is not there.

        Raises:
            ConfigInvalid: If a newer version wrote one of them, or the store is damaged.
            SessionUnavailable: If the store cannot be read now.
        """

    @abstractmethod
    async def info(self, session: str) -> SessionInfo | None:
        """
        What is known of a session without reading it.

        Args:
            session: The session's id.

        Returns:
            Its sums; None for a session that is not there.

        Raises:
            ConfigInvalid: If the store is damaged.
            SessionUnavailable: If the store cannot be read now.
        """

    @abstractmethod
    async def list(
        self, *, search: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[SessionInfo, ...]:
        """
        A page of sessions, the one with the newest entry first.

        Args:
            search: Words, in any order and in any case, that user and assistant said; None for
                all sessions.
            limit: At most so many, at least 1.
            offset: Leave out so many, at least 0.

        Returns:
            The page.

        Raises:
            InvalidRequest: If `limit` or `offset` is out of range.
            ConfigInvalid: If the store is damaged.
            SessionUnavailable: If the store cannot be read now.
        """

    @abstractmethod
    async def delete(self, session: str) -> bool:
        """
        Remove a session with every trace of what was said.

        Args:
            session: The session's id.

        Returns:
            Whether it was there.

        Raises:
            ConfigInvalid: If the place of the store cannot be used.
            SessionUnavailable: If it cannot be used now.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Finish what was begun and give everything back."""


def check_session_id(session: str) -> None:
    """
    Refuse an id that no store keeps.

    Args:
        session: The id.

    Raises:
        InvalidRequest: If it is not 1 to 200 printable characters.
    """
    if not isinstance(session, str):
        raise InvalidRequest(f"a session id is a text, not {type(session).__name__}", attempts=0)
    if not 1 <= len(session) <= _LONGEST_ID or not session.isprintable():
        raise InvalidRequest(
            f"the session id {session[:_LONGEST_ID]!r} is not 1 to {_LONGEST_ID} printable"
            " characters",
            hint="Take a name without line feeds and control characters, or new_session_id().",
            attempts=0,
        )


def new_session_id(dice: Dice) -> str:
    """
    An id that no other session has.

    It is no secret: who knows an id is not therefore allowed to read the session.

    Args:
        dice: Chooses it.

    Returns:
        20 digits and small letters, 100 bits.
    """
    return "".join(_LETTERS[int(dice.random() * len(_LETTERS))] for _ in range(_NEW_ID))
