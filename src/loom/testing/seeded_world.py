"""Runs a plan: the real client on a seeded loop, and a record of everything that happens."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from loom.core.errors import LoomError
from loom.core.events import (
    NOTICES,
    Completed,
    Restarted,
    Retried,
    StreamEvent,
    TextDelta,
    Throttled,
)
from loom.core.response import LLMResponse
from loom.core.secret import Secret
from loom.layers.breaker import Breaker
from loom.layers.limiter import Limiter
from loom.testing.cancel import abandoned_generators
from loom.testing.chance import Chance
from loom.testing.seeded_gate import Gate, Trip
from loom.testing.seeded_loop import LoopClock, SeededLoop
from loom.testing.seeded_plan import KEY, NEW_KEY, CallPlan, Moment, Plan
from loom.testing.seeded_vendor import SeededVendor
from loom.transport.http import HttpTransport

__all__ = ["MOST_TURNS", "Alter", "Outcome", "World", "run_world"]

if TYPE_CHECKING:
    from loom.client.aio import AsyncMistral
    from loom.testing.seeded_ledger import WatchedLedger

T = TypeVar("T")

Alter: TypeAlias = "Callable[[AsyncMistral], None]"
"""Changes the client before it is used: to plant a bug, or to try a layer."""

# Longer than what is under way takes to arrive.
_QUIET_S = 2.0
# Longer than anything still under way: latencies, the vendor's patience.
_SETTLE_S = 60.0
MOST_TURNS = 30_000
"""A seed takes some hundred turns of the loop; one that takes so many spins."""


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
        marks: Places of model events (True) and of `Restarted` (False), in order.
        waits_s: Waits that `Retried` told of.
        response: The answer.
        queued: How often it waited for a permit.
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
    marks: list[tuple[int, bool]] = []
    waits_s: list[float] = []
    response: LLMResponse | None = None
    queued: int = 0


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
        network = loop.network
        network.note = self.note
        addresses = ["127.0.0.2", "127.0.0.3"][: plan.addresses]
        vendors = [
            SeededVendor(loop, self.clock, chance.fork(), plan.mood, addresses),
            SeededVendor(loop, self.clock, chance.fork(), plan.other_mood, ["127.0.0.4"]),
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


def _name(found: list[str], chance: Chance, fails: float) -> Callable[[], list[str]]:
    return lambda: [] if chance.happens(fails) else found


async def run_world(world: World, alter: Alter | None) -> None:
    """
    Run a plan to its end, and look what is left.

    Args:
        world: Where.
        alter: Changes the client.
    """
    loop, plan = world.loop, world.plan
    with abandoned_generators() as abandoned:
        client = world.client()
        if alter is not None:
            alter(client)
        for at_s, by_s in plan.jumps:
            loop.call_later(at_s, _jump, world, by_s)
        tasks = [
            loop.create_task(_Caller(world, client, outcome).run(), name=outcome.plan.name)
            for outcome in world.outcomes
        ]
        if plan.close_at_s is not None:
            await world.clock.sleep(plan.close_at_s)
            await _close(world, client)
        await asyncio.wait(tasks)
        if world.closed_s is None:
            # Closing would hide what a call did not give back.
            await world.clock.sleep(_QUIET_S)
            world.leaks += list(_kept(world))
        await _close(world, client)
        for vendor in world.vendors:
            vendor.wake()
        await world.clock.sleep(_SETTLE_S)
    world.leaks += [f"async generator left half-read: {name}" for name in abandoned]
    world.leaks += list(_held(world))


async def _close(world: World, client: AsyncMistral) -> None:
    if world.closed_s is None:
        world.closed_s = world.loop.time()
        world.note("the client is closed")
    await client.aclose()


def _jump(world: World, by_s: float) -> None:
    world.clock.jump(by_s)
    world.note(f"the wall clock jumps by {by_s:.0f} s")


def _kept(world: World) -> list[str]:
    kept = [f"{busy}, and nobody waits for it" for one in world.vendors for busy in one.busy]
    permits = world.transport.permits_in_use
    return [*kept, f"{permits} permits of the transport held"] if permits else kept


def _held(world: World) -> list[str]:
    network, transport = world.loop.network, world.transport
    tasks = {task.get_name() for task in asyncio.all_tasks(world.loop)}
    tasks -= {asyncio.current_task(world.loop).get_name()}  # type: ignore[union-attr] # it runs
    probes = 0 if world.breaker is None else world.breaker.probes_held
    counts = {
        "sockets of the machine": network.open_sockets,
        "sockets of the transport": transport.open_sockets,
        "probes of the breaker": probes,
        "timers": world.loop.timers,
    }
    held = [f"{count} {what} held" for what, count in counts.items() if count]
    held += [f"open: {line}" for line in network.open_lines]
    return held + [f"a task is left: {name}" for name in sorted(tasks)]


class _Left(Exception):
    """What a reader raises when he has seen enough."""


class _Caller:
    """Makes one call."""

    def __init__(self, world: World, client: AsyncMistral, outcome: Outcome) -> None:
        self._world = world
        self._client = client
        self._outcome = outcome
        self._plan = outcome.plan
        self._loop = world.loop
        self._deadline_s = 0.0

    async def run(self) -> None:
        plan, outcome, world = self._plan, self._outcome, self._world
        await world.clock.sleep(plan.at_s)
        outcome.began_s = self._loop.time()
        own_s = plan.deadline_s
        total_s = world.plan.settings.timeouts.total_s if own_s is None else own_s
        self._deadline_s = outcome.began_s + total_s
        for moment in plan.cancels:
            self._at(moment)
        world.note(f"{plan.name} begins: {_described(plan)}")
        try:
            await self._limited()
        except asyncio.CancelledError as error:
            self._ends("cancelled", error)
            raise
        except LoomError as error:
            outcome.attempts = error.attempts
            self._ends("error", error)
        except _Left:
            self._ends("left")
        except TimeoutError as error:
            self._ends("bug" if plan.limit_s is None else "limit", error)
        except Exception as error:  # noqa: BLE001 - whatever it is stands in the books
            closed = isinstance(error, RuntimeError) and world.closed_s is not None
            self._ends("closed" if closed else "bug", error)

    async def _limited(self) -> None:
        limit: AbstractAsyncContextManager[object] = nullcontext()
        if self._plan.limit_s is not None:
            limit = asyncio.timeout(self._plan.limit_s)
        async with limit:
            await (self._chat() if self._plan.way == "chat" else self._stream())

    async def _chat(self) -> None:
        response = await self._timely(self._client.chat(self._plan.name, **self._options()))
        self._answered(response)

    async def _stream(self) -> None:
        plan, outcome = self._plan, self._outcome
        async with self._client.stream(plan.name, **self._options()) as stream:
            if plan.way == "events":
                seen = 0
                while plan.leave == "" or seen < plan.leave_after:
                    event = await self._timely(anext(stream, None))
                    if event is None:
                        break
                    self._saw(event)
                    seen += 1
                    if plan.dawdle_s:
                        await self._world.clock.sleep(plan.dawdle_s)
                if outcome.response is not None:
                    return
                if plan.leave == "aclose":
                    await self._timely(stream.aclose())
                if plan.leave == "raise":
                    raise _Left
            else:
                if plan.way == "texts":
                    outcome.pieces = [text async for text in stream.text_stream]
                self._answered(await self._timely(stream.final()))
                return
        self._ends("left" if plan.leave else "bug")

    def _options(self) -> dict[str, Any]:
        own_s = self._plan.deadline_s
        tags = {"call": self._plan.name}
        return {"tags": tags} if own_s is None else {"tags": tags, "deadline_s": own_s}

    async def _timely(self, work: Awaitable[T]) -> T:
        begin_s = self._loop.time()
        try:
            return await work
        finally:
            late_s = self._loop.time() - max(begin_s, self._deadline_s)
            self._outcome.late_s = max(self._outcome.late_s, late_s)

    def _saw(self, event: StreamEvent) -> None:
        outcome = self._outcome
        kind = type(event)
        if isinstance(event, Completed):
            self._answered(event.response)
        elif isinstance(event, TextDelta):
            outcome.pieces.append(event.text)
        elif isinstance(event, Retried):
            outcome.waits_s.append(event.wait_s)
            self._world.note(f"{self._plan.name}: {event.text}")
        elif isinstance(event, Throttled):
            outcome.queued += 1
            self._world.note(f"{self._plan.name} waits for a permit, about {event.wait_s:.3f} s")
        elif isinstance(event, Restarted):
            outcome.pieces.clear()
            outcome.marks.append((self._world.tick(), False))
            self._world.note(f"{self._plan.name} begins anew with {event.model}")
        if kind not in NOTICES:
            outcome.marks.append((self._world.tick(), True))

    def _answered(self, response: LLMResponse) -> None:
        outcome = self._outcome
        outcome.response = response
        outcome.text = response.content
        outcome.attempts = response.attempts
        self._ends("answer")

    def _ends(self, kind: str, error: BaseException | None = None) -> None:
        outcome = self._outcome
        if outcome.kind and kind not in {"cancelled", "limit"}:
            kind = "bug" if kind != outcome.kind else kind
        outcome.kind, outcome.error = kind, error
        outcome.ended_s = self._loop.time()
        what = "" if error is None else f": {type(error).__name__}: {error}"
        sends = "" if outcome.attempts is None else f" after {outcome.attempts} requests"
        self._world.note(f"{self._plan.name} ends, {kind}{sends}{what}")

    def _at(self, moment: Moment) -> None:
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - it runs
        if moment.after_s is not None:
            self._loop.call_later(moment.after_s, self._cancel, task)
        else:
            self._loop.at_turn(
                self._loop.turns + 1 + moment.turns, functools.partial(self._cancel, task)
            )

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task.cancel():
            self._outcome.cancelled_s.append(self._loop.time())
            self._world.note(f"{self._plan.name} is cancelled")


def _described(plan: CallPlan) -> str:
    fields = msgspec.structs.asdict(plan)
    shown = {name: value for name, value in fields.items() if value and name not in ("name", "way")}
    return " ".join([plan.way, *(f"{name}={value!r}" for name, value in shown.items())])
