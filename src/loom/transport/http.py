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
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, Any, cast

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.transport.address import check_proxy, parse_address
from loom.transport.contract import HttpReply, HttpRequest, SizeLimits, Transport
from loom.transport.exchange import Exchange, Terms
from loom.transport.pool import Backend, Connector, Content, Home, Listener, Pool, Response, Wire

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.connector import Connection

    class _ClientRequest(aiohttp.ClientRequest):
        """What `_request_class` makes."""

        listener: Listener


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
            self._backend = _Aiohttp(self._proxy, self._ca_file)
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


class _Aiohttp(Backend):
    """
    The HTTP library, below its `ClientSession`.

    A session would add cookies, redirects, environment, retries of its own and 0.03 ms to each
    call; what is used here is what it uses itself.

    Args:
        proxy: The proxy's URL.
        ca_file: Certificates to trust in place of the machine's.
    """

    def __init__(self, proxy: Secret | None, ca_file: str | None) -> None:
        import aiohttp  # noqa: PLC0415 - heavy
        from aiohttp.http_exceptions import HttpProcessingError  # noqa: PLC0415 - heavy

        self.failures = (aiohttp.ClientError, HttpProcessingError, OSError)
        self._disconnected = aiohttp.ServerDisconnectedError
        self._proxy = proxy
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    def connector(self, loop: asyncio.AbstractEventLoop, *, fresh: bool) -> Connector:
        """Make a set of sockets; a fresh one uses each socket once."""
        keep: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": _KEEP_S}
        return _connector_class()(loop=loop, limit=0, **keep)

    async def send(
        self, connector: Connector, request: HttpRequest, listener: Listener, connect_s: float
    ) -> Response | Exception:
        """Send a request once; a failure is returned, not raised."""
        lines = cast("aiohttp.TCPConnector", connector)
        outgoing = self._outgoing(request, listener)
        lost = _LostCancellation()
        try:
            line = await lines.connect(outgoing, [], _timeout(connect_s))
            try:
                lost.look()
                return cast("Response", await self._ask(outgoing, line, request, listener))
            except BaseException:
                line.close()
                raise
        except self.failures as error:
            failure = error
        except asyncio.CancelledError as cut:
            # The library's frames hold the revealed headers.
            raise cut.with_traceback(None)  # noqa: B904 - it is the same exception
        lost.look()
        return failure

    async def _ask(
        self, outgoing: _ClientRequest, line: Connection, request: HttpRequest, listener: Listener
    ) -> aiohttp.ClientResponse:
        protocol, transport = line.protocol, line.transport
        if protocol is None or transport is None:
            raise self._disconnected
        listener.connected(cast("Wire", protocol), transport)
        if len(protocol):
            # A reply that nobody asked for lies there: it answers no request of ours.
            raise self._disconnected
        protocol.set_response_params(
            skip_payload=request.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        response = await outgoing.send(line)
        if not request.body:
            listener.written()
        try:
            return await response.start(line)
        except BaseException:
            response.close()
            raise

    def _outgoing(self, request: HttpRequest, listener: Listener) -> _ClientRequest:
        address = parse_address(request.url)
        proxied = self._proxy is not None and not address.loopback
        outgoing = _request_class()(
            request.method,
            _url(request.url),
            headers=_revealed(request),
            data=_payload(request.body),
            loop=asyncio.get_running_loop(),
            ssl=self._context() if address.secure else True,
            proxy=_url(self._proxy.reveal()) if self._proxy is not None and proxied else None,
        )
        outgoing.listener = listener
        return outgoing

    def leftover(self, content: Content) -> bytes:
        """Give what arrived of a body before its connection broke."""
        # The public ways raise the connection's error first, and the data would be lost.
        return cast("aiohttp.StreamReader", content)._read_nowait(-1)  # noqa: SLF001 - see above

    def forget(self, connector: Connector) -> None:
        """Let a set of sockets go without touching them."""
        # What its `close` sets, without closing: no warning, and no work when it is collected.
        cast("aiohttp.TCPConnector", connector)._closed = True  # noqa: SLF001 - see above

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


class _LostCancellation:
    """
    Finds a cancellation that came while the library connected, and was swallowed.

    A name with several addresses is connected to by a race. The library (aiohappyeyeballs 2.7)
    cancels the losers and waits for them; a cancellation of the caller's that comes then is taken
    for theirs, and the call would go on.
    """

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._before = 0 if self._task is None else self._task.cancelling()

    def look(self) -> None:
        """
        Go on with the cancellation.

        Raises:
            CancelledError: If there was one.
        """
        if self._task is not None and self._task.cancelling() > self._before:
            raise asyncio.CancelledError


@functools.cache
def _request_class() -> type[_ClientRequest]:
    import aiohttp  # noqa: PLC0415 - heavy

    class Request(aiohttp.ClientRequest):
        """A request that says when all of it was handed over."""

        listener: Listener

        async def write_bytes(self, *args: Any, **options: Any) -> None:
            await super().write_bytes(*args, **options)
            self.listener.written()

    return cast("type[_ClientRequest]", Request)


@functools.cache
def _connector_class() -> type[aiohttp.TCPConnector]:
    import aiohttp  # noqa: PLC0415 - heavy
    from aiohttp.client_proto import ResponseHandler  # noqa: PLC0415 - heavy
    from aiohttp.http_exceptions import HttpProcessingError  # noqa: PLC0415 - heavy

    class Line(ResponseHandler):
        """A connection that knows how often it was used, and whether it was answered."""

        uses = 0
        heard = False

        def data_received(self, data: bytes) -> None:
            # aiohttp calls it with nothing to go on after a pause.
            if data:
                self.heard = True
            super().data_received(data)

        def set_exception(self, exc: BaseException, *cause: Any) -> None:
            super().set_exception(exc, *cause)
            # aiohttp tells who waits for headers of broken framing, not who waits for the body.
            if isinstance(exc, HttpProcessingError):
                self._break_body(exc, *cause)

        def connection_lost(self, exc: BaseException | None) -> None:
            # A body without a length, cut by a reset, would look whole.
            if isinstance(exc, OSError):
                self._break_body(aiohttp.ClientOSError(*exc.args), exc)
            super().connection_lost(exc)

        def _break_body(self, exc: BaseException, cause: BaseException | None = None) -> None:
            exc.__cause__ = cause
            if self._payload is not None and not self._payload.is_eof():
                self._payload.set_exception(exc)

    class Lines(aiohttp.TCPConnector):
        """A connector of such connections."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._factory = cast(
                "functools.partial[ResponseHandler]", functools.partial(Line, loop=self._loop)
            )

    return Lines


@functools.lru_cache(maxsize=16)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    import aiohttp  # noqa: PLC0415 - heavy

    # `connect` covers name look-up, TCP, TLS and a proxy's tunnel; `sock_connect` would leave out
    # the look-up. Everything later is the exchange's own clock. Limits are not rounded up.
    return aiohttp.ClientTimeout(
        total=None, connect=connect_s, sock_connect=None, sock_read=None, ceil_threshold=1e9
    )


@functools.lru_cache(maxsize=256)
def _url(text: str) -> Any:
    import aiohttp  # noqa: PLC0415 - heavy

    # A request wants yarl's URL, and has one: no need to depend on yarl for its name.
    make = type(aiohttp.ClientRequest.url)
    with suppress(ValueError):
        return make(text)
    raise ConfigInvalid(f"{parse_address(text).where} is not an address.")


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
