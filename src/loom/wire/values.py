"""Values of a message as JSON writes them; what comes is checked, and refused by its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.messages import ToolCall

__all__ = ["boolean", "decode_calls", "encode_call", "needed", "string"]


def encode_call(call: ToolCall, none: str = "{}") -> dict[str, Any]:
    """
    A tool call of an assistant's message as JSON values.

    Args:
        call: The call.
        none: What is written for a call without arguments.

    Returns:
        Its keys in the order in which every vendor writes them.
    """
    function = {"name": call.name, "arguments": call.arguments or none}
    return {"id": call.id, "type": "function", "function": function}


def decode_calls(value: Any, where: str) -> tuple[ToolCall, ...]:
    """
    The tool calls of an assistant's message.

    Args:
        value: JSON values; arguments may be a string or an object.
        where: Its place, for the error.

    Raises:
        InvalidRequest: If it is no list of calls, each with a function that has a name.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise InvalidRequest(f"{where} must be a list of tool calls, not {type(value).__name__}")
    return tuple(_decode_call(call, f"{where}[{i}]") for i, call in enumerate(value))


def _decode_call(value: Any, where: str) -> ToolCall:
    if isinstance(value, ToolCall):
        return value
    function = value.get("function") if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{where} must be a dict with an 'id' and a 'function' with a 'name'")
    arguments = function.get("arguments")
    if isinstance(arguments, Mapping):
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCall(
        id=string(value.get("id"), f"{where}.id") or "",
        name=function["name"],
        arguments=string(arguments, f"{where}.function.arguments") or "",
    )


def string(value: Any, where: str) -> str | None:
    """
    A string, or None.

    Args:
        value: A JSON value.
        where: Its place, for the error.

    Raises:
        InvalidRequest: If it is neither.
    """
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequest(f"{where} must be a string, not {type(value).__name__}")


def needed(value: Any, where: str) -> str:
    """
    A string that is not empty.

    Args:
        value: A JSON value.
        where: Its place, for the error.

    Raises:
        InvalidRequest: If it is none.
    """
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"{where} must be a string that is not empty")
    return value


def boolean(value: Any, where: str) -> bool:
    """
    True or false.

    Args:
        value: A JSON value.
        where: Its place, for the error.

    Raises:
        InvalidRequest: If it is neither.
    """
    if not isinstance(value, bool):
        raise InvalidRequest(f"{where} must be true or false, not {type(value).__name__}")
    return value
