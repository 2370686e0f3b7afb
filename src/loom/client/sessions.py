"""`Sessions`: the conversations of a blocking agent; the portal runs each call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from loom.agent.history import messages_of, settled
from loom.agent.session import Entry, SessionInfo, SessionStore
from loom.agent.session_export import export_session
from loom.client.lease import Lease
from loom.core.errors import InvalidRequest
from loom.core.messages import Message

__all__ = ["Sessions"]

T = TypeVar("T")


class Sessions:
    """
    The conversations of a blocking agent.

    Args:
        store: Where they are kept.
        lease: The agent's share of the portal.
    """

    def __init__(self, store: SessionStore, lease: Lease) -> None:
        self._store = store
        self._lease = lease

    def list(
        self, *, search: str | None = None, limit: int = 50, offset: int = 0
    ) -> tuple[SessionInfo, ...]:
        """
        A page of conversations, the one with the newest entry first.

        Args:
            search: Words that were said; None for all.
            limit: At most so many, at least 1.
            offset: Leave out so many, at least 0.

        Returns:
            The page.

        Raises:
            InvalidRequest: If `limit` or `offset` is out of range.
            LoomError: What the store raises.
        """
        return self._run(lambda: self._store.list(search=search, limit=limit, offset=offset))

    def info(self, session: str) -> SessionInfo | None:
        """
        What is known of a conversation without reading it.

        Args:
            session: Its id.

        Returns:
            Its sums; None for one that is not there.

        Raises:
            LoomError: What the store raises.
        """
        return self._run(lambda: self._store.info(session))

    def read(self, session: str) -> tuple[Entry, ...]:
        """
        Everything that happened in a conversation.

        Args:
            session: Its id.

        Returns:
            The oldest first; () for one that is not there.

        Raises:
            LoomError: What the store raises.
        """
        return self._run(lambda: self._store.read(session))

    def messages(self, session: str) -> tuple[Message, ...]:
        """
        What the model would be told of a conversation: it can be sent as it is.

        Args:
            session: Its id.

        Returns:
            The oldest first; () for one that is not there.

        Raises:
            LoomError: What the store raises.
        """
        entries = self.read(session)
        return (*messages_of(entries), *settled(entries))

    def export(self, session: str, form: Literal["jsonl", "json", "markdown"] = "jsonl") -> str:
        """
        A conversation as a text that can be kept elsewhere.

        Args:
            session: Its id.
            form: Lines of JSON (they can be read back), one JSON value, or Markdown for people.

        Returns:
            The text.

        Raises:
            InvalidRequest: If there is no such conversation.
            LoomError: What the store raises.
        """
        info = self.info(session)
        if info is None:
            raise InvalidRequest(f"there is no session {session!r}")
        return export_session(info, self.read(session), form)

    def delete(self, session: str) -> bool:
        """
        Remove a conversation with every trace of what was said.

        Args:
            session: Its id.

        Returns:
            Whether it was there.

        Raises:
            LoomError: What the store raises.
        """
        return self._run(lambda: self._store.delete(session))

    def _run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return self._lease.portal().call(make)
