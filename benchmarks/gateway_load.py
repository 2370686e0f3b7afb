"""
One load on a gateway: `gateway_load.py SCENARIO TARGET` prints what was measured, as JSON.

`benchmarks/gateway.py` starts it in a process of its own, and so it does the modules that add loads
to these. TARGET says in JSON where the gateway
is, what it wants to be told, and whose CPU counts. Every answer is looked at: the whole text, each
piece of a stream, its end. It is the standard library alone, so that it takes little of the core.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, NotRequired, TypeAlias, TypedDict, TypeVar

from contenders import MODEL
from upstream import PIECE, PIECES, TEXT

__all__ = [
    "LOADS",
    "STEADY_PER_S",
    "Connection",
    "Load",
    "Loads",
    "Target",
    "Wrong",
    "check",
    "cpu_s",
    "main",
    "percentile",
    "request_body",
]

CONNECTIONS = 50
STEADY_PER_S = 500
# What each connection of the steady load may have in front of it before it says so.
STEADY_MOST = 400
PACED_STREAMS = 50
BURST_STREAMS = 6
# One in so many of a long run is a stream.
STREAM_EVERY = 10
LIMIT_S = 120
# Others take as long as they take.
LIMITS_S = {"long": None, "idle": 600, "flood": None}

# What an answer must have: whatever a gateway writes anew, the words stay.
_TEXT = TEXT.encode()
_PIECE = json.dumps(PIECE).encode()
_END = b"data: [DONE]"


class Target(TypedDict):
    """Where a gateway is, and for how long it is asked."""

    port: int
    headers: dict[str, str]
    pids: list[int]
    seconds: float
    requests: int
    # Where the vendor listens, for a load that tells it when to end its streams.
    vendor: NotRequired[int]
    # Whether a 429 is a right answer.
    refusable: NotRequired[bool]


class Wrong(Exception):
    """An answer is not what it must be."""


def cpu_s(pids: list[int]) -> float:
    """
    Seconds of CPU that processes used until now, to the nanosecond.

    Source: clock_getcpuclockid(3); the clock of a process is its number, inverted, above a 2.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


class Connection(asyncio.Protocol):
    """
    A connection, kept alive: one request after the other.

    Attributes:
        right: Which answers are right.
        status: Of the last answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.right: tuple[bytes, ...] = (b"200",)
        self.status = b""
        self._loop = loop
        self._buffer = bytearray()
        self._body_at = 0
        # Where the answer ends; below zero for one in chunks, whose end is told by its last bytes.
        self._ends_at = 0
        self._answer: asyncio.Future[bytes]
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = transport  # type: ignore[assignment]  # a TCP transport is a Transport

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future gives the body."""
        self._answer = self._loop.create_future()
        if self._transport.is_closing():
            self._answer.set_exception(Wrong("the connection was closed"))
        else:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        self._buffer += data
        if not self._body_at and not self._read_head():
            return
        # No event of ours holds a CR, so that no data end like that.
        if self._ends_at < 0:
            if self._buffer.endswith(b"\r\n0\r\n\r\n"):
                self._give(dechunked(self._buffer, self._body_at))
        elif len(self._buffer) >= self._ends_at:
            self._give(bytes(self._buffer[self._body_at : self._ends_at]))

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[:end]).lower()
        _, found, length = head.partition(b"\r\ncontent-length:")
        self._body_at = end + 4
        self._ends_at = self._body_at + int(length.partition(b"\r\n")[0]) if found else -1
        self.status = head[9:12]
        if self.status not in self.right and not self._answer.done():
            self._answer.set_exception(Wrong(bytes(self._buffer[:2000]).decode()))
        return True

    def _give(self, body: bytes) -> None:
        self._buffer.clear()
        self._body_at = 0
        if not self._answer.done():
            self._answer.set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        if self._body_at and not self._answer.done():
            self._answer.set_exception(Wrong(f"the connection ended: {exc}"))

    def close(self) -> None:
        """Close the socket."""
        self._transport.abort()


def dechunked(data: bytearray, at: int) -> bytes:
    """Join the chunks of a body that begins at `at`."""
    pieces: list[bytes] = []
    view = bytes(data)
    while True:
        end = view.index(b"\r\n", at)
        size = int(view[at:end].partition(b";")[0], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(view[end + 2 : end + 2 + size])
        at = end + 4 + size


C = TypeVar("C", bound=Connection)


class Load:
    """
    Asks a gateway in many ways.

    Attributes:
        requests: By kind.
        sent: How many requests went.
        target: Who is asked.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._loop = asyncio.get_running_loop()
        self.requests = {kind: _request(target, kind) for kind in ("plain", *PIECES)}
        self.sent = 0

    async def open(self, number: int) -> list[Connection]:
        """Open connections."""
        return await self.open_as(Connection, number)

    async def open_as(self, kind: type[C], number: int, port: int | None = None) -> list[C]:
        """Open connections of a kind; without a port, to the gateway."""
        opened = []
        for _ in range(number):
            _, connection = await self._loop.create_connection(
                lambda: kind(self._loop), "127.0.0.1", port or self.target["port"]
            )
            opened.append(connection)
        return opened

    async def ask(self, connection: Connection, kind: str) -> float:
        """Ask once, check the answer, and give the milliseconds that it took."""
        self.sent += 1
        began_s = time.perf_counter()
        body = await connection.ask(self.requests[kind])
        took_s = time.perf_counter() - began_s
        check(kind, body)
        return took_s * 1e3

    async def for_s(self, connections: list[Connection], seconds: float) -> list[float]:
        """Let each connection ask again and again; gives how long each answer took."""
        took: list[float] = []
        end_s = time.perf_counter() + seconds

        async def one(connection: Connection) -> None:
            while time.perf_counter() < end_s:
                took.append(await self.ask(connection, "plain"))

        await asyncio.gather(*(one(connection) for connection in connections))
        return took

    async def rate(self) -> dict[str, float]:
        """Measure how much a gateway can do, with 50 connections that never rest."""
        connections = await self.open(CONNECTIONS)
        await self.for_s(connections, self.target["seconds"] / 5)
        began_s, began_cpu_s = time.perf_counter(), cpu_s(self.target["pids"])
        took = await self.for_s(connections, self.target["seconds"])
        used_s, ended_s = cpu_s(self.target["pids"]) - began_cpu_s, time.perf_counter()
        return {
            "rate": len(took) / (ended_s - began_s),
            "cpu": used_s / len(took) * 1e3,
            "rate_p50": percentile(took, 0.5),
            "rate_p99": percentile(took, 0.99),
        }

    async def one(self) -> dict[str, float]:
        """Measure how long an answer takes when nobody else asks."""
        connections = await self.open(1)
        await self.for_s(connections, self.target["seconds"] / 5)
        took = await self.for_s(connections, self.target["seconds"])
        return {"one_p50": percentile(took, 0.5), "one_p99": percentile(took, 0.99)}

    async def steady(self) -> dict[str, float]:
        """Measure how long an answer takes at 500 a second, at moments that chance has chosen."""
        free = await self.open(STEADY_MOST)
        await self.for_s(free[:CONNECTIONS], self.target["seconds"] / 5)
        took = await self.at_times(free, STEADY_PER_S, self.target["seconds"])
        return {"steady_p50": percentile(took, 0.5), "steady_p99": percentile(took, 0.99)}

    async def at_times(
        self, connections: list[Connection], per_s: float, seconds: float
    ) -> list[float]:
        """Ask at moments that chance has chosen; gives how long each answer took."""
        free = deque(connections)
        took: list[float] = []

        async def once() -> None:
            if not free:
                raise Wrong(f"{len(connections)} calls wait")
            connection = free.pop()
            took.append(await self.ask(connection, "plain"))
            free.append(connection)

        dice = random.Random(1)
        asking = set()
        began_s = due_s = time.perf_counter()
        while due_s < began_s + seconds:
            due_s += dice.expovariate(per_s)
            # A loop wakes once a millisecond: a call is sent then, and its time begins then.
            if (early_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            asking.add(asyncio.create_task(once()))
        await asyncio.gather(*asking)
        return took

    async def burst(self) -> dict[str, float]:
        """Measure what a chunk costs when all of a stream comes at once."""
        return {"burst": await self._chunks("burst", BURST_STREAMS, 1)}

    async def paced(self) -> dict[str, float]:
        """Measure what a chunk costs when one comes every 20 ms, in 50 streams."""
        return {"paced": await self._chunks("paced", 1, PACED_STREAMS)}

    async def _chunks(self, kind: str, times: int, connections: int) -> float:
        opened = await self.open(connections)
        await asyncio.gather(*(self.ask(connection, "short") for connection in opened))

        async def streams(connection: Connection) -> None:
            for _ in range(times):
                await self.ask(connection, kind)

        began_cpu_s = cpu_s(self.target["pids"])
        await asyncio.gather(*(streams(connection) for connection in opened))
        used_s = cpu_s(self.target["pids"]) - began_cpu_s
        return used_s / (times * connections * PIECES[kind]) * 1e6

    async def first(self) -> dict[str, float]:
        """Ask once."""
        connections = await self.open(1)
        return {"first": await self.ask(connections[0], "plain")}

    async def long(self) -> dict[str, float]:
        """Ask so many times, every tenth time for a short stream."""
        connections = await self.open(CONNECTIONS)
        left = iter(range(self.target["requests"]))

        async def some(connection: Connection) -> None:
            for number in left:
                await self.ask(connection, "plain" if number % STREAM_EVERY else "short")

        began_s = time.perf_counter()
        await asyncio.gather(*(some(connection) for connection in connections))
        return {"rate": self.target["requests"] / (time.perf_counter() - began_s)}


def check(kind: str, body: bytes) -> None:
    """See whether an answer has all its words."""
    if kind == "plain":
        if _TEXT not in body:
            raise Wrong(body[:2000].decode())
    elif body.count(_PIECE) != PIECES[kind] or body.count(_END) != 1:
        raise Wrong(f"{body.count(_PIECE)} pieces of {PIECES[kind]}: {body[-2000:].decode()}")


def percentile(values: list[float], share: float) -> float:
    """Give the value that a share of all is not above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def request_body(kind: str) -> bytes:
    """Give the body of a request for a kind of answer."""
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{kind} Why are clouds white?"}],
    }
    if kind != "plain":
        asked["stream"] = True
    return json.dumps(asked).encode()


def _request(target: Target, kind: str) -> bytes:
    body = request_body(kind)
    headers = {
        "host": f"127.0.0.1:{target['port']}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **target["headers"],
    }
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    return f"POST /v1/chat/completions HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body


Loads: TypeAlias = Mapping[str, Callable[[Load], Coroutine[Any, Any, Mapping[str, Any]]]]

LOADS: Loads = {
    "rate": Load.rate,
    "one": Load.one,
    "steady": Load.steady,
    "burst": Load.burst,
    "paced": Load.paced,
    "first": Load.first,
    "long": Load.long,
}


async def _measure(loads: Loads, scenario: str, target: Target) -> dict[str, Any]:
    load = Load(target)
    try:
        async with asyncio.timeout(LIMITS_S.get(scenario, LIMIT_S)):
            values = await loads[scenario](load)
    except (Wrong, TimeoutError, OSError) as problem:
        return {"sent": load.sent, "problem": f"{type(problem).__name__}: {problem}"}
    return {"sent": load.sent, "values": values}


def main(loads: Loads = LOADS) -> None:
    """Ask as the arguments say."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415  optional: it only makes the load cheaper

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(_measure(loads, sys.argv[1], json.loads(sys.argv[2])))))


if __name__ == "__main__":
    main()
