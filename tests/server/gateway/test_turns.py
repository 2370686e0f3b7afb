"""Who begins next: callers take turns, and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.server.gateway.turns import Turns

pytestmark = pytest.mark.anyio


async def begin(turns: Turns, whose: str, begun: list[str]) -> None:
    await turns.take(whose)
    begun.append(whose)


async def test_a_call_alone_begins_at_once() -> None:
    """No turn of the loop is lost where nobody waits."""
    turns = Turns()
    for _ in range(3):
        coroutine = turns.take("a")
        with pytest.raises(StopIteration):
            coroutine.send(None)
        await asyncio.sleep(0)


async def test_who_is_alone_begins_as_it_likes() -> None:
    """Nobody gains from short turns where one caller has all; others are felt for a while."""
    turns, begun = Turns(at_once=1, shared_s=0.0), list[str]()
    tasks = [asyncio.ensure_future(begin(turns, "a", begun)) for _ in range(7)]
    await asyncio.sleep(0)
    assert 7 == len(begun)
    await asyncio.gather(*tasks, begin(turns, "b", begun), begin(turns, "a", begun))

    turns = Turns(at_once=1)
    await turns.take("a")
    await turns.take("b")
    tasks = [asyncio.ensure_future(begin(turns, "b", begun)) for _ in range(3)]
    await asyncio.sleep(0)
    assert 2 <= turns.waiting
    await asyncio.gather(*tasks)


async def test_few_begin_in_a_turn() -> None:
    """The rest waits for the next turn of the loop."""
    turns, begun = Turns(at_once=2), list[str]()
    await turns.take("b")
    tasks = [asyncio.ensure_future(begin(turns, "a", begun)) for _ in range(7)]
    seen = []
    while not all(task.done() for task in tasks):
        before = len(begun)
        await asyncio.sleep(0)
        seen.append(len(begun) - before)
    assert 7 == sum(seen)
    assert max(seen) <= 2
    assert 0 == turns.waiting


async def test_a_single_call_does_not_wait_behind_a_crowd() -> None:
    """Callers take turns, whoever has more calls."""
    turns, begun = Turns(at_once=1), list[str]()
    await turns.take("single")
    crowd = [asyncio.ensure_future(begin(turns, "crowd", begun)) for _ in range(200)]
    await asyncio.sleep(0)
    single = asyncio.ensure_future(begin(turns, "single", begun))
    await single
    assert begun.index("single") <= 4
    await asyncio.gather(*crowd)
    assert {"crowd": 200, "single": 1} == Counter(begun)


async def test_who_hangs_up_has_no_turn() -> None:
    """One that is cancelled while it waits takes nobody's place."""
    turns, begun = Turns(at_once=1), list[str]()
    tasks = [asyncio.ensure_future(begin(turns, name, begun)) for name in "abcdef"]
    await asyncio.sleep(0)
    assert 4 == turns.waiting
    tasks[2].cancel()
    tasks[4].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert ["a", "b", "d", "f"] == begun
    assert 0 == turns.waiting


@given(
    st.lists(st.sampled_from("abc"), max_size=40),
    st.integers(1, 5),
    st.sets(st.integers(0, 39)),
)
def test_everybody_begins_in_the_order_of_coming(
    callers: list[str], at_once: int, leaving: set[int]
) -> None:
    """Whatever the crowd: each caller's own calls keep their order, and none waits for ever."""

    async def run() -> list[tuple[str, int]]:
        turns, begun = Turns(at_once=at_once), list[tuple[str, int]]()

        async def one(whose: str, number: int) -> None:
            await turns.take(whose)
            begun.append((whose, number))

        tasks = [asyncio.ensure_future(one(who, n)) for n, who in enumerate(callers)]
        await asyncio.sleep(0)
        for number in leaving:
            if number < len(tasks):
                tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert 0 == turns.waiting
        return begun

    begun = asyncio.run(run())
    for whose in "abc":
        own = [number for name, number in begun if name == whose]
        assert sorted(own) == own
    stayed = {n for n in range(len(callers)) if n not in leaving}
    assert stayed <= {number for _, number in begun}
