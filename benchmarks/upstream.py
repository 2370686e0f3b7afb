"""
The vendor of the benchmarks: fixed answers over loopback, as cheap as Python makes them.

It prints its port and serves until its standard input is closed. The first part of a path says
how to answer: `/plain/...`, `/delay/...` (after 200 ms), `/burst/...` (a stream, all at once),
`/short/...` (the same, with ten events), `/paced/...` (a stream, an event every 20 ms).
`GET /count` gives the requests of each kind. An idle stream is for `gateway_upstream.py` alone.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = [
    "HEAD",
    "PIECE",
    "PIECES",
    "PLAIN_BODY",
    "STREAM_BYTES",
    "STREAM_STARTS",
    "TEXT",
    "Upstream",
    "chunked",
    "event",
    "main",
    "reply",
    "stream_events",
]

TEXT = "Clouds are white because their drops scatter every colour of the light alike. " * 4
PIECE = " light"
PIECES = {"burst": 4000, "paced": 100, "short": 10, "idle": 2}
DELAY_S = 0.2
PACE_S = 0.02

_USAGE = {"prompt_tokens": 20, "completion_tokens": 80, "total_tokens": 100}
HEAD = {
    "id": "0af1b2c3d4e5f60718293a4b5c6d7e8f",
    "created": 1700000000,
    "model": "mistral-large-latest",
}


def _plain() -> bytes:
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "tool_calls": None, "content": TEXT},
    }
    body = {**HEAD, "usage": _USAGE, "object": "chat.completion", "choices": [choice]}
    return json.dumps(body).encode()


def event(delta: dict[str, Any], finish: str | None = None, **more: object) -> bytes:
    """Write an event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {**HEAD, "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


STREAM_STARTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def reply(body: bytes, status: bytes = b"200 OK") -> bytes:
    """Write a reply of JSON."""
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


def chunked(*pieces: bytes) -> bytes:
    """Write each piece as a chunk of a body; an empty one ends it."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


_FIRST = event({"role": "assistant", "content": ""})
_NEXT = event({"content": PIECE}, p="abcdefghij")
_LAST = (event({"content": ""}, "stop", usage=_USAGE), b"data: [DONE]\n\n")
STREAM_BYTES = {
    kind: len(_FIRST) + pieces * len(_NEXT) + sum(map(len, _LAST))
    for kind, pieces in PIECES.items()
}

PLAIN_BODY = _plain()
_PLAIN = reply(PLAIN_BODY)
_STREAM_HEAD = STREAM_STARTS + chunked(_FIRST)
_STREAM_NEXT = chunked(_NEXT)
_STREAM_END = chunked(*_LAST, b"")
_AT_ONCE = {
    kind: _STREAM_HEAD + _STREAM_NEXT * PIECES[kind] + _STREAM_END for kind in ("burst", "short")
}


def stream_events(kind: str) -> list[bytes]:
    """Give the events of a stream, as its body holds them."""
    return [_FIRST, *[_NEXT] * PIECES[kind], *_LAST]


class Upstream(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self, loop: asyncio.AbstractEventLoop, counts: Counter[str]) -> None:
        self._loop = loop
        self._counts = counts
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = transport  # type: ignore[assignment]  # a TCP transport is a Transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, found, length = head.partition(b"\r\ncontent-length:")
            size = end + 4 + (int(length.split(b"\r\n", 1)[0]) if found else 0)
            if len(self._buffer) < size:
                return
            body = self._buffer[end + 4 : size]
            self._buffer = self._buffer[size:]
            kind = head.split(b" ", 2)[1].split(b"/")[1].decode()
            if kind == "count":
                self.write(reply(json.dumps(self._counts).encode()))
            else:
                self._counts[kind] += 1
                self.answer(kind, body)

    def answer(self, kind: str, body: bytes) -> None:  # noqa: ARG002 - others look at it
        """Answer one request."""
        if kind == "plain":
            self.write(_PLAIN)
        elif kind == "delay":
            self.later(_PLAIN)
        elif kind in _AT_ONCE:
            self.write(_AT_ONCE[kind])
        elif kind == "paced":
            self.write(_STREAM_HEAD)
            self._pace(self._loop.time(), 1)

    def later(self, data: bytes) -> None:
        """Write after 200 ms."""
        self._loop.call_later(DELAY_S, self.write, data)

    def write(self, data: bytes) -> None:
        """Write, unless nobody is there any more."""
        if not self._transport.is_closing():
            self._transport.write(data)

    def _pace(self, start_s: float, number: int) -> None:
        if number > PIECES["paced"]:
            self.write(_STREAM_END)
            return
        self.write(_STREAM_NEXT)
        due_s = start_s + number * PACE_S
        self._loop.call_at(due_s, self._pace, start_s, number + 1)


async def _serve(connection: type[Upstream]) -> None:
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server = await loop.create_server(
        lambda: connection(loop, counts), "127.0.0.1", 0, backlog=4096
    )
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # The runner holds the other end: when it goes, however it goes, so do we.
        await loop.run_in_executor(None, sys.stdin.read)


def main(connection: type[Upstream] = Upstream) -> None:
    """Serve until standard input ends."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415  optional: it only makes the upstream cheaper

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(connection))


if __name__ == "__main__":
    main()
