"""Conversations that go on at OpenAI: what is taken, repaired, left out or refused."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import InvalidRequest
from loom.core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    RawPart,
    ReferencePart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.request import ChatRequest
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.chat_completions.history import legal_history
from loom.wire.mistral.dialect import MistralDialect

DIALECT = ChatCompletionsDialect()
SYSTEM, USER, ANSWER = Message.system("s"), Message.user("u"), Message.assistant("a")
THOUGHT = ThinkingPart((TextPart("hm"),), closed=True)


def calling(*ids: str) -> Message:
    return Message.assistant(tool_calls=tuple(ToolCall(i, "look", arguments="{}") for i in ids))


def sent(*messages: Message) -> list[dict[str, Any]]:
    body = DIALECT.encode_request(ChatRequest(model="m", messages=messages)).body
    found: list[dict[str, Any]] = json.loads(body)["messages"]
    return found


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [SYSTEM],
        [USER, ANSWER, SYSTEM],
        [USER, ANSWER, ANSWER, SYSTEM, USER],
        [USER, calling("call_1", "x y/é"), Message.tool("call_1", "r"), Message.tool("x y/é", "r")],
    ],
)
def test_legal_history_is_left_alone(messages: list[Message]) -> None:
    """What OpenAI takes goes out as it is: late system turns and ids of any form too."""
    history = legal_history(messages)
    assert tuple(messages) == history.messages
    assert () == history.repairs


def test_thoughts_and_references_are_left_out_and_named() -> None:
    """A conversation from Mistral goes on; a turn of thoughts alone goes with them."""
    said = Message.assistant((THOUGHT, TextPart("a"), ReferencePart((1,))))
    history = legal_history([USER, said, USER, Message.assistant((THOUGHT,)), USER])
    assert [USER, Message.assistant((TextPart("a"),)), USER, USER] == list(history.messages)
    assert (
        "messages[1]: left out references and thoughts, which OpenAI does not read",
        "messages[3]: left out thoughts, which OpenAI does not read",
        "messages[3]: left out an assistant turn without text and calls",
    ) == history.repairs


def test_results_stand_behind_their_calls_in_order() -> None:
    """The order of results is repaired and named, as for Mistral."""
    messages = [calling("a", "b"), Message.tool("b", "2"), Message.tool("a", "1")]
    history = legal_history([USER, *messages])
    assert ["a", "b"] == [m.tool_call_id for m in history.messages[2:]]
    assert "put the results" in history.repairs[0]


@pytest.mark.parametrize("ids", [[""], ["x" * 41], ["same", "same"]])
def test_ids_that_openai_refuses_are_replaced_alike(ids: list[str]) -> None:
    """Empty, longer than 40 characters, twice in a turn: call and result get the same new one."""
    results = [Message.tool(each, f"r{i}") for i, each in enumerate(ids)]
    encoded = DIALECT.encode_request(
        ChatRequest(model="m", messages=(USER, calling(*ids), *results))
    )
    messages = json.loads(encoded.body)["messages"]
    on_the_wire = [call["id"] for call in messages[1]["tool_calls"]]
    assert on_the_wire == [m["tool_call_id"] for m in messages[2:]]
    assert len(set(on_the_wire)) == len(ids)
    assert all(0 < len(each) <= 40 for each in on_the_wire)
    assert ids == [encoded.tool_ids[each] for each in on_the_wire]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "at least one"),
        ([USER, ANSWER], "messages[1]: the last message is the assistant's; OpenAI answers"),
        ([USER, Message.assistant("x", prefix=True)], "messages[1]: OpenAI cannot go on"),
        ([USER, Message.assistant("x", prefix=True), USER], "messages[1]: prefix=True is only"),
        ([USER, calling("a"), USER], "messages[1]: the call 'a' of 'look' has no result"),
        ([USER, Message.tool("a", "r")], "messages[1]: tool result for 'a' has no call"),
    ],
)
def test_unclear_meaning_is_refused_by_position(messages: list[Message], said: str) -> None:
    """Where it is not clear, the error names the position and nothing is sent."""
    with pytest.raises(InvalidRequest, match=re.escape(said)):
        legal_history(messages)


@given(st.lists(st.sampled_from([SYSTEM, USER, ANSWER, calling("a"), Message.tool("a", "r"),
    Message.assistant(""), Message.assistant((THOUGHT,))]), max_size=8))  # fmt: skip
def test_what_is_sent_is_taken(messages: list[Message]) -> None:
    """Any turns in any order give what the server role accepts, or one clear error."""
    request = ChatRequest(model="m", messages=tuple(messages))
    try:
        body = DIALECT.encode_request(request).body
    except InvalidRequest as error:
        assert "message" in error.message
    else:
        assert DIALECT.decode_request(body).messages


def test_a_conversation_goes_from_mistral_to_openai_and_back() -> None:
    """Ids, thoughts and results are translated at each border; the words stay."""
    theirs = (USER, calling("call_0123456789"), Message.tool("call_0123456789", "r"), USER)
    mistral = MistralDialect()
    body = mistral.encode_request(ChatRequest(model="m", messages=theirs)).body
    again = mistral.decode_request(body).messages
    there = sent(*again, Message.assistant((THOUGHT, TextPart("a"))), USER)
    assert ["user", "assistant", "tool", "user", "assistant", "user"] == [
        each["role"] for each in there
    ]
    assert there[1]["tool_calls"][0]["id"] == there[2]["tool_call_id"]
    assert [{"type": "text", "text": "a"}] == there[4]["content"]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            AudioPart("data:audio/mpeg;base64,SUQz"),
            {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
        ),
        (
            AudioPart("data:audio/x-wav;base64,UklG", "wav"),
            {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
        ),
        (
            DocumentPart("data:application/pdf;base64,JVBE"),
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "document"},
            },
        ),
        (RawPart("video_url", {"video_url": {"url": "x"}}),
         {"type": "video_url", "video_url": {"url": "x"}}),
    ],
)  # fmt: skip
def test_parts_are_written_as_openai_wants_them(part: Any, expected: dict[str, Any]) -> None:
    """Sound by its bytes and format, documents as files, unknown kinds as they are."""
    assert [expected] == sent(Message(role="user", content=(part,)))[0]["content"]


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (Message.user(AudioPart("https://x/a.mp3")), "takes sound as base64"),
        (Message.user(AudioPart("SUQz")), "wants the format"),
        (Message.user(DocumentPart("https://x/a.pdf")), "takes documents as data"),
        (Message.system((ImagePart("x"),)), "no ImagePart in a system message"),
        (Message.user(THOUGHT, "x"), "has no ThinkingPart"),
    ],
)
def test_parts_that_openai_has_no_way_for_are_refused(message: Message, said: str) -> None:
    """The error names the place and the way out; a thought is left out of an answer alone."""
    with pytest.raises(InvalidRequest, match=said) as caught:
        sent(message)
    assert "messages[0].content[0]" in caught.value.message


def test_an_image_of_a_tool_is_refused() -> None:
    """Only text may come back of a tool."""
    call = calling("a")
    with pytest.raises(InvalidRequest, match="no ImagePart in a tool message"):
        sent(USER, call, Message.tool("a", (ImagePart("x"),)))


def test_places_are_those_of_the_caller() -> None:
    """A turn that is left out before does not move the place that an error names."""
    with pytest.raises(InvalidRequest, match=r"messages\[2\]\.content\[0\]"):
        sent(USER, Message.assistant(""), Message.user(AudioPart("SUQz")))
