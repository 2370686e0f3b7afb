"""What the floors above ask of a transport: one method, one reply."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from loom.core.request import Timeouts
from loom.core.secret import Secret

__all__ = ["HttpReply", "HttpRequest", "SizeLimits", "Transport"]


class SizeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a reply may weigh.

    Attributes:
        body_bytes: A whole body after inflating; a stream has no such limit.
        inflate_ratio: Inflated bytes for each byte on the wire, once a body passed 1 MiB.
        drain_bytes: What may be read and thrown away so that a socket can be used again.
    """

    body_bytes: int = 64 * 1024 * 1024
    inflate_ratio: int = 100
    drain_bytes: int = 16 * 1024


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request.

    Attributes:
        method: "POST", "GET", ...
        url: Absolute.
        headers: Names in lower case; a `Secret` is revealed only on the socket.
        body: As it is sent; empty for none.
        timeouts: Limits by phase, in seconds.
        deadline_s: On the loop's clock (`loop.time()`): when `timeouts.total_s` runs out.
            None: the transport counts from `open`.
        stream: Whether the reply is read as it comes (no body limit, no inflating).
    """

    method: str = "POST"
    url: str
    headers: Mapping[str, str | Secret] = {}
    body: bytes = b""
    timeouts: Timeouts = Timeouts()
    deadline_s: float | None = None
    stream: bool = False

    def __repr__(self) -> str:
        """Where it goes and its size; never what is sent."""
        return f"HttpRequest({self.method} {self.url}, body={len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [("method", self.method), ("url", self.url), ("body", f"{len(self.body)} bytes")]


class HttpReply(Protocol):
    """A reply whose headers have arrived."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of several headers with one name, the values joined by ", "."""

    attempts: int = 1
    """How often the request was sent: 2 when a kept socket turned out to be closed."""

    @abstractmethod
    def chunks(self) -> AsyncIterator[bytes]:
        """
        The body piece by piece, as it arrives, inflated.

        Raises:
            TimedOut: `phase` "idle": nothing came for `timeouts.idle_s`; "total": too late.
            Unreachable: `phase` "reset": the connection broke.
            MalformedReply: The framing or the compression is broken.
            ReplyTooLarge: A limit of `SizeLimits` was passed.
        """

    @abstractmethod
    async def read(self) -> bytes:
        """
        The whole body, inflated.

        Raises:
            LoomError: As `chunks`.
        """


class Transport(Protocol):
    """The only door to a vendor."""

    @abstractmethod
    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpReply]:
        """
        Send a request and wait for the reply's headers.

        Leaving the context gives the socket back: for reuse when the body was read to its end
        (or what is left is at hand and small), else it is closed at once.

        Args:
            request: What to send.

        Returns:
            A context manager that gives the reply.

        Raises:
            PoolTimeout: No slot within `timeouts.pool_s`.
            TimedOut: `phase` "connect", "write", "first_byte" or "total".
            Unreachable: `phase` "dns", "proxy", "connect", "reset".
            TLSFailed: The certificate was refused.
            MalformedReply: What came is not HTTP.
            RuntimeError: After `aclose`.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close every socket; safe to call twice, from any loop, and after its loop ended."""
