"""Scenes of calls that are ended from outside: cancelled, left, forgotten."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from loom.core.provider import Layer, LLMProvider
from loom.layers.retry import Retrying
from loom.server.hostile import STREAM_HEAD, HostilePeer, HostileServer
from loom.testing.clock import FakeClock
from loom.testing.matrix_bench import Bench, Line, Scene
from loom.testing.matrix_sight import HastyClock, Sight, cancelled
from loom.testing.turns import turn

__all__ = ["LEAVING"]

# What the law allows for a socket to be closed. Source: fault matrix, row 54.
_CLOSED_WITHIN_S = 1.0


async def _silent(peer: HostilePeer) -> None:
    """Read a request and answer nothing."""
    await peer.request()
    await peer.gone()


async def _one_word(peer: HostilePeer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b'data: {"choices":[{"index":0,"delta":{"content":"one"}}]}\n\n')
    await peer.gone()


async def _over(
    line: Line, server: HostileServer, code: str, ended_s: float, *more: str | bool
) -> Sight:
    """Look at what is left of a call that was ended."""
    closed = await server.until(lambda: server.open == 0)
    late_s = line.clock.monotonic_s() - ended_s
    broken = await line.left_over(code)
    seen = Sight(code=code, wire=len(server.requests), charge=await line.written(), broken=broken)
    return seen.but(
        not closed and "the vendor's socket is open",
        late_s > _CLOSED_WITHIN_S and f"the socket was closed after {late_s:.1f} s",
        *more,
    )


class _Dozing(HastyClock):
    """A clock on which every wait is without end."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeClock()

    async def sleep(self, seconds: float) -> None:
        """Wait until somebody cancels."""
        self.slept.append(seconds)
        await self.fake.sleep(seconds)


async def _in_retry(bench: Bench, *, stream: bool) -> Sight:
    clock = _Dozing()
    async with bench.line(fault="503", clock=clock) as line:
        retrying = _retrying(line.client)
        full = retrying.tokens.left
        task = asyncio.ensure_future(line.ask(stream=stream))
        await _until(lambda: clock.fake.sleepers == 1 or task.done())
        taken = full - retrying.tokens.left
        code = await cancelled(task)
        broken = await line.left_over("left", kept=1)
        charge = await line.written()
        seen = Sight(code=code, wire=bench.wire(line), charge=charge, broken=broken)
        return seen.but(
            taken != 1 and f"{taken} tokens were taken",
            retrying.tokens.left != full and "the token was not given back",
            line.failures() != 1 and "the failure was not counted",
        )


def _retrying(client: Any) -> Retrying:
    layer: LLMProvider = client._assembled.provider  # noqa: SLF001 - a look inside
    while isinstance(layer, Layer) and not isinstance(layer, Retrying):
        layer = layer.inner
    if not isinstance(layer, Retrying):
        raise TypeError("this client does not retry")
    return layer


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.wait([asyncio.ensure_future(turn(10))])


async def _before_headers(bench: Bench, *, stream: bool, times: int = 1) -> Sight:
    async with bench.against(_silent) as (server, line):
        task = asyncio.ensure_future(line.ask(stream=stream))
        await server.until(lambda: len(server.requests) == 1)
        began_s = line.clock.monotonic_s()
        code = await cancelled(task, times)
        failures = line.failures()
        return await _over(line, server, code, began_s, failures > 0 and "it counts as a failure")


async def _in_stream(bench: Bench, *, stream: bool, times: int = 1) -> Sight:
    del stream
    async with bench.against(_one_word) as (server, line):
        begun = asyncio.Event()

        async def read() -> None:
            async with line.client.stream("?") as events:
                async for _ in events.text_stream:
                    begun.set()

        task = asyncio.ensure_future(read())
        await begun.wait()
        began_s = line.clock.monotonic_s()
        code = await cancelled(task, times)
        failures = line.failures()
        return await _over(line, server, code, began_s, failures > 0 and "it counts as a failure")


async def _left(bench: Bench, *, stream: bool) -> Sight:
    del stream
    async with bench.against(_one_word) as (server, line):
        async with line.client.stream("?") as events:
            async for _ in events.text_stream:
                break
        began_s = line.clock.monotonic_s()
        return await _over(line, server, "left", began_s)


async def _forgotten(bench: Bench, *, stream: bool) -> Sight:
    del stream
    async with bench.against(_one_word) as (server, line):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            events = line.client.stream("?")
            await anext(events)
            await anext(events)
            del events
            gc.collect()
        began_s = line.clock.monotonic_s()
        kinds = [warning.category for warning in warned]
        warned.clear()  # a warning holds what it warns of
        return await _over(
            line, server, "left", began_s, ResourceWarning not in kinds and "nothing warns"
        )


async def _twice(bench: Bench, *, stream: bool) -> Sight:
    """Before the headers, and in the stream; twice and three times."""
    seen = await _before_headers(bench, stream=stream, times=2)
    for other in (
        await _before_headers(bench, stream=stream, times=3),
        *([await _in_stream(bench, stream=stream, times=n) for n in (2, 3)] if stream else []),
    ):
        seen = seen.but(other.code != seen.code and f"then {other.code}", *other.broken)
    return seen


LEAVING: Mapping[str, Scene] = {
    "cancelled-before-headers": Scene(_before_headers),
    "cancelled-in-retry": Scene(_in_retry),
    "cancelled-in-stream": Scene(_in_stream, both=False),
    "cancelled-twice": Scene(_twice),
    "forgotten-stream": Scene(_forgotten, both=False),
    "left-stream": Scene(_left, both=False),
}
"""Rows 52 to 55."""
