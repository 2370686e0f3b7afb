"""Scenes of time: deadlines, clocks that jump, a machine that slept, a slow reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import cycle

import msgspec

from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.server.hostile import STREAM_HEAD, HostilePeer, full_backlog, reset_kept
from loom.testing.matrix_bench import Bench, Line, Scene
from loom.testing.matrix_sight import HELD, SHORT_S, HastyClock, Sight, nothing

__all__ = ["TIME"]

# How late a call may end. Source: fault matrix, row 56.
_LATE_S = 0.050
# A busy machine may be late itself: the best of so many counts.
_TRIES = 5

_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 1000 + b'"}}]}\n\n'
_EVENTS = 64 * 1024
# Kernels keep some megabytes of a connection; ours is the rest. Source: fault matrix, row 62, and
# tcp(7), "tcp_rmem" and "tcp_wmem" (6 and 4 MiB).
_MOST_BYTES = 24 << 20


async def _before_headers(bench: Bench, *, stream: bool) -> Sight:
    async with bench.line(fault="8-no-headers", short="total") as line:
        return await _punctual(bench, line, stream=stream, wire=lambda: bench.wire(line))


async def _in_stream(bench: Bench, *, stream: bool) -> Sight:
    del stream
    async with bench.line(fault="14-stall", short="total") as line:
        seen = await _punctual(bench, line, stream=True, wire=lambda: bench.wire(line))
        partial = None if seen.error is None else seen.error.partial
        return seen.but(*await bench.partial(partial))


async def _connecting(bench: Bench, *, stream: bool) -> Sight:
    with full_backlog() as port:
        async with bench.line(base_url=f"http://127.0.0.1:{port}", short="total") as line:
            return await _punctual(bench, line, stream=stream, wire=nothing)


async def _in_pool(bench: Bench, *, stream: bool) -> Sight:
    async with bench.line(short="total", fault="14-stall", max_connections=1) as line:
        patient = line.client.with_options(deadline_s=60)
        async with patient.stream("hold the only slot") as held:
            await anext(held)
            await anext(held)
            return await _punctual(bench, line, stream=stream, wire=nothing, held=1)


async def _in_retry(bench: Bench, *, stream: bool) -> Sight:
    """A wait that would end after the deadline is not begun."""
    async with bench.line(fault="33-retry-after:30", short="") as line:
        hasty = line.client.with_options(deadline_s=20)
        line.client, kept = hasty, line.client
        seen = await bench.sight(line, stream=stream)
        line.client = kept
        return seen.but(bool(line.clock.slept) and "it waited")


async def _punctual(
    bench: Bench, line: Line, *, stream: bool, wire: Callable[[], int], held: int | None = None
) -> Sight:
    """Make a call whose deadline passes, and see that it ends then."""
    late_s, read = float("inf"), 0
    seen = Sight(code="")
    for _ in range(_TRIES):
        read = wire()
        seen = await bench.sight(line, stream=stream, wire=wire, kept=held)
        seen = msgspec.structs.replace(seen, wire=seen.wire - read)
        late_s = min(late_s, seen.took_s - SHORT_S)
        if late_s <= _LATE_S:
            break
    if held:
        seen = seen.without(*HELD)
    return seen.but(late_s > _LATE_S and f"it ended {1000 * late_s:.0f} ms late")


class _Jumping(HastyClock):
    """A clock whose wall time is an hour early, right, and an hour late in turn."""

    def __init__(self) -> None:
        super().__init__()
        self._jumps = cycle((timedelta(hours=-1), timedelta(0), timedelta(hours=1)))

    def now(self) -> datetime:
        """The wall clock, UTC, as it may be after a jump."""
        return super().now() + next(self._jumps)

    async def sleep(self, seconds: float) -> None:
        """Let the wall clock jump in each wait."""
        self.wall_jump = next(self._jumps)
        await super().sleep(seconds)


async def _wall_jumps(bench: Bench, *, stream: bool) -> Sight:
    clock = _Jumping()
    async with bench.line(fault="33b-date:2", clock=clock) as line:
        seen = await bench.sight(line, stream=stream)
        right = all(2.0 <= wait_s <= 2.2 for wait_s in clock.slept)
        whole = seen.error.timeline if seen.error is not None else None
        took_s = 0.0 if whole is None else whole.attempts[-1].ended_s - whole.began_s
        return seen.but(
            not right and f"it waited {clock.slept}",
            not 8.0 <= took_s < 60.0 and f"the timeline says {took_s:.1f} s",
        )


async def _after_suspend(bench: Bench, *, stream: bool) -> Sight:
    """The kept socket is dead; who is there now answers what it never heard of with a reset."""
    async with bench.against(reset_kept) as (server, line):
        await line.ask(stream=stream)
        asked = len(server.requests)
        line.clock.skip(3600)
        line.clock.wall_jump = timedelta(hours=1)
        seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests) - asked)
        took_s = 0.0 if seen.response is None else seen.response.latency_s
        return seen.but(
            took_s > 60 and f"the call took {took_s} s",
            bool(line.clock.slept) and "it waited before it was sent again",
        )


async def _slow_reader(bench: Bench, *, stream: bool) -> Sight:
    del stream
    sent = 0

    async def pour(peer: HostilePeer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(STREAM_HEAD)
        for _ in range(_EVENTS):
            await peer.chunk(_EVENT)
            sent += len(_EVENT)
            if peer.server.released.is_set():
                break
        await peer.chunk(
            b'data: {"choices":[{"index":0,"delta":{"content":"."},"finish_reason":"stop"}],'
            b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
        )
        await peer.chunk(b"data: [DONE]\n\n")
        await peer.chunk(b"")

    async with bench.against(pour, short="idle") as (server, line):
        async with line.client.stream("?") as events:
            await anext(events)
            await anext(events)
            # Longer than the limit between two events; nobody reads meanwhile.
            await SystemClock().sleep(2 * SHORT_S)
            held = sent
            server.released.set()
            try:
                response = await events.final()
            except LoomError as error:
                return Sight(code=error.code, phase=error.phase or "", wire=1)
        left = await line.left_over("")
    seen = Sight(code="", wire=len(server.requests), attempts=response.attempts, charge="settled")
    return seen.but(held > _MOST_BYTES and f"{held >> 20} MiB were taken in", *left)


TIME: Mapping[str, Scene] = {
    "after-suspend": Scene(_after_suspend),
    "deadline-before-headers": Scene(_before_headers),
    "deadline-connecting": Scene(_connecting),
    "deadline-in-pool": Scene(_in_pool),
    "deadline-in-retry": Scene(_in_retry),
    "deadline-in-stream": Scene(_in_stream, both=False),
    "slow-reader": Scene(_slow_reader, both=False),
    "wall-clock-jumps": Scene(_wall_jumps),
}
"""Rows 56 to 58, and 62."""
