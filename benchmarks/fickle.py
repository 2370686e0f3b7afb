"""
The vendor of the cancellations: it answers, stalls, cuts and refuses, as its dice fall.

It prints its port and serves until its standard input is closed. A path begins with the route:
`/primary/...` has bad days, on which most requests fail; `/fallback/...` has none. `GET /count`
gives the requests so far, and the connections that are open beside its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import socket
import struct
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from upstream import PLAIN_BODY, stream_events

__all__ = ["ask_vendor", "main", "vendor"]

# What a request meets, and how often in a hundred.
WEATHER = {
    "good": {"answer": 48, "last": 10, "503": 14, "429": 4, "cut": 12, "reset": 4, "silence": 8},
    "bad": {"answer": 10, "503": 80, "silence": 10},
    "fallback": {"answer": 62, "last": 10, "503": 8, "cut": 10, "silence": 10},
}
BAD_EVERY_S, BAD_FOR_S = 2.0, 0.3
LONGEST_S = 0.004
EVENTS = 8

_EVENTS = stream_events("paced")
_EVENTS = [*_EVENTS[:EVENTS], *_EVENTS[-2:]]
_REFUSED = json.dumps({"object": "error", "message": "No.", "type": "x", "code": "1"}).encode()


class Fickle(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dice: random.Random) -> None:
        self._loop = loop
        self._dice = dice
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._transport = transport  # type: ignore[assignment]  # a TCP transport is a Transport
        OPEN.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out, and write nothing more."""
        del exc
        OPEN.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer a request that is whole."""
        self._buffer += data
        head, ended, rest = self._buffer.partition(b"\r\n\r\n")
        if not ended:
            return
        _, found, length = head.lower().partition(b"\r\ncontent-length:")
        if len(rest) < (int(length.split(b"\r\n", 1)[0]) if found else 0):
            return
        self._buffer = b""
        self._answer(head.split(b"/", 2)[1].split(b" ")[0].decode(), b'"stream":true' in rest)

    def _answer(self, route: str, streamed: bool) -> None:  # noqa: FBT001  a field of the request
        if route == "count":
            counts = {"requests": COUNTS.total(), "open": len(OPEN) - 1, "kinds": dict(COUNTS)}
            self._transport.write(_plain(json.dumps(counts).encode()))
            return
        bad = route == "primary" and self._loop.time() % BAD_EVERY_S < BAD_FOR_S
        weights = WEATHER["bad" if bad else "good" if route == "primary" else route]
        (kind,) = self._dice.choices([*weights], [*weights.values()])
        COUNTS[f"{route} {kind}"] += 1
        match kind:
            case "503" | "429":
                self._later([_plain(_REFUSED, b"%s No" % kind.encode())], self._stay)
            case "reset":
                self._later([], self._reset)
            case "silence":
                pass
            case _:
                pieces = _STREAMED[route] if streamed else _HALVES[route]
                if kind == "cut":
                    self._later(pieces[: len(pieces) // 2], self._transport.close)
                else:
                    self._later(pieces, self._stay if kind == "answer" else self._transport.close)

    def _later(self, pieces: Sequence[bytes], end: Callable[[], None]) -> None:
        """Write the pieces one by one, each after a while."""
        if not pieces:
            self._timer = self._loop.call_later(self._dice.random() * LONGEST_S, end)
            return

        def write() -> None:
            self._transport.write(pieces[0])
            if len(pieces) == 1:
                end()
            else:
                self._later(pieces[1:], end)

        self._timer = self._loop.call_later(self._dice.random() * LONGEST_S, write)

    def _stay(self) -> None:
        """Keep the connection."""

    def _reset(self) -> None:
        sock: socket.socket = self._transport.get_extra_info("socket")
        # Linger for no time: what is sent last is a reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


COUNTS: Counter[str] = Counter()
OPEN: set[Fickle] = set()


def _plain(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n" % status
    # As the vendor does when it wants to be asked again at once.
    after = b"retry-after: 0\r\n" if status.startswith(b"429") else b""
    return head + after + b"content-length: %d\r\n\r\n%s" % (len(body), body)


def _halves(body: bytes) -> list[bytes]:
    head, ended, body = _plain(body).partition(b"\r\n\r\n")
    return [head + ended, body[: len(body) // 2], body[len(body) // 2 :]]


def _streamed(events: Sequence[bytes]) -> list[bytes]:
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    return [head, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"]


# Each route answers with a model of its own.
_MODELS = {"primary": b"mistral-large-latest", "fallback": b"mistral-small-latest"}
_HALVES = {
    route: _halves(PLAIN_BODY.replace(_MODELS["primary"], model))
    for route, model in _MODELS.items()
}
_STREAMED = {
    route: _streamed([event.replace(_MODELS["primary"], model) for event in _EVENTS])
    for route, model in _MODELS.items()
}


@contextmanager
def vendor(seed: int) -> Iterator[str]:
    """Run the vendor in its own process, and give its address."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(seed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.communicate()  # closes its standard input: it ends


def ask_vendor(url: str) -> dict[str, Any]:
    """Give the vendor's count of requests, and of connections that are open."""
    with urllib.request.urlopen(f"{url}/count") as reply:  # noqa: S310  our own vendor
        counts: dict[str, Any] = json.load(reply)
    return counts


async def _serve(seed: int) -> None:
    loop = asyncio.get_running_loop()
    dice = random.Random(seed)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await loop.create_server(lambda: Fickle(loop, dice), "127.0.0.1", 0, backlog=4096)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        # The runner holds the other end: when it goes, however it goes, so do we.
        await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    asyncio.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
