"""What a model is told of a session, and what becomes of calls without results."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tests.agent.stories import STORIES, answer, begun, calling, result, user

from loom.agent.history import (
    SUMMARY_MARK,
    ClosingWords,
    messages_of,
    open_calls,
    settled,
)
from loom.agent.session import Condensed, Entry, Said, Withdrawn
from loom.core.messages import Message
from loom.wire.mistral.history import legal_history
from loom.wire.mistral.messages import encode_message
from loom.wire.mistral.turns import check_turns

INTERRUPTED = (
    "error: interrupted: the program ended while this tool was running;"
    " it may or may not have been done"
)
CANCELLED = "error: cancelled before it began"


def told(*entries: Entry) -> list[str]:
    """Give what the model is told, in short: who and what."""
    return [
        f"{m.role}:{m.text or '+'.join(c.id for c in m.tool_calls)}" for m in messages_of(entries)
    ]


# --- what counts ---------------------------------------------------------------------------


def test_what_was_said_is_told() -> None:
    """Turns come in their order, with everything in them."""
    entries = [user("Hello"), answer("Hi."), user("Bye")]
    assert tuple(entry.message for entry in entries) == messages_of(entries)


def test_nothing_is_told_of_nothing() -> None:
    """An empty session has no messages and no calls."""
    assert ((), (), ()) == (messages_of(()), open_calls(()), settled(()))


def test_what_was_withdrawn_is_left_out() -> None:
    """Entries between the mark and its index are not told; what comes later is."""
    entries = (
        user("one"),
        answer("1"),
        user("two"),
        answer("2"),
        Withdrawn(since=2),
        user("three"),
    )
    assert ["user:one", "assistant:1", "user:three"] == told(*entries)


def test_what_was_withdrawn_stays_withdrawn() -> None:
    """Withdrawing a withdrawal brings nothing back."""
    entries = (user("one"), user("two"), Withdrawn(since=1), Withdrawn(since=2), user("three"))
    assert ["user:one", "user:three"] == told(*entries)


def test_a_summary_stands_for_a_beginning() -> None:
    """The summary comes first, said to be one, in the voice of the user."""
    entries = (user("one"), answer("1"), user("two"), Condensed(until=2, summary="They counted."))
    (first, second) = messages_of(entries)
    assert ("user", f"{SUMMARY_MARK}\n\nThey counted.") == (first.role, first.content)
    assert Message.user("two") == second


def test_system_messages_outlive_a_summary() -> None:
    """What the model was told about its task is told to the letter, before the summary."""
    system = Said(message=Message.system("Be brief."))
    entries = (system, user("one"), answer("1"), Condensed(until=3, summary="S"), user("two"))
    assert ["system", "user", "user"] == [m.role for m in messages_of(entries)]
    assert Message.system("Be brief.") == messages_of(entries)[0]


def test_the_summary_that_tells_more_counts() -> None:
    """A later summary stands for an earlier one too; a shorter one brings nothing back."""
    entries: list[Entry] = [
        user("one"),
        user("two"),
        Condensed(until=1, summary="first"),
        user("three"),
    ]
    longer = Condensed(until=3, summary="second")
    shorter = Condensed(until=1, summary="third")
    assert [f"user:{SUMMARY_MARK}\n\nsecond", "user:three"] == told(*entries, longer)
    assert [f"user:{SUMMARY_MARK}\n\nsecond", "user:three"] == told(*entries, longer, shorter)


def test_a_summary_can_be_withdrawn() -> None:
    """Then the beginning is told again."""
    entries = (user("one"), user("two"), Condensed(until=1, summary="S"), Withdrawn(since=2))
    assert ["user:one", "user:two"] == told(*entries)


def test_a_summary_does_not_reach_beyond_itself() -> None:
    """An index that lies ahead takes in nothing that is said later."""
    entries = (user("one"), Condensed(until=99, summary="S"), user("two"))
    assert [f"user:{SUMMARY_MARK}\n\nS", "user:two"] == told(*entries)


def test_a_stored_turn_is_no_prefix() -> None:
    """An answer that went on from a given text is told as a turn like others."""
    entries = (user(), Said(message=Message.assistant("Once", prefix=True)), user())
    assert not any(message.prefix for message in messages_of(entries))


# --- calls and results ---------------------------------------------------------------------


def test_results_come_in_the_order_of_the_calls() -> None:
    """Whichever tool was done first."""
    entries = (user(), calling("a", "b"), result("b", "2"), result("a", "1"), answer())
    assert ["user:Hello", "assistant:a+b", "tool:1", "tool:2", "assistant:Hi."] == told(*entries)


def test_a_result_without_its_call_is_not_told() -> None:
    """Its turn was withdrawn, or is in the summary."""
    entries = (user(), calling("a"), Condensed(until=2, summary="S"), result("a"), user("on"))
    assert [f"user:{SUMMARY_MARK}\n\nS", "user:on"] == told(*entries)


def test_a_second_result_is_not_told() -> None:
    """The first result of a call counts."""
    entries = (user(), calling("a"), result("a", "1"), result("a", "2"))
    assert ["user:Hello", "assistant:a", "tool:1"] == told(*entries)


def test_open_calls_are_listed() -> None:
    """Those without results, with their positions, and whether they began."""
    entries = (user(), calling("a", "b", "c"), begun("a"), begun("b", 1), result("a"))
    assert ["user:Hello", "assistant:a+b+c", "tool:done"] == told(*entries)
    assert [("b", 1, True), ("c", 2, False)] == [
        (each.call.id, each.position, each.begun) for each in open_calls(entries)
    ]


def test_ids_may_repeat_in_one_turn() -> None:
    """Results go to calls of one id by their order, and the rest stays open."""
    entries = (user(), calling("a", "a", "a"), begun("a", 0), begun("a", 2), result("a", "1"))
    assert [(1, False), (2, True)] == [(e.position, e.begun) for e in open_calls(entries)]


def test_begun_at_no_place_counts_for_every_call_of_its_id() -> None:
    """Rather one call too many is said to have begun than one too few."""
    entries = (user(), calling("a", "b", "a"), begun("a", 7))
    assert [True, False, True] == [each.begun for each in open_calls(entries)]


def test_withdrawing_does_not_undo_a_beginning() -> None:
    """A tool that ran has run, whatever is told of it."""
    entries = (user(), calling("a"), begun("a"), Withdrawn(since=2))
    assert [True] == [each.begun for each in open_calls(entries)]


def test_open_calls_are_settled() -> None:
    """Each gets a result that says what is known; with them the turn is whole."""
    entries = (user(), calling("a", "b"), begun("a"))
    closing = settled(entries)
    assert [("a", "tool_a", INTERRUPTED), ("b", "tool_b", CANCELLED)] == [
        (m.tool_call_id, m.name, m.content) for m in closing
    ]
    whole: tuple[Entry, ...] = (*entries, *(Said(message=message) for message in closing))
    assert () == open_calls(whole)
    assert (*messages_of(entries), *closing) == messages_of(whole)


def test_the_words_can_be_chosen() -> None:
    """Who settles says what the model reads."""
    entries = (user(), calling("a", "b"), begun("a"))
    words = ClosingWords(begun="stopped", waiting="not begun")
    assert ["stopped", "not begun"] == [message.content for message in settled(entries, words)]


def test_a_turn_that_was_passed_over_is_closed() -> None:
    """When somebody spoke after it, nothing of it is open, and the model reads why."""
    entries = (user(), calling("a", "b"), begun("b", 1), user("Never mind"), result("a", "late"))
    assert () == open_calls(entries)
    assert [
        "user:Hello",
        "assistant:a+b",
        "tool:late",
        f"tool:{INTERRUPTED}",
        "user:Never mind",
    ] == told(*entries)


def test_an_older_turn_is_closed() -> None:
    """Only the last turn may have open calls."""
    entries = (user(), calling("a"), calling("b"))
    assert ["b"] == [each.call.id for each in open_calls(entries)]
    assert ["user:Hello", "assistant:a", f"tool:{CANCELLED}", "assistant:b"] == told(*entries)


# --- any session ---------------------------------------------------------------------------


@given(STORIES, st.data())
def test_any_beginning_of_any_session_can_be_sent(
    entries: Sequence[Entry], data: st.DataObject
) -> None:
    """With its open calls settled and a new turn of the user, Mistral accepts it."""
    part = entries[: data.draw(st.integers(0, len(entries)))]
    conversation = [*messages_of(part), *settled(part), Message.user("and now?")]

    legal = legal_history(conversation)

    check_turns([encode_message(message) for message in legal.messages])
    assert [] == [repair for repair in legal.repairs if "repeated" in repair]


@given(STORIES)
def test_any_session_goes_on_after_its_results(entries: Sequence[Entry]) -> None:
    """Results that close open calls are stored as any other, and nothing is open then."""
    whole: tuple[Entry, ...] = (*entries, *(Said(message=message) for message in settled(entries)))
    assert () == open_calls(whole)
    told = [*messages_of(entries), *settled(entries)]
    assert sorted(told, key=repr) == sorted(messages_of(whole), key=repr)


@given(STORIES)
def test_no_call_is_told_twice_or_lost(entries: Sequence[Entry]) -> None:
    """Every call that is told has one result or is open."""
    messages = messages_of(entries)
    calls = sum(len(message.tool_calls) for message in messages)
    results = sum(message.role == "tool" for message in messages)
    assert calls == results + len(open_calls(entries))
