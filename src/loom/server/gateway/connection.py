"""
A connection to the gateway: what may come over it, how much and how long.

uvicorn's protocol reads and writes; this one adds what it has no limits for. httptools refuses
most of what is no HTTP (two lengths, bare line feeds, folded lines); what it lets pass stands
below as rules. Times are looked at by one sweep over all connections, so that a request pays for
no timer. This module is imported by whoever serves: it needs uvicorn and httptools.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, NoReturn

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from loom.core.errors import InvalidRequest, LimitExceeded, LoomError, ServiceUnavailable
from loom.server.gateway.answer import Answer
from loom.server.gateway.hangup import Listeners
from loom.server.gateway.heads import body_too_large, check_head, head_too_large
from loom.server.gateway.limits import DoorLimits
from loom.server.gateway.refusals import MakeReply

__all__ = ["Connection", "Doorkeeper", "Phase"]

_log = logging.getLogger("loom.server")

# How long a refused caller may go on talking: closed at once, the kernel would answer what it
# still sends with a reset, which may overtake the reply.
_LINGER_S = 2.0
_LINGER_BYTES = 64 * 1024 * 1024
_LOW = 4


class Phase(Enum):
    """What is being read."""

    REST = 0
    HEAD = 1
    BODY = 2
    LINGER = 3


# Names of a module are found sooner than those of an enum: every header asks.
_REST, _HEAD, _BODY, _LINGER = Phase.REST, Phase.HEAD, Phase.BODY, Phase.LINGER


class _Refused(Exception):
    """Leaves the parser, which turns it into an error of its own."""


class Doorkeeper:
    """
    What the connections have in common.

    Args:
        limits: How much, how long, how many.
        reply: Makes the error's reply.
        dropped: Hears of each connection or request that was refused, by a word for the reason.
    """

    def __init__(
        self, limits: DoorLimits, reply: MakeReply, dropped: Callable[[str], None]
    ) -> None:
        self.limits = limits
        self.reply = reply
        self.dropped = dropped
        self.by_address: Counter[str] = Counter()
        shortest = min(
            limits.head_s, limits.body_s, limits.write_s, limits.body_grace_s, limits.idle_s
        )
        self.tick_s = max(0.05, min(1.0, shortest / 4))

    def sweep(self, connections: Iterable[Any], now_s: float) -> None:
        """
        End what takes too long.

        Args:
            connections: Some of them, or all.
            now_s: The loop's time.
        """
        for connection in connections:
            try:
                connection.check(now_s)
            except Exception:  # noqa: BLE001 - a border: one connection ends no sweep
                _log.exception("an unexpected error at a connection")
                connection.transport.abort()


class Connection(HttpToolsProtocol):
    """
    One connection.

    Args:
        keeper: What it shares with the others.
        options: Those of uvicorn's.
    """

    def __init__(self, *, keeper: Doorkeeper, **options: Any) -> None:
        super().__init__(**options)
        self.keeper = keeper
        self.limits = keeper.limits
        self.most_fields = keeper.limits.head_fields
        self.phase = _HEAD
        self.since_s = 0.0
        self.unread = 0  # bytes of a head that is not whole
        self.body_size = 0
        self.unsent = 0
        self.unsent_since_s = 0.0
        self.fault: LoomError | None = None
        self.upgraded = False
        self.owed = 0  # bytes of a body that the parser will not read
        self.listeners = Listeners()

    # --- the connection ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Take note of when it began, and from where."""
        super().connection_made(transport)
        high = self.limits.write_bytes
        transport.set_write_buffer_limits(high=high, low=high // _LOW)
        self.since_s = self.loop.time()
        self.address = "" if self.client is None else self.client[0]
        counts = self.keeper.by_address
        counts[self.address] += 1
        if counts[self.address] > self.limits.connections_per_address:
            said = "too many connections from your address"
            self.refuse(LimitExceeded(said, retry_after_s=1.0), "connections")
        elif len(self.connections) > self.limits.connections:
            self.refuse(
                ServiceUnavailable("too many connections", retry_after_s=1.0), "connections"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        counts = self.keeper.by_address
        counts[self.address] -= 1
        if not counts[self.address]:
            del counts[self.address]
        self.listeners.tell()

    def data_received(self, data: bytes) -> None:
        """Read on, and refuse what is no request."""
        before = self.phase
        if before is _LINGER or self.upgraded:
            self._left_over(data)
            return
        if before is _REST:
            self.phase, self.since_s = _HEAD, self.loop.time()
        self._feed(data)
        # A body that ends in the same piece is not counted.
        if self.phase is _HEAD and before is not _BODY:
            self.unread += len(data)
            if self.unread > self.limits.head_bytes:
                self.refuse(head_too_large(self.limits), "limit")

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            # Who offers another protocol is answered in this one (RFC 9110, section 7.8).
            self.upgraded = True
            if self.phase is _BODY:
                self._read_on(data[offer.args[0] :])
        except HttpParserInvalidMethodError:
            self.refuse(InvalidRequest("no such method", http_status=501), "not_http")
        except HttpParserError:
            error = self.fault or InvalidRequest("the request is not HTTP/1.1 as RFC 9112 has it")
            self.refuse(error, "not_http" if self.fault is None else "limit")

    def _left_over(self, data: bytes) -> None:
        if self.upgraded and self.phase is _BODY:
            self._read_on(data)
            return
        self.body_size += len(data)
        if self.body_size > _LINGER_BYTES:
            self.transport.abort()

    # --- the parser ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        if self.phase is not _HEAD:
            self.phase, self.since_s = _HEAD, self.loop.time()
        self.unread = self.body_size = 0

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self.url += url
        if len(self.url) > self.limits.line_bytes:
            most = self.limits.line_bytes
            self._stop(InvalidRequest(f"the target has over {most} bytes", http_status=414))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; a trailer is left out."""
        if self.phase is not _HEAD:
            # uvicorn would add it to headers that were already looked at.
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers = self.headers
        headers.append((name, value))
        if len(headers) > self.most_fields:
            self._stop(head_too_large(self.limits))

    def on_headers_complete(self) -> None:
        """Look at the head, and hand the request on."""
        parser = self.parser
        version, method = parser.get_http_version(), parser.get_method()
        try:
            check_head(version, method, self.url, self.headers, self.limits)
        except LoomError as error:
            self._stop(error)
        offers: bool = parser.should_upgrade()
        if offers and any(name == b"transfer-encoding" for name, _ in self.headers):
            self._stop(InvalidRequest("an offer of another protocol cannot have a body in chunks"))
        self.phase, self.since_s = _BODY, self.loop.time()
        super().on_headers_complete()
        self.listeners.put_into(self.scope)
        self.cycle.send = Answer(self.cycle).send  # type: ignore[method-assign,assignment]  # takes any
        if offers:
            self.cycle.keep_alive = False
            self.owed = next((int(v) for n, v in self.headers if n == b"content-length"), 0)
        if not self.cycle.keep_alive:
            self.cycle.transport = _Gentle(self)  # type: ignore[assignment]  # all that it uses

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self.body_size += len(body)
        if self.body_size > self.limits.body_bytes:
            self._stop(body_too_large(self.limits))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Rest until the next request."""
        if self.owed:
            return
        self.phase = _REST
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or rest: the sweep ends a rest, so it needs no timer."""
        self.since_s = self.loop.time()
        if self.pipeline:
            super().on_response_complete()
        elif not self.transport.is_closing():
            self.server_state.total_requests += 1
            self.flow.resume_reading()

    def _read_on(self, data: bytes) -> None:
        """
        Read a body behind the offer of another protocol.

        httptools takes such a request for one without a body; Java's client, which offers HTTP/2
        by itself, would never get an answer to a question. What comes behind it is left.
        """
        piece = data[: self.owed]
        self.owed -= len(piece)
        if piece:
            super().on_body(piece)
        if not self.owed:
            self.on_message_complete()

    def _stop(self, error: LoomError) -> NoReturn:
        self.fault = error
        raise _Refused

    # --- its end -------------------------------------------------------------------------------

    def refuse(self, error: LoomError, reason: str) -> None:
        """
        Answer what will not be read to its end, if an answer can be told apart, and close.

        Args:
            error: Why.
            reason: The same in a word.
        """
        self.keeper.dropped(reason)
        self.fault = error
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        reading = self.phase is _BODY
        busy = None if cycle is None or cycle.response_complete else cycle
        if self.pipeline or (busy is not None and (not reading or busy.response_started)):
            # Another answer is on its way here, or a part of this one.
            self.transport.close()
            return
        if busy is not None:
            busy.disconnected = True
            busy.message_event.set()
        elif reading:
            self.transport.close()
            return
        path, headers = "", {}
        if self.headers:
            headers = dict(self.headers)
            path = self.url.partition(b"?")[0].decode("latin-1")
        reply = self.keeper.reply(error, path, headers)
        lines = [STATUS_LINE[reply.status]]
        fields = {"content-type": "application/json", **reply.headers}
        fields |= {"content-length": str(len(reply.body)), "connection": "close"}
        lines += [b"%b: %b\r\n" % line for line in self.server_state.default_headers]
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in fields.items()]
        self.transport.write(b"".join([*lines, b"\r\n", reply.body]))
        self.linger()

    def linger(self) -> None:
        """Say that nothing more is sent, and close when the caller has said what it had to say."""
        self.phase, self.since_s, self.body_size = _LINGER, self.loop.time(), 0
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def finish_soon(self) -> None:
        """Let the running request be the last of this connection."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False

    def check(self, now_s: float) -> None:
        """
        End it, if it takes too long.

        Args:
            now_s: The loop's time.
        """
        if self.parser is None:
            return  # it ended since the sweep began
        transport = self.transport
        size = transport.get_write_buffer_size()
        if size != self.unsent or not size:
            self.unsent, self.unsent_since_s = size, now_s
        elif now_s - self.unsent_since_s > self.limits.write_s:
            self.keeper.dropped("write_time")
            transport.abort()
            return
        if self.flow.read_paused:
            # We do not read: the caller cannot be late.
            self.since_s = now_s
        passed_s = now_s - self.since_s
        match self.phase:
            case Phase.LINGER if passed_s > _LINGER_S:
                transport.abort()
            case Phase.REST if passed_s > self.limits.idle_s and self.cycle.response_complete:
                transport.close()
            case Phase.HEAD if passed_s > self.limits.head_s:
                self._too_slow("the head of the request took too long", "head_time")
            case Phase.BODY if passed_s > self.limits.body_s or self._trickles(passed_s):
                self._too_slow("the body of the request took too long", "body_time")

    def _trickles(self, passed_s: float) -> bool:
        limits = self.limits
        slow = self.body_size < limits.body_bytes_per_s * passed_s
        return slow and passed_s > limits.body_grace_s

    def _too_slow(self, message: str, reason: str) -> None:
        if self.transport.is_closing():
            return
        self.refuse(InvalidRequest(message, http_status=408, retryable=True), reason)


class _Gentle:
    """
    A transport that closes when the caller has nothing more to say.

    Args:
        connection: Whose it is.
    """

    __slots__ = ("_connection", "is_closing", "write")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.write = connection.transport.write
        self.is_closing = connection.transport.is_closing

    def close(self) -> None:
        connection = self._connection
        if connection.phase is _BODY and not connection.transport.is_closing():
            connection.linger()
        else:
            connection.transport.close()
