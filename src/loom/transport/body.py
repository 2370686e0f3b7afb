"""The body of a reply: taken piece by piece, inflated and weighed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from loom.core.errors import ReplyTooLarge
from loom.transport.inflate import Inflater

__all__ = ["Body"]


class Body(AsyncIterator[bytes]):
    """
    An iterator over a body.

    It is no generator: one that is left half-read would have to be closed by the event loop.

    Args:
        take: Gives the next bytes from the wire; empty at the end.
        inflater: If the body is compressed.
        limit_bytes: What it may weigh, inflated; None for any weight.
        where: Host and port, for errors.
        provider: Who was asked, for errors.
    """

    def __init__(
        self,
        take: Callable[[], Awaitable[bytes]],
        inflater: Inflater | None,
        limit_bytes: int | None,
        *,
        where: str,
        provider: str | None,
    ) -> None:
        self._take = take
        self._inflater = inflater
        self._limit_bytes = limit_bytes
        self._where = where
        self._provider = provider
        self._weight = 0
        self._inflated: Iterator[bytes] = iter(())

    async def __anext__(self) -> bytes:
        """Give the next piece."""
        if self._inflater is None:
            piece = await self._take()
        else:
            piece = await self._inflate(self._inflater)
        if not piece:
            raise StopAsyncIteration
        self._weight += len(piece)
        self.check(self._weight)
        return piece

    def check(self, weight: int) -> None:
        """
        Look whether so many bytes are allowed.

        Args:
            weight: How many there are.

        Raises:
            ReplyTooLarge: If they are too many.
        """
        if self._limit_bytes is not None and weight > self._limit_bytes:
            raise ReplyTooLarge(
                f"The body from {self._where} has more than {self._limit_bytes} bytes.",
                provider=self._provider,
                uncertain=True,
            )

    async def _inflate(self, inflater: Inflater) -> bytes:
        while True:
            for piece in self._inflated:
                return piece
            data = await self._take()
            if not data:
                inflater.finish()
                return b""
            self._inflated = inflater.feed(data)
