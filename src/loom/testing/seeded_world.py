"""The world of a seed: a loop, vendors, a client, perhaps an agent, and the record."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from loom.core.response import LLMResponse
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.limiter import Limiter
from loom.testing.chance import Chance
from loom.testing.seeded_gate import Gate, Trip
from loom.testing.seeded_loop import LoopClock, SeededLoop
from loom.testing.seeded_plan import KEY, NEW_KEY, CallPlan, Plan
from loom.testing.seeded_tools import Run, Wishes, person, workers
from loom.testing.seeded_vendor import SeededVendor
from loom.transport.http import HttpTransport

__all__ = ["Alter", "Outcome", "World"]

if TYPE_CHECKING:
    from loom.agent.response import AgentResponse
    from loom.agent.session import Entry
    from loom.client.agent import AsyncAgent
    from loom.client.aio import AsyncMistral
    from loom.testing.seeded_ledger import WatchedLedger
    from loom.testing.seeded_sessions import SlowSessions

Alter: TypeAlias = "Callable[[AsyncMistral], None]"
"""Changes the client before it is used: to plant a bug, or to try a layer."""

# Seeds are smaller.
_APART = 3 * 10**9


class Outcome(msgspec.Struct, kw_only=True):
    """
    How a call ended.

    Attributes:
        plan: What was planned.
        kind: "answer", "error", "cancelled", "left", "limit" (the caller's own), "closed" (the
            client was), or "bug".
        began_s: When it began, on the loop's clock.
        ended_s: When it ended.
        late_s: How long after its deadline a wait for it ended, at most.
        attempts: Requests that were reported.
        text: The whole answer's text.
        pieces: What a stream gave of it, since it began anew.
        error: What it raised.
        cancelled_s: When it was asked to end.
        marks: Places of model events (True), of `Restarted` (False) and, in a turn, of the ends of
            its answers (None), in order.
        waits_s: Waits that `Retried` told of.
        response: The answer.
        queued: How often it waited for a permit.
        is_turn: Whether it is a turn of an agent.
        session: The turn's conversation; None: it is not kept, or nobody knows.
        turn: The agent's answer.
        calls: What the model answered in the turn, as far as it was told.
    """

    plan: CallPlan
    kind: str = ""
    began_s: float = 0.0
    ended_s: float = 0.0
    late_s: float = 0.0
    attempts: int | None = None
    text: str = ""
    pieces: list[str] = []
    error: BaseException | None = None
    cancelled_s: list[float] = []
    marks: list[tuple[int, bool | None]] = []
    waits_s: list[float] = []
    response: LLMResponse | None = None
    queued: int = 0
    is_turn: bool = False
    session: str | None = None
    turn: AgentResponse | None = None
    calls: list[LLMResponse] = []


class World:
    """
    A loop, a vendor, a client, and the record.

    Args:
        plan: What happens in it.
        loop: Where.

    Attributes:
        trace: What happened: seconds, and a line.
        outcomes: How the calls ended.
        trips: Requests as the transport saw them.
        leaks: What is still held at the end.
        limiter: The client's own limits, if any.
        ledger: Where each call has a row.
        wishes: What the vendors call, if there is an agent.
        runs: What its tools did.
        watchers: Told of these as they begin, by the turn that they run in.
        sessions: Where its conversations are kept, if they are.
        histories: What was kept at the end, by session.
    """

    def __init__(self, plan: Plan, loop: SeededLoop, chance: Chance) -> None:
        self.plan = plan
        self.loop = loop
        self.clock = LoopClock(loop)
        self.trace: list[tuple[float, str]] = []
        self.outcomes = [Outcome(plan=call) for call in plan.calls]
        self.trips: list[Trip] = []
        self.leaks: list[str] = []
        self.order = 0
        self.breaker: Breaker | None = plan.settings.new_breaker()
        limits = plan.settings.limits
        self.limiter = None if limits is None else Limiter(limits)
        self.ledger = _ledger(self.clock, plan)
        self.transport = HttpTransport(max_connections=plan.settings.max_connections)
        self.closed_s: float | None = None
        # When the agent was closed, if that was before the client.
        self.shut_s: float | None = None
        self.runs: list[Run] = []
        self.watchers: dict[str, Callable[[Run], object]] = {}
        # Apart, so that what an agent draws changes nothing else.
        self._apart = Chance(plan.seed + _APART)
        self.wishes = None if plan.agent is None else Wishes(self._apart.fork(), plan.agent)
        self.sessions = _sessions(self.clock, self._apart, plan)
        self.histories: dict[str, tuple[Entry, ...]] = {}
        network = loop.network
        network.note = self.note
        addresses = ["127.0.0.2", "127.0.0.3"][: plan.addresses]
        vendors = [
            SeededVendor(loop, self.clock, chance.fork(), mood, listens, wishes=self.wishes)
            for mood, listens in ((plan.mood, addresses), (plan.other_mood, ["127.0.0.4"]))
        ]
        self.vendors = vendors
        names = chance.fork()
        for name, found in (("mistral.localhost", addresses), ("other.localhost", ["127.0.0.4"])):
            network.names[name] = _name(found, names, plan.no_name)
        self._dice = chance.fork().dice
        self._keys = deque([KEY, NEW_KEY] if plan.settings.rotated else [KEY])
        loop.set_exception_handler(self._told)

    def note(self, text: str) -> None:
        """Write a line of the trace."""
        self.trace.append((self.loop.time(), text))

    def tick(self) -> int:
        """Give the next place in the order of everything."""
        self.order += 1
        return self.order

    def client(self) -> AsyncMistral:
        """Make the client."""
        from loom.client.aio import AsyncMistral  # noqa: PLC0415 - brings the whole stack

        settings = self.plan.settings
        return AsyncMistral(
            self._key if settings.rotated else KEY,
            timeouts=settings.timeouts,
            base_url="http://mistral.localhost",
            retry=settings.retry,
            breaker=self.breaker,
            fallback=settings.new_fallback(),
            rescue=settings.rescue,
            skip_bad_events=settings.skip_bad_events,
            dice=self._dice,
            clock=self.clock,
            transport=Gate(self.transport, loop=self.loop, tick=self.tick, trips=self.trips),
            as_of="2024-11",
            rate_limit=self.limiter,
            ledger=self.ledger,
            budget=settings.budget_usd or None,
            max_tokens=settings.max_tokens,
        )

    def agent(self, client: AsyncMistral) -> AsyncAgent:
        """
        Make an agent: another one is as one of a process that begins anew.

        Args:
            client: Who answers it.
        """
        from loom.agent.limits import AgentLimits  # noqa: PLC0415 - brings the whole stack
        from loom.client.agent import AsyncAgent  # noqa: PLC0415 - the same
        from loom.shuttle.permission import Permissions  # noqa: PLC0415 - the same

        plan = self.plan.agent
        assert plan is not None  # noqa: S101 - whoever makes an agent planned one
        return AsyncAgent(
            llm=client,
            tools=workers(self.clock, self._began, self.note),
            sessions=self.sessions,
            limits=AgentLimits(**plan.limits),
            permissions=Permissions(ask=person(plan, self.clock, self.note)),
            dice=self._apart.fork().dice,
        )

    def _began(self, run: Run) -> None:
        self.runs.append(run)
        self.watchers[run.turn](run)

    def _key(self) -> Secret:
        return Secret(self._keys[0] if len(self._keys) == 1 else self._keys.popleft())

    def _told(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        what = f"{context.get('message')}: {context.get('exception')!r}"
        self.note(f"the loop was told: {what}")
        self.leaks.append(f"the loop was told: {what}")


def _ledger(clock: LoopClock, plan: Plan) -> WatchedLedger:
    from loom.testing.seeded_ledger import WatchedLedger  # noqa: PLC0415 - brings the ledger

    ledger = WatchedLedger(clock=clock)
    limit_usd = plan.settings.budget_usd
    ledger.watch(Decimal(limit_usd) if limit_usd else None)
    return ledger


def _sessions(clock: LoopClock, chance: Chance, plan: Plan) -> SlowSessions | None:
    if plan.agent is None or not plan.agent.kept:
        return None
    from loom.testing.seeded_sessions import SlowSessions  # noqa: PLC0415 - brings the sessions

    return SlowSessions(clock, chance.fork(), plan.agent.store_s)


def _name(found: list[str], chance: Chance, fails: float) -> Callable[[], list[str]]:
    return lambda: [] if chance.happens(fails) else found
