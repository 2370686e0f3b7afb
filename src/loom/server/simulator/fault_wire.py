"""A connection below HTTP: what is written here goes to the socket as it is."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from loom.core.ambient import Clock
from loom.server.line import CallerGone, Receive, Scope, Send
from loom.server.simulator.exchange import Exchange

__all__ = ["Answer", "Wire", "door_protocol", "events_of", "lost_of", "passed", "transport_of"]

_TRANSPORT = "loom.transport"
_LOST = "loom.lost"


class Answer(msgspec.Struct):
    """
    What the application answers, to be read piece by piece.

    Attributes:
        status: The HTTP status.
        headers: Names in lower case, in order.
        pieces: The body: the events of a stream, or a plain body whole.
        streamed: Whether it is a stream of events.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    pieces: AsyncGenerator[bytes, None]
    streamed: bool


class Wire:
    """
    Writes a reply without anybody's help, and so can write what no server would.

    Args:
        scope: ASGI's, from a server that uses `door_protocol`.
        clock: Waits.
        exchange: Where the journal finds what was sent.
    """

    def __init__(self, scope: Scope, clock: Clock, exchange: Exchange) -> None:
        self._transport = transport_of(scope)
        self._lost = lost_of(scope)
        self._clock = clock
        self._exchange = exchange
        # What the application answers the gate takes down itself.
        self.notes = True
        self.shape: Callable[[bytes], AsyncGenerator[bytes, None]] | None = None
        self.close_late_s = 0.0
        self._chunked = False

    async def raw(self, data: bytes) -> None:
        """
        Write bytes.

        Args:
            data: They.

        Raises:
            CallerGone: If the connection is closed.
        """
        if self.shape is None:
            self._write(data)
            return
        async for piece in self.shape(data):
            self._write(piece)

    async def head(
        self,
        status: int,
        headers: Sequence[tuple[bytes, bytes]],
        length: int | None,
        *,
        then: bytes = b"",
    ) -> None:
        """
        Write status line and headers.

        Args:
            status: The status.
            headers: Without those of framing.
            length: For `content-length`; None: the body comes in chunks.
            then: What goes out in the same write, as it is.
        """
        if self.notes:
            self._exchange.status, self._exchange.sent = status, list(headers)
        self._chunked = length is None
        framing = (b"transfer-encoding", b"chunked")
        if length is not None:
            framing = (b"content-length", str(length).encode())
        lines = [(name, value) for name, value in headers if name not in _FRAMING]
        lines += [framing, (b"connection", b"close")]
        text = b"".join(b"%b: %b\r\n" % line for line in lines)
        await self.raw(b"HTTP/1.1 %d \r\n%b\r\n%b" % (status, text, then))

    async def body(self, data: bytes) -> None:
        """Write a piece of the body."""
        if data:
            if self.notes:
                self._exchange.pieces.append(data)
            await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self, how: str = "clean") -> None:
        """
        End the reply and the connection.

        Args:
            how: "clean" ends the body first, "close" does not, "reset" sends RST, "open" ends
                nothing and waits until the caller hangs up.
        """
        with suppress(CallerGone):
            if how == "clean" and self._chunked:
                await self.raw(b"0\r\n\r\n")
            if how == "open":
                await self.wait(math.inf)
            if self.close_late_s:
                await self.wait(self.close_late_s)
        if how == "reset":
            await _flushed(self._transport)
            _reset(self._transport)
        else:
            self._transport.close()
        # The server takes the request for answered when the connection is lost.
        await self._lost.wait()

    async def wait(self, seconds: float) -> None:
        """
        Wait, as long as somebody is there.

        Args:
            seconds: How long; infinity: until the caller hangs up.

        Raises:
            CallerGone: If the caller hung up meanwhile.
        """
        if not await passed(self._lost, self._clock, seconds):
            raise CallerGone

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            raise CallerGone
        self._transport.write(data)


_FLUSH_TURNS = 1000
_FLUSH_TURN_S = 0.001

_FRAMING = (b"content-length", b"transfer-encoding", b"connection")


async def _flushed(transport: asyncio.Transport) -> None:
    # RST throws away what the peer's kernel has not taken yet, and after ten small segments the
    # kernel waits for an acknowledgement (RFC 6928): a cut after forty words would come after
    # thirty-two. A peer that takes nothing at all is not waited for longer than a second.
    connection = transport.get_extra_info("socket")
    loop = asyncio.get_running_loop()
    for _ in range(_FLUSH_TURNS):
        if not transport.get_write_buffer_size() and not _unacknowledged(connection.fileno()):
            return
        turn = loop.create_future()
        loop.call_later(_FLUSH_TURN_S, turn.set_result, None)
        await turn


def _unacknowledged(descriptor: int) -> int:
    """Bytes that the peer's kernel has not taken; 0 where the system does not tell."""
    try:
        import fcntl  # noqa: PLC0415 - not everywhere
        import termios  # noqa: PLC0415 - not everywhere

        # SIOCOUTQ of tcp(7) has this number.
        answer = fcntl.ioctl(descriptor, termios.TIOCOUTQ, struct.pack("i", 0))
    except (ImportError, OSError):
        return 0
    return int(struct.unpack("i", answer)[0])


def _reset(transport: asyncio.Transport) -> None:
    # Closing with a linger of 0 seconds makes the kernel send RST (socket(7), SO_LINGER).
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def passed(lost: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """
    Wait for time to pass, or for a connection to be lost.

    Args:
        lost: Set when the connection is lost.
        clock: Waits.
        seconds: How long; infinity: until it is lost.

    Returns:
        Whether the time passed first.
    """
    if seconds == math.inf:
        await lost.wait()
        return False
    passing = asyncio.ensure_future(clock.sleep(max(0.0, seconds)))
    losing = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait({passing, losing}, return_when=asyncio.FIRST_COMPLETED)
        return not losing.done()
    finally:
        passing.cancel()
        losing.cancel()
        await asyncio.gather(passing, losing, return_exceptions=True)


async def events_of(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """
    Cut a stream's body at its events.

    Args:
        pieces: The body, cut anywhere.

    Yields:
        Each event with the empty line behind it; then what is left.
    """
    left = b""
    async for piece in pieces:
        *events, left = (left + piece).split(b"\n\n")
        for event in events:
            yield event + b"\n\n"
    if left:
        yield left


def lost_of(scope: Scope) -> asyncio.Event:
    """
    Find what is set when the connection below a request is lost.

    Args:
        scope: ASGI's, from a server that uses `door_protocol`.

    Returns:
        The event.
    """
    found: asyncio.Event = scope["extensions"][_LOST]
    return found


def transport_of(scope: Scope) -> asyncio.Transport:
    """
    Find the connection below a request.

    Args:
        scope: ASGI's, from a server that uses `door_protocol`.

    Returns:
        The connection.
    """
    found: asyncio.Transport = scope["extensions"][_TRANSPORT]
    return found


def door_protocol() -> type[asyncio.Protocol]:
    """
    Make uvicorn's protocol hand the connection to the application.

    Returns:
        A class for `uvicorn.Config(http=...)`; `transport_of` finds what it hands over.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415 - start-up time

    kind: Any = AutoHTTPProtocol

    class Door(kind):  # type: ignore[misc]  # one of three, whichever is installed
        """A connection that the application can reach."""

        app: Any

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            inner, self.lost = self.app, asyncio.Event()

            async def app(scope: Scope, receive: Receive, send: Send) -> None:
                scope.setdefault("extensions", {})
                scope["extensions"] |= {_TRANSPORT: transport, _LOST: self.lost}
                await inner(scope, receive, send)

            self.app = app

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.lost.set()

    return Door
