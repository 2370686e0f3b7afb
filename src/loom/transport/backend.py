"""
Requests on sockets: aiohttp's connections and its parser.

Everything that touches aiohttp stands here, and this is imported at the first call: aiohttp costs
150 to 230 ms.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError

from loom.core.errors import ConfigInvalid
from loom.core.secret import Secret
from loom.transport.address import parse_address
from loom.transport.contract import HttpRequest
from loom.transport.pool import Backend, Connector, Content, Listener, Response

__all__ = ["AiohttpBackend"]

# Longest header line and field; nginx and h11 stop at 64 KiB or below.
_HEADER_BYTES = 65536

# aiohttp's own default. nginx and Kong close an idle socket after 75 s; where a server closes
# sooner, the request is sent once more.
_KEEP_S = 15.0

# Addresses that a set of sockets remembers; a vendor has a handful, but for those with an id.
_MOST_TARGETS = 256

# RFC 9110, section 8.6: these say how long their body is, even if it is empty.
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class AiohttpBackend(Backend):
    """
    The HTTP library, below its `ClientSession`: its connections and its parser.

    A session would add cookies, redirects, environment, retries of its own and 0.03 ms to each
    call; its objects for a request and a reply another 0.06, and a task for each body.

    Args:
        proxy: The proxy's URL.
        ca_file: Certificates to trust in place of the machine's.
    """

    def __init__(self, proxy: Secret | None, ca_file: str | None) -> None:
        self.failures = (aiohttp.ClientError, HttpProcessingError, OSError)
        self._proxy = proxy
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    def connector(self, loop: asyncio.AbstractEventLoop, *, fresh: bool) -> Connector:
        """Make a set of sockets; a fresh one uses each socket once."""
        keep: dict[str, Any] = {"force_close": True} if fresh else {"keepalive_timeout": _KEEP_S}
        return _Lines(loop=loop, limit=0, **keep)

    async def send(
        self, connector: Connector, request: HttpRequest, listener: Listener, connect_s: float
    ) -> Response | Exception:
        """Send a request once; a failure is returned, not raised."""
        lines = cast("_Lines", connector)
        lost = _LostCancellation()
        try:
            target = lines.targets.get(request.url) or self._target(lines, request.url)
            line = await lines.connect(target.place, [], _timeout(connect_s))
            try:
                lost.look()
                return await self._ask(target, line, request, listener)
            except BaseException:
                line.close()
                raise
        except self.failures as error:
            failure = error
        except asyncio.CancelledError as cut:
            # The library's frames hold what was sent.
            raise cut.with_traceback(None)  # noqa: B904 - it is the same exception
        lost.look()
        return failure

    async def _ask(
        self, target: _Target, line: Connection, request: HttpRequest, listener: Listener
    ) -> Response:
        protocol, transport = cast("_Line | None", line.protocol), line.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        listener.connected(protocol, transport)
        if len(protocol):
            # A reply that nobody asked for lies there: it answers no request of ours.
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(
            skip_payload=request.method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        protocol.listener = listener
        try:
            # What the socket does not take now, it takes while the reply is waited for: a server
            # may answer before it has read all.
            transport.writelines((target.head(request), request.body))
            listener.written()
            while True:
                message, content = await protocol.read()
                # 101 is final: nobody asked for another protocol.
                if message.code >= 200 or message.code == 101:
                    return _Reply(message, content, line)
        finally:
            protocol.listener = None

    def _target(self, lines: _Lines, url: str) -> _Target:
        address = parse_address(url)
        proxied = self._proxy is not None and not address.loopback
        target = _Target(
            _url(url),
            tls=self._context() if address.secure else None,
            proxy=_url(self._proxy.reveal()) if self._proxy is not None and proxied else None,
            close=lines.force_close,
        )
        if len(lines.targets) >= _MOST_TARGETS:
            lines.targets.clear()
        lines.targets[url] = target
        return target

    def leftover(self, content: Content) -> bytes:
        """Give what arrived of a body before its connection broke."""
        # The public ways raise the connection's error first, and the data would be lost.
        return cast("aiohttp.StreamReader", content)._read_nowait(-1)  # noqa: SLF001 - see above

    def forget(self, connector: Connector) -> None:
        """Let a set of sockets go without touching them."""
        # What its `close` sets, without closing: no warning, and no work when it is collected.
        cast("_Lines", connector)._closed = True  # noqa: SLF001 - see above

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


class _Target:
    """
    An address, and what is the same in every request to it.

    Args:
        url: The address.
        tls: Who is trusted there; None without TLS.
        proxy: Through which proxy; None: straight there.
        close: Whether a connection is closed after its reply.
    """

    def __init__(self, url: Any, *, tls: ssl.SSLContext | None, proxy: Any, close: bool) -> None:
        # The library's connector wants one of its requests; it is never sent.
        self.place = aiohttp.ClientRequest(
            "GET",
            url,
            loop=asyncio.get_running_loop(),
            ssl=True if tls is None else tls,
            proxy=proxy,
        )
        # RFC 9112, section 3.2: a proxy that builds no tunnel needs the whole address.
        path = url.raw_path_qs if proxy is None or tls is not None else str(url)
        self._line = f" {path} HTTP/1.1\r\n"
        own = self.place.headers
        self._first = {"host": own["Host"]}
        if close:
            self._first["connection"] = "close"
        # A user and a password stand in the address.
        self._last = {"authorization": own["Authorization"]} if "Authorization" in own else {}

    def head(self, request: HttpRequest) -> bytes:
        """
        Write the head of a request.

        Args:
            request: It.

        Returns:
            Its first line and its headers.
        """
        fields = {**self._first, **_revealed(request), **self._last}
        if request.body or request.method in _WITH_BODY:
            fields["content-length"] = str(len(request.body))
        # The connector has put it there, if the proxy wants one.
        for_proxy = self.place.headers.get("Proxy-Authorization")
        if for_proxy is not None:
            fields["proxy-authorization"] = for_proxy
        text = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        return f"{request.method}{self._line}{text}\r\n".encode()


class _Reply(Response):
    """
    A reply whose headers have arrived; its connection is given back when the body has.

    Args:
        message: Status and headers.
        content: The body.
        line: The connection.
    """

    def __init__(
        self, message: RawResponseMessage, content: aiohttp.StreamReader, line: Connection
    ) -> None:
        self.status = message.code
        self.content = cast("Content", content)
        self._headers = message.headers
        self._line: Connection | None = line
        content.on_eof(self._arrived)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; `items` may give a name several times."""
        return self._headers

    @property
    def connection(self) -> object | None:
        """Its connection; None once it was given back."""
        return self._line

    def close(self) -> None:
        """Close the connection."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _arrived(self) -> None:
        line, self._line = self._line, None
        if line is None:
            return
        transport = line.transport
        if transport is not None and transport.get_write_buffer_size():
            # Answered before the request was read: what is left of it would go before the next.
            line.close()
        else:
            line.release()


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


class _Line(ResponseHandler):
    """A connection that knows how often it was used, and whether it was answered."""

    uses = 0
    heard = False
    listener: Listener | None = None

    def resume_writing(self) -> None:
        super().resume_writing()
        # The rest of a large request was taken.
        if self.listener is not None:
            self.listener.written()

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


class _Lines(aiohttp.TCPConnector):
    """A connector of such connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.targets: dict[str, _Target] = {}
        self._factory = cast(
            "functools.partial[ResponseHandler]", functools.partial(_Line, loop=self._loop)
        )


@functools.lru_cache(maxsize=16)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    # `connect` covers name look-up, TCP, TLS and a proxy's tunnel; `sock_connect` would leave out
    # the look-up. Everything later is the exchange's own clock. Limits are not rounded up.
    return aiohttp.ClientTimeout(
        total=None, connect=connect_s, sock_connect=None, sock_read=None, ceil_threshold=1e9
    )


@functools.lru_cache(maxsize=256)
def _url(text: str) -> Any:
    # A request wants yarl's URL, and has one: no need to depend on yarl for its name.
    make = type(aiohttp.ClientRequest.url)
    with suppress(ValueError):
        return make(text)
    raise ConfigInvalid(f"{parse_address(text).where} is not an address.")


def _revealed(request: HttpRequest) -> dict[str, str]:
    headers = {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in request.headers.items()
    }
    headers.setdefault("accept-encoding", "identity" if request.stream else "gzip, deflate")
    return headers
