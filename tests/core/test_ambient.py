"""Time and chance of the machine, behind two small protocols."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.ambient import SystemClock, SystemDice
from loom.testing import turn


def test_now_is_in_utc() -> None:
    """The wall clock knows its zone, and agrees with the machine's."""
    now = SystemClock().now()
    assert UTC is now.tzinfo
    assert abs(datetime.now(UTC) - now) < timedelta(minutes=1)


def test_monotonic_seconds_never_go_back() -> None:
    """A later look is never earlier."""
    clock = SystemClock()
    looks = [clock.monotonic_s() for _ in range(100)]
    assert sorted(looks) == looks


@pytest.mark.anyio
async def test_sleep_lets_others_run() -> None:
    """Even no sleep at all gives the loop a turn."""
    ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(ran.set)
    await SystemClock().sleep(0)
    assert ran.is_set()


@pytest.mark.anyio
async def test_sleep_can_be_cancelled() -> None:
    """A sleeper that is cancelled wakes at once."""
    task = asyncio.create_task(SystemClock().sleep(3600))
    await turn()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@given(st.integers())
def test_equal_seeds_draw_equal_numbers(seed: int) -> None:
    """A seed makes the draws repeat, and every draw lies in [0, 1)."""
    first, second = SystemDice(seed), SystemDice(seed)
    draws = [first.random() for _ in range(5)]
    assert draws == [second.random() for _ in range(5)]
    assert all(0 <= draw < 1 for draw in draws)


def test_dice_without_a_seed_differ() -> None:
    """Two clients do not wait in step."""
    assert [SystemDice().random() for _ in range(4)] != [SystemDice().random() for _ in range(4)]
