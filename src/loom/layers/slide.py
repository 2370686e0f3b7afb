"""Which turns of a conversation go when it is too long: a pure policy."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from loom.core.messages import Message

__all__ = ["last_turn", "slide"]


def slide(
    messages: Sequence[Message], fits: Callable[[tuple[Message, ...]], bool]
) -> tuple[Message, ...]:
    """
    Leave out the oldest turns, as few as need be.

    A turn begins with a user's message and goes to the next one. System messages stay, the last
    turn stays, and no call is parted from its result.

    Args:
        messages: The conversation, oldest first.
        fits: Whether so much may be sent; it must not turn false when less is kept.

    Returns:
        What is left; empty when not even the last turn fits.
    """
    cuts = _cuts(messages)
    place = bisect_left(cuts, True, key=lambda cut: fits(_from(messages, cut)))  # noqa: FBT003 - what the key gives
    return _from(messages, cuts[place]) if place < len(cuts) else ()


def last_turn(messages: Sequence[Message]) -> tuple[Message, ...]:
    """
    The least that `slide` keeps.

    Args:
        messages: The conversation, oldest first.

    Returns:
        The system messages and the last turn.
    """
    return _from(messages, _cuts(messages)[-1])


def _cuts(messages: Sequence[Message]) -> list[int]:
    """Where a conversation may begin, from the whole to its last turn."""
    cuts = [0]
    # How many results of calls are still to come, by the call's id.
    open_calls: dict[str | None, int] = {}
    begun = False
    for place, message in enumerate(messages):
        if begun and message.role == "user" and not open_calls:
            cuts.append(place)
        begun = begun or message.role != "system"
        for call in message.tool_calls:
            open_calls[call.id] = open_calls.get(call.id, 0) + 1
        if message.role == "tool" and message.tool_call_id in open_calls:
            left = open_calls.pop(message.tool_call_id) - 1
            if left:
                open_calls[message.tool_call_id] = left
    return cuts


def _from(messages: Sequence[Message], cut: int) -> tuple[Message, ...]:
    return tuple(
        message
        for place, message in enumerate(messages)
        if place >= cut or message.role == "system"
    )
