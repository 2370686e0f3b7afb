"""
An answer on the wire: its head leaves with the first piece of its body, in one packet.

uvicorn's own way to send writes the head by itself and looks at each header twice with a regular
expression: a packet more for every answer, and 5 us. Pieces that come in one turn of the loop leave
together at its end: a vendor's packet of many events is one packet here too. Everything else of a
request and its answer stays uvicorn's: its state is kept as it would keep it. This module is
imported by whoever serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

__all__ = ["Answer"]

_NO_BODY = (204, 304)
# What is kept in a turn at most: a piece of a quarter of what may wait for a reader.
_TOGETHER_BYTES = 64 * 1024


class Answer:
    """
    Writes the answer of one request.

    Args:
        cycle: uvicorn's request and answer, which sends nothing by itself.
    """

    __slots__ = ("_chunked", "_cycle", "_kept", "_kept_bytes", "_left", "_silent")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._left = 0
        self._chunked = False
        self._silent = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """
        Take what the application says next; waits while the caller reads too slowly.

        Args:
            message: ASGI's `http.response.start`, then `http.response.body`.

        Raises:
            RuntimeError: If it is not the one that is due, or not as long as the head said.
            ValueError: If a header would be two.
        """
        cycle = self._cycle
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        due = "http.response.body" if cycle.response_started else "http.response.start"
        if message["type"] != due or cycle.response_complete:
            raise RuntimeError(f"{message['type']} is not due in an answer")
        if cycle.response_started:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            self._begin(message["status"], message.get("headers", ()))

    def _begin(self, status: int, headers: Any) -> None:
        """Keep the head until there is something to send with it."""
        cycle = self._cycle
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        lines = [STATUS_LINE[status]]
        length = None
        for name, value in (*cycle.default_headers, *headers):
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value == b"close":
                cycle.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        self._silent = cycle.scope["method"] == "HEAD" or status in _NO_BODY
        self._chunked = length is None and not self._silent
        self._left = 0 if self._silent else length or 0
        if self._chunked:
            lines.append(b"transfer-encoding: chunked\r\n")
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        head = b"".join(lines)
        # RFC 9112, section 11.1: whatever a header holds, a line is a line.
        if head.count(b"\r") != len(lines) or head.count(b"\n") != len(lines):
            raise ValueError("a header of an answer holds the end of a line")
        self._kept = [head + b"\r\n"]

    def _go_on(self, body: bytes, *, more: bool) -> None:
        kept = self._kept
        if self._chunked:
            if body:
                kept += (b"%x\r\n" % len(body), body, b"\r\n")
            if not more:
                kept.append(b"0\r\n\r\n")
        elif not self._silent:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("an answer is not as long as its head says")
            kept.append(body)
        if more and self._chunked:
            self._keep(len(body))
            return
        self._write()
        if not more:
            self._end()

    def _keep(self, size: int) -> None:
        """Write at the end of this turn of the loop, or now if it is much."""
        if self._kept_bytes + size > _TOGETHER_BYTES:
            self._write()
            return
        if not self._kept_bytes and size:
            asyncio.get_running_loop().call_soon(self._write)
        self._kept_bytes += size

    def _write(self) -> None:
        data, transport = b"".join(self._kept), self._cycle.transport
        self._kept.clear()
        self._kept_bytes = 0
        if data and not transport.is_closing():
            transport.write(data)

    def _end(self) -> None:
        cycle = self._cycle
        cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
