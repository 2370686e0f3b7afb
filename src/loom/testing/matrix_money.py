"""Scenes of limits and money: who waits for a permit, who is refused, and what a 429 teaches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from loom.core.ambient import SystemClock
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.server.hostile import STREAM_HEAD, HostilePeer, HostileServer, answer
from loom.testing.matrix_bench import Bench, Line, Scene
from loom.testing.matrix_sight import HELD, SHORT_S, HastyClock, Sight, cancelled
from loom.testing.turns import turn

__all__ = ["MONEY"]

# How late a call may end. Source: fault matrix, row 56.
_LATE_S = 0.050
# A busy machine may be late itself: the best of so many counts.
_TRIES = 5


class _Clock(HastyClock):
    """A clock whose waits take time."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        self.slept.append(seconds)
        await SystemClock.sleep(self, seconds)


async def _hold_first(peer: HostilePeer) -> None:
    """Begin the first answer and hold it; answer all others."""
    while True:
        request = await peer.request()
        if len(peer.server.requests) > 1:
            await answer(peer, request)
            continue
        await peer.send(STREAM_HEAD)
        await peer.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n')
        await peer.gone()


@asynccontextmanager
async def _full(
    bench: Bench, **options: Any
) -> AsyncIterator[tuple[HostileServer, Line, Limiter, Any]]:
    """Give a client whose only permit is taken by a stream that goes on."""
    limiter = Limiter(RateLimit(concurrency=1))
    async with (
        bench.against(_hold_first, rate_limit=limiter, **options) as (server, line),
        line.client.with_options(deadline_s=60).stream("hold the permit") as held,
    ):
        await anext(held)
        await anext(held)
        yield server, line, limiter, held


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await turn()


async def _cancelled(bench: Bench, *, stream: bool) -> Sight:
    async with _full(bench, clock=_Clock()) as (server, line, limiter, held):
        asked = len(server.requests)
        task = asyncio.ensure_future(line.ask(stream=stream))
        await _until(lambda: limiter.queued == 1)
        follower = asyncio.ensure_future(line.ask(stream=stream))
        await _until(lambda: limiter.queued == 2)
        code = await cancelled(task)
        seen = Sight(code=code, wire=len(server.requests) - asked, charge=await line.written())
        seen = seen.but(limiter.queued != 1 and f"{limiter.queued} calls are in line")
        await held.aclose()
        next_one = await follower
        return seen.but(
            next_one.content != "hello" and "the next in the queue was not answered",
            limiter.held > 0 and f"{limiter.held} permits are held",
            *await line.left_over(code, kept=1),
        )


async def _deadline(bench: Bench, *, stream: bool) -> Sight:
    """Nobody knows how long the stream takes: the call waits, and ends when its time is over."""
    async with _full(bench, clock=_Clock(), short="total") as (server, line, limiter, _):
        late_s, asked = float("inf"), len(server.requests)
        seen = Sight(code="")
        for _attempt in range(_TRIES):
            seen = await bench.sight(
                line, stream=stream, wire=lambda: len(server.requests) - asked, kept=1
            )
            late_s = min(late_s, seen.took_s - SHORT_S)
            if late_s <= _LATE_S:
                break
        return seen.without(*HELD).but(
            late_s > _LATE_S and f"it ended {1000 * late_s:.0f} ms late",
            limiter.queued > 0 and "it is still in line",
        )


def _told(fault: str, *, shrinks: bool) -> Scene:
    """What a limiter makes of a 429."""

    async def play(bench: Bench, *, stream: bool) -> Sight:
        limiter = Limiter(RateLimit(requests_per_minute=100_000))
        async with bench.line(fault=fault, rate_limit=limiter) as line:
            seen = await bench.sight(line, stream=stream)
            (state,) = limiter.states().values()
            return seen.but(
                shrinks and state.scale >= 1 and "the limiter goes on as before",
                not shrinks and state.scale < 1 and f"the quota shrank to {state.scale}",
                limiter.held > 0 and f"{limiter.held} permits are held",
            )

    return Scene(play)


async def _no_price(bench: Bench, *, stream: bool) -> Sight:
    """Nobody knows what it costs, so nobody knows whether it fits."""
    async with bench.line(budget="5", model="a-model-without-a-price") as line:
        return await bench.sight(line, stream=stream, kept=0)


async def _too_dear(bench: Bench, *, stream: bool) -> Sight:
    async with bench.line(budget="0.00000001") as line:
        return await bench.sight(line, stream=stream, kept=0)


MONEY: Mapping[str, Scene] = {
    "budget-too-small": Scene(_too_dear),
    "cancelled-in-limiter": Scene(_cancelled),
    "deadline-in-limiter": Scene(_deadline),
    "limiter-told": _told("33-retry-after:2", shrinks=True),
    "limiter-told-capacity": _told("34-capacity", shrinks=False),
    "limiter-told-no-hint": _told("33d-429", shrinks=True),
    "no-price-budget": Scene(_no_price),
}
"""Rows 33, 34, 51, 56 and 65."""
