"""Makes the calls of a plan, and writes down how each ends: plain ones, and turns of an agent."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from loom.agent.events import CallCompleted, Done, ToolFinished, ToolStarted
from loom.agent.history import messages_of, open_calls
from loom.core.errors import InvalidRequest, LoomError
from loom.core.events import (
    NOTICES,
    Completed,
    Restarted,
    Retried,
    TextDelta,
    Throttled,
)
from loom.core.response import LLMResponse
from loom.testing.seeded_answers import number_of
from loom.testing.seeded_plan import CallPlan, Moment
from loom.testing.seeded_tools import TURN, Run

if TYPE_CHECKING:
    from loom.client.agent import AsyncAgent
    from loom.client.aio import AsyncMistral
    from loom.testing.seeded_world import Outcome, World

__all__ = ["Caller", "Turn"]

T = TypeVar("T")


class _Left(Exception):
    """What a reader raises when he has seen enough."""


class Caller:
    """
    Makes one call.

    Args:
        world: Where.
        client: Who is asked.
        outcome: Where its end is written down.
    """

    def __init__(self, world: World, client: AsyncMistral | AsyncAgent, outcome: Outcome) -> None:
        self._world = world
        self._client = client
        self._outcome = outcome
        self._plan = outcome.plan
        self._loop = world.loop
        self._deadline_s = 0.0

    async def run(self) -> None:
        """Wait for the call's time, make it, and note how it ends."""
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
            outcome.attempts = self._told_by(error)
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
        self._answered(await self._timely(self._client.chat(self._plan.name, **self._options())))

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
                if outcome.kind == "answer":
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

    def _told_by(self, error: LoomError) -> int | None:
        """How many requests an error tells of."""
        return error.attempts

    def _saw(self, event: object) -> None:
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

    def _answered(self, response: Any) -> None:
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
        elif not moment.tool:
            self._at_turn(task, moment.turns)

    def _at_turn(self, task: asyncio.Task[Any], turns: int) -> None:
        self._loop.at_turn(self._loop.turns + 1 + turns, functools.partial(self._cancel, task))

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        if task.cancel():
            self._outcome.cancelled_s.append(self._loop.time())
            self._world.note(f"{self._plan.name} is cancelled")


class Turn(Caller):
    """
    Makes one turn of an agent.

    Args:
        world: Where.
        agent: Whose.
        outcome: Where its end is written down.
        resumes: Whether it goes on where the conversation broke off.
    """

    def __init__(
        self, world: World, agent: AsyncAgent, outcome: Outcome, *, resumes: bool = False
    ) -> None:
        super().__init__(world, agent, outcome)
        self._agent = agent
        self._resumes = resumes
        self._tools = 0

    async def run(self) -> None:
        """Do the turn, and see its tools begin."""
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 - it runs
        TURN.set(self._plan.name)
        self._world.watchers[self._plan.name] = functools.partial(self._tool_began, task)
        await super().run()

    def _tool_began(self, task: asyncio.Task[Any], _run: Run) -> None:
        self._tools += 1
        for moment in self._plan.cancels:
            if moment.tool == self._tools:
                self._at_turn(task, moment.turns)

    async def _chat(self) -> None:
        session = self._outcome.session
        if not self._resumes or session is None:
            await super()._chat()
            return
        options = self._options()
        del options["session"]
        try:
            self._answered(await self._agent.resume(session, **options))
        except InvalidRequest as error:
            if "nothing to go on with" in error.message:
                await self._check_nothing_waits(session)
            raise

    async def _check_nothing_waits(self, session: str) -> None:
        world = self._world
        entries = () if world.sessions is None else await world.sessions.read(session)
        messages = messages_of(entries)
        if open_calls(entries) or (messages and messages[-1].role in ("user", "tool")):
            world.leaks.append(
                f"{self._plan.name} was refused, and there is something to go on with"
            )

    def _options(self) -> dict[str, Any]:
        plan, outcome = self._plan, self._outcome
        named = self._world.plan.agent
        turn = None if named is None else named.turns.get(plan.name)
        session = outcome.session or (None if turn is None else turn.session)
        number = number_of(plan.name)
        return {"tags": {"call": plan.name}, "random_seed": number, "session": session}

    async def _timely(self, work: Awaitable[T]) -> T:
        # A turn queues before its time runs: see the books.
        return await work

    def _told_by(self, error: LoomError) -> int | None:
        if self._plan.way != "events":
            return None
        return error.attempts + sum(response.attempts for response in self._outcome.calls)

    def _saw(self, event: object) -> None:
        if isinstance(event, CallCompleted):
            self._completed(event.response)
        elif isinstance(event, Done):
            self._answered(event.response)
        elif not isinstance(event, ToolStarted | ToolFinished):
            super()._saw(event)

    def _completed(self, response: LLMResponse) -> None:
        """Hold the pieces of one answer of the model to the whole, and wait for the next one."""
        outcome, world = self._outcome, self._world
        given = "".join(outcome.pieces)
        # An answer that came as plain JSON is a stream of one event, which is the last.
        if given not in ("", response.content):
            world.leaks.append(f"{self._plan.name} was given {given!r}, not {response.content!r}")
        outcome.pieces.clear()
        outcome.calls.append(response)
        outcome.marks.append((world.tick(), None))

    def _answered(self, response: Any) -> None:
        outcome, turn = self._outcome, response
        outcome.turn = turn
        outcome.text = turn.content
        outcome.calls = list(turn.calls)
        outcome.attempts = sum(call.attempts for call in turn.calls)
        if self._world.sessions is not None:
            outcome.session = turn.session
        self._ends("answer")


def _described(plan: CallPlan) -> str:
    fields = msgspec.structs.asdict(plan)
    shown = {name: value for name, value in fields.items() if value and name not in ("name", "way")}
    return " ".join([plan.way, *(f"{name}={value!r}" for name, value in shown.items())])
