"""
Leave calls at random moments, a hundred thousand times, and look whether anything is held.

    uv run --group bench python benchmarks/cancellations.py
    uv run --group bench python benchmarks/cancellations.py --count 1000 --seed 7

A client with every layer on asks a vendor that answers, stalls, cuts and refuses at random
(`fickle.py`, a process of its own). Each call is cancelled once or twice, timed out, or its stream
is left by `break`, by an exception, or dropped for the garbage collector. Calls that end before
are not counted. It prints what is held at the end, fails if anything is, and writes
`benchmarks/results/cancellations.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import platform
import random
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any

from contenders import KEY, MODEL, PROMPT
from fickle import ask_vendor, vendor

from loom import AsyncMistral, Completed, LoomError, RetryPolicy, Route, Timeouts
from loom.core.ambient import SystemClock
from loom.core.events import NOTICES
from loom.core.provider import LLMProvider
from loom.core.response import LLMResponse
from loom.core.route import Fallback
from loom.layers.breaker import Breaker
from loom.layers.retry import Retrying
from loom.layers.retry_policy import RetryQuota
from loom.providers.fallback import Branch
from loom.testing import turn
from loom.transport.contract import HttpReply, HttpRequest
from loom.transport.exchange import Exchange
from loom.transport.http import HttpTransport

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results" / "cancellations.json"
PROC = Path("/proc/self")
FALLBACK = "mistral-small-latest"
# More callers than connections: there is always a queue.
CALLERS, CONNECTIONS = 20, 12
WAYS = {"cancel": 40, "cancel twice": 22, "timeout": 8, "break": 10, "raise": 10, "drop": 10}
# No token comes by itself: what is missing at the end was taken, and is accounted for.
RESERVE = 1e6
LONGEST_S = 0.03
MOST_TURNS = 60
# Closing takes a few turns of the loop, and dropped streams wait for the collector.
SETTLE_S = 1.0


class Left(Exception):
    """What a consumer raises in the middle of a stream."""


class WatchedTransport(HttpTransport):
    """Our transport; it keeps which exchange a task has begun last."""

    def __init__(self) -> None:
        super().__init__(max_connections=CONNECTIONS)
        self.begun: dict[asyncio.Task[Any] | None, Exchange] = {}

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpReply]:
        """Begin an exchange."""
        exchange = super().open(request)
        if isinstance(exchange, Exchange):
            self.begun[asyncio.current_task()] = exchange
        return exchange


class WatchedClock(SystemClock):
    """The machine's clock; it keeps who sleeps, and how many sleeps came to their end."""

    def __init__(self) -> None:
        self.asleep: set[asyncio.Task[Any] | None] = set()
        self.rested = 0

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        task = asyncio.current_task()
        self.asleep.add(task)
        try:
            await super().sleep(seconds)
            self.rested += 1
        finally:
            self.asleep.discard(task)


class Run:
    """
    A client, and what became of its calls.

    Args:
        url: The vendor.
        count: Calls to leave.
        seed: Of every draw.
    """

    def __init__(self, url: str, count: int, seed: int) -> None:
        self.dice = random.Random(seed)
        self.count = count
        self.ways: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.swallowed = 0
        self.repaid = 0
        self.rss_kb: list[int] = []
        self.blocks: list[int] = []
        self.transport = WatchedTransport()
        self.clock = WatchedClock()
        # It opens on a bad day, and soon tries again: probes are cancelled too.
        self.breaker = Breaker(
            window_s=1, min_calls=20, failure_ratio=0.7, open_s=0.02, open_max_s=0.1, probes=1
        )
        quota = RetryQuota(reserve=RESERVE, per_call=0, per_success=0)
        route = Route(base_url=f"{url}/fallback/v1", model=FALLBACK)
        self.client = AsyncMistral(
            KEY,
            model=MODEL,
            base_url=f"{url}/primary/v1",
            transport=self.transport,
            clock=self.clock,
            retry=RetryPolicy(base_s=0.01, rate_limit_base_s=0.01, quota=quota),
            breaker=self.breaker,
            fallback=Fallback([route], first_token_s=0.1),
            rescue=True,
            timeouts=Timeouts(first_byte_s=0.15, idle_s=0.15),
        )

    @property
    def left(self) -> int:
        """Calls that were left so far."""
        return self.ways.total()

    async def caller(self) -> None:
        """Make calls until enough were left."""
        ways = {"cancel": self.cancel, "cancel twice": self.cancel, "timeout": self.hurry}
        while self.left < self.count:
            (way,) = self.dice.choices([*WAYS], [*WAYS.values()])
            try:
                await ways.get(way, self.leave)(way)
            except LoomError as error:
                self.ended[error.code] += 1
                # While both breakers are open nothing would be left, and much be refused.
                await asyncio.sleep(0.001)
            finally:
                self.transport.begun.pop(asyncio.current_task(), None)
            if self.left // self.step > len(self.rss_kb):
                clear()
                self.rss_kb.append(rss_kb())
                self.blocks.append(sys.getallocatedblocks())
                print(f"\r{self.left:,} left", end="", file=sys.stderr, flush=True)

    @property
    def step(self) -> int:
        """Calls between two looks at the memory."""
        return max(1, self.count // 10)

    async def cancel(self, way: str) -> None:
        """Cancel a call from outside, wherever it is."""
        task = asyncio.ensure_future(self.ask())
        try:
            if self.dice.random() < 0.5:
                await turn(self.dice.randrange(MOST_TURNS))
            else:
                await asyncio.wait([task], timeout=self.dice.random() * LONGEST_S)
            if task.done():
                self.finish(task.result())
                return
            self.places[self.place(task)] += 1
            self.ways[way] += 1
            task.cancel()
            if way == "cancel twice":
                await turn(self.dice.randrange(4))
                task.cancel()
            await asyncio.wait([task])
            self.swallowed += not task.cancelled()
        finally:
            self.transport.begun.pop(task, None)

    async def hurry(self, way: str) -> None:
        """Give a call less time than it may need."""
        response = None
        try:
            async with asyncio.timeout(self.dice.random() * LONGEST_S):
                response = await self.ask()
        except TimeoutError:
            self.places["where a timeout came"] += 1
            self.ways[way] += 1
        else:
            self.finish(response)

    async def ask(self) -> LLMResponse | None:
        """Make a call in one of the ways that there are."""
        how = self.dice.choice(["chat", "final", "events"])
        if how == "chat":
            return await self.client.chat(PROMPT)
        if how == "final":
            return await self.client.stream(PROMPT).final()
        async with self.client.stream(PROMPT) as stream:
            async for event in stream:
                if type(event) is Completed:
                    return event.response
        return None

    async def leave(self, way: str) -> None:
        """Begin a stream and leave it after some of its events."""
        stream = self.client.stream(PROMPT)
        last = self.dice.randrange(12)
        if way == "drop":
            if self.told(way, await read(aiter(stream), last)):
                del stream  # its socket is the collector's to find
            return
        event: object = None
        with suppress(Left):
            async with stream:
                event = await read(aiter(stream), last)
                if way == "raise":
                    raise Left
        self.told(way, event)

    def told(self, way: str, event: object) -> bool:
        """Take note of where a consumer left its stream, if it did."""
        if isinstance(event, Completed):
            self.finish(event.response)
            return False
        self.ways[way] += 1
        self.places["reader: at a notice" if type(event) in NOTICES else "reader: at an event"] += 1
        return True

    def finish(self, response: LLMResponse | None) -> None:
        """Take note of a call that was answered before it was left."""
        self.ended["answer"] += 1
        if response is not None and response.timeline is not None:
            *past, last = response.timeline.attempts
            # A retry that succeeds gives its token back, on the route that answers.
            self.repaid += sum(attempt.model == last.model for attempt in past)

    def place(self, task: asyncio.Task[Any]) -> str:
        """Where a call is."""
        if task in self.clock.asleep:
            return "in a retry's sleep"
        exchange = self.transport.begun.get(task)
        watch = None if exchange is None else exchange._watch  # noqa: SLF001  nobody else knows
        if exchange is None or watch is None or watch._too_late is None:  # noqa: SLF001  the same
            return "between two steps"
        route = "fallback" if "/fallback/" in exchange._request.url else "primary"  # noqa: SLF001  the same
        if exchange._pool is None:  # noqa: SLF001  the same
            return f"{route}: in the queue for a connection"
        if exchange._line is None:  # noqa: SLF001  the same
            return f"{route}: connecting"
        if exchange._response is None:  # noqa: SLF001  the same
            return f"{route}: waiting for headers"
        return f"{route}: in the body"

    def quota_missing(self) -> int:
        """Tokens that no retry has spent, and that did not come back."""
        taken = sum(RESERVE - each.tokens.left for each in retryings(self.client))
        return round(taken) - (self.clock.rested - self.repaid)

    async def held(self) -> dict[str, int]:
        """What of the client is in use."""
        homes = self.transport._homes.values()  # noqa: SLF001  nobody else counts
        return {
            "tasks": len(asyncio.all_tasks()) - 1,
            "permits": self.transport.permits_in_use,
            "exchanges": sum(len(home.pool.active) for home in homes),
            "exchanges in memory": sum(type(each) is Exchange for each in gc.get_objects()),
            "probes of the breaker": self.breaker.probes_held,
            "tokens of the retry quota": self.quota_missing(),
            "cancellations that were swallowed": self.swallowed,
        }


async def read(events: AsyncIterator[object], last: int) -> object:
    """Read some events, and give the last one."""
    event: object = None
    number = 0
    async for event in events:  # noqa: B007  the last one is wanted
        if number == last:
            break
        number += 1
    return event


def retryings(client: AsyncMistral) -> Iterator[Retrying]:
    """Find the layers that hold tokens."""
    waiting: list[object] = [client._assembled.provider]  # noqa: SLF001  nobody else has them
    while waiting:
        layer = waiting.pop()
        if isinstance(layer, Retrying):
            yield layer
        for value in vars(layer).values():
            if isinstance(value, LLMProvider):
                waiting.append(value)
            elif isinstance(value, tuple):
                waiting += [branch.provider for branch in value if isinstance(branch, Branch)]


def clear() -> None:
    """Give back what is garbage, or free already and only kept by the allocator."""
    gc.collect()
    # glibc has it; elsewhere the memory may look a little more.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def rss_kb() -> int:
    """Memory of this process, in KB."""
    if not PROC.is_dir():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # the highest so far
    pages = int((PROC / "statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def fds() -> int:
    """Open files of this process; 0 where the machine does not say."""
    return sum(1 for _ in (PROC / "fd").iterdir()) if PROC.is_dir() else 0


def slope(values: list[int]) -> float:
    """How much comes from one look to the next, by least squares, without the first fifth."""
    values = values[len(values) // 5 :]
    if len(values) < 2:
        return 0.0
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    above = sum((number - middle) * (value - mean) for number, value in enumerate(values))
    return above / sum((number - middle) ** 2 for number in range(len(values)))


async def until_none(look: Callable[[], Awaitable[Mapping[str, int]]]) -> Mapping[str, int]:
    """Look until nothing is held any more, or the time is over."""
    until_s = time.monotonic() + SETTLE_S
    held = await look()
    while any(held.values()) and time.monotonic() < until_s:
        await asyncio.sleep(0.02)
        gc.collect()
        held = await look()
    return held


async def cancellations(url: str, count: int, seed: int) -> dict[str, Any]:
    """Leave so many calls, and count what is held afterwards."""
    # The loop's own files, the library and the catalogue come with the first call.
    async with AsyncMistral(KEY, base_url=f"{url}/count/v1", retry=None) as first:
        with suppress(LoomError):
            await first.chat(PROMPT)
    files = fds()
    run = Run(url, count, seed)
    began_s = time.monotonic()
    await asyncio.gather(*(run.caller() for _ in range(CALLERS)))
    took_s = time.monotonic() - began_s
    print("\r", end="", file=sys.stderr)

    async def ends() -> Mapping[str, int]:
        seen = await asyncio.to_thread(ask_vendor, url)
        ours = run.transport.open_sockets
        return {
            "sockets, our end": ours,
            "sockets, the vendor's end": seen["open"],
            "open files": fds() - files,
        }

    held = await until_none(run.held)
    await run.client.aclose()
    return {
        "left": run.left,
        "took_s": round(took_s, 1),
        "ways": dict(run.ways.most_common()),
        "places": dict(run.places.most_common()),
        "ended_before": dict(run.ended.most_common()),
        "requests": ask_vendor(url)["requests"],
        "breaker_changes": sum(state.epoch for state in run.breaker.states().values()),
        "held": {**held, **await until_none(ends)},
        "rss_kb": run.rss_kb,
        "rss_kb_a_step": round(slope(run.rss_kb), 1),
        "blocks": run.blocks,
        "blocks_a_step": round(slope(run.blocks), 1),
    }


def told(found: Mapping[str, Any]) -> str:
    """Lay out what was found."""
    before = sum(found["ended_before"].values())
    lines = [
        f"{found['left']:,} calls left in {found['took_s']} s; {before:,} more ended before",
        f"{found['requests']:,} requests; {found['breaker_changes']} changes of the breakers",
    ]
    for title in ("ways", "places", "held"):
        lines += ["", f"| {title} | |", "|---|---:|"]
        lines += [f"| {name} | {number:,} |" for name, number in found[title].items()]
    memory = ", ".join(f"{kb / 1024:.1f}" for kb in found["rss_kb"])
    lines += ["", f"memory in MB, ten times: {memory}; {found['rss_kb_a_step']:+} KB a step"]
    # What the allocator keeps in pieces is memory, and no object: these grow with a leak alone.
    blocks = ", ".join(f"{number:,}" for number in found["blocks"])
    lines += [f"blocks that Python has allocated: {blocks}; {found['blocks_a_step']:+} a step"]
    return "\n".join(lines)


def main() -> int:
    """Run, print, write the figures; 1 if anything is held."""
    parser = argparse.ArgumentParser(description="Leave calls at random moments.")
    parser.add_argument("--count", type=int, default=100_000, help="calls to leave")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of every draw")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    chosen = parser.parse_args()
    logging.getLogger("loom").setLevel(logging.CRITICAL)
    # Dropped streams warn, and are dropped on purpose.
    warnings.simplefilter("ignore", ResourceWarning)
    with vendor(chosen.seed) as url:
        found = asyncio.run(cancellations(url, chosen.count, chosen.seed))
    found["about"] = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seed": chosen.seed,
    }
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(told(found), "\n", json.dumps(found["about"]), sep="")
    return 1 if any(found["held"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
