"""Messages, their parts, and what a tool call's two forms have to do with each other."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.talk import MESSAGES, PARTS

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

# --- parts from files ----------------------------------------------------------------------


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(b"\x00\xffbytes")
    return path


BASE64 = base64.b64encode(b"\x00\xffbytes").decode()


def test_image_from_a_file(tmp_path: Path) -> None:
    """An image file becomes a data URI; its name decides the media type."""
    path = _file(tmp_path, "cat.png")
    assert ImagePart(f"data:image/png;base64,{BASE64}") == ImagePart.from_file(path)
    assert "low" == ImagePart.from_file(str(path), detail="low").detail


def test_document_from_a_file(tmp_path: Path) -> None:
    """A document becomes a data URI, and keeps its file name."""
    part = DocumentPart.from_file(_file(tmp_path, "report.pdf"))
    assert DocumentPart(f"data:application/pdf;base64,{BASE64}", "report.pdf") == part


def test_file_of_an_unknown_kind(tmp_path: Path) -> None:
    """A name that says nothing gives the media type for bytes."""
    part = DocumentPart.from_file(_file(tmp_path, "thing"))
    assert part.url.startswith("data:application/octet-stream;base64,")


@pytest.mark.parametrize(("name", "format_"), [("q.MP3", "mp3"), ("q.tar.wav", "wav"), ("q", None)])
def test_audio_from_a_file(tmp_path: Path, name: str, format_: str | None) -> None:
    """A sound file becomes base64; its suffix, in small letters, is the format."""
    assert AudioPart(BASE64, format_) == AudioPart.from_file(_file(tmp_path, name))


@pytest.mark.parametrize("kind", [ImagePart, DocumentPart, AudioPart])
def test_file_that_is_not_there(tmp_path: Path, kind: Any) -> None:
    """A missing file is the operating system's error, not ours."""
    with pytest.raises(FileNotFoundError):
        kind.from_file(tmp_path / "nowhere.png")


# --- messages ------------------------------------------------------------------------------


def test_makers_of_messages() -> None:
    """Each maker gives its role and nothing that was not said."""
    assert Message(role="system", content="Be brief.") == Message.system("Be brief.")
    assert Message(role="user", content="Hello") == Message.user("Hello")
    assert Message(role="assistant", content="Hi") == Message.assistant("Hi")
    assert Message(role="assistant") == Message.assistant()
    assert Message.assistant("He", prefix=True).prefix is True


def test_user_message_of_several_parts() -> None:
    """Texts among parts become text parts; one part alone is still a part."""
    image = ImagePart("https://example.com/cat.png")
    assert (TextPart("What is"), image, TextPart("this?")) == (
        Message.user("What is", image, "this?").content
    )
    assert (image,) == Message.user(image).content


def test_assistant_keeps_calls_as_a_tuple() -> None:
    """A list of calls becomes a tuple: a message does not change after it was made."""
    call = ToolCall("a", "now")
    message = Message.assistant(tool_calls=[call])  # type: ignore[arg-type]  # that is the test
    assert (call,) == message.tool_calls


def test_tool_message_by_call_and_by_id() -> None:
    """A result names its call; given the call itself, it names the tool too."""
    call = ToolCall("abc", "weather", {"city": "Rome"})
    expected = Message(role="tool", content="sunny", tool_call_id="abc", name="weather")
    assert expected == Message.tool(call, "sunny")
    assert msgspec.structs.replace(expected, name=None) == Message.tool("abc", "sunny")


THOUGHT = ThinkingPart((TextPart("Let me "), ReferencePart((1,)), TextPart("see.")))


@pytest.mark.parametrize(
    ("content", "text", "thinking"),
    [
        (None, "", ""),
        ("plain", "plain", ""),
        ((), "", ""),
        ((TextPart("a"), ImagePart("u"), TextPart("b")), "ab", ""),
        ((THOUGHT, TextPart("Yes."), RawPart("new", {"x": 1})), "Yes.", "Let me see."),
        ((THOUGHT, THOUGHT), "", "Let me see.Let me see."),
    ],
)
def test_text_and_thinking(content: Any, text: str, thinking: str) -> None:
    """Text is the text parts alone, thinking the thoughts alone."""
    message = Message(role="assistant", content=content)
    assert (text, thinking) == (message.text, message.thinking)


@pytest.mark.parametrize(
    "value", [Message.user("x"), TextPart("x"), ToolCall("a", "b"), THOUGHT, RawPart("x", {})]
)
def test_values_do_not_change(value: Any) -> None:
    """No field of a value can be set."""
    with pytest.raises(AttributeError):
        setattr(value, value.__struct_fields__[0], "other")


# --- tool calls ----------------------------------------------------------------------------


def test_input_fills_arguments() -> None:
    """Given a dict, the JSON text follows."""
    call = ToolCall("a", "weather", {"city": "Rome", "days": 3})
    assert {"city": "Rome", "days": 3} == json.loads(call.arguments)
    assert call.problem is None


def test_arguments_fill_input_and_are_kept_to_the_letter() -> None:
    """Given the model's text, the dict follows, and the text stays as it was written."""
    written = '{ "city":"R\\u006fme" }'
    call = ToolCall("a", "weather", arguments=written)
    assert {"city": "Rome"} == call.input
    assert written == call.arguments


def test_both_are_left_alone() -> None:
    """Who gives both has both."""
    call = ToolCall("a", "weather", {"x": 1}, '{"x":  1}')
    assert ({"x": 1}, '{"x":  1}') == (call.input, call.arguments)


@pytest.mark.parametrize("arguments", ["", "  \n", "{}", " { } "])
def test_no_arguments_are_no_problem(arguments: str) -> None:
    """A call without arguments is whole; models write it in several ways."""
    call = ToolCall("a", "now", arguments=arguments)
    assert ({}, None) == (call.input, call.problem)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('{"city": "Ro', "the arguments are not valid JSON: Input data was truncated"),
        ("city=Rome", "the arguments are not valid JSON"),
        ('{"a": "\\ud800"}', "the arguments are not valid JSON"),
        ('{"a": "\ud800"}', "the arguments are not valid JSON"),
        ('["Rome"]', "the arguments are a JSON list, not an object"),
        ('"Rome"', "the arguments are a JSON str, not an object"),
        ("null", "the arguments are a JSON NoneType, not an object"),
        ("[" * 100_000, "the arguments are nested too deeply"),
    ],
    ids=range(8),
)
def test_unfit_arguments_are_said(arguments: str, problem: str) -> None:
    """What is no JSON object leaves the input empty, says why, and is kept."""
    call = ToolCall("a", "weather", arguments=arguments)
    assert {} == call.input
    assert call.problem is not None
    assert call.problem.startswith(problem)
    assert arguments == call.arguments


def test_two_calls_share_no_input() -> None:
    """The empty input of one call is not that of another."""
    first, second = ToolCall("a", "now"), ToolCall("b", "now")
    first.input["x"] = 1
    assert {} == second.input


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), _json, max_size=4))
def test_input_survives_the_way_through_text(value: dict[str, Any]) -> None:
    """A call made of a dict, and one made of that call's text, have the same input."""
    call = ToolCall("a", "b", value)
    assert value == ToolCall("a", "b", arguments=call.arguments).input


@given(
    st.text() | _json.map(json.dumps).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n]))
)
def test_any_text_is_an_object_or_a_problem(text: str) -> None:
    """No text is an error of its own: it is an input, a problem, or nothing at all."""
    call = ToolCall("a", "b", arguments=text)
    assert text == call.arguments
    if call.problem is not None:
        assert {} == call.input
    elif text.strip():
        assert call.input == json.loads(text)


# --- messages as JSON ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", PARTS)
@given(data=st.data())
def test_each_part_comes_back_as_its_own_kind(kind: str, data: st.DataObject) -> None:
    """A part is written with the word for its kind, and comes back as it was."""
    part = data.draw(PARTS[kind])
    message = Message(role="user", content=(part,))

    encoded = msgspec.json.encode(message)

    assert message == msgspec.json.decode(encoded, type=Message)
    assert kind == json.loads(encoded)["content"][0]["kind"]


@given(MESSAGES)
def test_any_message_comes_back_from_json(message: Message) -> None:
    """What is encoded decodes to the same message."""
    assert message == msgspec.json.decode(msgspec.json.encode(message), type=Message)


def test_fields_of_a_raw_part_come_back_as_dicts() -> None:
    """What this version does not know can be changed and sent back as plain JSON values."""
    message = Message(role="user", content=(RawPart("x", {"type": "y", "a": {"b": [1]}}),))

    again = msgspec.json.decode(msgspec.json.encode(message), type=Message)

    assert isinstance(again.content, tuple)
    assert isinstance(again.content[0], RawPart)
    assert {"type": "y", "a": {"b": [1]}} == again.content[0].fields
    assert dict is type(again.content[0].fields)


def test_half_of_a_character_is_no_json() -> None:
    """A lone surrogate is refused when it is written, and not when it is read."""
    with pytest.raises(UnicodeEncodeError):
        msgspec.json.encode(Message.user("\ud800"))
