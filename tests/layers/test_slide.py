"""`slide` leaves out the oldest turns, as few as need be, and parts no call from its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.messages import Message, ToolCall
from loom.layers.slide import last_turn, slide
from loom.wire.mistral.history import legal_history

SYSTEM = Message.system("be brief")
CALL = ToolCall("abcdefghi", "look", {"at": "it"})


def turn(number: int, size: int = 1) -> tuple[Message, ...]:
    return (Message.user(f"question {number}"), Message.assistant("answer " * size))


def called(*calls: ToolCall, between: Sequence[Message] = ()) -> tuple[Message, ...]:
    return (
        Message.user("what is there?"),
        Message.assistant(tool_calls=calls),
        *between,
        *(Message.tool(call, "a result") for call in calls),
    )


def at_most(size: int) -> Callable[[tuple[Message, ...]], bool]:
    return lambda kept: len(kept) <= size


def test_what_fits_stays_as_it_is() -> None:
    """Nothing is left out of a conversation that fits."""
    messages = (SYSTEM, *turn(1), Message.user("now"))
    assert messages == slide(messages, at_most(4))


def test_the_oldest_turn_goes_first_and_whole() -> None:
    """A turn is a user's message with everything up to the next one."""
    messages = (SYSTEM, *turn(1), *turn(2), Message.user("now"))
    assert (SYSTEM, *turn(2), Message.user("now")) == slide(messages, at_most(5))


def test_system_messages_stay_where_they_stand() -> None:
    """They stay in the middle too."""
    late = Message.system("be long")
    messages = (SYSTEM, *turn(1), late, *turn(2), Message.user("now"))
    assert (SYSTEM, late, Message.user("now")) == slide(messages, at_most(3))


def test_a_call_goes_with_its_result() -> None:
    """Also when a user's message stands between the two."""
    between = Message.user("are you there?")
    messages = (*called(CALL, between=[between]), *turn(2), Message.user("now"))
    assert (*turn(2), Message.user("now")) == slide(messages, at_most(4))
    assert messages == slide(messages, at_most(7))


def test_the_last_turn_stays_with_its_calls() -> None:
    """What is to be answered is never left out."""
    messages = (SYSTEM, *turn(1), *called(CALL))
    assert (SYSTEM, *called(CALL)) == slide(messages, at_most(4)) == last_turn(messages)


def test_nothing_is_left_when_not_even_the_last_turn_fits() -> None:
    """The result is empty then."""
    assert () == slide((SYSTEM, *turn(1), Message.user("now")), at_most(1))


@pytest.mark.parametrize("opening", [Message.assistant("Good day."), SYSTEM])
def test_an_opening_without_a_user_is_a_turn_of_its_own(opening: Message) -> None:
    """An assistant's greeting goes before the first question; a system message never."""
    messages = (opening, *turn(1), Message.user("now"))
    kept = slide(messages, at_most(3))
    assert (kept[0] is SYSTEM) == (opening is SYSTEM)
    assert Message.user("now") == kept[-1]


def test_few_sizes_are_tried() -> None:
    """A long conversation is measured a few times, and not once for each turn."""
    messages = tuple(message for number in range(1000) for message in turn(number))
    tried: list[int] = []

    def fits(kept: tuple[Message, ...]) -> bool:
        tried.append(len(kept))
        return len(kept) <= 500

    assert 500 == len(slide(messages, fits))
    assert len(tried) < 15


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    messages = [Message.system(f"rule {number}") for number in range(draw(st.integers(0, 3)))]
    for number in range(draw(st.integers(0, 8))):
        messages.append(Message.user(f"question {number}"))
        for step in range(draw(st.integers(0, 2))):
            calls = tuple(
                # Ids of other vendors, and ids that come again, are part of the game.
                ToolCall(draw(st.sampled_from(["a", "call_b", f"c{number}{step}"])) + str(i), "t")
                for i in range(draw(st.integers(1, 3)))
            )
            results = [Message.tool(call, "r" * (1 + i)) for i, call in enumerate(calls)]
            if draw(st.booleans()):
                results.insert(draw(st.integers(0, len(results))), Message.user("well?"))
            messages += [Message.assistant(tool_calls=calls), *results]
        if draw(st.booleans()):
            messages.append(Message.assistant(f"answer {number}"))
        if draw(st.integers(0, 5)) == 0:
            messages.append(Message.system(f"late rule {number}"))
    return (*messages, Message.user("now"))


def starts(messages: Sequence[Message]) -> list[tuple[Message, ...]]:
    """Give every legal remainder that begins with a user's message, longest first."""
    found = [tuple(messages)]
    for place, message in enumerate(messages):
        kept = tuple(m for i, m in enumerate(messages) if i >= place or m.role == "system")
        gone = messages[:place]
        open_ids = [call.id for m in gone for call in m.tool_calls]
        answered = [m.tool_call_id for m in gone if m.role == "tool"]
        if message.role == "user" and sorted(open_ids) == sorted(map(str, answered)):
            found.append(kept)
    return found


@given(conversations(), st.integers(0, 40))
def test_the_rest_is_legal_complete_and_as_long_as_may_be(
    messages: tuple[Message, ...], size: int
) -> None:
    """A subsequence with every system message, legal for Mistral, and no longer one would fit."""
    kept = slide(messages, at_most(size))
    fitting = [start for start in starts(messages) if len(start) <= size]
    assert (fitting[0] if fitting else ()) == kept
    if not kept:
        return
    rest = iter(messages)
    assert all(any(message is other for other in rest) for message in kept)
    systems = [message for message in messages if message.role == "system"]
    assert systems == [message for message in kept if message.role == "system"]
    assert messages[-1] is kept[-1]
    legal = legal_history(kept)
    assert len(legal.messages) == len(kept)
