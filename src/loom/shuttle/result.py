"""What came of a tool call, and the message that tells the model."""

from __future__ import annotations

from typing import Any

import msgspec

from loom.core.errors import ToolError, ToolFailed
from loom.core.messages import Message, Part, ToolCall
from loom.shuttle.output import as_content, capped

__all__ = ["ToolBegun", "ToolResult", "error_text", "failed", "tool_result_message"]

# How much of an error's words the model is told: what matters stands at the beginning.
_MAX_ERROR_BYTES = 2048


class ToolBegun(msgspec.Struct, frozen=True):
    """
    A tool is about to begin; it does when the consumer comes back for more.

    Attributes:
        call: Which call it answers.
    """

    call: ToolCall


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    What came of one tool call.

    Its `repr` shows sizes and no content: logs and error reports print the locals of frames.

    Attributes:
        call: Which call it answers.
        content: What the model reads.
        error: Why there is no result; None when there is one. Its `__cause__` is what the tool
            raised.
        value: What the tool returned; None on an error.
        duration_s: How long the tool ran, in seconds; 0 when it did not run.
        cut: Whether the output was longer than its cap.
        repeated: Whether an identical call of the same answer was run, and this is its result.
    """

    call: ToolCall
    content: str | tuple[Part, ...]
    error: ToolError | None = None
    value: Any = None
    duration_s: float = 0.0
    cut: bool = False
    repeated: bool = False

    @property
    def ok(self) -> bool:
        """Whether the tool ran and returned."""
        return self.error is None

    @property
    def message(self) -> Message:
        """The turn that tells the model."""
        return Message.tool(self.call, self.content)

    def __repr__(self) -> str:
        """Name, id, sizes and the error's code; never what was returned."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"ToolResult({shown})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        size = "chars" if isinstance(self.content, str) else "parts"
        return [
            ("name", self.call.name),
            ("id", self.call.id),
            (size, len(self.content)),
            ("error", None if self.error is None else self.error.code),
            ("cut", self.cut),
            ("repeated", self.repeated),
        ]


def tool_result_message(call: ToolCall | str, result: Any) -> Message:
    """
    The message that tells the model what a tool gave back, for who writes the loop alone.

    Args:
        call: The call that it answers, or that call's id.
        result: A text, one or several parts, a `ToolResult`, an exception (the model reads its
            words), or anything that can be written as JSON: a dict, a dataclass, a msgspec
            Struct, a pydantic model, None (`null`).

    Returns:
        A message of role "tool". Nothing is cut but an exception's words, at 2 KiB.

    Raises:
        TypeError: For a generator, for bytes that are no text, and for what can be written
            neither as JSON nor as text.
    """
    if isinstance(result, ToolResult):
        return Message.tool(call, result.content)
    if isinstance(result, BaseException):
        return Message.tool(call, error_text(result))
    return Message.tool(call, as_content(result)[0])


def failed(call: ToolCall, error: BaseException, duration_s: float = 0.0) -> ToolResult:
    """
    The result of a call that failed.

    Args:
        call: Which.
        error: Why. Another than a `ToolError` becomes the cause of a `ToolFailed`.
        duration_s: How long the tool ran, in seconds.

    Returns:
        A result whose content is the error's words.
    """
    if not isinstance(error, ToolError):
        told = ToolFailed(_words(error))
        told.__cause__ = error
        error = told
    return ToolResult(call=call, content=error_text(error), error=error, duration_s=duration_s)


def error_text(error: BaseException) -> str:
    """
    What the model reads when a tool failed.

    Args:
        error: What was raised. The words of a `ToolError` stand alone; those of another have its
            class before them. There is no traceback: it is not for the model.

    Returns:
        `error: ...`, its words cut at 2 KiB.
    """
    return f"error: {_words(error)}"


def _words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - it is a stranger's `__str__`
        words = ""
    if not isinstance(error, ToolError):
        words = f"{name}: {words}" if words else name
    return capped(words or name, _MAX_ERROR_BYTES)[0]
