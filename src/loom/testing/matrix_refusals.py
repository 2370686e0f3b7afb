"""Scenes of the breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from loom.core.errors import CircuitOpen, LoomError
from loom.layers.breaker import Breaker
from loom.layers.retry_policy import RetryPolicy
from loom.server.hostile import HostilePeer, HostileServer, answer
from loom.testing.matrix_bench import Bench, Line, Scene
from loom.testing.matrix_sight import Sight, cancelled

__all__ = ["REFUSALS"]

_OPEN_S = 10.0


async def _fail_first(peer: HostilePeer) -> None:
    """Fail the first request, hold the second, answer the rest."""
    while True:
        request = await peer.request()
        match len(peer.server.requests):
            case 1:
                await peer.answer(b"{}", status=b"503 Service Unavailable")
            case 2 if not peer.server.released.is_set():
                await peer.gone()
                return
            case _:
                await answer(peer, request)


def _breaker() -> Breaker:
    return Breaker(min_calls=1, open_s=_OPEN_S, probes=1)


async def _open(line: Line, *, stream: bool) -> None:
    """Let a call fail, so that the breaker opens."""
    try:
        await line.ask(stream=stream)
    except LoomError:
        return


async def _open_breaker(bench: Bench, *, stream: bool) -> Sight:
    async with bench.against(_fail_first, breaker=_breaker()) as (server, line):
        await _open(line, stream=stream)
        accepted, asked = server.accepted, len(server.requests)
        line.clock.slept.clear()
        seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests) - asked)
        error = seen.error
        wait_s = error.retry_after_s if isinstance(error, CircuitOpen) else None
        return seen.but(
            server.accepted != accepted and "a socket was opened",
            (wait_s is None or not 0 < wait_s <= _OPEN_S) and f"retry_after_s is {wait_s}",
            bool(line.clock.slept) and "it waited",
        )


async def _waits(bench: Bench, *, stream: bool) -> Sight:
    """Only who asks for it waits until the breaker lets a probe through."""
    async with HostileServer(_fail_first) as server:
        server.released.set()
        policy = RetryPolicy(wait_for_breaker=True)
        options = {"base_url": server.base_url, "breaker": _breaker(), "retry": policy}
        async with bench.line(**options) as line:  # type: ignore[arg-type] # of mixed kinds
            patient, line.client = line.client, line.client.with_options(retry=None)
            await _open(line, stream=stream)
            line.client = patient
            line.clock.slept.clear()
            asked = len(server.requests)
            seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests) - asked)
            waited_s = sum(line.clock.slept)
            return seen.but(
                not _OPEN_S - 1 <= waited_s <= 1.1 * _OPEN_S and f"it waited {waited_s:.1f} s",
                line.breaker.probes_held > 0 and "the probe is held",
            )


async def _cancelled_probe(bench: Bench, *, stream: bool) -> Sight:
    async with bench.against(_fail_first, breaker=_breaker()) as (server, line):
        await _open(line, stream=stream)
        line.clock.skip(2 * _OPEN_S)
        task = asyncio.ensure_future(line.ask(stream=stream))
        await server.until(lambda: len(server.requests) == 2)
        held = line.breaker.probes_held
        code = await cancelled(task)
        seen = Sight(code=code, wire=len(server.requests) - 1)
        seen = seen.but(held != 1 and "there was no probe", *await line.left_over(code))
        server.released.set()
        again = await line.ask(stream=stream)
        states = [state.state for state in line.breaker.states().values()]
        return seen.but(
            again.content != "hello" and "the next call was not answered",
            states != ["closed"] and f"the breaker is {states}",
        )


REFUSALS: Mapping[str, Scene] = {
    "cancelled-probe": Scene(_cancelled_probe),
    "open-breaker": Scene(_open_breaker),
    "waits-for-breaker": Scene(_waits),
}
"""Rows 63 and 64."""
