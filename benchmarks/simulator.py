"""
Measure the simulator: answers a second, chunks a second, start-up, memory.

    uv run python benchmarks/simulator.py
    uv run python benchmarks/simulator.py --rounds 5 --seconds 5

The server is `looms sim` in its own process; the callers are aiohttp in this one, so on a small
machine they take a part of the time: beside each rate stands what the server alone used of a
core. It prints and writes `benchmarks/results/simulator.json`; it never fails for being slow.
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
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import msgspec

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results" / "simulator.json"
COMMAND = [sys.executable, "-m", "loom.cli", "sim", "--port", "0", "--json"]
CALLERS = 32
TICKS = os.sysconf("SC_CLK_TCK")
MODEL = "mistral-small-latest"
SHORT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello"}]}
LONG: dict[str, Any] = {
    "model": MODEL,
    "stream": True,
    "messages": [{"role": "user", "content": "Tell me a long story about a weaver"}],
}

Post = Callable[[], Awaitable[int]]


class Server(msgspec.Struct):
    """A running simulator."""

    pid: int
    base_url: str
    api_key: str
    ready_s: float

    def cpu_s(self) -> float:
        """What it used of a core until now."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss_mb(self) -> float:
        """What it holds in memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def started() -> Iterator[Server]:
    """Start `looms sim`, and stop it."""
    began_s = time.perf_counter()
    # A user's Python keeps what it compiled; a machine for tests may be told not to.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        ready = json.loads(process.stdout.readline())
        ready_s = time.perf_counter() - began_s
        yield Server(process.pid, ready["base_url"], ready["api_key"], ready_s)
    finally:
        process.terminate()
        process.communicate()


async def rate(server: Server, post: Post, seconds: float) -> tuple[float, float]:
    """Give the units a second, and the server's CPU in microseconds a unit."""
    done = 0
    end_s = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < end_s:
            # In one line it would add to what `done` was before the others' answers came.
            units = await post()
            done += units

    began_s, began_cpu_s = time.perf_counter(), server.cpu_s()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    elapsed_s, cpu_s = time.perf_counter() - began_s, server.cpu_s() - began_cpu_s
    return done / elapsed_s, cpu_s / done * 1e6


async def measure(server: Server, seconds: float) -> dict[str, float]:
    """Measure one simulator."""
    headers = {"authorization": f"Bearer {server.api_key}"}
    url = f"{server.base_url}/chat/completions"
    idle_mb = server.rss_mb()
    async with aiohttp.ClientSession(headers=headers) as session:

        async def answer() -> int:
            async with session.post(url, json=SHORT) as reply:
                reply.raise_for_status()
                await reply.read()
                return 1

        async def chunks() -> int:
            async with session.post(url, json=LONG) as reply:
                reply.raise_for_status()
                return (await reply.read()).count(b"data: {")

        # Once each, so that what loads at the first request is loaded.
        await answer()
        await chunks()
        answers_s, answer_us = await rate(server, answer, seconds)
        chunks_s, chunk_us = await rate(server, chunks, seconds)
    return {
        "start-up, ms": server.ready_s * 1e3,
        "answers a second": answers_s,
        "server CPU an answer, us": answer_us,
        "chunks a second": chunks_s,
        "server CPU a chunk, us": chunk_us,
        "memory at start, MB": idle_mb,
        "memory after the load, MB": server.rss_mb(),
    }


def main() -> None:
    """Measure as the arguments say, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0].strip())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    arguments = parser.parse_args()
    values: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        with started() as server:
            for name, value in asyncio.run(measure(server, arguments.seconds)).items():
                values.setdefault(name, []).append(round(value, 1))
    about = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "callers": CALLERS,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    print("| figure | median | lowest to highest |\n|---|---|---|")
    for name, each in values.items():
        print(f"| {name} | {median(each):,.0f} | {min(each):,.0f} to {max(each):,.0f} |")
    print(f"\n{', '.join(f'{name} {value}' for name, value in about.items())}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"about": about, "values": values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
