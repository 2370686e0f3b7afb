"""
Measure what each layer adds to a call and to a chunk, in one interleaved run.

    uv run --group bench python benchmarks/layers.py             over a transport in memory
    uv run --group bench python benchmarks/layers.py --sockets   over loopback, beside bare aiohttp

Each row has one layer more than the row above; every figure is of a fresh process. In memory a
reply costs next to nothing and no kernel is asked, so that microseconds can be told apart; over
loopback stand the totals. What a row adds is the median of the differences within a round.
It prints and writes `benchmarks/results/layers.json`; it never fails for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import msgspec
from client import FLOOR, figures, run, upstream
from client import measure as measure_contender
from contenders import KEY, MODEL, PROMPT
from upstream import PIECE, PIECES, PLAIN_BODY, TEXT, stream_events

from loom import AsyncMistral, Breaker, ChatRequest, Fallback, Message, RetryPolicy, TextDelta
from loom.catalog.lookup import Catalog
from loom.core.ambient import SystemClock, SystemDice
from loom.core.events import StreamEvent
from loom.core.plan import TokenCount
from loom.core.provider import LayerFactory, LLMProvider, compose
from loom.core.request import Sampling
from loom.core.response import LLMResponse
from loom.core.secret import Secret
from loom.layers.account import Accounting
from loom.layers.breaker import Breaking
from loom.layers.cost import Costing
from loom.layers.limit import Limiting
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.layers.retry import Retrying
from loom.layers.trace import Tracing
from loom.layers.window import Fitting, Window
from loom.ledger.budgets import Budget
from loom.ledger.memory import MemoryLedger
from loom.providers.fallback import Branch, FallingBack
from loom.providers.key import Key
from loom.providers.wired import Endpoint, WiredProvider
from loom.transport.contract import HttpReply, HttpRequest, Transport
from loom.transport.http import HttpTransport
from loom.wire.mistral.dialect import MistralDialect

__all__ = ["main"]

RESULTS = Path(__file__).resolve().parent / "results" / "layers.json"
IN_FLIGHT = 100
CALLS = 6000
STREAMS = 12
# What one read of a socket gives when the network is faster than we.
READ_BYTES = 1 << 16

SCENARIOS = {
    "call": "us CPU a call, 100 in flight",
    "burst": "us CPU a chunk, all at once",
    "single": "us CPU a chunk, one by one",
}
# Over loopback the chunks that come one by one come at their pace.
OVER_SOCKETS = {"call": "call", "burst": "burst", "single": "paced"}
OTHER_MODEL = "mistral-small-latest"

# stack -> scenario -> one value a round
Values = dict[str, dict[str, list[float]]]


class Memory(Transport):
    """A transport that always has the same reply at hand."""

    def __init__(self, kind: str) -> None:
        events = [] if kind == "call" else stream_events("burst")
        body = b"".join(events)
        cut = [body[at : at + READ_BYTES] for at in range(0, len(body), READ_BYTES)]
        self._pieces = {"call": [PLAIN_BODY], "burst": cut, "single": events}[kind]
        content_type = "application/json" if kind == "call" else "text/event-stream"
        self._headers = {"content-type": content_type}

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpReply]:  # noqa: ARG002  every request is alike
        """Give the reply."""
        return _Reply(self._headers, iter(self._pieces))

    async def aclose(self) -> None:
        """There is nothing to close."""


class _Reply(AbstractAsyncContextManager[HttpReply], HttpReply):
    def __init__(self, headers: dict[str, str], pieces: Iterator[bytes]) -> None:
        self.status = 200
        self.headers = headers
        self._pieces = pieces

    async def __aenter__(self) -> HttpReply:
        # A real one waits here: 100 calls in flight are 100 tasks that take turns.
        await asyncio.sleep(0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration

    def chunks(self) -> AsyncIterator[bytes]:
        return self.__aiter__()

    async def read(self) -> bytes:
        return b"".join(self._pieces)


class Parts:
    """The layers, made as `config/assemble.py` makes them."""

    def __init__(self, base_url: str, transport: Transport) -> None:
        self._clock = SystemClock()
        self._catalog = Catalog.builtin()
        self._endpoint = Endpoint(
            name="mistral", url=f"{base_url}/chat/completions", key=Key(Secret(KEY))
        )
        self._dialect = MistralDialect()
        self._transport = transport

    def wired(self) -> LLMProvider:
        """What asks the vendor."""
        return WiredProvider(self._endpoint, MODEL, self._dialect, self._transport, self._clock)

    def limiting(self, inner: LLMProvider) -> LLMProvider:
        """Waits for its turn; here it never has to."""
        limiter = Limiter(RateLimit(tokens_per_minute=10**12))
        scope = self._endpoint
        return Limiting(inner, limiter=limiter, clock=self._clock, scope=lambda: scope.scope)

    def breaking(self, inner: LLMProvider) -> LLMProvider:
        """Counts failures."""
        return Breaking(
            inner, breaker=Breaker(), clock=self._clock, scope=lambda: self._endpoint.scope
        )

    def retrying(self, inner: LLMProvider) -> LLMProvider:
        """Tries again."""
        return Retrying(inner, policy=RetryPolicy(), clock=self._clock, dice=SystemDice())

    def fitting(self, inner: LLMProvider) -> LLMProvider:
        """Keeps back what is too long."""
        window = Window(self._dialect, lambda *_: TokenCount(tokens=20, estimated=False))
        return Fitting(inner, window=window, catalog=self._catalog, clock=self._clock)

    def falling_back(self, inner: LLMProvider) -> LLMProvider:
        """Asks another route."""
        branches = [Branch(provider=inner), Branch(provider=self.wired(), model=OTHER_MODEL)]
        return FallingBack(branches, clock=self._clock)

    def costing(self, inner: LLMProvider) -> LLMProvider:
        """Tells what it costs."""
        return Costing(inner, catalog=self._catalog, clock=self._clock)

    def accounting(self, inner: LLMProvider) -> LLMProvider:
        """Keeps a budget, in memory."""
        return Accounting(
            inner,
            ledger=MemoryLedger(clock=self._clock),
            budgets=(Budget(limit_usd=10**6),),
            catalog=self._catalog,
            clock=self._clock,
        )

    def tracing(self, inner: LLMProvider) -> LLMProvider:
        """Tells nobody, for nobody asked."""
        return Tracing(inner, clock=self._clock)

    def stack(self, name: str) -> LLMProvider:
        """Every layer up to one of them."""
        layers: dict[str, LayerFactory] = {
            "Limiting": self.limiting,
            "Breaking": self.breaking,
            "Retrying": self.retrying,
            "Fitting": self.fitting,
            "FallingBack": self.falling_back,
            "Costing": self.costing,
            "Accounting": self.accounting,
            "Tracing": self.tracing,
        }
        names = [*layers]
        inner_first = names[: names.index(name) + 1] if name in layers else []
        return compose(self.wired(), *(layers[layer] for layer in reversed(inner_first)))


STACKS = {
    "WiredProvider": "`WiredProvider` alone",
    "Limiting": "and `Limiting`",
    "Breaking": "and `Breaking`",
    "Retrying": "and `Retrying`",
    "Fitting": "and `Fitting`",
    "FallingBack": "and `FallingBack`, one route more",
    "Costing": "and `Costing`",
    "Accounting": "and `Accounting`, a budget in memory",
    "Tracing": "and `Tracing`, with nobody to look",
    "everything": "`AsyncMistral`, all of these on",
    "default": "`AsyncMistral` as it comes: retries alone",
}


class Provider:
    """A stack of layers, asked as a layer asks."""

    def __init__(self, provider: LLMProvider) -> None:
        self._provider = provider
        self._plain = ChatRequest(
            model=MODEL,
            messages=(Message.user(PROMPT),),
            sampling=Sampling(max_tokens=4096, temperature=1.0),
        )
        self._streamed = msgspec.structs.replace(self._plain, stream=True)

    async def chat(self) -> LLMResponse:
        """Make a call."""
        return await self._provider.chat(self._plain)

    def stream(self) -> AsyncIterator[StreamEvent]:
        """Begin a stream."""
        return self._provider.stream(self._streamed)

    async def aclose(self) -> None:
        """Close it."""
        await self._provider.aclose()


class Client:
    """Our client, asked as a user asks."""

    def __init__(self, client: AsyncMistral) -> None:
        self._client = client

    async def chat(self) -> LLMResponse:
        """Make a call."""
        return await self._client.chat(PROMPT)

    def stream(self) -> AsyncIterator[StreamEvent]:
        """Begin a stream."""
        return self._client.stream(PROMPT)

    async def aclose(self) -> None:
        """Close it."""
        await self._client.aclose()


def make(name: str, base_url: str, transport: Transport) -> Provider | Client:
    """Build what a row measures."""
    if name in ("everything", "default"):
        # With a limit for the first token a plain call would travel as a stream.
        routes = Fallback([OTHER_MODEL], first_token_s=None)
        around: dict[str, Any] = {}
        if name == "everything":
            limit = RateLimit(tokens_per_minute=10**12)
            around = {
                "breaker": Breaker(),
                "fallback": routes,
                "rate_limit": limit,
                "budget": 10**6,
            }
        client = AsyncMistral(KEY, model=MODEL, base_url=base_url, transport=transport, **around)
        return Client(client)
    return Provider(Parts(base_url, transport).stack(name))


async def one_call(asked: Provider | Client) -> None:
    """Make a call and check its text."""
    response = await asked.chat()
    if response.content != TEXT:
        raise SystemExit(f"a wrong answer: {response.content[:200]!r}")


async def one_stream(asked: Provider | Client, pieces: int) -> None:
    """Read a stream and check its text."""
    text = [event.text async for event in asked.stream() if type(event) is TextDelta]
    if "".join(text) != PIECE * pieces:
        raise SystemExit(f"a wrong answer of {len(text)} pieces")


async def calls_us(asked: Provider | Client, calls: int) -> float:
    """Give the CPU of a call, in microseconds."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            await one_call(asked)

    await one_call(asked)
    await asyncio.gather(*(one_call(asked) for _ in range(IN_FLIGHT)))
    began_s = time.process_time()
    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return (time.process_time() - began_s) / calls * 1e6


async def chunks_us(asked: Provider | Client, pieces: int, streams: int, tasks: int) -> float:
    """Give the CPU of a chunk, in microseconds."""
    await one_stream(asked, pieces)
    began_s = time.process_time()
    for _ in range(streams // tasks):
        await asyncio.gather(*(one_stream(asked, pieces) for _ in range(tasks)))
    return (time.process_time() - began_s) / (streams * pieces) * 1e6


async def measure(name: str, scenario: str, url: str, scale: float) -> float:
    """Measure one stack in this process; without an address in memory."""
    kind = {"call": "plain", "burst": "burst", "single": "paced"}[scenario]
    base_url = f"{url or 'http://127.0.0.1:9'}/{kind}/v1"
    transport: Transport = HttpTransport() if url else Memory(scenario)
    asked = make(name, base_url, transport)
    try:
        if scenario == "call":
            return await calls_us(asked, max(IN_FLIGHT, round(CALLS * scale)))
        if scenario == "single" and url:
            return await chunks_us(asked, PIECES["paced"], 50, 50)
        return await chunks_us(asked, PIECES["burst"], max(1, round(STREAMS * scale)), 1)
    finally:
        await asked.aclose()


def measure_floor(url: str, scenario: str) -> float:
    """Measure bare aiohttp, as `client.py` does."""
    value = measure_contender(url, OVER_SOCKETS[scenario], FLOOR)
    return value * 1e3 if scenario == "call" else value


def table(values: Values) -> str:
    """Lay out medians, and what each row adds to the one above."""
    scenarios = [scenario for scenario in SCENARIOS if scenario in next(iter(values.values()))]
    head = " | ".join(f"{SCENARIOS[scenario]} | adds" for scenario in scenarios)
    rows = [f"| | {head} |", "|---" * (2 * len(scenarios) + 1) + "|"]
    above: dict[str, list[float]] | None = None
    for name, found in values.items():
        cells: list[str] = []
        for scenario in scenarios:
            cells.append(figures(median(found[scenario])))
            # The last row is no layer more, and the first has nothing under it.
            told = above is not None and name not in ("default", "WiredProvider")
            pairs = zip(found[scenario], above[scenario], strict=True) if told and above else ()
            cells.append(f"{median(a - b for a, b in pairs):+.2f}" if told else "")
        rows.append(f"| {STACKS.get(name, f'{name} alone: bytes')} | {' | '.join(cells)} |")
        above = found
    return "\n".join(rows)


def in_rounds(
    names: list[str], scenarios: list[str], rounds: int, one: Callable[[str, str], float]
) -> Values:
    """Measure every row of a round before the next round."""
    values: Values = {name: {scenario: [] for scenario in scenarios} for name in names}
    for number in range(rounds):
        for scenario in scenarios:
            print(f"\rround {number + 1}: {scenario:10}", end="", file=sys.stderr, flush=True)
            for name in names:
                values[name][scenario].append(one(name, scenario))
    print("\r", end="", file=sys.stderr)
    return values


def main() -> None:
    """Measure in rounds, print the table, write the figures."""
    parser = argparse.ArgumentParser(description="Measure what each layer adds.")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, help="scenarios")
    parser.add_argument("--sockets", action="store_true", help="over loopback, not in memory")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the calls")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        name, scenario, url = chosen.one
        print(json.dumps({"value": asyncio.run(measure(name, scenario, url, chosen.scale))}))
        return

    def one(name: str, scenario: str, url: str = "") -> float:
        if name == FLOOR:
            return measure_floor(url, scenario)
        options = ("--scale", str(chosen.scale), "--one", name, scenario, url)
        return float(run(str(Path(__file__).resolve()), *options)["value"])

    scenarios = chosen.only or [*SCENARIOS]
    if chosen.sockets:
        with upstream() as url:
            names = [FLOOR, *STACKS]
            values = in_rounds(names, scenarios, chosen.rounds, lambda n, s: one(n, s, url))
    else:
        values = in_rounds([*STACKS], scenarios, chosen.rounds, one)
    about = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "over": "loopback" if chosen.sockets else "memory",
        "rounds": chosen.rounds,
    }
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    kept[about["over"]] = {"about": about, "values": values}
    RESULTS.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    print(table(values))
    print("\nMedians; what a row adds to the one above it, round by round.", json.dumps(about))


if __name__ == "__main__":
    main()
