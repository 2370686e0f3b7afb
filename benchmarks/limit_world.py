"""
A virtual quarter of an hour: callers, a way to keep a limit, and a vendor that counts.

Everything runs on a seeded loop, so a minute costs no minute and a seed repeats it. The vendor is
`loom.testing.MeteredVendor`: the windows of the simulator.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from random import Random

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import LimitExceeded, RateLimited
from loom.core.events import Completed, Sending, StreamEvent
from loom.core.provider import Layer, LLMProvider
from loom.core.request import Attribution, ChatRequest, Priority, Timeouts
from loom.layers.limit import Limiting
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.server.simulator.options import ChargeAt, Tier, WindowKind
from loom.testing import LoopClock, MeteredCall, MeteredVendor, SeededLoop

__all__ = ["CONTENDERS", "LOADS", "SERVERS", "Outcome", "Run", "play"]

TIER = Tier(requests_per_minute=600, tokens_per_minute=200_000)
MINUTE_S = 60.0
WORKERS = 64
LOADS = ("steady", "bursty", "heavy-tailed", "long outputs")
SERVERS: tuple[tuple[WindowKind, ChargeAt], ...] = (
    ("sliding", "finish"),
    ("sliding", "arrival_corrected"),
    ("calendar", "finish"),
    ("calendar", "arrival_corrected"),
    ("bucket", "finish"),
    ("bucket", "arrival_corrected"),
)
# Bursts come so often, and bring so much more than the quota.
BURST_EVERY_S = 20.0
BURST_LOAD = 1.25
# How many callers each tenant has, when it is looked how fair the shares are.
TENANTS = (4, 8, 16, 36)
# How many interactive calls come in a second, while batch calls take what they can: a tenth.
INTERACTIVE_PER_S = 0.33


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """
    What to play.

    Attributes:
        contender: One of `CONTENDERS`.
        load: One of `LOADS`; "tenants" or "priorities" for these questions.
        window: How the vendor counts a minute.
        charge_at: When it charges tokens.
        seed: Draws the calls.
        minutes: How long.
        hidden: The part of the quota that somebody else uses.
    """

    contender: str
    load: str
    window: WindowKind
    charge_at: ChargeAt
    seed: int = 1
    minutes: float = 15.0
    hidden: float = 0.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    What came of it.

    Attributes:
        used: Tokens of answered calls over the quota.
        answered: Calls that were let in.
        refused: Calls that were answered 429.
        fairness: Jain's index of the tenants' tokens; 1 is equal.
        wait_p95_s: What 95 % of the interactive calls waited less than, in seconds.
        levels: Tokens that the vendor charged for in the 60 seconds before each second.
    """

    used: float
    answered: int
    refused: int
    fairness: float = math.nan
    wait_p95_s: float = math.nan
    levels: tuple[int, ...] = ()


class Ours(Limiting):
    """The limiter of this library."""

    def __init__(self, inner: LLMProvider, clock: Clock, limit: RateLimit) -> None:
        limiter = Limiter(limit)
        super().__init__(inner, limiter=limiter, clock=clock, scope=lambda: ("sim", "key"))


class Rule(Layer):
    """A simple rule around a vendor; subclasses say which."""

    def __init__(self, inner: LLMProvider, clock: Clock) -> None:
        super().__init__(inner)
        self.clock = clock
        self.turn = asyncio.Lock()

    async def enter(self, call: MeteredCall) -> None:
        """Wait until a call may leave; one after the other."""

    def settle(self, call: MeteredCall) -> None:
        """Take note of an answer."""

    def refused(self) -> None:
        """Take note of a 429."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Keep the rule."""
        call: MeteredCall = (request.metadata or {})["call"]
        async with self.turn:
            await self.enter(call)
        try:
            async with aclosing(self.inner.stream(request)) as events:
                async for event in events:
                    if isinstance(event, Completed):
                        self.settle(call)
                    yield event
        except RateLimited:
            self.refused()
            raise


class Bucket(Rule):
    """
    Requests and tokens flow in all the time; full at the start, holds a minute's worth.

    A call takes its prompt and `max_tokens`, and nothing comes back.
    """

    def __init__(self, inner: LLMProvider, clock: Clock) -> None:
        super().__init__(inner, clock)
        self.requests = float(TIER.requests_per_minute)
        self.tokens = float(TIER.tokens_per_minute)
        self.filled_s = clock.monotonic_s()

    async def enter(self, call: MeteredCall) -> None:
        """Take from both, or wait."""
        cost = call.prompt + call.most
        while True:
            now_s = self.clock.monotonic_s()
            minutes = (now_s - self.filled_s) / MINUTE_S
            self.filled_s = now_s
            requests, tokens = TIER.requests_per_minute, TIER.tokens_per_minute
            self.requests = min(requests, self.requests + requests * minutes)
            self.tokens = min(tokens, self.tokens + tokens * minutes)
            if self.requests >= 1 and self.tokens >= cost:
                break
            missing = max((1 - self.requests) / requests, (cost - self.tokens) / tokens)
            await self.clock.sleep(max(0.001, missing * MINUTE_S))
        self.requests -= 1
        self.tokens -= cost


class Cookbook(Bucket):
    """The bucket, and nobody leaves for 15 seconds after a 429."""

    paused_until_s = -math.inf

    async def enter(self, call: MeteredCall) -> None:
        """Sit the pause out first."""
        await super().enter(call)
        while (wait_s := self.paused_until_s - self.clock.monotonic_s()) > 0:
            await self.clock.sleep(wait_s)

    def refused(self) -> None:
        """Begin a pause."""
        self.paused_until_s = self.clock.monotonic_s() + 15


class Counters(Rule):
    """Counters of the clock's minute; usage is added when an answer has come."""

    def __init__(self, inner: LLMProvider, clock: Clock) -> None:
        super().__init__(inner, clock)
        self.minute, self.requests, self.tokens = 0, 0, 0

    async def enter(self, call: MeteredCall) -> None:  # noqa: ARG002 - what it will use, nobody asks
        """Wait for the next minute if one counter is full."""
        while True:
            self._look()
            full = self.requests >= TIER.requests_per_minute
            if not full and self.tokens < TIER.tokens_per_minute:
                self.requests += 1
                return
            now_s = self.clock.now().timestamp()
            await self.clock.sleep((self.minute + 1) * MINUTE_S - now_s + 0.001)

    def settle(self, call: MeteredCall) -> None:
        """Add what was used."""
        self._look()
        self.tokens += call.prompt + call.answer

    def _look(self) -> None:
        minute = int(self.clock.now().timestamp() // MINUTE_S)
        if minute != self.minute:
            self.minute, self.requests, self.tokens = minute, 0, 0


def _ours(inner: LLMProvider, clock: Clock) -> LLMProvider:
    return Ours(inner, clock, RateLimit(requests_per_minute=600, tokens_per_minute=200_000))


def _likely(inner: LLMProvider, clock: Clock) -> LLMProvider:
    limit = RateLimit(requests_per_minute=600, tokens_per_minute=200_000, reserve="likely")
    return Ours(inner, clock, limit)


CONTENDERS = {
    "loom": _ours,
    'loom, reserve="likely"': _likely,
    "cookbook": Cookbook,
    "minute counters": Counters,
    "plain bucket": Bucket,
}


class _Play:
    """The callers of one run."""

    def __init__(self, run: Run, loop: SeededLoop) -> None:
        self.run = run
        self.clock = LoopClock(loop)
        self.dice = Random(run.seed)
        self.vendor = MeteredVendor(
            TIER, clock=self.clock, window=run.window, charge_at=run.charge_at, headers=True
        )
        self.layer = CONTENDERS[run.contender](self.vendor, self.clock)
        self.end_s = loop.time() + run.minutes * MINUTE_S
        self.tokens: Counter[str] = Counter()
        self.waits: list[float] = []

    def draw(self) -> MeteredCall:
        """The next call of this load."""
        dice, load = self.dice, self.run.load
        delay_s = 0.02 + dice.expovariate(1 / 0.04)
        most, prompt = 1024, int(dice.lognormvariate(math.log(650), 0.58))
        if load == "heavy-tailed":
            prompt = int(min(8000, 250 * dice.paretovariate(1.4)))
            answer = int(min(most, 80 * dice.paretovariate(1.3)))
        elif load == "long outputs":
            most = 4096
            answer = int(min(most, dice.lognormvariate(math.log(1800), 0.35)))
        else:
            answer = int(min(most, dice.lognormvariate(math.log(215), 0.55)))
        return MeteredCall(
            prompt=prompt,
            answer=answer,
            most=most,
            seconds=0.5 + answer * 0.015,
            delay_s=delay_s,
            # Who guesses tokens from bytes is wrong by a quarter, and by chance.
            written=int(prompt * dice.gauss(4, 0.4)),
        )

    async def call(self, tenant: str = "", priority: Priority = "normal") -> None:
        """One call, again after a 429, until it was answered."""
        call = self.draw()
        request = call.request(
            attribution=Attribution(tenant=tenant, priority=priority),
            timeouts=Timeouts(total_s=3600.0),
        )
        came_s = self.clock.monotonic_s()
        attempt = 0
        while True:
            attempt += 1
            try:
                async with aclosing(self.layer.stream(request)) as events:
                    async for event in events:
                        if isinstance(event, Sending) and priority == "interactive":
                            self.waits.append(self.clock.monotonic_s() - came_s)
                self.tokens[tenant] += call.prompt + call.answer
            except LimitExceeded:
                await self.clock.sleep(60)
            except RateLimited:
                await self.clock.sleep(self.dice.random() * min(20.0, 2.0 ** (attempt - 1)))
            else:
                return

    async def work(self, tenant: str = "", priority: Priority = "normal") -> None:
        """Call after call."""
        while self.clock.monotonic_s() < self.end_s:
            await self.call(tenant, priority)

    async def hide(self) -> None:
        """Use a part of the quota behind everybody's back."""
        while True:
            await self.clock.sleep(1)
            self.vendor.take(int(self.run.hidden * TIER.tokens_per_minute / MINUTE_S))

    async def come(self, tasks: list[asyncio.Task[None]]) -> None:
        """Calls come by themselves: in bursts, or one by one beside a full load."""
        while self.clock.monotonic_s() < self.end_s:
            if self.run.load == "bursty":
                quota = TIER.tokens_per_minute * BURST_EVERY_S / MINUTE_S
                many = int(BURST_LOAD * quota / 1020)
                tasks.extend([asyncio.create_task(self.call()) for _ in range(many)])
                await self.clock.sleep(BURST_EVERY_S)
            else:
                await self.clock.sleep(self.dice.expovariate(INTERACTIVE_PER_S))
                tasks.append(asyncio.create_task(self.call("me", "interactive")))

    async def play(self) -> Outcome:
        """Let everybody call until the time is over."""
        run, tasks = self.run, list[asyncio.Task[None]]()
        if run.load in ("bursty", "priorities"):
            tasks.append(asyncio.create_task(self.come(tasks)))
        if run.load == "tenants":
            crowd = [str(many) for many in TENANTS for _ in range(many)]
            tasks += [asyncio.create_task(self.work(tenant)) for tenant in crowd]
        elif run.load != "bursty":
            kind: Priority = "batch" if run.load == "priorities" else "normal"
            tasks += [asyncio.create_task(self.work(priority=kind)) for _ in range(WORKERS)]
        if run.hidden:
            tasks.append(asyncio.create_task(self.hide()))
        await self.clock.sleep(self.end_s - self.clock.monotonic_s())
        used, tokens = self.vendor.used, self.tokens.copy()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        waits = sorted(self.waits)
        return Outcome(
            used=used / (TIER.tokens_per_minute * run.minutes),
            answered=self.vendor.accepted,
            refused=self.vendor.refused,
            fairness=jain(list(tokens.values())),
            wait_p95_s=waits[int(len(waits) * 0.95)] if waits else math.nan,
            levels=self.levels(),
        )

    def levels(self) -> tuple[int, ...]:
        """What counted at each second."""
        end = int(self.run.minutes * MINUTE_S)
        charged = [0] * (end + 1)
        start_s = self.end_s - self.run.minutes * MINUTE_S
        for when_s, tokens in self.vendor.counted:
            charged[min(end, int(when_s - start_s))] += tokens
        return tuple(sum(charged[max(0, now - 59) : now + 1]) for now in range(end))


def jain(shares: list[int]) -> float:
    """Jain's index: 1 when all are equal, 1/n when one has everything."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else math.nan


def play(run: Run) -> Outcome:
    """
    Play one run.

    Args:
        run: What to play.

    Returns:
        What came of it.
    """

    async def main() -> Outcome:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SeededLoop)  # noqa: S101 - the runner below made it
        return await _Play(run, loop).play()

    def make() -> SeededLoop:
        return SeededLoop(run.seed, most_turns=10**9)

    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main())
