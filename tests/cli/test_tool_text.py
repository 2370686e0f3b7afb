"""Tool calls and results on one line, without anything that a terminal would obey."""

from __future__ import annotations

import pytest

from loom.cli.tool_text import call_text, result_text, visible
from loom.core.errors import ToolFailed
from loom.core.messages import ImagePart, TextPart, ToolCall
from loom.shuttle.result import ToolResult

CALL = ToolCall("1", "get_weather", {"location": "Lyon"})


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (CALL, 'get_weather(location="Lyon")'),
        (ToolCall("1", "now"), "now()"),
        (ToolCall("1", "f", {"a": [1, None], "b": {"c": True}}), 'f(a=[1,null], b={"c":true})'),
        (ToolCall("1", "f", arguments='{"a": 1'), 'f({"a": 1)'),
        (ToolCall("1", "f", {"a": "é\n"}), 'f(a="é\\n")'),
        (ToolCall("1", "f", {"a": "\x1b]52;c;aGk=\x07"}), 'f(a="\\u001b]52;c;aGk=\\u0007")'),
        (ToolCall("1", "f", {"a": "\x9b2J"}), 'f(a="\\u009b2J")'),
        (ToolCall("1", "f", {"a": "x\u202egpj"}), 'f(a="x\\u202egpj")'),
        (ToolCall("1", "f\x1b[31m"), "f\\u001b[31m()"),
    ],
)
def test_calls(call: ToolCall, text: str) -> None:
    """A call is written as in Python; what is not printable is escaped."""
    assert text == call_text(call)


def test_a_long_call_is_cut() -> None:
    """It says that it is."""
    text = call_text(ToolCall("1", "f", {"a": "x" * 500}), most=20)
    assert (20, "…") == (len(text), text[-1])


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ToolResult(call=CALL, content="x" * 214, duration_s=0.31), "0.3 s, 214 bytes"),
        (ToolResult(call=CALL, content="é" * 1000, duration_s=2), "2.0 s, 2,000 bytes"),
        (ToolResult(call=CALL, content="x", cut=True), "0.0 s, 1 byte, cut"),
        (ToolResult(call=CALL, content="x", repeated=True), "same as before, 1 byte"),
        (ToolResult(call=CALL, content=(ImagePart("u"),)), "0.0 s, 1 part"),
        (
            ToolResult(call=CALL, content="error: no\x1b[31m\nmore", error=ToolFailed("no")),
            "error: no\\u001b[31m",
        ),
        (
            ToolResult(call=CALL, content=(TextPart("error: no"),), error=ToolFailed("no")),
            "error: no",
        ),
    ],
)
def test_results(result: ToolResult, text: str) -> None:
    """How long it took and how much it gave, or the first line of its error."""
    assert text == result_text(result)
    assert f"get_weather: {text}" == result_text(result, name=True)


def test_visible() -> None:
    """Every character that cannot be seen is its code."""
    assert "a\\u200bb\\U000e0041" == visible("a\u200bb\U000e0041")
