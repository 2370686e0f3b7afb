"""Hostile servers on loopback: each connection is handled by a script, byte for byte."""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trustme

from loom.core.request import Timeouts
from loom.core.secret import Secret
from loom.server.hostile import STREAM_HEAD, HostilePeer, HostileServer, Script
from loom.testing import turn
from loom.transport.contract import HttpRequest

__all__ = [
    "BODY", "CANARY", "STREAM_HEAD", "Peer", "Script", "Server", "authority", "request", "serve",
    "serve_in_thread", "server_tls",
]  # fmt: skip

# Whoever finds this anywhere but on the socket has found a leak.
CANARY = "canary-key-that-must-not-be-shown"

BODY = b'{"model":"m"}'

Peer = HostilePeer


class Server(HostileServer):
    """A hostile server as the tests of the transport ask for it, also from other threads."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None, host: str) -> None:
        super().__init__(script, tls=tls, host=host)
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://{self._host}:{self.port}/v1/chat/completions"

    @property
    def where(self) -> str:
        return f"{self._host}:{self.port}"

    async def closed(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            self.changed.clear()
            await self.changed.wait()

    def wait_closed(self) -> None:
        """From another thread: wait until no connection is open."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self.closed(), self.loop).result(timeout=10)

    def release(self) -> None:
        """From another thread: let the scripts go on."""
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.released.set)


@asynccontextmanager
async def serve(
    script: Script, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    async with Server(script, tls, host) as server:
        try:
            yield server
        finally:
            # What the kernel has accepted arrives here first.
            await turn(3)
    await turn(2)


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
