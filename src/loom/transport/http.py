"""
The only door to a vendor: HTTP/1.1, from any event loop and thread.

Who holds which sockets stands here; how a request travels on one, in `backend.py`.
"""

from __future__ import annotations

import asyncio
import functools
import os
import weakref
from contextlib import AbstractAsyncContextManager

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.transport.address import check_proxy
from loom.transport.contract import HttpReply, HttpRequest, SizeLimits, Transport
from loom.transport.exchange import Exchange, Terms
from loom.transport.pool import Backend, Home, Pool

__all__ = ["HttpTransport"]

# What a process inherited by a fork. Closing it here would take the parent's sockets out of the
# epoll instance that both share; collecting it would close them.
_PARENTS: list[Home] = []


class HttpTransport(Transport):
    """
    Sends requests; may be used from several event loops and threads, and after a fork.

    Args:
        max_connections: Exchanges at once, for each event loop, at least 1.
        proxy: "http://host:port"; loopback addresses never use it.
        limits: What a reply may weigh.
        ca_file: Certificates to trust in place of the machine's, PEM.
        provider_name: Who is asked, for errors.

    Raises:
        ConfigInvalid: If `max_connections` is below 1, or `proxy` is not supported.
    """

    def __init__(
        self,
        *,
        max_connections: int = 1000,
        proxy: str | None = None,
        limits: SizeLimits = SizeLimits(),  # noqa: B008 - a frozen value
        ca_file: str | None = None,
        provider_name: str = "",
    ) -> None:
        # Fault matrix, row 60.
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._pid = os.getpid()
        if max_connections < 1:
            raise ConfigInvalid(f"max_connections must be at least 1, not {max_connections}")
        self._max_connections = max_connections
        self._terms = Terms(
            limits, provider_name or None, "" if proxy is None else check_proxy(proxy)
        )
        self._proxy = None if proxy is None else Secret(proxy)
        self._ca_file = ca_file
        self._backend: Backend | None = None
        self._closed = False

    @property
    def open_sockets(self) -> int:
        """Sockets that are open, in use or kept for reuse."""
        return sum(home.pool.open_sockets for home in list(self._homes.values()))

    @property
    def permits_in_use(self) -> int:
        """Exchanges that hold a slot."""
        return sum(home.pool.slots.taken for home in list(self._homes.values()))

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpReply]:
        """
        Send a request and wait for the reply's headers.

        Args:
            request: What to send.

        Returns:
            A context manager that gives the reply. Leaving it on an exception closes the socket
            at once; leaving it otherwise keeps the socket if the reply ends within 50 ms.

        Raises:
            PoolTimeout: No slot within `timeouts.pool_s`.
            TimedOut: `phase` "connect", "write", "first_byte" or "total".
            Unreachable: `phase` "dns", "proxy", "connect", "reset".
            TLSFailed: The certificate was refused.
            MalformedReply: What came is not HTTP.
            UnexpectedRedirect: The status is 3xx; nothing is sent to the other address.
            InvalidRequest: A header holds a line break or another forbidden character.
            ConfigInvalid: The URL is not absolute, or `ca_file` cannot be read.
            RuntimeError: After `aclose`.
        """
        return Exchange(request, self._terms, self._pool)

    async def aclose(self) -> None:
        """Close every socket; safe to call twice, from any loop, and after its loop ended."""
        self._closed = True
        if self._pid != os.getpid():
            self._after_fork()
        here = asyncio.get_running_loop()
        for loop, home in list(self._homes.items()):
            self._homes.pop(loop, None)
            if loop is here:
                await home.close()
            else:
                await home.close_elsewhere()

    def __del__(self) -> None:
        """Bury what closed loops left behind; a loop that lives closes its own."""
        if self._pid != os.getpid():
            self._after_fork()
        for loop, home in self._homes.items():
            if loop.is_closed():
                home.pool.bury()

    async def _pool(self) -> Pool:
        if self._closed:
            raise RuntimeError("the transport is closed: make a new one")
        if self._pid != os.getpid():
            self._after_fork()
        loop = asyncio.get_running_loop()
        home = self._homes.get(loop)
        if home is None or home.pool.closed:
            home = self._homes[loop] = await self._settle(loop)
            # Another thread may have closed the transport meanwhile, and not have seen this one.
            if self._closed:
                await home.close()
                raise RuntimeError("the transport was closed during the call")
        return home.pool

    async def _settle(self, loop: asyncio.AbstractEventLoop) -> Home:
        for other, home in list(self._homes.items()):
            if other.is_closed():
                self._homes.pop(other, None)
                home.pool.bury()
        if self._backend is None:
            from loom.transport.backend import AiohttpBackend  # noqa: PLC0415 - brings aiohttp: heavy

            self._backend = AiohttpBackend(self._proxy, self._ca_file)
        # The loop's generator must not keep the transport: collected, it shall close.
        return await Home.found(
            Pool(loop, self._backend, self._max_connections),
            functools.partial(_forget, weakref.ref(self), loop),
        )

    def _after_fork(self) -> None:
        # Fault matrix, row 59.
        for home in self._homes.values():
            home.pool.abandon()
            _PARENTS.append(home)
        self._homes = {}
        self._pid = os.getpid()


def _forget(owner: weakref.ref[HttpTransport], loop: asyncio.AbstractEventLoop) -> None:
    transport = owner()
    if transport is not None:
        transport._homes.pop(loop, None)  # noqa: SLF001 - a callback of that class
