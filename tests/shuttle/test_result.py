"""What the model reads of a result: texts, parts, JSON, errors; hostile ones, and huge ones."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ToolArgumentsInvalid, ToolFailed
from loom.core.messages import AudioPart, ImagePart, Message, TextPart, ToolCall
from loom.shuttle.output import Unwritable, as_content, capped
from loom.shuttle.result import ToolResult, tool_result_message

CALL = ToolCall("c1", "look", {"a": 1})
MEGABYTE = 1024 * 1024


class Row(msgspec.Struct, rename="camel"):
    first_name: str


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    n: int


class Colour(enum.Enum):
    RED = "red"


class Silent:
    def __str__(self) -> str:
        raise ValueError("no")


class Strange:
    """Not JSON, and its text holds half of a surrogate pair."""

    def __str__(self) -> str:
        return "\ud800"

    def __repr__(self) -> str:
        return "Strange()"  # part of the test's name, which is the same in each process


class Array:
    """What numpy's arrays and numbers can do."""

    def __repr__(self) -> str:
        return "Array()"

    def tolist(self) -> list[int]:
        return [1, 2]


Array.__module__ = "numpy"


class Odd(Mapping[str, int]):
    def __repr__(self) -> str:
        return "Odd()"

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("plain", "plain"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ([], "[]"),
        ((1, "a"), '[1,"a"]'),
        ({1: "a"}, '{"1":"a"}'),
        (deque([1]), "[1]"),
        (Row(first_name="Ann"), '{"firstName":"Ann"}'),
        (Point(1), '{"x":1}'),
        (Model(n=1), '{"n":1}'),
        ([Model(n=1), {"m": Model(n=2)}], '[{"n":1},{"m":{"n":2}}]'),
        (Colour.RED, '"red"'),
        (date(2024, 11, 15), '"2024-11-15"'),
        (Decimal("1.50"), '"1.50"'),
        (b"text", "text"),
        (bytearray(b"text"), "text"),
        (PurePosixPath("a/b"), '"a/b"'),
        (Odd(), '{"a":1}'),
        (Array(), "[1,2]"),
        ({"a": Strange()}, '{"a":"\ufffd"}'),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (ImagePart("https://x/y.png"), (ImagePart("https://x/y.png"),)),
        ([TextPart("a"), TextPart("b")], (TextPart("a"), TextPart("b"))),
    ],
    ids=str,
)
def test_each_kind_of_value_has_its_form(value: Any, content: Any) -> None:
    """Texts and parts stay, everything else is JSON; in short and in one go, or in pieces."""
    assert (content, False) == as_content(value, 65_536)
    assert (content, False) == as_content(value)
    assert Message.tool(CALL, content) == tool_result_message(CALL, value)


async def later() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ((n for n in range(3)), "it returned a generator: return a list"),
        (later(), "it returned a async_generator"),
        (map(str, [1]), "it returned a map"),
        ({"rows": (n for n in range(3))}, "it returned a generator"),
        (b"\xff\xfe", "it returned 2 bytes that are no UTF-8 text"),
        (Silent(), "it returned a Silent that can be written neither as JSON nor as text"),
        ([Silent()], "it returned a Silent"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_no_model_can_read_is_refused(value: Any, words: str) -> None:
    """A generator, bytes that are no text, an object that will not be shown: each says so."""
    with pytest.raises(Unwritable, match=words):
        as_content(value)
    with pytest.raises(Unwritable, match=words):
        as_content(value, 100)


def test_a_circle_is_told_as_python_tells_it() -> None:
    """An object that contains itself ends the writing and not the program."""
    circle: list[Any] = [1]
    circle.append(circle)

    assert ("[1, [...]]", False) == as_content(circle)
    assert ("[1, [...]]", False) == as_content(circle, 65_536)


def test_what_cannot_be_sent_is_replaced() -> None:
    """Half of a surrogate pair becomes U+FFFD, wherever it stands; terminal escapes stay."""
    assert ("a\ufffdb", False) == as_content("a\ud800b", 100)
    assert ("\U0001f600", False) == as_content("\ud83d\ude00", 100)
    assert ('{"\ufffd":["\ufffd"]}', False) == as_content({"\ud800": ["\udfff"]}, 100)
    assert ('["\ufffd"]', False) == as_content(["\udfff"])
    assert ("\x1b[31mred\x00", False) == as_content("\x1b[31mred\x00", 100)
    message = tool_result_message(CALL, {"a": "\ud800"})
    assert isinstance(message.content, str)
    assert message.content.encode()


@pytest.mark.parametrize(
    ("text", "size"),
    [("x" * 10 * MEGABYTE, "10,485,760"), ("é" * 5 * MEGABYTE, "10,485,760")],
    ids=["ascii", "two bytes"],
)
def test_ten_megabytes_are_cut_with_a_notice(text: str, size: str) -> None:
    """A text beyond the cap is cut and says how long it was."""
    content, cut = as_content(text, 65_536)

    assert cut
    assert isinstance(content, str)
    assert content.endswith(f"\n[cut: {size} bytes, the first 65,536 are shown]")
    assert text.startswith(content.rpartition("\n")[0])


@given(st.text(st.characters(exclude_categories=[])), st.integers(1, 40))
def test_a_cut_is_at_a_character(text: str, most: int) -> None:
    """What is shown is a beginning of the text, and as much as the cap allows."""
    content, cut = capped(text, most)

    assert isinstance(content.encode(), bytes)
    if cut:
        shown, _, notice = content.rpartition("\n")
        whole = capped(text, None)[0]
        assert whole.startswith(shown)
        assert most - 4 < len(shown.encode()) <= most
        assert notice.startswith("[cut: ")
    else:
        assert len(content.encode()) <= most or any("\ud800" <= char <= "\udfff" for char in text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(json_values.filter(lambda value: not isinstance(value, str)), st.integers(5, 300))
def test_json_in_pieces_is_json(value: Any, most: int) -> None:
    """What is not cut reads back as the value; what is cut is a beginning of it."""
    whole, cut = as_content(value, 10 * MEGABYTE)
    assert isinstance(whole, str)
    assert (value, False) == (json.loads(whole), cut)

    content, cut = as_content(value, most)
    assert isinstance(content, str)
    assert cut == (len(whole.encode()) > most)
    assert whole.startswith(content.rpartition("\n")[0] if cut else content)


def test_a_huge_object_is_not_written_whole() -> None:
    """The writing of a list of a hundred million rows ends at the cap."""

    class Endless(list[Any]):
        seen = 0

        def __len__(self) -> int:
            return 10**8

        def __iter__(self) -> Iterator[Any]:
            for number in itertools.count():
                Endless.seen += 1
                yield {"row": number}

    content, cut = as_content(Endless([1]), 1000)

    assert cut
    assert isinstance(content, str)
    assert content.endswith("\n[cut: more than 1,000 bytes, the first 1,000 are shown]")
    assert Endless.seen < 200


def test_a_long_text_in_an_object_is_not_written_whole() -> None:
    """A field of ten megabytes ends at the cap as well."""
    content, cut = as_content({"text": "x" * 10 * MEGABYTE, "more": 1}, 100)

    assert cut
    assert isinstance(content, str)
    assert content.startswith('{"text":"xxx')
    assert len(content) < 200


def test_parts_share_one_cap_and_pictures_have_their_own() -> None:
    """Texts of a result are cut together; a picture is whole or not there, and that is told."""
    small, large = ImagePart("data:,x"), AudioPart("x" * 11 * MEGABYTE)

    content, cut = as_content([TextPart("a" * 8), small, TextPart("b" * 8), large], 10)

    assert cut
    assert (
        TextPart("a" * 8),
        small,
        TextPart("bb\n[cut: 8 bytes, the first 2 are shown]"),
        TextPart("[left out: audio of 11,534,336 bytes]"),
    ) == content


def test_a_result_has_a_message_and_hides_its_content() -> None:
    """The message names the call; `repr` and rich show sizes and the error's code alone."""
    result = ToolResult(call=CALL, content="s3cret", value={"s3cret": 1})
    wrong = ToolResult(call=CALL, content="s3cret", error=ToolFailed("s3cret"), repeated=True)

    assert Message(role="tool", content="s3cret", tool_call_id="c1", name="look") == result.message
    assert (True, False) == (result.ok, wrong.ok)
    assert (
        "ToolResult(name='look', id='c1', chars=6, error=None, cut=False, repeated=False)"
        == repr(result)
    )
    assert ("error", "tool_failed") in wrong.__rich_repr__()
    assert "s3cret" not in repr(wrong)
    assert "parts=1" in repr(ToolResult(call=CALL, content=(TextPart("s3cret"),)))


def test_who_writes_the_loop_alone_has_one_function() -> None:
    """A call or an id, and any result: a text, a `ToolResult`, an exception, a value."""
    result = ToolResult(call=ToolCall("other", "other"), content="done")

    assert Message(role="tool", content="done", tool_call_id="c1") == tool_result_message(
        "c1", result
    )
    assert (
        "error: ValueError: no such city"
        == tool_result_message(CALL, ValueError("no such city")).content
    )
    assert "error: KeyboardInterrupt" == tool_result_message(CALL, KeyboardInterrupt()).content
    assert (
        "error: use a town" == tool_result_message(CALL, ToolArgumentsInvalid("use a town")).content
    )


def test_an_error_is_told_in_two_kilobytes() -> None:
    """An exception's words are cut; one that cannot tell them is told by its name."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    long = tool_result_message(CALL, ValueError("x" * 10_000)).content

    assert isinstance(long, str)
    assert long.endswith("[cut: 10,012 bytes, the first 2,048 are shown]")
    assert "error: Mute" == tool_result_message(CALL, Mute()).content
    assert "error: ValueError: \ufffd" == tool_result_message(CALL, ValueError("\ud800")).content
