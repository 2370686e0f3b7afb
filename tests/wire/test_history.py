"""What order of turns is accepted, repaired or refused, and how tool ids travel."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import InvalidRequest
from loom.core.messages import Message, ToolCall
from loom.wire.mistral.history import legal_history
from loom.wire.tool_ids import ToolIds, hashed_id, is_legal_id

SYSTEM, USER, ANSWER = Message.system("s"), Message.user("u"), Message.assistant("a")
FOREIGN = ["call_abc123XYZ0987654321", "toolu_01A", "550e8400-e29b-41d4-a716-446655440000", "", "0"]

# Who may follow whom. Source: contract/mistral.md section 3.
FOLLOWERS = {
    "system": {"user", "assistant", "system"},
    "user": {"assistant", "system", "user"},
    "assistant": {"assistant", "user", "tool"},
    "tool": {"assistant", "tool", "user"},
}


def call(id_: str, name: str = "look") -> ToolCall:
    return ToolCall(id_, name, arguments="{}")


def calling(*ids: str) -> Message:
    return Message.assistant(tool_calls=tuple(call(i) for i in ids))


def assert_legal(messages: tuple[Message, ...]) -> None:
    """The server's own rules, written apart from the repair."""
    assert messages[-1].role in ("user", "tool") or messages[-1].prefix
    for before, after in pairwise(messages):
        assert after.role in FOLLOWERS[before.role]
    waiting: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert message.tool_call_id == waiting.pop(0)
            continue
        assert not waiting
        if message.role == "assistant":
            assert message.content or message.tool_calls
            waiting = [made.id for made in message.tool_calls]
            assert len(set(waiting)) == len(waiting)
            assert all(re.fullmatch(r"[A-Za-z0-9]{9}", i) for i in waiting)
    assert not waiting


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [SYSTEM, SYSTEM, USER, USER],
        [USER, ANSWER, ANSWER, USER],
        [USER, SYSTEM, USER],
        [USER, Message.assistant("Once", prefix=True)],
        [calling("abcdefghi"), Message.tool("abcdefghi", "r"), USER],
        [USER, calling("abcdefghi"), Message.tool("abcdefghi", "r")],
        [SYSTEM, ANSWER, USER],
    ],
)
def test_legal_history_is_left_alone(messages: list[Message]) -> None:
    """A conversation that Mistral takes goes out as it is, with no repair."""
    history = legal_history(messages)
    assert tuple(messages) == history.messages
    assert () == history.repairs


@pytest.mark.parametrize(
    ("messages", "roles", "said"),
    [
        ([USER, Message.assistant(""), USER], "uu", "messages[1]: left out"),
        ([USER, Message.assistant(None), USER], "uu", "messages[1]: left out"),
        ([SYSTEM, USER, ANSWER, SYSTEM, USER], "ssuau", "messages[3]: moved a system turn up"),
        (
            [USER, calling("abcdefghi"), Message.tool("abcdefghi", "r"), SYSTEM, USER],
            "suatu",
            "messages[3]: moved",
        ),
        (
            [USER, calling("abcdefghi"), USER, Message.tool("abcdefghi", "r")],
            "uatu",
            "messages[1]: put the results",
        ),
        (
            [
                USER,
                calling("aaaaaaaaa", "bbbbbbbbb"),
                Message.tool("bbbbbbbbb", "2"),
                Message.tool("aaaaaaaaa", "1"),
            ],
            "uatt",
            "messages[1]: put the results",
        ),
        (
            [
                USER,
                calling("abcdefghi"),
                Message.tool("abcdefghi", "r"),
                Message.tool("abcdefghi", "r"),
            ],
            "uat",
            "messages[3]: left out a repeated",
        ),
    ],
)
def test_clear_meaning_is_repaired_and_reported(
    messages: list[Message], roles: str, said: str
) -> None:
    """Where the meaning is clear the order is repaired, and the repair names the position."""
    history = legal_history(messages)
    assert roles == "".join(message.role[0] for message in history.messages)
    assert said in history.repairs[0]
    assert_legal(history.messages)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "at least one"),
        ([USER, ANSWER], "messages[1]: the last message is the assistant's"),
        ([USER, SYSTEM], "messages[1]: the last message is the system's"),
        ([USER, Message.tool("abcdefghi", "r")], "messages[1]: tool result for 'abcdefghi'"),
        ([USER, calling("abcdefghi"), USER], "messages[1]: the call 'abcdefghi' of 'look'"),
        (
            [
                USER,
                calling("abcdefghi"),
                Message.tool("abcdefghi", "r"),
                Message.tool("abcdefghi", "other"),
            ],
            "messages[3]: a second, different result",
        ),
        ([USER, Message.assistant("x", prefix=True), USER], "messages[1]: prefix=True is only"),
        (
            [USER, Message.assistant("x", tool_calls=(call("abcdefghi"),), prefix=True)],
            "messages[1]",
        ),
        ([Message.assistant("")], "nothing to answer"),
        ([USER, calling("a"), Message.tool("b", "r")], "the call 'a'"),
    ],
)
def test_unclear_meaning_is_refused_by_position(messages: list[Message], said: str) -> None:
    """Where it is not clear, the error names the position and nothing is sent."""
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        legal_history(messages)


MESSAGES = st.one_of(
    st.just(SYSTEM),
    st.just(USER),
    st.just(ANSWER),
    st.just(Message.assistant("")),
    st.just(Message.assistant("go on", prefix=True)),
    st.lists(st.sampled_from(["abcdefghi", *FOREIGN]), min_size=1, max_size=3).map(
        lambda ids: calling(*ids)
    ),
    st.sampled_from(["abcdefghi", *FOREIGN]).map(lambda i: Message.tool(i, "r")),
)


@given(st.lists(MESSAGES, max_size=9))
def test_any_interleaving_is_made_legal_or_refused(messages: list[Message]) -> None:
    """Any turns in any order give a legal history, or one clear error."""
    try:
        history = legal_history(messages)
    except InvalidRequest as error:
        assert "message" in error.message
    else:
        assert_legal(history.messages)


@given(st.lists(MESSAGES, max_size=9))
def test_repair_is_done_once(messages: list[Message]) -> None:
    """A repaired history needs no repair."""
    try:
        first = legal_history(messages)
    except InvalidRequest:
        return
    again = legal_history(first.messages)
    assert first.messages == again.messages
    assert () == again.repairs


@pytest.mark.parametrize("foreign", FOREIGN)
def test_foreign_id_is_mapped_on_call_and_result_alike(foreign: str) -> None:
    """Any id goes out as nine letters or digits, the same on both sides, and back again."""
    history = legal_history([USER, calling(foreign), Message.tool(foreign, "r"), USER])
    sent = history.messages[1].tool_calls[0].id
    assert is_legal_id(sent)
    assert sent == history.messages[2].tool_call_id
    assert foreign == history.tool_ids[sent]


def test_calls_that_share_an_id_are_told_apart() -> None:
    """Two calls of one turn with one id get two ids, and their results in order."""
    history = legal_history(
        [USER, calling("null", "null"), Message.tool("null", "1"), Message.tool("null", "2")]
    )
    one, two = history.messages[1].tool_calls
    assert one.id != two.id
    assert [one.id, two.id] == [m.tool_call_id for m in history.messages[2:]]
    assert ["1", "2"] == [m.content for m in history.messages[2:]]


def test_a_hash_that_meets_a_legal_id_is_salted_again() -> None:
    """A foreign id never takes the nine characters of a call that has them already."""
    taken = hashed_id("call_1")
    ids = ToolIds(frozenset({taken}))
    assert taken == ids.wire_id(taken)
    assert taken != ids.wire_id("call_1")


@given(st.lists(st.text(max_size=30), unique=True, max_size=40))
def test_ids_of_a_conversation_never_fall_together(texts: list[str]) -> None:
    """The mapping is injective within a conversation and deterministic across two."""
    ids, other = ToolIds(), ToolIds()
    sent = [ids.wire_id(text) for text in texts]
    assert len(set(sent)) == len(texts)
    assert sent == [other.wire_id(text) for text in texts]
    assert all(is_legal_id(i) for i in sent)


def test_a_hundred_thousand_ids_do_not_collide() -> None:
    """The hash spreads: no collision among 10**5 ids of the usual form."""
    assert len({hashed_id(f"call_{i:024d}") for i in range(100_000)}) == 100_000


def test_a_lone_surrogate_in_an_id_is_mapped(recwarn: Any) -> None:
    """An id that is not even Unicode does not fail."""
    assert is_legal_id(hashed_id("\ud800"))
