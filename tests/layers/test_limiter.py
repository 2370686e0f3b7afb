"""Calls wait for room: who is granted, when, on which loop; nobody is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from datetime import UTC, datetime

import pytest

from loom.core.errors import LimitExceeded
from loom.core.messages import Message
from loom.core.request import Attribution, ChatRequest, Priority, Sampling
from loom.layers.limit_estimate import Estimate
from loom.layers.limit_line import Ticket
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import LimitKey
from loom.layers.limiter import Limiter
from loom.testing import FakeClock, turn

pytestmark = pytest.mark.anyio

KEY = ("https://x", "0123abcd", "m")
OTHER = ("https://x", "0123abcd", "n")
AT_ONCE = 60.0


def ask(
    deadline_s: float | None = None, priority: Priority = "normal", tenant: str = ""
) -> ChatRequest:
    return ChatRequest(
        model="m",
        messages=(Message.user("x"),),
        sampling=Sampling(max_tokens=9),
        deadline_s=deadline_s,
        attribution=Attribution(priority=priority, tenant=tenant),
    )


def draw(
    limiter: Limiter,
    clock: FakeClock,
    tokens: int = 1,
    request: ChatRequest | None = None,
    key: LimitKey = KEY,
) -> Ticket:
    return limiter.draw(key, request or ask(), Estimate(1, tokens, tokens, tokens), clock)


def requests(a_minute: int, **more: float) -> Limiter:
    return Limiter(RateLimit(requests_per_minute=a_minute, burst_s=AT_ONCE, **more))  # type: ignore[arg-type] # numbers


async def test_of_500_at_once_exactly_ten_are_granted() -> None:
    """Ten slots (R-29); the others are in line, and each is granted once in its time."""
    limiter, clock = requests(10), FakeClock(auto=True)
    tickets = [draw(limiter, clock) for _ in range(500)]
    assert 10 == sum(ticket.granted for ticket in tickets)
    assert (10, 490) == (limiter.held, limiter.queued)
    for ticket in tickets:
        await ticket.wait()
        ticket.settle(1)
    assert (0, 0) == (limiter.held, limiter.queued)
    # 49 windows of ten, each a minute and its guard long.
    assert clock.monotonic_s() == pytest.approx(1000 + 49 * 61, abs=1)


async def test_a_full_key_delays_no_other() -> None:
    """Each has its own line (R-31)."""
    limiter, clock = requests(1), FakeClock()
    draw(limiter, clock)
    waiting = draw(limiter, clock)
    assert not waiting.granted
    assert draw(limiter, clock, key=OTHER).granted
    assert {KEY: 1, OTHER: 0} == {key: state.queued for key, state in limiter.states().items()}
    waiting.release()
    await turn(3)


async def test_idle_waiting_uses_one_timer_and_no_turns() -> None:
    """A hundred wait, one task sleeps, until the time of the first."""
    limiter, clock = requests(1), FakeClock()
    draw(limiter, clock).settle(1)
    waiting = [draw(limiter, clock) for _ in range(100)]
    await turn(50)
    assert 1 == clock.sleepers
    assert [61.0] == clock.slept
    clock.advance(61)
    await waiting[0].wait()
    assert [True, False] == [ticket.granted for ticket in waiting[:2]]
    for ticket in waiting:
        ticket.release()
    await turn(3)
    assert 0 == clock.sleepers


async def test_a_settled_call_lets_the_next_go_at_once() -> None:
    """Without waiting for a timer; what was held too much is free."""
    limiter = Limiter(RateLimit(tokens_per_minute=1000, burst_s=AT_ONCE))
    clock = FakeClock()
    first, second = draw(limiter, clock, 900), draw(limiter, clock, 800)
    assert not second.granted
    first.settle(100)
    await second.wait()
    assert second.granted
    second.settle(100)
    assert 200 == limiter.state(KEY).used_tokens


async def test_a_call_that_would_wait_too_long_is_refused_at_once() -> None:
    """The error names the wait, and nothing is left in line."""
    limiter, clock = requests(1), FakeClock()
    draw(limiter, clock).settle(1)
    with pytest.raises(LimitExceeded, match=r"no room before the deadline.*61\.0 s") as raised:
        draw(limiter, clock, request=ask(clock.monotonic_s() + 60))
    assert (61.0, 0) == (raised.value.retry_after_s, raised.value.attempts)
    assert (0, 0) == (limiter.queued, clock.sleepers)
    waits = draw(limiter, clock, request=ask(clock.monotonic_s() + 62))
    assert 61 == waits.wait_s
    with pytest.raises(LimitExceeded) as raised:
        draw(limiter, clock, request=ask(clock.monotonic_s() + 62))
    assert raised.value.retry_after_s == pytest.approx(122, abs=1)
    waits.release()
    await turn(3)


async def test_a_deadline_ends_a_wait_that_nobody_foresaw() -> None:
    """Calls that hold everything and do not end: the one that waits is sent away in time."""
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    holder = draw(limiter, clock)
    late = draw(limiter, clock, request=ask(clock.monotonic_s() + 5))
    patient = draw(limiter, clock)
    await turn(2)
    clock.advance(5)
    with pytest.raises(LimitExceeded):
        await late.wait()
    late.release()
    assert 1 == limiter.queued
    holder.settle(1)
    await patient.wait()
    patient.settle(1)


async def test_the_urgent_go_first() -> None:
    """By priority, whoever came first."""
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    holder = draw(limiter, clock)
    batch = draw(limiter, clock, request=ask(priority="batch"))
    urgent = draw(limiter, clock, request=ask(priority="interactive"))
    holder.settle(1)
    assert (True, False) == (urgent.granted, batch.granted)
    urgent.settle(1)
    assert batch.granted
    batch.settle(1)


async def test_a_large_call_lets_small_ones_pass_but_not_for_ever() -> None:
    """What overtakes it is never more than itself."""
    limiter = Limiter(RateLimit(tokens_per_minute=1000, burst_s=AT_ONCE))
    clock = FakeClock()
    holder = draw(limiter, clock, 500)
    large = draw(limiter, clock, 900)
    small = [draw(limiter, clock, 100) for _ in range(12)]
    passed = 0
    # Four fit beside the first; then four more, and one.
    for granted in (4, 4, 1, 0):
        now = [ticket for ticket in small if ticket.granted]
        assert granted == len(now)
        passed += len(now)
        for ticket in now:
            ticket.release()
    assert 9 == passed
    for ticket in small:
        ticket.release()
    assert not large.granted
    holder.release()
    assert large.granted
    large.release()
    await turn(3)


async def test_a_storm_of_cancellations_leaks_nothing() -> None:
    """Half of ten thousand give up while grants come; the other half is granted."""
    limiter, clock = Limiter(RateLimit(concurrency=10)), FakeClock()
    done: list[int] = []

    async def call(number: int) -> None:
        ticket = draw(limiter, clock)
        try:
            if not ticket.granted:
                await ticket.wait()
            await turn()
            done.append(number)
        finally:
            ticket.settle(1)
            ticket.settle(1)

    tasks = [asyncio.ensure_future(call(number)) for number in range(2000)]
    await turn(3)
    for number, task in enumerate(tasks):
        if number % 2:
            task.cancel()
        if number % 40 == 0:
            await turn()
            task.cancel()
    await asyncio.wait(tasks)
    assert (0, 0) == (limiter.held, limiter.queued)
    assert {n for n in range(2000) if not tasks[n].cancelled()} == set(done)
    assert len(done) >= 900


async def test_a_grant_that_meets_a_cancellation_is_given_back() -> None:
    """The permit of a task that was cancelled in the same turn goes to the next."""
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    holder = draw(limiter, clock)

    async def call(ticket: Ticket) -> None:
        try:
            await ticket.wait()
        finally:
            ticket.release()
            ticket.release()

    unlucky, lucky = draw(limiter, clock), draw(limiter, clock)
    task = asyncio.ensure_future(call(unlucky))
    await turn()
    holder.settle(1)
    assert unlucky.granted
    task.cancel()
    await asyncio.wait([task])
    assert (True, 1) == (lucky.granted, limiter.held)
    lucky.release()


def test_threads_with_loops_of_their_own_share_a_limit() -> None:
    """Each is woken on its own loop, and never more are on their way than may be."""
    limiter = Limiter(RateLimit(concurrency=3))
    lock, now, most, done = threading.Lock(), 0, 0, 0

    async def call() -> None:
        nonlocal now, most, done
        ticket = draw(limiter, clock)
        await ticket.wait()
        with lock:
            now += 1
            most = max(most, now)
        await turn(3)
        with lock:
            now -= 1
            done += 1
        ticket.settle(1)

    async def calls() -> None:
        await asyncio.gather(*(call() for _ in range(100)))

    clock = FakeClock()
    threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (400, 3) == (done, most)
    assert (0, 0) == (limiter.held, limiter.queued)


def test_who_waits_on_a_loop_that_is_closed_is_passed_over() -> None:
    """His permit goes to the next."""
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    held: list[Ticket] = []

    async def leave() -> None:
        held.append(draw(limiter, clock))
        held.append(draw(limiter, clock))

    asyncio.run(leave())

    async def come() -> Ticket:
        ticket = draw(limiter, clock)
        assert not ticket.granted
        held[0].settle(1)
        await ticket.wait()
        return ticket

    assert asyncio.run(come()).granted
    assert 1 == limiter.held


def test_a_loop_that_ends_hands_the_timer_on() -> None:
    """The first in line had the timer; when his loop ends, another's goes on."""
    limiter, clock = requests(1), FakeClock()
    ready, ended = threading.Event(), threading.Event()

    async def first() -> None:
        draw(limiter, clock).settle(1)
        ticket = draw(limiter, clock)
        try:
            ready.set()
            await asyncio.to_thread(ended.wait, 10)
        finally:
            ticket.release()

    async def second() -> None:
        ticket = draw(limiter, clock)
        ended.set()
        while not ticket.granted:
            clock.advance(61)
            await turn(10)
        await ticket.wait()
        ticket.settle(1)

    thread = threading.Thread(target=asyncio.run, args=(first(),))
    thread.start()
    ready.wait(10)
    asyncio.run(second())
    thread.join(10)
    assert (0, 0) == (limiter.held, limiter.queued)


async def test_cancelling_every_task_does_not_stop_those_who_come() -> None:
    """The timer's task is cancelled too, and set anew for whoever waits."""
    limiter, clock = requests(1), FakeClock()
    draw(limiter, clock).settle(1)
    ticket = draw(limiter, clock)
    await turn(2)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        if task.get_name() == "loom-limit-timer":
            task.cancel()
    await turn(5)
    assert 1 == clock.sleepers
    clock.advance(61)
    await ticket.wait()
    ticket.settle(1)


async def test_refusals_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A cut limit is a warning; five 429s at once are one; a full model is another."""
    limiter = requests(100)
    with caplog.at_level(logging.WARNING, logger="loom.limit"):
        for _ in range(5):
            limiter.refuse(KEY, "quota", 7.0, 1000.0)
        limiter.refuse(KEY, "capacity", None, 1000.0)
    assert [
        "m at https://x refused a call: its limits are used to 90 % from now on",
        "m at https://x is overloaded: at most 1 calls at once from now on",
    ] == [record.message for record in caplog.records]


async def test_refused_calls_without_a_wish_wait_longer_and_longer() -> None:
    """1, 2, 4 seconds; calls that were on their way together count as one."""
    limiter, clock = requests(100), FakeClock()
    for wait_s in (1, 2, 4):
        for _ in range(3):
            limiter.refuse(KEY, "quota", None, clock.monotonic_s())
        ticket = draw(limiter, clock)
        assert wait_s == ticket.wait_s
        ticket.release()
        clock.advance(wait_s)
    ticket = draw(limiter, clock)
    clock.advance(1)
    ticket.settle(1)
    limiter.refuse(KEY, "quota", None, clock.monotonic_s())
    ticket = draw(limiter, clock)
    assert 1 == ticket.wait_s
    ticket.release()
    await turn(3)


async def test_an_overloaded_model_is_asked_by_fewer_at_once() -> None:
    """A fifth fewer than were on their way; ten seconds later some more; in the end all."""
    limiter, clock = requests(1000), FakeClock()
    tickets = [draw(limiter, clock) for _ in range(20)]
    limiter.refuse(KEY, "capacity", None, clock.monotonic_s())
    assert 16 == limiter.state(KEY).limit_concurrency
    clock.advance(10)
    assert 18 == limiter.state(KEY).limit_concurrency
    clock.advance(100)
    assert float("inf") == limiter.state(KEY).limit_concurrency
    for ticket in tickets:
        ticket.release()


async def test_seconds_are_kept_apart() -> None:
    """With a limit of a second, calls leave evenly."""
    limiter, clock = Limiter(RateLimit(requests_per_second=2)), FakeClock(auto=True)
    for _ in range(5):
        ticket = draw(limiter, clock)
        await ticket.wait()
        ticket.settle(1)
    assert clock.monotonic_s() == pytest.approx(1000 + 4 * 0.55, abs=0.02)


async def test_a_full_month_names_the_days_left() -> None:
    """The wait is until the first of the next month, UTC."""
    clock = FakeClock(datetime(2024, 12, 30, tzinfo=UTC))
    limiter = Limiter(RateLimit(tokens_per_month=100))
    draw(limiter, clock, 100).settle(100)
    with pytest.raises(LimitExceeded) as raised:
        draw(limiter, clock, request=ask(clock.monotonic_s() + 600))
    assert 2 * 86_400 == raised.value.retry_after_s


async def test_nothing_known_is_no_limit() -> None:
    """Until headers name one, which is kept from then on."""
    limiter, clock = Limiter(), FakeClock()
    assert 0 == limiter.state(KEY).held
    tickets = [draw(limiter, clock, 10**6) for _ in range(100)]
    assert all(ticket.granted for ticket in tickets)
    limiter.announce(KEY, None, None, clock.monotonic_s())
    limiter.announce(KEY, 50, None, clock.monotonic_s())
    late = draw(limiter, clock)
    assert not late.granted
    for ticket in [*tickets, late]:
        ticket.release()
    await turn(3)


async def test_those_who_went_are_forgotten() -> None:
    """Deadlines of calls that were granted do not pile up until they pass."""
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    for _ in range(500):
        holder = draw(limiter, clock)
        waiting = draw(limiter, clock, request=ask(clock.monotonic_s() + 600))
        holder.settle(1)
        waiting.settle(1)
    gc.collect()
    assert sum(isinstance(one, Ticket) for one in gc.get_objects()) < 200
    await turn(3)


async def test_calls_that_end_in_a_bunch_are_followed_by_a_pause() -> None:
    """A server with a small bucket that charges at the end has none left then."""
    limiter, clock = Limiter(RateLimit(tokens_per_minute=6100)), FakeClock()
    tickets = []
    for _ in range(5):
        tickets.append(draw(limiter, clock, 300))
        clock.advance(3.1)
    assert all(ticket.granted for ticket in tickets)
    for ticket in tickets:
        ticket.settle(300)
    late = draw(limiter, clock, 10)
    # 15 seconds' worth, of which two of burst and two more may be owed.
    assert late.wait_s == pytest.approx(11, abs=0.5)
    late.release()
    await turn(3)
