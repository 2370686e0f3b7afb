"""
The only door to a vendor: HTTP/1.1 over aiohttp.

aiohttp is imported at the first call (it costs 150 to 230 ms), and everything that touches it
stands here.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import ssl
import weakref
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.transport.address import check_proxy, parse_address
from loom.transport.contract import HttpReply, HttpRequest, SizeLimits, Transport
from loom.transport.exchange import Exchange, Terms
from loom.transport.pool import Backend, Content, Home, Listener, Pool, Response, Session, Wire

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.client_middlewares import ClientHandlerType
    from aiohttp.connector import Connection

__all__ = ["HttpTransport"]

# Longest header line and field; nginx and h11 stop at 64 KiB or below.
_HEADER_BYTES = 65536

# aiohttp's own default. nginx and Kong close an idle socket after 75 s; where a server closes
# sooner, the request is sent once more.
_KEEP_S = 15.0

# aiohttp warns when more is given as bytes; a file is written in steps.
_LARGE_BODY_BYTES = 1 << 20

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
        if max_connections < 1:
            raise ConfigInvalid(f"max_connections must be at least 1, not {max_connections}")
        self._max_connections = max_connections
        self._terms = Terms(
            limits, provider_name or None, "" if proxy is None else check_proxy(proxy)
        )
        self._proxy = None if proxy is None else Secret(proxy)
        self._ca_file = ca_file
        self._backend: Backend | None = None
        self._homes: dict[asyncio.AbstractEventLoop, Home] = {}
        self._pid = os.getpid()
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
        homes = getattr(self, "_homes", {})
        if homes and self._pid != os.getpid():
            self._after_fork()
        for loop, home in homes.items():
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
        return home.pool

    async def _settle(self, loop: asyncio.AbstractEventLoop) -> Home:
        for other, home in list(self._homes.items()):
            if other.is_closed():
                self._homes.pop(other, None)
                home.pool.bury()
        if self._backend is None:
            self._backend = _Aiohttp(self._proxy, self._ca_file)
        # The loop's generator must not keep the transport: collected, it shall close.
        return await Home.found(
            Pool(loop, self._backend, self._max_connections),
            functools.partial(_forget, weakref.ref(self), loop),
        )

    def _after_fork(self) -> None:
        for home in self._homes.values():
            home.pool.abandon()
            _PARENTS.append(home)
        self._homes = {}
        self._pid = os.getpid()


def _forget(owner: weakref.ref[HttpTransport], loop: asyncio.AbstractEventLoop) -> None:
    transport = owner()
    if transport is not None:
        transport._homes.pop(loop, None)  # noqa: SLF001 - a callback of that class


class _Failed(Exception):
    # Carries what was raised past aiohttp's own retry.
    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


class _Aiohttp(Backend):
    """
    The HTTP library.

    Args:
        proxy: The proxy's URL.
        ca_file: Certificates to trust in place of the machine's.
    """

    def __init__(self, proxy: Secret | None, ca_file: str | None) -> None:
        import aiohttp  # noqa: PLC0415 - heavy

        self.failures = (aiohttp.ClientError, OSError)
        self._aiohttp = aiohttp
        self._proxy = proxy
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    def session(self, loop: asyncio.AbstractEventLoop, *, fresh: bool) -> Session:
        """Make a session; a fresh one uses each socket once."""
        keep: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": _KEEP_S}
        return self._aiohttp.ClientSession(
            connector=_connector_class()(loop=loop, limit=0, **keep),
            cookie_jar=self._aiohttp.DummyCookieJar(loop=loop),
            request_class=_request_class(),
            auto_decompress=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )

    async def send(
        self, session: Session, request: HttpRequest, listener: Listener, connect_s: float
    ) -> Response | Exception:
        """Send a request once; a failure is returned, not raised."""
        address = parse_address(request.url)
        proxied = self._proxy is not None and not address.loopback
        try:
            response = await cast("aiohttp.ClientSession", session).request(
                request.method,
                request.url,
                data=_payload(request.body),
                headers=_revealed(request),
                allow_redirects=False,
                proxy=self._proxy.reveal() if self._proxy is not None and proxied else None,
                ssl=self._context() if address.secure else True,
                timeout=_timeout(connect_s),
                middlewares=(functools.partial(_attend, listener, self.failures),),
            )
            return cast("Response", response)
        except _Failed as failed:
            return failed.reason
        except self.failures as error:
            return error
        except asyncio.CancelledError as cut:
            # The library's frames hold the revealed headers.
            raise cut.with_traceback(None)  # noqa: B904 - it is the same exception

    def leftover(self, content: Content) -> bytes:
        """Give what arrived of a body before its connection broke."""
        # The public ways raise the connection's error first, and the data would be lost.
        return cast("aiohttp.StreamReader", content)._read_nowait(-1)  # noqa: SLF001 - see above

    def forget(self, session: Session) -> None:
        """Let a session go without touching its sockets."""
        connector = cast("aiohttp.ClientSession", session).connector
        if connector is not None:
            # What its `close` sets, without closing: no warning, and no work when collected.
            connector._closed = True  # noqa: SLF001 - see above

    def _context(self) -> ssl.SSLContext:
        # Made at the first https call: it reads files for some 20 ms, and obeys SSL_CERT_FILE as
        # it is then (aiohttp's own is made at import).
        if self._tls is None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise ConfigInvalid(
                    f"The certificates in {self._ca_file!r} cannot be read: {reason}"
                ) from None
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


async def _attend(
    listener: Listener,
    failures: tuple[type[Exception], ...],
    request: aiohttp.ClientRequest,
    handler: ClientHandlerType,
) -> aiohttp.ClientResponse:
    request.listener = listener  # type: ignore[attr-defined] # of the class made below
    try:
        return await handler(request)
    except failures as error:
        # aiohttp would send a GET once more by itself, and attempts would be counted wrong.
        reason = error
    raise _Failed(reason)


@functools.cache
def _request_class() -> type[aiohttp.ClientRequest]:
    import aiohttp  # noqa: PLC0415 - heavy

    class Request(aiohttp.ClientRequest):
        """A request that says how far it has come."""

        listener: Listener

        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            wire, line = conn.protocol, conn.transport
            # A tunnel's own request has no listener.
            if hasattr(self, "listener") and wire is not None and line is not None:
                self.listener.connected(cast("Wire", wire), line)
                if len(wire):
                    # A reply that nobody asked for lies there: it answers no request of ours.
                    raise aiohttp.ServerDisconnectedError
            response = await super().send(conn)
            if not self.body and hasattr(self, "listener"):
                self.listener.written()
            return response

        async def write_bytes(self, *args: Any, **options: Any) -> None:
            await super().write_bytes(*args, **options)
            self.listener.written()

    return Request


@functools.cache
def _connector_class() -> type[aiohttp.TCPConnector]:
    import aiohttp  # noqa: PLC0415 - heavy
    from aiohttp.client_proto import ResponseHandler  # noqa: PLC0415 - heavy

    class Line(ResponseHandler):
        """A connection that knows how often it was used, and whether it was answered."""

        uses = 0
        heard = False

        def data_received(self, data: bytes) -> None:
            # aiohttp calls it with nothing to go on after a pause.
            if data:
                self.heard = True
            super().data_received(data)

    class Connector(aiohttp.TCPConnector):
        """A connector of such connections."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._factory = cast(
                "functools.partial[ResponseHandler]", functools.partial(Line, loop=self._loop)
            )

    return Connector


@functools.lru_cache(maxsize=16)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    import aiohttp  # noqa: PLC0415 - heavy

    # `connect` covers name look-up, TCP, TLS and a proxy's tunnel; `sock_connect` would leave out
    # the look-up. Everything later is the exchange's own clock. Limits are not rounded up.
    return aiohttp.ClientTimeout(
        total=None, connect=connect_s, sock_connect=None, sock_read=None, ceil_threshold=1e9
    )


def _payload(body: bytes) -> bytes | io.BytesIO | None:
    if len(body) > _LARGE_BODY_BYTES:
        return io.BytesIO(body)
    return body or None


def _revealed(request: HttpRequest) -> Mapping[str, str]:
    headers = {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in request.headers.items()
    }
    headers.setdefault("accept-encoding", "identity" if request.stream else "gzip, deflate")
    return headers
