"""
What streams cost a gateway that rest: each had its first event, and then the vendor is silent.

As a process of its own, `gateway_idle.py idle TARGET`, it is the load, as `gateway_load.py` is.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from typing import Any

import msgspec
from client import figures
from gateway_load import Connection, Load, Wrong, check, cpu_s, main, percentile
from gateway_processes import Running, load, rss_mb
from upstream import PIECE

__all__ = ["Idle", "idle", "most_streams", "rest"]

# So many are opened at once.
STEP = 200
CALLS = 200
# Ours gives a vendor 30 s between two events: it hears a comment in time.
KEEP_ALIVE_S = 8.0
# Files of a gateway beside its streams, each of which has two: its caller's and its vendor's.
SPARE_FILES = 1000
# Ours takes no more, however many the machine allows.
MOST_FILES = 65_536
KB = 1024

_WORD = json.dumps(PIECE).encode()

UNITS = {
    "mb": "MB",
    "cpu": "ms CPU in a second of rest",
    "p50": f"ms p50, {CALLS} plain calls beside them, one connection",
    "p99": "ms p99, the same",
}
MOMENTS = ("before", "resting", "after")


class Resting(Connection):
    """
    A connection whose stream begins and rests.

    Attributes:
        begun: Done when its first word is there, or it has failed.
        whole: Its answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.begun: asyncio.Future[None] = loop.create_future()
        self.whole: asyncio.Future[bytes]

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; the future gives the body."""
        self.whole = super().ask(request)
        self.whole.add_done_callback(self._begin)
        return self.whole

    def data_received(self, data: bytes) -> None:
        """Look for the first word."""
        super().data_received(data)
        if _WORD in self._buffer:
            self._begin()

    def _begin(self, _answer: object = None) -> None:
        if not self.begun.done():
            self.begun.set_result(None)


class Sleepers:
    """
    Streams that rest.

    Args:
        load: Asks for them.
        vendor: Hears what they shall do.
    """

    def __init__(self, load: Load, vendor: Connection) -> None:
        self._load = load
        self._vendor = vendor
        self._streams: list[Resting] = []
        self._told_s = time.perf_counter()

    async def more(self, number: int) -> None:
        """Open some at once, and wait for the first word of each."""
        opened = await self._load.open_as(Resting, number)
        for stream in opened:
            self._load.sent += 1
            stream.ask(self._load.requests["idle"])
        self._streams += opened
        await asyncio.gather(*(stream.begun for stream in opened))
        if time.perf_counter() > self._told_s + KEEP_ALIVE_S:
            await self.keep_alive()

    async def keep_alive(self) -> None:
        """Have the vendor send each a comment."""
        self.see_resting()
        await self._tell("keep-alive")
        self._told_s = time.perf_counter()

    def see_resting(self) -> None:
        """See that none has ended."""
        for stream in self._streams:
            if stream.whole.done():
                raise Wrong(f"a stream did not rest: {stream.whole.result()[-2000:].decode()}")

    async def release(self) -> None:
        """Let all end, and check each."""
        self.see_resting()
        await self._tell("release")
        for stream in self._streams:
            check("idle", await stream.whole)
            stream.close()

    async def _tell(self, what: str) -> None:
        lines = f"POST /{what} HTTP/1.1\r\nhost: vendor\r\ncontent-length: 0\r\n\r\n"
        await self._vendor.ask(lines.encode())


async def idle(load: Load) -> dict[str, Any]:
    """Measure before, while and after streams rest."""
    (neighbour,) = await load.open(1)
    await _calls(load, neighbour)
    await load.ask(neighbour, "short")
    sleepers = Sleepers(load, *await load.open_as(Connection, 1, load.target["vendor"]))
    found: dict[str, Any] = {"before": await _look(load, neighbour)}
    began_s = time.perf_counter()
    for first in range(0, load.target["requests"], STEP):
        await sleepers.more(min(STEP, load.target["requests"] - first))
    found["opened_s"] = time.perf_counter() - began_s
    await sleepers.keep_alive()
    found["resting"] = await _look(load, neighbour)
    began_s = time.perf_counter()
    await sleepers.release()
    found["ended_s"] = time.perf_counter() - began_s
    found["after"] = await _look(load, neighbour)
    return found


async def _look(load: Load, neighbour: Connection) -> dict[str, float]:
    rest_s, pids = min(load.target["seconds"], KEEP_ALIVE_S), load.target["pids"]
    # What came last has its row first.
    await asyncio.sleep(rest_s)
    began_s, began_cpu_s = time.perf_counter(), cpu_s(pids)
    await asyncio.sleep(rest_s)
    used = (cpu_s(pids) - began_cpu_s) / (time.perf_counter() - began_s)
    mb = rss_mb(pids)
    took = await _calls(load, neighbour)
    return {
        "mb": mb,
        "cpu": used * 1e3,
        "p50": percentile(took, 0.5),
        "p99": percentile(took, 0.99),
    }


async def _calls(load: Load, neighbour: Connection) -> list[float]:
    return [await load.ask(neighbour, "plain") for _ in range(CALLS)]


class Idle(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was measured.

    Attributes:
        streams: How many rested.
        sent: How many calls were made, those beside them among them.
        before: Figures by the names of `UNITS`, before there were any.
        resting: While they rested.
        after: When all had ended.
        opened_s: Until all had their first event, in seconds.
        ended_s: From the vendor's word until all had ended, in seconds.
    """

    streams: int
    sent: int
    before: dict[str, float]
    resting: dict[str, float]
    after: dict[str, float]
    opened_s: float
    ended_s: float

    def kb_a_stream(self) -> float:
        """Give what a stream that rests holds."""
        return (self.resting["mb"] - self.before["mb"]) * KB / self.streams

    def table(self) -> str:
        """Lay out the figures of each moment."""
        rows = [f"| | before | {self.streams:,} streams rest | after |", "|---|---|---|---|"]
        for figure, unit in UNITS.items():
            cells = [figures(getattr(self, moment)[figure]) for moment in MOMENTS]
            rows.append(f"| {unit} | {' | '.join(cells)} |")
        rows.append(f"| KB a stream | | {figures(self.kb_a_stream())} | |")
        rows.append(f"| s until all had begun, and ended | | {figures(self.opened_s)} "
                    f"| {figures(self.ended_s)} |")  # fmt: skip
        return "\n".join(rows)


def most_streams() -> int:
    """Say how many streams a gateway may have on this machine."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    return (files - SPARE_FILES) // 2


def rest(running: Running, streams: int, *, vendor: int, seconds: float) -> Idle:
    """
    Let streams rest in a gateway.

    Args:
        running: The gateway.
        streams: How many.
        vendor: The vendor's port.
        seconds: How long it is looked at.

    Returns:
        What was seen.
    """
    target = running.target(seconds, streams)
    target["vendor"] = vendor
    found = load("idle", target, "gateway_idle.py")
    if "problem" in found:
        raise SystemExit(f"after {found['sent']} calls: {found['problem']}")
    return Idle(streams=streams, sent=found["sent"], **found["values"])


if __name__ == "__main__":
    main({"idle": idle})
