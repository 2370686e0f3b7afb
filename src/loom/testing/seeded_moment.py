"""A moment of a call, drawn: by the clock, by the turns of the loop, or by the tools that run."""

from __future__ import annotations

import msgspec

from loom.testing.chance import Chance

__all__ = ["Moment", "draw_moment", "draw_moment_of_turn"]


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """
    When something is done to a call.

    Attributes:
        after_s: Seconds after it began; None where turns are counted.
        turns: Turns of the loop after it began: these lie where something happens.
        tool: Which of its tools must have begun, counted from 1; turns are counted from there. 0:
            none, and they are counted from its beginning.
    """

    after_s: float | None = None
    turns: int = 0
    tool: int = 0


def draw_moment(chance: Chance, turns: int = 90) -> Moment:
    """
    Draw a moment.

    Args:
        chance: Draws.
        turns: The most turns of the loop until then.
    """
    if chance.happens(0.4):
        return Moment(after_s=chance.between(0, chance.pick((0.1, 1.0, 10.0))))
    return Moment(turns=chance.whole(0, turns))


def draw_moment_of_turn(chance: Chance) -> Moment:
    """
    Draw a moment of an agent's turn, which takes longer than a call: often when a tool runs.

    Args:
        chance: Draws.
    """
    if chance.happens(0.6):
        return Moment(turns=chance.whole(0, 12), tool=chance.pick((1, 1, 2, 3)))
    return draw_moment(chance, chance.pick((100, 300, 600)))
