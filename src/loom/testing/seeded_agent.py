"""What a seed means for agents: which calls are turns of one, its limits, tools and people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.testing.chance import Chance
from loom.testing.seeded_moment import Moment, draw_moment_of_turn

__all__ = [
    "HOWS",
    "AgentPlan",
    "Resumption",
    "TurnPlan",
    "again",
    "draw_agent",
]

HOWS = ("well", "raise", "hang", "much", "slow", "reluctant", "huge")
"""
How a tool ends.

A `reluctant` one takes a moment to clean up when it is cancelled; what a `huge` one returns is more
than some models' windows hold.
"""

_SESSIONS = ("ann", "bob")


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a broken turn is taken up again.

    Attributes:
        after_s: Seconds after it broke off.
        cancels: When this is cancelled itself.
    """

    after_s: float
    cancels: tuple[Moment, ...] = ()


class TurnPlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What makes a call a turn of an agent.

    Attributes:
        session: Which conversation; None: one of its own.
        again: How it is taken up again when it ends without an answer; None: not at all.
    """

    session: str | None = None
    again: Resumption | None = None


class AgentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    An agent over the client of a world.

    Attributes:
        turns: Which calls are turns of it, by name.
        limits: Arguments of its `AgentLimits`.
        calls: How many answers call tools, 0 to 1.
        odd: How many calls are odd: malformed, unknown, twice the same, 0 to 1.
        hows: How tools end.
        kept: Whether its sessions are kept.
        store_s: Seconds that adding to a session takes, at most; 0: not a turn of the loop.
        person: What a person answers who is asked: "allow", "deny", "slow" or "never".
        first_closed: Whether it is closed before its client, when that is closed early.
        anew: Whether a new agent, which knows what was kept and no more, goes on at the end.
    """

    turns: Mapping[str, TurnPlan]
    limits: Mapping[str, Any]
    calls: float
    odd: float
    hows: tuple[str, ...]
    kept: bool
    store_s: float
    person: str
    first_closed: bool
    anew: bool


def draw_agent(chance: Chance, names: Sequence[str]) -> AgentPlan | None:
    """
    Draw an agent, or none.

    Args:
        chance: Draws.
        names: The calls of the world.
    """
    if not chance.happens(0.22):
        return None
    turns = {name: _turn(chance) for name in names if chance.happens(0.5)}
    return AgentPlan(
        turns=turns or {names[0]: _turn(chance)},
        limits=_limits(chance),
        calls=chance.pick((0.5, 0.8)),
        odd=chance.pick((0.0, 0.2, 0.5)),
        # The last one is dear to run.
        hows=HOWS
        if chance.happens(0.02)
        else tuple(chance.pick(HOWS[:-1]) for _ in range(chance.whole(1, 4))),
        kept=chance.happens(0.8),
        store_s=chance.pick((0.0, 0.0, 0.001, 0.05)),
        person=chance.pick(("allow", "deny", "slow", "never")),
        first_closed=chance.happens(0.5),
        anew=chance.happens(0.5),
    )


def again(name: str) -> str:
    """
    Name the call that takes a turn up again.

    Args:
        name: The turn's, "call 3".
    """
    return f"again {name.rpartition(' ')[2]}"


def _turn(chance: Chance) -> TurnPlan:
    cancels = (draw_moment_of_turn(chance),) if chance.happens(0.2) else ()
    resumption = Resumption(after_s=chance.pick((0.0, 0.0, 0.5, 5.0)), cancels=cancels)
    return TurnPlan(
        session=chance.pick((None, *_SESSIONS, *_SESSIONS)),
        again=resumption if chance.happens(0.85) else None,
    )


def _limits(chance: Chance) -> dict[str, Any]:
    return {
        "max_turns": chance.pick((1, 2, 4, 6, 8, 8)),
        "max_tool_executions": chance.pick((0, 2, 5, 50, 50, 50, 50, 50)),
        "max_calls_per_answer": chance.pick((1, 2, 10, 10, 10, 10)),
        "max_argument_errors": chance.pick((0, 1, 2)),
        "max_parallel": chance.pick((1, 2, 10)),
        "max_output_bytes": chance.pick((300, 65_536)),
        "deadline_s": chance.pick((4.0, 20.0, 120.0)),
        "tool_timeout_s": chance.pick((0.5, 2.0, 10.0)),
    }
