"""Time that a test moves, chance that a test chooses."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from loom.core.ambient import SystemClock
from loom.testing import FakeClock, FakeDice, no_waits, turn


@pytest.mark.anyio
async def test_time_stands_still_until_it_is_moved() -> None:
    """A sleeper wakes when the clock was moved as far as it wanted, and not before."""
    clock = FakeClock()
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    tasks = [asyncio.ensure_future(sleep(seconds)) for seconds in (3, 1, 2)]
    await clock.until_asleep(3)
    clock.advance(0.5)
    await turn(5)
    assert [] == woken
    clock.advance(1.6)
    await turn(5)
    assert [1, 2] == woken
    clock.advance(10)
    await asyncio.wait(tasks)
    assert [1, 2, 3] == woken
    assert 0 == clock.sleepers
    assert [3, 1, 2] == clock.slept


def test_both_clocks_move_together() -> None:
    """The wall clock and the monotonic one show the same distance."""
    clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    before = clock.monotonic_s()
    clock.advance(90)

    assert datetime(2026, 1, 1, 0, 1, 30, tzinfo=UTC) == clock.now()
    assert 90 == clock.monotonic_s() - before


@pytest.mark.anyio
async def test_auto_moves_by_each_sleep() -> None:
    """With `auto`, nobody waits and the time passes all the same."""
    clock = FakeClock(auto=True)
    before = clock.now()
    await clock.sleep(60)
    await clock.sleep(1.5)

    assert timedelta(seconds=61.5) == clock.now() - before
    assert [60, 1.5] == clock.slept


@pytest.mark.anyio
async def test_a_cancelled_sleeper_is_forgotten() -> None:
    """A sleep that was cancelled leaves nothing behind."""
    clock = FakeClock()
    task = asyncio.ensure_future(clock.sleep(5))
    await clock.until_asleep()
    task.cancel()
    await asyncio.wait([task])

    assert 0 == clock.sleepers


@pytest.mark.anyio
async def test_a_sleeper_cancelled_while_it_wakes_is_left_alone() -> None:
    """Between `advance` and the waking there is a turn; a cancellation in it does no harm."""
    clock = FakeClock()
    task = asyncio.ensure_future(clock.sleep(5))
    await clock.until_asleep()
    clock.advance(5)
    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()


@pytest.mark.anyio
async def test_missing_sleepers_are_reported() -> None:
    """Waiting for sleepers that never come fails, and says how many there were."""
    with pytest.raises(AssertionError, match="1 were to sleep, 0 do"):
        await FakeClock().until_asleep()


def test_a_sleeper_of_another_loop_is_woken_on_its_own() -> None:
    """The clock may be moved from another thread than the sleeper's."""
    clock = FakeClock()
    thread = threading.Thread(target=lambda: asyncio.run(clock.sleep(5)))
    thread.start()
    while not clock.sleepers:
        pass
    clock.advance(5)
    thread.join(5)

    assert not thread.is_alive()


def test_a_clock_does_not_go_back() -> None:
    """Moving it by less than nothing is refused."""
    with pytest.raises(ValueError, match="at least 0"):
        FakeClock().advance(-1)


def test_a_start_needs_a_time_zone() -> None:
    """A wall clock without a zone is refused."""
    with pytest.raises(ValueError, match="time zone"):
        FakeClock(datetime(2026, 1, 1))  # noqa: DTZ001  # that is the mistake


def test_the_dice_repeat_what_they_were_given() -> None:
    """Draws come in turn, again and again."""
    dice = FakeDice([0.1, 0.9])

    assert [0.1, 0.9, 0.1] == [dice.random() for _ in range(3)]
    assert 0.5 == FakeDice().random()


@pytest.mark.parametrize("draws", [1.0, -0.1, []])
def test_impossible_draws_are_refused(draws: float | list[float]) -> None:
    """A draw lies in [0, 1)."""
    with pytest.raises(ValueError, match="numbers in"):
        FakeDice(draws)


@pytest.mark.anyio
async def test_no_waits_lets_the_real_clock_pass() -> None:
    """Inside, a real sleep of an hour returns at once and is noted; outside, all is as before."""
    real = SystemClock.sleep
    with no_waits() as waits:
        await SystemClock().sleep(3600)

    assert [3600] == waits
    assert real is SystemClock.sleep
