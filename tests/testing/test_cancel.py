"""The injector finds what leaks, and leaves alone what does not."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest

from loom.testing import SeededLoop, Survey, abandoned_generators, cancel_everywhere, turn
from loom.testing.cancel import _place


class Permits:
    """What is taken and given back."""

    def __init__(self) -> None:
        self.held = 0

    def take(self) -> None:
        self.held += 1

    def give_back(self) -> None:
        self.held -= 1


@pytest.mark.anyio
async def test_it_tries_every_suspension() -> None:
    """Three suspensions: at the start and at each of them, early and late, and once to the end."""

    async def three() -> None:
        await turn(3)

    assert Survey(suspensions=3, runs=2 * 5) == await cancel_everywhere(three)


@pytest.mark.anyio
async def test_it_cancels_the_cleanup_too() -> None:
    """With `twice`, the second cancellation comes at each suspension of the cleanup."""
    interrupted = 0

    async def clean() -> None:
        nonlocal interrupted
        try:
            await turn()
        finally:
            try:
                await turn(2)
            except asyncio.CancelledError:
                interrupted += 1
                raise

    await cancel_everywhere(clean, late=(False,))

    # At its one suspension, then at the two of the cleanup; and at those two as first ones.
    assert 4 == interrupted


@pytest.mark.anyio
async def test_sound_code_passes() -> None:
    """Release in `finally`, without an await before it, stands every cancellation."""
    permits = Permits()

    async def sound() -> None:
        await turn()
        permits.take()
        try:
            async with asyncio.timeout(60):
                await turn(2)
        finally:
            permits.give_back()
            await turn()

    await cancel_everywhere(sound, probes={"permits": lambda: permits.held})


@pytest.mark.anyio
async def test_an_await_before_the_release_is_found() -> None:
    """The second cancellation hits the await before the release, and the permit stays taken."""
    permits = Permits()

    async def leaky() -> None:
        permits.take()
        try:
            await turn()
        except asyncio.CancelledError:
            await turn()
            permits.give_back()
            raise
        permits.give_back()

    probes = {"permits": lambda: permits.held}
    await cancel_everywhere(leaky, probes=probes, twice=(False,))
    with pytest.raises(AssertionError, match=r"permits: 1 held, 0 before, .*and then at .*turn"):
        await cancel_everywhere(leaky, probes=probes)


@pytest.mark.anyio
async def test_what_was_handed_over_and_lost_is_found() -> None:
    """A permit that was handed over just before the cancellation is lost: only *late* sees it."""
    permits = Permits()

    async def acquire() -> None:
        future = asyncio.get_running_loop().create_future()

        def hand_over() -> None:
            if not future.done():
                permits.take()
                future.set_result(None)

        asyncio.get_running_loop().call_soon(hand_over)
        await future
        permits.give_back()

    probes = {"permits": lambda: permits.held}
    await cancel_everywhere(acquire, probes=probes, late=(False,))
    with pytest.raises(AssertionError, match="permits: 1 held, 0 before, cancelled late at"):
        await cancel_everywhere(acquire, probes=probes)


@pytest.mark.anyio
async def test_a_swallowed_cancellation_is_found() -> None:
    """Who catches `CancelledError` and goes on is told."""

    async def swallow() -> None:
        with suppress(asyncio.CancelledError):
            await turn()

    with pytest.raises(AssertionError, match="returned instead of CancelledError"):
        await cancel_everywhere(swallow)


@pytest.mark.anyio
async def test_an_error_instead_of_the_cancellation_is_found() -> None:
    """Who turns `CancelledError` into another error is told, with that error as the cause."""

    async def turn_into() -> None:
        try:
            await turn()
        except asyncio.CancelledError:
            raise LookupError from None

    with pytest.raises(AssertionError, match="raised LookupError") as caught:
        await cancel_everywhere(turn_into)
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.anyio
async def test_a_left_task_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that outlives the call is named."""
    monkeypatch.setattr("loom.testing.cancel._SETTLE_S", 0.0)
    tasks: list[asyncio.Task[bool]] = []

    async def start() -> None:
        tasks.append(asyncio.ensure_future(asyncio.Event().wait()))
        await turn()

    with pytest.raises(AssertionError, match="a task is left"):
        await cancel_everywhere(start)

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.anyio
async def test_an_owner_task_may_finish() -> None:
    """A task that ends by itself soon after is no leak."""

    async def settle() -> None:
        await turn(20)

    async def own() -> None:
        await asyncio.shield(asyncio.ensure_future(settle()))

    await cancel_everywhere(own)


@pytest.mark.anyio
async def test_a_generator_left_half_read_is_found() -> None:
    """A generator that only the garbage collector closes is named."""

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    async def first() -> None:
        async for _ in numbers():
            break
        await turn()

    async def first_closed() -> None:
        async with aclosing(numbers()) as generator:
            async for _ in generator:
                break
        await turn()

    await cancel_everywhere(first_closed)
    with pytest.raises(AssertionError, match=r"half-read, .*numbers"):
        await cancel_everywhere(first)


@pytest.mark.anyio
async def test_the_check_is_asked_after_each_run() -> None:
    """`check` sees the state after each run, and what it raises comes out."""
    runs = 0

    def check() -> None:
        nonlocal runs
        runs += 1

    survey = await cancel_everywhere(lambda: turn(2), check)

    assert survey.runs + 1 == runs


@pytest.mark.anyio
async def test_an_endless_coroutine_is_given_up() -> None:
    """A coroutine that suspends for ever is refused at the limit."""

    async def forever() -> None:
        while True:
            await turn()

    with pytest.raises(AssertionError, match="no end after 10 suspensions"):
        await cancel_everywhere(forever, twice=(False,), limit=10)


@pytest.mark.anyio
async def test_an_error_without_a_cancellation_is_raised_as_it_is() -> None:
    """A coroutine that fails by itself is the test's own mistake."""

    async def fail() -> None:
        await turn()
        raise LookupError("by itself")

    with pytest.raises(LookupError, match="by itself"):
        await cancel_everywhere(fail)


@pytest.mark.anyio
async def test_the_place_names_the_line_inside_a_generator() -> None:
    """The message leads to the line that was suspended, through `async for`."""

    async def numbers() -> AsyncGenerator[int, None]:
        await turn()
        yield 1

    async def read() -> None:
        with suppress(asyncio.CancelledError):
            async for _ in numbers():
                pass

    with pytest.raises(AssertionError, match=r"turns\.py"):
        await cancel_everywhere(read)


def test_a_place_without_a_frame_is_said_to_be_unknown() -> None:
    """What is no coroutine of Python's own shows no line."""
    assert "an unknown place" == _place(object())


def test_generators_are_found_without_a_loop() -> None:
    """A generator that nobody closes is found outside any event loop too."""

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        yield 2

    with abandoned_generators() as found:
        generator = numbers()
        with pytest.raises(StopIteration):
            generator.asend(None).send(None)
        del generator

    assert 1 == len(found)
    assert "numbers" in found[0]


def test_the_hooks_are_put_back() -> None:
    """After looking for abandoned generators, the interpreter's hooks are as before."""
    before = sys.get_asyncgen_hooks()
    with abandoned_generators() as found:
        pass

    assert [] == found
    assert before == sys.get_asyncgen_hooks()


def test_a_loop_that_was_looked_at_is_collected() -> None:
    """A generator that lives on knows its hook, and the hook its loop: a circle that can go."""

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1

    class Held:
        generator: AsyncGenerator[int, None]

    async def main() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.get_running_loop()
        with abandoned_generators():
            held = Held()
            held.generator = numbers()
            await anext(held.generator)
            loop.held = held  # type: ignore[attr-defined] # whatever an error's frames hold
            await held.generator.aclose()
        return weakref.ref(loop)

    with asyncio.Runner(loop_factory=lambda: SeededLoop(1)) as runner:
        loop = runner.run(main())
    del runner
    gc.collect()

    assert loop() is None
