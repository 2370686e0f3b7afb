"""
Measure the door of the gateway: what it adds to a request, and what hostile callers do to others.

    uv run --extra server python benchmarks/door.py
    uv run --extra server python benchmarks/door.py --slow 1000 --readers 100 --seconds 10

The server is one small ASGI application in its own process, once under uvicorn alone and once
behind the door, both with httptools and uvloop; the callers are raw sockets in this one. Slow
callers send a byte of a head each second; slow readers ask for an endless stream and read nothing.
It prints and writes `benchmarks/results/door.json`; it never fails for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec

from loom.server.gateway.limits import DoorLimits
from loom.server.gateway.process import listen, raise_file_limit
from loom.server.gateway.run import GatewayServer

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results" / "door.json"
TICKS = os.sysconf("SC_CLK_TCK")
CALLERS = 16
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]}).encode()
# As the official SDKs send it, about.
HEAD = (
    b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: application/json\r\n"
    b"accept-encoding: identity\r\nuser-agent: OpenAI/Python 3.54.0\r\n"
    b"authorization: Bearer loom_sk_0123456789\r\ncontent-type: application/json\r\n"
    b"x-stainless-lang: python\r\ncontent-length: %d\r\n\r\n"
)
PLAIN = HEAD % (b"/", len(BODY)) + BODY
ENDLESS = HEAD % (b"/stream", len(BODY)) + BODY
ANSWER = json.dumps({"choices": [{"message": {"content": "Hello " * 40}}]}).encode()
PIECE = b"data: " + b"x" * 8000 + b"\n\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Read a request and answer it; `/stream` does not end."""
    while (await receive()).get("more_body", False):
        pass
    if scope["path"] == "/stream":
        kind = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        while True:
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
            await asyncio.sleep(0)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": ANSWER, "more_body": False})


def serve(kind: str) -> None:
    """Be the server, and print the port."""
    raise_file_limit(65_536)
    if kind == "door":
        limits = DoorLimits(connections_per_address=20_000)
        GatewayServer(app, drain_s=0, limits=limits, on_ready=lambda p: print(p, flush=True)).run()
        return
    import uvicorn  # noqa: PLC0415 - the other server only

    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    sock = listen("127.0.0.1", 0)
    print(sock.getsockname()[1], flush=True)
    uvicorn.Server(config).run([sock])


class Server(msgspec.Struct):
    """A running server."""

    pid: int
    port: int

    def cpu_s(self) -> float:
        """What it used of a core until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mb(self) -> float:
        """What it holds in memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@contextmanager
def started(kind: str) -> Iterator[Server]:
    """Start a server, and stop it."""
    command = [sys.executable, __file__, "--serve", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        yield Server(process.pid, int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    """Ask once on an open connection, and give the seconds that it took."""
    began_s = time.perf_counter()
    writer.write(PLAIN)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")  # noqa: S101  what is measured must be right
    assert await reader.readexactly(len(ANSWER)) == ANSWER  # noqa: S101  the same
    return time.perf_counter() - began_s


async def flood(server: Server, seconds: float) -> tuple[float, float]:
    """Give requests a second, and the server's CPU in microseconds a request."""
    done = 0
    end_s = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        reader, writer = await server.connect()
        while time.perf_counter() < end_s:
            await ask(reader, writer)
            done += 1
        writer.close()

    began_s, began_cpu_s = time.perf_counter(), server.cpu_s()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    elapsed_s, cpu_s = time.perf_counter() - began_s, server.cpu_s() - began_cpu_s
    return done / elapsed_s, cpu_s / done * 1e6


async def paced(server: Server, seconds: float, a_second: float = 200.0) -> list[float]:
    """Ask in turn at a pace, and give the seconds of each answer."""
    reader, writer = await server.connect()
    times = []
    for _ in range(int(seconds * a_second)):
        times.append(await ask(reader, writer))
        await asyncio.sleep(max(0.0, 1 / a_second - times[-1]))
    writer.close()
    return times


@asynccontextmanager
async def slow_callers(server: Server, count: int) -> AsyncGenerator[None, None]:
    """Have so many callers who never finish their head; who is cut comes again."""

    async def drip() -> None:
        while True:
            with suppress(OSError):
                _, writer = await server.connect()
                writer.write(b"POST / HTTP/1.1\r\nhost: a\r\nx: ")
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(1)

    tasks = [asyncio.ensure_future(drip()) for _ in range(count)]
    await asyncio.sleep(1)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_nothing(server: Server, count: int, seconds: float) -> float:
    """Have so many callers who do not read, and give the memory that they cost, in MB."""
    before = server.rss_mb()
    writers = []
    for _ in range(count):
        # A reader that never reads: asyncio takes 128 KiB by itself, and no more.
        _, writer = await server.connect()
        writer.write(ENDLESS)
        writers.append(writer)
    await asyncio.sleep(seconds)
    cost = server.rss_mb() - before
    for writer in writers:
        writer.close()
    return cost


def percentiles(times: list[float]) -> tuple[float, float]:
    """Give the median and the 99th percentile, in milliseconds."""
    return median(times) * 1e3, quantiles(times, n=100)[98] * 1e3


async def measure(given: argparse.Namespace) -> dict[str, float]:
    """Measure once."""
    found: dict[str, float] = {}
    for kind in ("uvicorn", "door"):
        with started(kind) as server:
            await flood(server, min(1.0, given.seconds))
            rate, cpu_us = await flood(server, given.seconds)
            found |= {f"{kind}: requests a second": rate, f"{kind}: us CPU a request": cpu_us}
    with started("door") as server:
        alone = percentiles(await paced(server, given.seconds))
        async with slow_callers(server, given.slow):
            beside = percentiles(await paced(server, given.seconds))
    with started("door") as server:
        memory = await read_nothing(server, given.readers, min(3.0, given.seconds))
    added = found["door: us CPU a request"] - found["uvicorn: us CPU a request"]
    return found | {
        "door: us CPU that it adds": added,
        "p50 ms alone": alone[0],
        "p99 ms alone": alone[1],
        f"p50 ms beside {given.slow} slow callers": beside[0],
        f"p99 ms beside {given.slow} slow callers": beside[1],
        f"MB for {given.readers} slow readers": memory,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", choices=["uvicorn", "door"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--readers", type=int, default=100)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return
    raise_file_limit(16_384)
    rounds = [asyncio.run(measure(given)) for _ in range(given.rounds)]
    figures = {name: median(each[name] for each in rounds) for name in rounds[0]}
    print("| | median |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value:,.3g} |" if value < 100 else f"| {name} | {value:,.0f} |")
    machine = {"python": platform.python_version(), "cores": os.cpu_count()}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
