"""Closing a run, or cancelling who reads it, at any point: no task, no timer, nothing is left."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from loom.core.messages import ToolCall
from loom.shuttle.executor import Executor
from loom.shuttle.function import tool
from loom.shuttle.permission import Permissions
from loom.shuttle.result import ToolBegun, ToolResult
from loom.testing import FakeClock, LoopClock, SeededLoop, cancel_everywhere, turn

pytestmark = pytest.mark.anyio

CALLS = [
    ToolCall("1", "work", {"n": 1}),
    ToolCall("2", "work", {"n": 2}),
    ToolCall("3", "careful", {}),
    ToolCall("4", "asks", {}),
    ToolCall("5", "unknown", {}),
    ToolCall("6", "work", {"n": 1}),
]


class World:
    """Tools that count what is open, and an executor for them."""

    def __init__(self) -> None:
        self.open = 0

        @tool
        async def work(n: int) -> int:
            self.open += 1
            try:
                await turn(n)
            finally:
                self.open -= 1
            return n

        @tool
        async def careful() -> str:
            self.open += 1
            try:
                await turn(3)
            finally:
                # A clean-up of several turns is waited for.
                try:
                    await turn(4)
                finally:
                    self.open -= 1
            return "done"

        @tool(approval="ask")
        async def asks() -> str:
            return "asked"

        self.executor = Executor(
            [work, careful, asks],
            clock=FakeClock(),
            max_parallel=2,
            permissions=Permissions(ask=self.person),
        )

    async def person(self, call: ToolCall) -> bool:
        self.open += 1
        try:
            await turn(2)
        finally:
            self.open -= 1
        return True

    async def read(self) -> list[ToolBegun | ToolResult]:
        async with aclosing(self.executor.run(CALLS)) as run:
            return [event async for event in run]


async def test_cancelled_anywhere_nothing_is_left() -> None:
    """Whoever reads is cancelled at each suspension, once and twice: every tool was awaited."""
    world = World()

    survey = await cancel_everywhere(world.read, probes={"open": lambda: world.open})

    assert survey.suspensions > 3
    assert not world.executor._batches
    assert not world.executor._strays


async def test_cancelled_tools_are_awaited_before_the_reader_goes_on() -> None:
    """When the cancellation comes out, no tool runs any more, whatever its clean-up takes."""
    world = World()

    for turns in range(12):
        reader = asyncio.ensure_future(world.read())
        await turn(turns)
        reader.cancel()
        await asyncio.wait([reader])
        assert 0 == world.open, turns


@pytest.mark.parametrize("between", range(5))
async def test_a_second_cancellation_waits_too(between: int) -> None:
    """Whoever is cancelled again while tools end still waits for their end."""
    world = World()

    for turns in range(2, 7):
        reader = asyncio.ensure_future(world.read())
        await turn(turns)
        reader.cancel()
        await turn(between)
        reader.cancel()
        await asyncio.wait([reader])
        assert (0, True) == (world.open, reader.cancelled()), turns


def test_a_clean_up_after_a_time_limit_is_not_cut() -> None:
    """A tool that ends for its limit is not cancelled a second time when the run is closed."""

    async def main(clock: LoopClock) -> None:
        ended: list[str] = []

        @tool(timeout_s=1)
        async def slow() -> None:
            try:
                await clock.sleep(100)
            finally:
                await clock.sleep(0.5)
                ended.append("clean")

        executor = Executor([slow], clock=clock)
        async with aclosing(executor.run([ToolCall("1", "slow")])) as run:
            await anext(run)
            reader = asyncio.ensure_future(anext(run))
            await clock.sleep(1.2)
            reader.cancel()
            await asyncio.wait([reader])
        assert ["clean"] == ended
        await executor.aclose()

    with asyncio.Runner(loop_factory=lambda: SeededLoop(7)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SeededLoop)
        runner.run(main(LoopClock(loop)))


@pytest.mark.parametrize("events", range(12))
async def test_closed_after_any_event_nothing_is_left(events: int) -> None:
    """A consumer that leaves after an event, or by an error, leaves nothing behind."""
    world = World()
    before = asyncio.all_tasks()

    async def leave(run: AsyncGenerator[ToolBegun | ToolResult, None]) -> None:
        async with aclosing(run):
            for _ in range(events):
                await anext(run)
            raise ConnectionError

    with pytest.raises((ConnectionError, StopAsyncIteration)):
        await leave(world.executor.run(CALLS))

    assert (0, before) == (world.open, asyncio.all_tasks())


def test_a_run_that_is_closed_waits_a_second_for_the_stubborn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A tool that swallows its cancellation is left after a second, with a log line."""

    async def main(clock: LoopClock) -> None:
        cancelled = 0

        @tool
        async def stubborn() -> None:
            nonlocal cancelled
            while cancelled < 2:
                try:
                    await clock.sleep(1000)
                except asyncio.CancelledError:
                    cancelled += 1

        executor = Executor([stubborn], clock=clock, timeout_s=float("inf"))
        run = executor.run([ToolCall("1", "stubborn")])
        await anext(run)
        reader = asyncio.ensure_future(anext(run))
        await turn(3)
        reader.cancel()
        began_s = clock.monotonic_s()
        await asyncio.wait([reader])

        assert pytest.approx(1) == clock.monotonic_s() - began_s
        assert "does not end when cancelled; left behind" in caplog.text
        await executor.aclose()
        assert 1 == len(asyncio.all_tasks())
        assert not executor._strays

    with asyncio.Runner(loop_factory=lambda: SeededLoop(7)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SeededLoop)
        with caplog.at_level(logging.WARNING):
            runner.run(main(LoopClock(loop)))


async def test_closing_while_others_close_is_harmless() -> None:
    """`aclose` beside a run that is being read and cancelled ends both."""
    world = World()
    reader = asyncio.ensure_future(world.read())
    await turn(3)

    await asyncio.gather(world.executor.aclose(), world.executor.aclose())
    reader.cancel()
    await asyncio.wait([reader])

    assert 0 == world.open


async def test_close_is_cancelled_anywhere() -> None:
    """Whoever closes is cancelled at each suspension: the tools have ended all the same."""
    world = World()

    async def close() -> None:
        own = World()
        run = own.executor.run(CALLS)
        async with aclosing(run):
            await anext(run)
            await anext(run)
            world.open = own.open
            await own.executor.aclose()
        assert 0 == own.open

    await cancel_everywhere(close)


async def test_a_denial_that_comes_too_late_is_no_news() -> None:
    """Who is asked says no as the run is closed: asyncio has nothing to complain of."""
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: told.append(context["message"]))
    asked = asyncio.Event()

    async def deny(_: ToolCall) -> bool:
        asked.set()
        try:
            await loop.create_future()
        except asyncio.CancelledError:
            return False
        return True

    @tool(approval="ask")
    async def pay() -> str:
        return "paid"

    executor = Executor([pay], clock=FakeClock(), permissions=Permissions(ask=deny))
    async with aclosing(executor.run([ToolCall("1", "pay", {})])) as outcomes:
        reading = asyncio.ensure_future(anext(outcomes))
        await asked.wait()
        reading.cancel()
        await asyncio.wait([reading])
    await executor.aclose()
    del outcomes, reading
    gc.collect()

    assert [] == told


async def test_tools_are_cancelled_in_the_order_of_their_calls() -> None:
    """What happens when a run is closed is the same each time, wherever the tasks lie."""
    ended: list[int] = []

    @tool
    async def wait(n: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(n)

    executor = Executor([wait], clock=FakeClock(), max_parallel=30)
    calls = [ToolCall(str(n), "wait", {"n": n}) for n in range(30)]
    async with aclosing(executor.run(calls)) as outcomes:
        for _ in calls:
            assert isinstance(await anext(outcomes), ToolBegun)
        # The last one begins when the consumer comes back.
        reading = asyncio.ensure_future(anext(outcomes))
        await turn(2)
        reading.cancel()
        await asyncio.wait([reading])
    await executor.aclose()

    assert list(range(30)) == ended
