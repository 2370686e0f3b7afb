"""Tools of a seeded world: what a vendor asks for, and what becomes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec

from loom.core.ambient import Clock
from loom.core.messages import ToolCall
from loom.shuttle.tool import Tool
from loom.testing.chance import Chance
from loom.testing.seeded_agent import HOWS, AgentPlan
from loom.testing.seeded_answers import Piece

__all__ = ["CLEANING_S", "ONCE", "TURN", "Run", "Wanted", "Wishes", "Worker", "person", "workers"]

CLEANING_S = 0.3
"""How long a reluctant tool cleans up when it is cancelled."""

TURN: ContextVar[str] = ContextVar("loom_seeded_turn")
"""The name of the turn that runs; its tools have it too."""

ONCE = ("work", "post")
"""Tools that must not run twice for a call."""

_NAMES = (*ONCE, "look")
_LONG = {"much": "much " + "x" * 2000, "huge": "huge " + "x" * 20_000}

_encode = msgspec.json.Encoder().encode


class Wanted(msgspec.Struct, frozen=True):
    """
    A call as a vendor made it.

    Attributes:
        who: The turn that it was made in.
        tool: What is called.
        how: How the tool ends.
    """

    who: str
    tool: str
    how: str


class Run(msgspec.Struct, kw_only=True):
    """
    One run of a tool.

    Attributes:
        number: Stands in the arguments; each call of a vendor has its own.
        turn: The turn that it ran in.
        tool: Which tool.
        how: How it ends.
        began_s: When it began, on the loop's clock.
        ended_s: When it was over; None: it never was.
    """

    number: str
    turn: str
    tool: str
    how: str
    began_s: float
    ended_s: float | None = None


class Wishes:
    """
    Draws what the vendors of a world want of an agent.

    Args:
        chance: Draws.
        plan: How often what is called.

    Attributes:
        wanted: Every call that can be understood, by its number.
    """

    def __init__(self, chance: Chance, plan: AgentPlan) -> None:
        self._chance = chance
        self._plan = plan
        self._count = 0
        self.wanted: dict[str, Wanted] = {}

    def pieces(self, who: str, texts: Sequence[Piece]) -> list[Piece]:
        """
        Give the pieces of an answer to a request that offers tools.

        Args:
            who: The turn that asks.
            texts: The pieces of an answer in words.

        Returns:
            Words, calls, or both; one empty piece for an answer that says nothing.
        """
        chance, plan = self._chance, self._plan
        if not chance.happens(plan.calls):
            return [""] if chance.happens(plan.odd / 4) else list(texts)
        calls = [self._call(who) for _ in range(chance.pick((1, 1, 2, 3)))]
        if chance.happens(plan.odd):
            twin = {**calls[0], "function": dict(calls[0]["function"])}
            if chance.happens(0.5):
                twin["id"] = self._id()
            calls.append(twin)
        for index, call in enumerate(calls):
            call["index"] = index
        return [*(texts if chance.happens(0.3) else ()), *calls]

    def _id(self) -> str:
        self._count += 1
        return f"c{self._count:08}"

    def _call(self, who: str) -> dict[str, Any]:
        chance = self._chance
        call_id = self._id()
        name, how = chance.pick(_NAMES), chance.pick(self._plan.hows)
        given = {"how": how, "number": call_id, "seconds": chance.pick((0.0, 0.1, 3.0))}
        arguments = _encode(given).decode()
        if chance.happens(self._plan.odd):
            name, arguments = chance.pick(
                (
                    ("nosuch", arguments),
                    (name, arguments[:-9]),
                    (name, '["list"]'),
                    (name, '{"how": "otherwise"}'),
                )
            )
        if name != "nosuch" and arguments.endswith("}") and call_id in arguments:
            self.wanted[call_id] = Wanted(who, name, how)
        return {"id": call_id, "function": {"name": name, "arguments": arguments}}


class Worker(Tool):
    """
    A tool that ends as its arguments say.

    Args:
        name: Its name.
        clock: Tells the time, and waits.
        began: Told of each run as it begins.
        note: Told what happens.
    """

    name = ""
    description = "Work."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "how": {"type": "string", "enum": list(HOWS)},
            "number": {"type": "string"},
            "seconds": {"type": "number"},
        },
        "required": ["how", "number"],
    }

    def __init__(
        self,
        name: str,
        clock: Clock,
        began: Callable[[Run], object],
        note: Callable[[str], object],
    ) -> None:
        self.name = name
        self.repeatable = name not in ONCE
        self.approval = "ask" if name == "post" else "allow"
        self._clock = clock
        self._began = began
        self._note = note

    async def execute(self, input: dict[str, Any]) -> str:  # noqa: A002 - the protocol's name
        """Work."""
        now_s = self._clock.monotonic_s
        run = Run(
            number=input["number"],
            turn=TURN.get(),
            tool=self.name,
            how=input["how"],
            began_s=now_s(),
        )
        self._note(f"{self.name} {run.number} begins, {run.how}")
        self._began(run)
        try:
            return await self._work(run.how, input.get("seconds", 0.0), run.number)
        finally:
            try:
                if run.how == "reluctant":
                    await self._clock.sleep(CLEANING_S)
            finally:
                run.ended_s = now_s()
                self._note(f"{self.name} {run.number} is over")

    async def _work(self, how: str, seconds: float, number: str) -> str:
        if how == "raise":
            raise ValueError(f"{number} is broken")
        if how == "hang":
            await self._clock.sleep(10_000.0)
        if how in ("slow", "reluctant"):
            await self._clock.sleep(seconds)
        return f"{_LONG.get(how, 'done')} {number}"


def workers(
    clock: Clock, began: Callable[[Run], object], note: Callable[[str], object]
) -> list[Worker]:
    """
    Make the tools of a world.

    Args:
        clock: Tells the time, and waits.
        began: Told of each run as it begins.
        note: Told what happens.
    """
    return [Worker(name, clock, began, note) for name in _NAMES]


def person(
    plan: AgentPlan, clock: Clock, note: Callable[[str], object]
) -> Callable[[ToolCall], Awaitable[bool]]:
    """
    Make who is asked about calls.

    Args:
        plan: What is answered.
        clock: Waits.
        note: Told what happens.
    """

    async def asked(call: ToolCall) -> bool:
        note(f"a person is asked about {call.name}, and answers {plan.person}")
        if plan.person in ("slow", "never"):
            await clock.sleep(2.0 if plan.person == "slow" else 10_000.0)
        return plan.person != "deny"

    return asked
