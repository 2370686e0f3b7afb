"""Hostile servers on loopback: each connection is handled by a script, byte for byte."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias

import trustme

from loom.core.request import Timeouts
from loom.core.secret import Secret
from loom.testing import turn
from loom.transport.contract import HttpRequest

# Whoever finds this anywhere but on the socket has found a leak.
CANARY = "canary-key-that-must-not-be-shown"

BODY = b'{"model":"m"}'


class Peer:
    """One connection, as the server sees it."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        whole = head + await self.reader.readexactly(length)
        self.server.requests.append(whole)
        return whole

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> None:
        """Send a whole and correct reply."""
        head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
        await self.send(b"\r\n".join(head) + b"\r\n\r\n" + body)

    async def chunk(self, data: bytes) -> None:
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


Script: TypeAlias = Callable[[Peer], Awaitable[None]]

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Server:
    """A server on a free loopback port."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None, host: str) -> None:
        self.requests: list[bytes] = []
        self.accepted = 0
        self.open = 0
        self.port = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._script = script
        self._tls = tls
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.released = asyncio.Event()
        """For scripts that wait until the test lets them go on."""

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self._host}:{self.port}/v1/chat/completions"

    @property
    def where(self) -> str:
        return f"{self._host}:{self.port}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        task = asyncio.get_running_loop().create_task(self._serve(Peer(self, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step closes nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def closed(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            self._changed.clear()
            await self._changed.wait()

    def wait_closed(self) -> None:
        """From another thread: wait until no connection is open."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self.closed(), self.loop).result(timeout=10)

    def release(self) -> None:
        """From another thread: let the scripts go on."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.released.set)

    async def stop(self) -> None:
        # What the kernel has accepted arrives here first.
        await turn(3)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await turn(2)

    async def _serve(self, peer: Peer) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await self._script(peer)
        finally:
            peer.writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await peer.writer.wait_closed()
            self.open -= 1
            self._changed.set()


@asynccontextmanager
async def serve(
    script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    server = Server(script, tls, host)
    listener = await asyncio.start_server(server.accept, host, 0, ssl=tls, limit=1 << 20)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await server.stop()


@contextmanager
def serve_in_thread(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server on another thread's loop, so that this one holds the client's tasks alone."""
    started: Future[tuple[Server, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        async with serve(script, tls) as server:
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    server, loop, stop = started.result(timeout=10)
    server.loop = loop
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def request(url: str, **options: Any) -> HttpRequest:
    """Make a request with the canary as its key; `Timeouts` fields are taken by name."""
    limits = {name: options.pop(name) for name in list(options) if name.endswith("_s")}
    deadline_s = limits.pop("deadline_s", None)
    options.setdefault("body", BODY)
    return HttpRequest(
        url=url,
        headers={"authorization": Secret(f"Bearer {CANARY}"), **options.pop("headers", {})},
        timeouts=Timeouts(**limits),
        deadline_s=deadline_s,
        **options,
    )


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(name: str = "127.0.0.1") -> ssl.SSLContext:
    """Make a server's side of TLS, with a certificate of our own authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(name).configure_cert(context)
    return context
