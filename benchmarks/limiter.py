"""
How much of a quota is used, and how many calls are refused, by ways to keep a rate limit.

    uv run python benchmarks/limiter.py             every load and server, in virtual time
    uv run python benchmarks/limiter.py --cost      what a grant costs, and ten thousand that wait
    uv run python benchmarks/limiter.py --real      against `looms sim --tier starter`, real minutes

The figure of merit is the least share of the quota over all loads and servers. It prints tables
and writes `benchmarks/results/limiter.json`; with `--plot` it draws the pictures of
`docs/limits.md`. It never fails for being slow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import platform
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median

import msgspec
from limit_plots import bars, curves
from limit_world import CONTENDERS, LOADS, SERVERS, Outcome, Run, play

from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.core.events import StreamEvent
from loom.core.messages import Message
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest, Sampling, Timeouts
from loom.core.secret import Secret
from loom.layers.limit import Limiting
from loom.layers.limit_estimate import Estimate
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.providers.key import Key
from loom.providers.wired import Endpoint, WiredProvider
from loom.testing import Witness, simulator
from loom.transport.http import HttpTransport
from loom.wire.mistral.dialect import MistralDialect

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "limiter.json"
DOCS = HERE.parent / "docs"
WAITERS = 10_000
SUMMARY = (
    "least share, any load and server", "429s", "fairness (Jain)", "interactive p95 wait",
    "with 30 % used by others",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description="Compare ways to keep a rate limit.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--only", default="", help="one load")
    parser.add_argument("--cost", action="store_true", help="only what a grant costs")
    parser.add_argument("--real", action="store_true", help="only against the simulator")
    parser.add_argument("--seconds", type=float, default=130.0, help="with --real")
    parser.add_argument("--plot", action="store_true", help="draw the pictures of the docs")
    asked = parser.parse_args(argv)
    logging.getLogger("loom").setLevel(logging.ERROR)
    if asked.real:
        print(real(asked.seconds))
        return 0
    results: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "cost": cost(),
    }
    if not asked.cost:
        loads = [asked.only] if asked.only else [*LOADS]
        results["runs"] = simulate(loads, asked.seeds, asked.minutes)
    if asked.plot:
        draw()
    if not asked.cost and not asked.only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


def simulate(loads: list[str], seeds: int, minutes: float) -> list[dict[str, object]]:
    """Play everything; print what came of it."""
    runs = [
        Run(
            contender=who, load=load, window=window, charge_at=charge_at, seed=seed, minutes=minutes
        )
        for who in CONTENDERS
        for load in (*loads, "tenants", "priorities")
        for window, charge_at in (SERVERS if load in LOADS else SERVERS[:1])
        for seed in range(1, seeds + 1)
    ]
    if set(loads) == set(LOADS):
        runs += [
            Run(contender=who, load="steady", window="sliding", charge_at="finish", seed=seed,
                minutes=minutes, hidden=0.3)
            for who in CONTENDERS
            for seed in range(1, seeds + 1)
        ]  # fmt: skip
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(play, runs))
    played = list(zip(runs, outcomes, strict=True))
    for load in loads:
        print(f"\n{load}: share of the quota (of the calls answered 429), least of the seeds\n")
        print("| | " + " | ".join(f"{w}, {c.split('_')[0]}" for w, c in SERVERS) + " |")
        print("|---|" + "---|" * len(SERVERS))
        for who in CONTENDERS:
            cells = (
                worst(o for r, o in played if (r.contender, r.load, r.hidden) == (who, load, 0)
                      and (r.window, r.charge_at) == server)
                for server in SERVERS
            )  # fmt: skip
            print(f"| {who} | " + " | ".join(cells) + " |")
    print(f"\n| | {' | '.join(SUMMARY)} |\n|---|{'---|' * len(SUMMARY)}")
    for who in CONTENDERS:
        print(_summary(who, played))
    return [msgspec.structs.asdict(run) | _figures(outcome) for run, outcome in played]


def _figures(outcome: Outcome) -> dict[str, object]:
    figures = msgspec.structs.asdict(outcome)
    del figures["levels"]
    # JSON knows no NaN.
    return {name: None if value != value else value for name, value in figures.items()}  # noqa: PLR0124 - NaN is not itself


def worst(outcomes: Iterable[Outcome]) -> str:
    """The least share, and the share of refused calls over all."""
    some = list(outcomes)
    return f"{min(one.used for one in some):.1%} ({_refused(some):.1%})"


def _summary(who: str, played: list[tuple[Run, Outcome]]) -> str:
    mine = [(run, out) for run, out in played if run.contender == who]
    loads = [out for run, out in mine if run.load in LOADS and not run.hidden]
    fair = min(out.fairness for run, out in mine if run.load == "tenants")
    wait_s = max(out.wait_p95_s for run, out in mine if run.load == "priorities")
    hidden = [out for run, out in mine if run.hidden]
    beside = worst(hidden) if hidden else "-"
    least, refused = min(out.used for out in loads), sum(out.refused for out in loads)
    return f"| {who} | {least:.1%} | {refused} | {fair:.3f} | {wait_s:.2f} s | {beside} |"


def _refused(outcomes: list[Outcome]) -> float:
    refused = sum(one.refused for one in outcomes)
    return refused / max(1, refused + sum(one.answered for one in outcomes))


def draw() -> None:
    """Draw the pictures of the docs."""
    shown = [who for who in CONTENDERS if "likely" not in who]
    table = {
        who: [
            play(Run(contender=who, load="steady", window=window, charge_at=charge_at))
            for window, charge_at in SERVERS
        ]
        for who in shown
    }
    names = [f"{window}, at {charge_at.split('_')[0]}" for window, charge_at in SERVERS]
    (DOCS / "limits-use.svg").write_text(bars(names, table), encoding="utf-8")
    lines = {
        who: play(
            Run(contender=who, load="steady", window="sliding", charge_at="finish", minutes=5)
        ).levels
        for who in ("loom", "cookbook", "minute counters")
    }
    (DOCS / "limits-minute.svg").write_text(curves(lines, 200_000), encoding="utf-8")


def cost() -> dict[str, float]:
    """Measure what a grant and its settlement cost, and calls that wait."""
    micros = median(_grant_us() for _ in range(5))
    layer = median(asyncio.run(_layer_us()) for _ in range(5))
    megabytes, without = asyncio.run(_waiters_mb())
    print(f"grant and settle: {micros:.1f} us; the whole layer: {layer:.1f} us a call")
    print(
        f"{WAITERS} calls that wait: {megabytes:.1f} MB, of which the limiter's"
        f" {megabytes - without:.1f}; the rest are the tasks"
    )
    mine = megabytes - without
    return {"grant_us": micros, "layer_us": layer, "waiters_mb": megabytes, "limiter_mb": mine}


def _grant_us(times: int = 5000) -> float:
    limiter, clock = (
        Limiter(RateLimit(requests_per_minute=10**9, tokens_per_minute=10**12)),
        SystemClock(),
    )
    key, request = ("https://x", "k", "m"), _request()
    guess = Estimate(100, 200, 150, 300)
    start_s = time.perf_counter()
    for _ in range(times):
        limiter.draw(key, request, guess, clock).settle(120)
    return (time.perf_counter() - start_s) / times * 1e6


async def _layer_us(times: int = 3000) -> float:
    bare = Witness()
    layer = Limiting(
        bare,
        limiter=Limiter(RateLimit(requests_per_minute=10**9, tokens_per_minute=10**12)),
        clock=SystemClock(),
        scope=lambda: ("https://x", "k"),
    )
    request = _request()
    spent: list[float] = []
    for provider in (bare, layer):
        start_s = time.perf_counter()
        for _ in range(times):
            await provider.chat(request)
        spent.append((time.perf_counter() - start_s) / times * 1e6)
    return spent[1] - spent[0]


class _Shut(Layer):
    """Lets nobody through: what waiting costs without a limiter."""

    def __init__(self, inner: LLMProvider) -> None:
        super().__init__(inner)
        self.waiting: list[asyncio.Future[None]] = []

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Wait."""
        self.waiting.append(asyncio.get_running_loop().create_future())
        await self.waiting[-1]
        async for event in self.inner.stream(request):
            yield event


async def _waiters_mb() -> tuple[float, float]:
    """What calls take that wait in line, and what the same take that wait for nothing."""
    limiter, shut, request = Limiter(RateLimit(concurrency=1)), _Shut(Witness()), _request()
    layer = Limiting(
        Witness(), limiter=limiter, clock=SystemClock(), scope=lambda: ("https://x", "k")
    )
    stream = layer.stream(request)
    await anext(stream)
    sizes: list[float] = []
    for provider in (layer, shut):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tasks = [asyncio.create_task(provider.chat(request)) for _ in range(WAITERS)]
        for _ in range(10):
            await asyncio.sleep(0)
        if WAITERS not in (limiter.queued, len(shut.waiting)):
            raise AssertionError("not all of them wait")
        sizes.append((tracemalloc.get_traced_memory()[0] - before) / 1e6)
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await stream.aclose()
    if limiter.held or limiter.queued:
        raise AssertionError("something was left")
    return sizes[0], sizes[1]


def _request() -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=(Message.user("Tell me about looms. " * 20),),
        sampling=Sampling(max_tokens=200),
        timeouts=Timeouts(total_s=3600.0),
    )


def real(seconds: float) -> str:
    """Call the simulator's starter plan as fast as the limiter lets us."""
    with simulator(tier="starter", latency_s=0.5) as sim:
        answered, refused = asyncio.run(_real(sim.base_url, sim.api_key, seconds))
    allowed = 60 * seconds / 60
    return (
        f"{seconds:.0f} s at 60 requests a minute: {answered} answers, {refused} times 429;"
        f" {answered / allowed:.1%} of what the plan allows"
    )


async def _real(base_url: str, api_key: str, seconds: float) -> tuple[int, int]:
    clock = SystemClock()
    endpoint = Endpoint(
        name="mistral", url=f"{base_url}/chat/completions", key=Key(Secret(api_key))
    )
    model = "mistral-small-latest"
    wired = WiredProvider(endpoint, model, MistralDialect(), HttpTransport(), clock)
    layer = Limiting(
        wired, limiter=Limiter(RateLimit.starter()), clock=clock, scope=lambda: endpoint.scope
    )
    counts = {"answered": 0, "refused": 0}

    async def work() -> None:
        while True:
            request = msgspec.structs.replace(_request(), model=model)
            try:
                await layer.chat(request)
                counts["answered"] += 1
            except LoomError as error:
                counts["refused"] += error.http_status == 429

    tasks = [asyncio.create_task(work()) for _ in range(20)]
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.wait(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await layer.aclose()
    return counts["answered"], counts["refused"]


if __name__ == "__main__":
    sys.exit(main())
