"""
The vendor of the benchmarks: fixed answers over loopback, as cheap as Python makes them.

It prints its port and serves until its standard input is closed. The first part of a path says
how to answer: `/plain/...`, `/delay/...` (after 200 ms), `/burst/...` (a stream, all at once),
`/paced/...` (a stream, an event every 20 ms). `GET /count` gives the requests of each kind.
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

__all__ = ["PIECE", "PIECES", "PLAIN_BODY", "STREAM_BYTES", "TEXT", "main", "stream_events"]

TEXT = "Clouds are white because their drops scatter every colour of the light alike. " * 4
PIECE = " light"
PIECES = {"burst": 4000, "paced": 100}
DELAY_S = 0.2
PACE_S = 0.02

_USAGE = {"prompt_tokens": 20, "completion_tokens": 80, "total_tokens": 100}
_HEAD = {
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
    body = {**_HEAD, "usage": _USAGE, "object": "chat.completion", "choices": [choice]}
    return json.dumps(body).encode()


def _event(delta: dict[str, Any], finish: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


_FIRST = _event({"role": "assistant", "content": ""})
_NEXT = _event({"content": PIECE}, p="abcdefghij")
_LAST = (_event({"content": ""}, "stop", usage=_USAGE), b"data: [DONE]\n\n")
STREAM_BYTES = {
    kind: len(_FIRST) + pieces * len(_NEXT) + sum(map(len, _LAST))
    for kind, pieces in PIECES.items()
}

PLAIN_BODY = _plain()
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(PLAIN_BODY),
    PLAIN_BODY,
)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n" + _chunked(_FIRST)
)
_STREAM_NEXT = _chunked(_NEXT)
_STREAM_END = _chunked(*_LAST, b"")
_BURST = _STREAM_HEAD + _STREAM_NEXT * PIECES["burst"] + _STREAM_END


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
            self._buffer = self._buffer[size:]
            self._answer(head.split(b" ", 2)[1].split(b"/")[1].decode())

    def _answer(self, kind: str) -> None:
        if kind == "count":
            body = json.dumps(self._counts).encode()
            self._write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            return
        self._counts[kind] += 1
        if kind == "plain":
            self._write(_PLAIN)
        elif kind == "delay":
            self._loop.call_later(DELAY_S, self._write, _PLAIN)
        elif kind == "burst":
            self._write(_BURST)
        elif kind == "paced":
            self._write(_STREAM_HEAD)
            self._pace(self._loop.time(), 1)

    def _pace(self, start_s: float, number: int) -> None:
        if number > PIECES["paced"]:
            self._write(_STREAM_END)
            return
        self._write(_STREAM_NEXT)
        due_s = start_s + number * PACE_S
        self._loop.call_at(due_s, self._pace, start_s, number + 1)

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server = await loop.create_server(lambda: Upstream(loop, counts), "127.0.0.1", 0, backlog=4096)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # The runner holds the other end: when it goes, however it goes, so do we.
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415  optional: it only makes the upstream cheaper

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
