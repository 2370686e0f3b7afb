"""
The two ways to an MCP server, and what is noted of each request on its way.

A request may be sent again only while nobody can have received it, so the note says whether it
left: a `Trip` is hung into the context of the call, which the SDK carries down to here.
"""

from __future__ import annotations

import codecs
import logging
import os
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Any, Self, cast

import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from loom.shuttle.mcp_place import Place

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Event

    from mcp.client import Transport

__all__ = ["MOST_BYTES", "TRIP", "Stderr", "Trip", "http_way", "stdio_way"]

_log = logging.getLogger(__name__)
# The SDK tells of a line that is no JSON-RPC at level "error"; a program that has set up no
# logging shall not find that on its terminal.
logging.getLogger("mcp").addHandler(logging.NullHandler())

MOST_BYTES = 32 * 1024 * 1024
"""The largest answer: a screenshot as base64 has some megabytes."""

# Words of farewell: a server that does not answer them is left.
_FAREWELL_S = 2.0
_KEPT_LINES = 8
_LONGEST_LINE = 500


class Trip:
    """
    What happened to one request on its way.

    Attributes:
        sent: Whether somebody may have received it.
        status: The last HTTP status; None if there was none.
        failure: Why the way ended; empty if it did not.
        end: Ends the session; None in a trip that is none's.
    """

    __slots__ = ("end", "failure", "sent", "status")

    def __init__(self) -> None:
        self.sent = False
        self.status: int | None = None
        self.failure = ""
        self.end: Callable[[], None] | None = None


TRIP: ContextVar[Trip | None] = ContextVar("loom_mcp_trip", default=None)
"""The trip of the call whose context this is."""


class Stderr:
    """
    What a server writes to its standard error: to the log at debug, the last lines kept.

    Args:
        place: Whose; its secrets are hidden.
        loop: Where `ended` is waited for.
        ended: Set when nobody can write there any more.
    """

    def __init__(self, place: Place, loop: AbstractEventLoop, ended: Event) -> None:
        self._place = place
        self._loop = loop
        self.ended = ended
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def open(self) -> IO[str]:
        """The end that the server writes to; a thread reads the other until it is closed."""
        reading, writing = os.pipe()
        threading.Thread(
            target=self._read, args=(reading,), name="loom-mcp-stderr", daemon=True
        ).start()
        return os.fdopen(writing, "w")

    def _read(self, descriptor: int) -> None:
        rest = b""
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            while chunk := pipe.read(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                rest = rest[-65536:]
                for line in lines:
                    self._take(line)
        self._take(rest)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.ended.set)

    def _take(self, line: bytes) -> None:
        text = self._place.hide(line.decode("utf-8", errors="replace").strip())
        if text:
            _log.debug("%s: %s", self._place.name, text)
            self.lines.append(text[:_LONGEST_LINE])


class _Lines(codecs.getincrementaldecoder("utf-8")):  # type: ignore[misc] # a class, made at run time
    """
    UTF-8 whose lines have an end: the SDK gathers a line without any limit of its own.

    It can be told which encoding to use, and that is the one place where the bytes pass.
    """

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._trip = TRIP.get() or Trip()
        self._length = 0

    def decode(self, data: bytes, final: bool = False) -> str:  # noqa: FBT001, FBT002 - its form
        text: str = super().decode(data, final)
        head, newline, tail = text.rpartition("\n")
        self._length = len(tail) if newline else self._length + len(head) + len(tail)
        if self._length > MOST_BYTES and not self._trip.failure:
            self._trip.failure = f"it wrote a line of more than {MOST_BYTES} characters"
            if self._trip.end is not None:
                self._trip.end()
        return "" if self._trip.failure else text


_LINES = codecs.CodecInfo(
    codecs.lookup("utf-8").encode,
    codecs.lookup("utf-8").decode,
    incrementaldecoder=_Lines,
    name="loom_mcp_utf8",
)
codecs.register(lambda name: _LINES if name == _LINES.name else None)


class _Noting:
    """A write stream that notes on the trip whether the request was handed on."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def send(self, item: Any) -> None:
        trip = TRIP.get()
        if trip is None:
            await self._inner.send(item)
            return
        before, trip.sent = trip.sent, True
        try:
            await self._inner.send(item)
        except Exception:
            trip.sent = before  # nobody took it
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.aclose()


def stdio_way(place: Place, stderr: Stderr) -> Transport:
    """
    Start a server and speak to it by its standard input and output.

    The SDK gives it PATH, HOME, USER, LOGNAME, SHELL and TERM of ours and nothing else
    (`get_default_environment`), beside what `place.env` says; it ends the process group.

    Args:
        place: What to start.
        stderr: Takes its standard error.

    Returns:
        The transport.
    """

    @asynccontextmanager
    async def streams() -> AsyncGenerator[Any]:
        with stderr.open() as writing:
            parameters = StdioServerParameters(
                command=place.command[0],
                args=list(place.command[1:]),
                env={name: value.reveal() for name, value in place.env.items()},
                cwd=place.cwd,
                # A line that is not UTF-8 is no message; it shall not end the session.
                encoding_error_handler="replace",
                encoding=_LINES.name,
            )
            # typeshed: any text file with a descriptor is a TextIO
            process = stdio_client(parameters, errlog=cast("Any", writing))
            async with process as (read, write):
                writing.close()
                yield read, _Noting(write)

    return streams()


def http_way(place: Place) -> Transport:
    """
    Speak to a server by streamable HTTP.

    Proxies and `.netrc` of the environment are not used, and the SDK follows a redirect only within
    the server's origin.

    Args:
        place: Its address and headers.

    Returns:
        The transport.
    """

    @asynccontextmanager
    async def streams() -> AsyncGenerator[Any]:
        async with httpx2.AsyncClient(
            headers={name: value.reveal() for name, value in place.headers.items()},
            # No limit for reading: a stream of notices may be silent for hours, and calls have
            # their own.
            timeout=httpx2.Timeout(place.connect_timeout_s, read=None),
            # No limit of sockets either: whoever calls has one (`AgentLimits.max_parallel`).
            transport=_Door(
                httpx2.AsyncHTTPTransport(
                    trust_env=False, limits=httpx2.Limits(max_connections=None)
                )
            ),
            trust_env=False,
        ) as client:
            way = streamable_http_client(
                place.url, http_client=client, max_sse_event_size=MOST_BYTES
            )
            async with way as both:
                yield both

    return streams()


class _Door(httpx2.AsyncBaseTransport):
    """
    Sends requests, and turns a failure into an answer of status 599.

    An exception that passed through here would end the whole session with every other call in it.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        trip = TRIP.get() or Trip()
        if request.method == "DELETE":
            request.extensions["timeout"] = dict.fromkeys(
                ("connect", "read", "write", "pool"), _FAREWELL_S
            )
        before, trip.sent = trip.sent, True
        try:
            response = await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            trip.sent, trip.failure = before, _words(error)
            return httpx2.Response(599)
        except httpx2.TransportError as error:
            trip.failure = _words(error)
            return httpx2.Response(599)
        trip.status = response.status_code
        if response.status_code == 404 and "mcp-session-id" in request.headers:
            # The server does not know the session (any more) and has done nothing: a new one
            # shall be begun. Source: MCP 2025-11-25, transports, "Session Management".
            trip.sent = before
        response.stream = _Capped(response, trip)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Capped(httpx2.AsyncByteStream):
    """A body with an end: one that breaks off or is too long is a `StreamError`."""

    def __init__(self, response: httpx2.Response, trip: Trip) -> None:
        # An endless stream of events is right; each event has its own limit.
        kind = response.headers.get("content-type", "")
        self._left = None if kind.startswith("text/event-stream") else MOST_BYTES
        self._inner = cast("httpx2.AsyncByteStream", response.stream)
        self._trip = trip

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                if self._left is not None:
                    self._left -= len(piece)
                    if self._left < 0:
                        self._trip.failure = f"the answer is longer than {MOST_BYTES} bytes"
                        raise httpx2.StreamError(self._trip.failure)
                yield piece
        except httpx2.TransportError as error:
            self._trip.failure = _words(error)
            raise httpx2.StreamError(self._trip.failure) from None

    async def aclose(self) -> None:
        await self._inner.aclose()


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
