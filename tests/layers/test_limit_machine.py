"""Any order of calls, ends, refusals and waits: limits are kept, sums balance, nobody is lost."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from loom.core.errors import LimitExceeded
from loom.core.messages import Message
from loom.core.request import Attribution, ChatRequest, Priority
from loom.layers.limit_estimate import Estimate
from loom.layers.limit_line import Ticket
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import Ask
from loom.layers.limit_store import MemoryStore
from loom.layers.limiter import Limiter
from loom.testing import FakeClock, turn

KEY = ("https://x", "0123abcd", "m")
REQUESTS, TOKENS, CALLS = 8, 1000, 5
SECONDS = st.one_of(st.floats(0, 2), st.floats(0, 80))


class _Call:
    """What the model knows of a granted call: when it left, what it holds, what it used."""

    def __init__(self, at_s: float, hold: int) -> None:
        self.at_s = at_s
        self.hold = hold
        self.used: int | None = None


class StoreMachine(RuleBasedStateMachine):
    """A store against a list of all calls."""

    limit: ClassVar = RateLimit(
        requests_per_minute=REQUESTS, tokens_per_minute=TOKENS, concurrency=CALLS, burst_s=60
    )

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(self.limit)
        self.now_s = 1000.0
        self.number = 0
        self.calls: dict[int, _Call] = {}
        self.past: list[_Call] = []

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now_s += seconds

    @rule(tokens=st.integers(1, 1500))
    def take(self, tokens: int) -> None:
        """Ask; what is not granted leaves no trace, and has room after the wait it was told."""
        self.number += 1
        ask, before = Ask(tokens, tokens, tokens), self.store.state(KEY, self.now_s)
        wait_s = self.store.take(KEY, self.number, ask, self.now_s)
        if wait_s > 0:
            assert before == self.store.state(KEY, self.now_s)
            if wait_s == float("inf"):
                assert self.calls
            return
        call = _Call(self.now_s, min(tokens, int(before.limit_tokens)))
        self.calls[self.number] = call
        self.past.append(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """End a call with at most what it holds, once or twice."""
        number = data.draw(st.sampled_from(sorted(self.calls)))
        call = self.calls.pop(number)
        call.used = data.draw(st.integers(0, call.hold))
        for _ in range(data.draw(st.integers(1, 2))):
            self.store.settle(KEY, number, call.used, self.now_s)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Take a grant back for which nothing was sent."""
        number = data.draw(st.sampled_from(sorted(self.calls)))
        self.past.remove(self.calls.pop(number))
        self.store.release(KEY, number, self.now_s)
        self.store.settle(KEY, number, 999, self.now_s)

    @rule(
        why=st.sampled_from(["quota", "capacity"]),
        asked_s=st.one_of(st.none(), st.floats(0, 20)),
    )
    def refuse(self, why: str, asked_s: float | None) -> None:
        """Be answered 429."""
        self.store.refuse(KEY, "quota" if why == "quota" else "capacity", asked_s, self.now_s)

    @invariant()
    def no_minute_has_more_than_the_limit(self) -> None:
        """Of requests by when they left, and of tokens: what is held until it is known."""
        late = [call for call in self.past if call.at_s > self.now_s - 60]
        assert len(late) <= REQUESTS
        tokens = sum(call.hold if call.used is None else call.used for call in late)
        assert tokens <= TOKENS
        assert len(self.calls) <= CALLS

    @invariant()
    def sums_balance(self) -> None:
        """What is held is what the calls on their way hold."""
        state = self.store.state(KEY, self.now_s)
        assert (len(self.calls), sum(call.hold for call in self.calls.values())) == (
            state.held, state.held_tokens
        )  # fmt: skip
        assert 0 <= state.used_requests <= REQUESTS
        assert 0 <= state.used_tokens
        assert 0 < state.scale <= 1


class LineMachine(RuleBasedStateMachine):
    """A limiter with calls that wait, on one loop."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.limiter = Limiter(StoreMachine.limit)
        self.clock = FakeClock()
        self.tickets: list[Ticket] = []

    def teardown(self) -> None:
        """Whoever is in line is granted in the end, and everything is given back."""
        self.runner.run(self.drain())
        self.runner.close()

    async def drain(self) -> None:
        for _ in range(10_000):
            for ticket in self.tickets:
                ticket.settle(1) if ticket.granted else None
            self.tickets = [one for one in self.tickets if one.waits or one.granted]
            if not self.tickets:
                break
            self.clock.advance(30)
            await turn(4)
        assert [] == self.tickets
        await turn(4)
        assert (0, 0, 0) == (self.limiter.held, self.limiter.queued, self.clock.sleepers)

    @rule(
        tokens=st.integers(1, 1500),
        tenant=st.sampled_from("ab"),
        priority=st.sampled_from(["interactive", "normal", "batch"]),
        patience_s=st.one_of(st.none(), st.floats(0, 100)),
    )
    def draw(self, tokens: int, tenant: str, priority: Priority, patience_s: float | None) -> None:
        """Come; a refusal names a wait beyond the deadline."""
        request = ChatRequest(
            model="m",
            messages=(Message.user("x"),),
            attribution=Attribution(tenant=tenant, priority=priority),
            deadline_s=None if patience_s is None else self.clock.monotonic_s() + patience_s,
        )

        async def come() -> None:
            guess = Estimate(1, tokens, tokens, tokens)
            try:
                self.tickets.append(self.limiter.draw(KEY, request, guess, self.clock))
            except LimitExceeded as error:
                assert error.retry_after_s is not None
                assert patience_s is not None
                assert error.retry_after_s > patience_s
            await turn(2)

        self.runner.run(come())

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), used=st.integers(0, 1500))
    def end(self, data: st.DataObject, used: int) -> None:
        """A call ends, or somebody gives up in line."""
        ticket = data.draw(st.sampled_from(self.tickets))
        self.runner.run(self.close(ticket, used))

    async def close(self, ticket: Ticket, used: int) -> None:
        if ticket.granted and used:
            ticket.settle(used)
        else:
            ticket.release()
        self.tickets.remove(ticket)
        await turn(2)

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Let time pass."""

        async def pass_by() -> None:
            self.clock.advance(seconds)
            await turn(4)

        self.runner.run(pass_by())

    @invariant()
    def everybody_is_somewhere(self) -> None:
        """In line or on his way; sent away only when his time is over."""
        for ticket in self.tickets:
            assert ticket.waits + ticket.granted + ticket.expired == 1
            assert not ticket.expired or ticket.deadline_s <= self.clock.monotonic_s()
        assert sum(ticket.waits for ticket in self.tickets) == self.limiter.queued
        assert sum(ticket.granted for ticket in self.tickets) == self.limiter.held
        assert self.limiter.held <= CALLS

    @invariant()
    def one_timer_at_most(self) -> None:
        """However many wait."""
        assert self.clock.sleepers <= 1


StoreMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
LineMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
TestStore = StoreMachine.TestCase
TestLine = LineMachine.TestCase
