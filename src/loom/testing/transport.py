"""A transport without a network: recorded bytes in, requests kept, opens and closes counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Self, TypeAlias

import msgspec

from loom.testing.turns import turn
from loom.transport.contract import HttpReply, HttpRequest, Transport

__all__ = ["FakeReply", "FakeTransport", "Replies"]


class FakeReply(msgspec.Struct, frozen=True, kw_only=True):
    """
    A reply to give.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case.
        chunks: The body piece by piece; an exception among them is raised at its place.
    """

    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})
    chunks: Sequence[bytes | Exception] = ()

    @classmethod
    def of(cls, body: bytes, *, status: int = 200) -> FakeReply:
        """
        A plain JSON reply in one piece.

        Args:
            body: As it comes.
            status: The HTTP status.

        Returns:
            The reply.
        """
        return cls(status=status, chunks=(body,))

    @classmethod
    def sse(cls, *chunks: bytes | Exception) -> FakeReply:
        """
        A stream of server-sent events.

        Args:
            chunks: The body, cut as you like; an exception is raised at its place.

        Returns:
            The reply.
        """
        return cls(headers={"content-type": "text/event-stream"}, chunks=chunks)


Replies: TypeAlias = Callable[[HttpRequest], FakeReply | Exception]


class FakeTransport(Transport):
    """
    A transport that answers from what it was given.

    It suspends where a real one waits: before the headers, before each piece, and once while it is
    left, after the socket was given back. So a cancellation can come at each of these.

    Attributes:
        requests: What was sent, in order.
        opened: How many replies were opened.
        closed: How many of them were left again.
        shut: Whether `aclose` was called.

    Args:
        replies: What to answer, one after the other, the last again and again; a `FakeReply`, or
            an exception that is raised instead of the headers.
        answer: Answers instead of `replies`, from the request.
    """

    def __init__(self, *replies: FakeReply | Exception, answer: Replies | None = None) -> None:
        if bool(replies) == (answer is not None):
            raise TypeError("give either replies or answer=")
        self.requests: list[HttpRequest] = []
        self.opened = 0
        self.closed = 0
        self.shut = False
        self._replies = list(replies)
        self._answer = answer

    @property
    def in_use(self) -> int:
        """Sockets that are held now."""
        return self.opened - self.closed

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpReply]:
        """Answer as told."""
        return self._open(request)

    async def aclose(self) -> None:
        """Refuse further requests."""
        self.shut = True

    @asynccontextmanager
    async def _open(self, request: HttpRequest) -> AsyncGenerator[HttpReply, None]:
        if self.shut:
            raise RuntimeError("the transport is closed")
        self.requests.append(request)
        self.opened += 1
        try:
            await turn()
            reply = self._next(request)
            if isinstance(reply, Exception):
                raise reply
            yield _Reply(reply)
        finally:
            self.closed += 1
            await turn()

    def _next(self, request: HttpRequest) -> FakeReply | Exception:
        if self._answer is not None:
            return self._answer(request)
        return self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]


class _Reply(HttpReply):
    def __init__(self, reply: FakeReply) -> None:
        self.status = reply.status
        self.headers = reply.headers
        self._pieces = iter(reply.chunks)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        await turn()
        piece = next(self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        if isinstance(piece, Exception):
            raise piece
        return piece

    # An iterator and no generator: who leaves a body early need not close it (contract.py).
    def chunks(self) -> AsyncIterator[bytes]:
        """The pieces that are left."""
        return self

    async def read(self) -> bytes:
        """What is left, as one."""
        return b"".join([piece async for piece in self])
