"""
Tool calls as people read them.

Names, arguments and results are a model's or a stranger's words: nothing of them reaches a terminal
as it is. What is not printable is escaped, the marks that turn the direction of writing too: what
somebody approves is what is run.
"""

from __future__ import annotations

from loom.cli.terminal import json_text
from loom.core.messages import Part, TextPart, ToolCall
from loom.shuttle.result import ToolResult

__all__ = ["call_text", "first_line", "result_text", "visible"]

_LINE = 160


def call_text(call: ToolCall, *, most: int = _LINE) -> str:
    """
    A call as Python writes one, on one line.

    Args:
        call: What the model asked for.
        most: Characters at most, at least 1; a longer one is cut and says so.

    Returns:
        For example `get_weather(location="Lyon")`.
    """
    if call.problem is None:
        given = ", ".join(f"{name}={json_text(value)}" for name, value in call.input.items())
    else:
        given = call.arguments
    return _cut(visible(f"{call.name}({given})"), most)


def result_text(result: ToolResult, *, name: bool = False) -> str:
    """
    What came of a call, on one line.

    Args:
        result: The result.
        name: Whether the tool is named: several run at once.

    Returns:
        For example `0.3 s, 214 bytes`, or the words of its error.
    """
    of = f"{visible(result.call.name)}: " if name else ""
    if result.error is not None:
        return f"{of}{_cut(visible(first_line(result.content)), _LINE)}"
    took = "same as before" if result.repeated else f"{result.duration_s:.1f} s"
    cut = ", cut" if result.cut else ""
    return f"{of}{took}, {_size(result.content)}{cut}"


def first_line(content: str | tuple[Part, ...]) -> str:
    """
    The first line of what a tool gave back.

    Args:
        content: What the model reads.

    Returns:
        The line; empty where there is no text.
    """
    text = content if isinstance(content, str) else "".join(map(_text, content))
    return text.strip().partition("\n")[0]


def visible(text: str) -> str:
    """
    A text in which every character can be seen.

    Args:
        text: Anything.

    Returns:
        The text; what is not printable is written as its code.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _code(c) for c in text)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _size(content: str | tuple[Part, ...]) -> str:
    if isinstance(content, tuple):
        return f"{len(content)} part{'' if len(content) == 1 else 's'}"
    count = len(content.encode("utf-8", "replace"))
    return f"{count:,} byte{'' if count == 1 else 's'}"


def _text(part: Part) -> str:
    return part.text if isinstance(part, TextPart) else ""
