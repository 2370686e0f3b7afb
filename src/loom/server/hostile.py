"""
Servers that break the rules: raw sockets on loopback, each connection handled by a script.

The simulator (`server/simulator`) causes what a server of HTTP can cause; this causes the rest:
TLS that fails, sockets that nobody reads, connections that are not even accepted.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeAlias

__all__ = [
    "ANSWER",
    "EVENT",
    "HOSTILE_TASK",
    "STREAM_HEAD",
    "HostilePeer",
    "HostileServer",
    "Script",
    "answer",
    "full_backlog",
    "refuse_tls",
    "refused_port",
    "reset_kept",
    "talk",
    "untrusted_tls",
]

_HOST = "127.0.0.1"

HOSTILE_TASK = "loom-hostile"
"""The name of every task that handles a connection."""

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
"""How the reply to a stream begins."""


class HostilePeer:
    """
    One connection, as the server sees it.

    Attributes:
        server: Whose it is.
        reader: What comes.
        writer: Where to write.
        number: Which connection of the server it is, from 1.
    """

    def __init__(
        self, server: HostileServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.number = server.accepted

    async def request(self) -> bytes:
        """
        Read a whole request, and note it.

        Returns:
            Head and body.

        Raises:
            IncompleteReadError: If the other side closes before its end.
        """
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        whole = head + await self.reader.readexactly(length)
        self.server.requests.append(whole)
        self.server.changed.set()
        return whole

    async def send(self, data: bytes) -> None:
        """Send bytes as they are, and wait until they have left."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> None:
        """Send a whole and correct reply."""
        head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
        await self.send(b"\r\n".join(head) + b"\r\n\r\n" + body)

    async def chunk(self, data: bytes) -> None:
        """Send a chunk of a body; an empty one ends it."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def reset(self) -> None:
        """Close with a reset in place of an orderly end."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side closes."""
        with suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass


Script: TypeAlias = Callable[[HostilePeer], Awaitable[None]]
"""What happens to a connection; it is closed at the end."""


class HostileServer:
    """
    A server on a free loopback port, for as long as its `async with` lasts.

    Attributes:
        requests: Every whole request that was read.
        accepted: Connections that were accepted.
        open: Connections that are open now.
        port: Where it listens.
        changed: Set when a request was read, or a connection ended.
        released: For scripts that wait until somebody lets them go on.

    Args:
        script: What happens to each connection.
        tls: Its side of TLS; None: none.
        host: The loopback address where it listens.
    """

    def __init__(
        self, script: Script, *, tls: ssl.SSLContext | None = None, host: str = _HOST
    ) -> None:
        self.requests: list[bytes] = []
        self.accepted = 0
        self.open = 0
        self.port = 0
        self.changed = asyncio.Event()
        self.released = asyncio.Event()
        self._script = script
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """For example `http://127.0.0.1:40123/v1`."""
        return f"http{'s' if self._tls else ''}://{self._host}:{self.port}/v1"

    async def until(self, condition: Callable[[], bool], limit_s: float = 5.0) -> bool:
        """
        Wait until something is true of it; it is looked at whenever something changes.

        Args:
            condition: What shall be true.
            limit_s: At most so many seconds.

        Returns:
            Whether it is.
        """
        try:
            async with asyncio.timeout(limit_s):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            return condition()
        return True

    async def __aenter__(self) -> Self:
        """Listen."""
        # Above the largest head that a script reads.
        limit = 1 << 20
        self._listener = await asyncio.start_server(
            self._accept, self._host, 0, ssl=self._tls, limit=limit
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop every connection."""
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        peer = HostilePeer(self, reader, writer)
        task = asyncio.get_running_loop().create_task(self._serve(peer), name=HOSTILE_TASK)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step closes nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, peer: HostilePeer) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._script(peer)
        finally:
            peer.writer.close()
            self.open -= 1
            self.changed.set()
            with suppress(ConnectionError, ssl.SSLError):
                await peer.writer.wait_closed()


ANSWER = (
    b'{"id":"1","object":"chat.completion","created":1,"model":"mistral-small-latest","choices":['
    b'{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'
)
"""A whole answer."""

EVENT = ANSWER.replace(b'"message"', b'"delta"').replace(b".completion", b".completion.chunk")
"""The same, as the only event of a stream."""


async def reset_kept(peer: HostilePeer) -> None:
    """
    Answer once, and reset the first connection at the moment when it is used again; a script.

    Args:
        peer: The connection.
    """
    await answer(peer, await peer.request())
    if peer.number == 1:
        await peer.request()
        peer.reset()
    else:
        await talk(peer)


async def talk(peer: HostilePeer) -> None:
    """
    Answer requests as they should be, one after the other; a script.

    Args:
        peer: The connection.
    """
    while True:
        await answer(peer, await peer.request())


async def answer(peer: HostilePeer, request: bytes) -> None:
    """
    Answer a request as it should be: with a stream, if that was asked for.

    Args:
        peer: The connection.
        request: What came.
    """
    if b'"stream":true' in request:
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"data: " + EVENT + b"\n\ndata: [DONE]\n\n")
        await peer.chunk(b"")
    else:
        await peer.answer(ANSWER, b"content-type: application/json")


def refused_port() -> int:
    """
    A port where nobody listens.

    Returns:
        Its number; it was free a moment ago.
    """
    with socket.socket() as sock:
        sock.bind((_HOST, 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def full_backlog() -> Iterator[int]:
    """
    Keep a port whose queue of connections is full: the kernel accepts no more.

    Yields:
        Its number.
    """
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        held = [socket.socket() for _ in range(4)]
        for sock in held:
            sock.setblocking(False)  # noqa: FBT003 - of the standard library
            sock.connect_ex((_HOST, port))
        yield port
        for sock in held:
            sock.close()


async def refuse_tls(peer: HostilePeer) -> None:
    """
    Answer the first bytes of TLS with the alert that no handshake is possible; a script.

    Args:
        peer: The connection.
    """
    await peer.reader.read(1 << 16)
    # RFC 8446, sections 5.1 and 6: an alert, fatal, handshake_failure.
    await peer.send(bytes((21, 3, 3, 0, 2, 2, 40)))
    await peer.gone()


def untrusted_tls() -> ssl.SSLContext | None:
    """
    A server's side of TLS with a certificate of an authority that nobody knows.

    Returns:
        It; None where `trustme` is not installed: then `refuse_tls` fails as surely.
    """
    try:
        from trustme import CA  # noqa: PLC0415 - only tests have it
    except ImportError:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CA().issue_cert(_HOST).configure_cert(context)
    return context
