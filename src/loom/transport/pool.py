"""The sockets of one event loop, and how they end: with the loop, without it, after a fork."""

from __future__ import annotations

import asyncio
import weakref
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, Protocol

from loom.transport.contract import HttpRequest
from loom.transport.slots import Slots

__all__ = ["Backend", "Connector", "Content", "Home", "Listener", "Pool", "Response", "Wire"]

# How long `aclose` waits for another thread's loop, which may be busy.
_OTHER_LOOP_S = 1.0


class Wire(Protocol):
    """A connection's protocol object."""

    transport: asyncio.Transport | None
    heard: bool
    """Whether bytes came since the last request began."""
    uses: int
    """Requests that it has carried."""

    @abstractmethod
    def is_connected(self) -> bool:
        """Whether its socket is open."""

    @abstractmethod
    def set_exception(self, exc: BaseException) -> None:
        """Wake whoever waits for a reply's headers."""


class Content(Protocol):
    """The body of a reply."""

    @abstractmethod
    def read_nowait(self) -> bytes:
        """Give what has arrived."""

    @abstractmethod
    async def readany(self) -> bytes:
        """Wait for something; empty at the end."""

    @abstractmethod
    def is_eof(self) -> bool:
        """Whether all has arrived."""

    @abstractmethod
    def set_exception(self, exc: BaseException) -> None:
        """Wake whoever waits for the next piece."""


class Response(Protocol):
    """A reply whose headers have arrived."""

    status: int
    content: Content

    @property
    @abstractmethod
    def headers(self) -> Mapping[str, str]:
        """The headers; `items` may give a name several times."""

    @property
    @abstractmethod
    def connection(self) -> object | None:
        """Its connection; None once it was given back."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


class Connector(Protocol):
    """A set of sockets of one loop."""

    @abstractmethod
    async def close(self) -> None:
        """Close them."""


class Listener(Protocol):
    """What is told how far a request has come."""

    @abstractmethod
    def connected(self, wire: Wire, line: asyncio.Transport) -> None:
        """Take note of the connection that carries the request."""

    @abstractmethod
    def written(self) -> None:
        """Take note that the whole request was handed to the connection."""

    @abstractmethod
    def cut_off(self) -> None:
        """Break off: the pool is being closed."""


class Backend(Protocol):
    """The HTTP library."""

    failures: tuple[type[Exception], ...]
    """What it raises when something is wrong with a connection or a reply."""

    @abstractmethod
    def connector(self, loop: asyncio.AbstractEventLoop, *, fresh: bool) -> Connector:
        """Make a set of sockets; a fresh one uses each socket once."""

    @abstractmethod
    async def send(
        self, connector: Connector, request: HttpRequest, listener: Listener, connect_s: float
    ) -> Response | Exception:
        """Send a request once; a failure is returned, not raised."""

    @abstractmethod
    def leftover(self, content: Content) -> bytes:
        """Give what arrived of a body before its connection broke."""

    @abstractmethod
    def forget(self, connector: Connector) -> None:
        """Let a set of sockets go without touching them."""


class Pool:
    """
    The sockets of one event loop.

    Args:
        loop: The loop, running.
        backend: The HTTP library.
        max_connections: Exchanges at once.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, backend: Backend, max_connections: int
    ) -> None:
        self.loop = loop
        self.backend = backend
        self.slots = Slots(max_connections)
        self.closed = False
        # In order: who began first is broken off first, in each run of a test.
        self.active: dict[Listener, None] = {}
        self.wires: weakref.WeakSet[Wire] = weakref.WeakSet()
        self._kept: Connector | None = None
        self._fresh: Connector | None = None

    @property
    def open_sockets(self) -> int:
        """Sockets that are open, in use or kept for reuse."""
        return sum(wire.is_connected() for wire in list(self.wires))

    def connector(self, *, fresh: bool = False) -> Connector:
        """
        Give a set of sockets.

        Args:
            fresh: The one that uses each socket once, in place of the one that keeps them.
        """
        if fresh:
            self._fresh = self._fresh or self.backend.connector(self.loop, fresh=True)
            return self._fresh
        self._kept = self._kept or self.backend.connector(self.loop, fresh=False)
        return self._kept

    async def close(self) -> None:
        """Close every socket, and break off what is under way; from its own loop."""
        self.closed = True
        self.slots.close()
        for exchange in list(self.active):
            exchange.cut_off()
        for connector in self._take_connectors():
            await connector.close()

    def abandon(self) -> None:
        """Let go without touching a socket: they are another process's, or their loop is gone."""
        self.closed = True
        for connector in self._take_connectors():
            self.backend.forget(connector)

    def bury(self) -> None:
        """Close the sockets of a loop that was closed without ending its generators."""
        self.abandon()
        for wire in list(self.wires):
            if wire.transport is not None:
                _close_dead(wire.transport)

    def _take_connectors(self) -> list[Connector]:
        connectors = [one for one in (self._kept, self._fresh) if one is not None]
        self._kept = self._fresh = None
        return connectors


class Home(NamedTuple):
    """A pool, and the generator that closes it when its loop ends."""

    pool: Pool
    keeper: AsyncGenerator[None, None]

    @classmethod
    async def found(cls, pool: Pool, gone: Callable[[], None]) -> Home:
        """
        Tie a pool to the running loop.

        Args:
            pool: Of this loop.
            gone: Called when the loop has closed the pool.
        """
        keeper = _keep(pool, gone)
        # A loop takes note of a generator at its first step, and ends it before it ends itself
        # (`loop.shutdown_asyncgens`). One that is collected unfinished is ended by its loop too.
        await anext(keeper)
        return cls(pool, keeper)

    async def close(self) -> None:
        """Close the pool, from its own loop."""
        await self.pool.close()
        # The loop may be ending it at this very moment.
        with suppress(RuntimeError):
            await self.keeper.aclose()

    async def close_elsewhere(self) -> None:
        """Close the pool, from another loop."""
        loop = self.pool.loop
        if loop.is_closed():
            self.pool.bury()
        elif loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self.close(), loop)
            await asyncio.wait([asyncio.wrap_future(closing)], timeout=_OTHER_LOOP_S)
        else:
            # It runs once more before it is closed properly, or is buried later.
            loop.call_soon_threadsafe(lambda: loop.create_task(self.close()))


async def _keep(pool: Pool, gone: Callable[[], None]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await pool.close()
        gone()


def _close_dead(line: asyncio.Transport) -> None:
    # A transport closes its socket in a callback of its loop, which will not run any more; that
    # callback is called here. Other loops than asyncio's close their sockets themselves.
    with suppress(RuntimeError):
        line.abort()
    inner = getattr(getattr(line, "_ssl_protocol", None), "_transport", line)
    connection_lost = getattr(inner, "_call_connection_lost", None)
    if connection_lost is not None:
        with suppress(RuntimeError):
            connection_lost(None)
