"""
Messages as OpenAI writes them in JSON, and back.

Source: openai 3.57 `types/chat/chat_completion_*_message_param.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loom.core.messages import Message, Part, Role, TextPart, ThinkingPart, ToolCall
from loom.wire.chat_completions.parts import decode_content, encode_content
from loom.wire.chat_completions.refusals import refused
from loom.wire.values import decode_calls, encode_call, string

__all__ = ["decode_messages", "encode_messages"]

_ROLES: dict[str, Role] = {
    "system": "system",
    # What `system` is called for newer models.
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    # Deprecated in 2023, as `function_call` is.
    "function": "tool",
}
# What each role may carry. What the SDK gives back of an answer (`annotations`, `audio`) is taken
# and not needed; `reasoning_content` is what servers that speak like OpenAI answer with.
_FIELDS: dict[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name"}),
    "developer": frozenset({"role", "content", "name"}),
    "user": frozenset({"role", "content", "name"}),
    "assistant": frozenset(
        {
            "role", "content", "name", "tool_calls", "function_call", "refusal", "annotations",
            "audio", "reasoning_content", "reasoning",
        }
    ),
    "tool": frozenset({"role", "content", "tool_call_id", "name"}),
    "function": frozenset({"role", "content", "name"}),
}  # fmt: skip


def encode_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """
    A conversation as JSON values.

    Args:
        messages: A legal one (`history.py` sees to that).

    Returns:
        Only fields that OpenAI knows for each role.

    Raises:
        InvalidRequest: If OpenAI has no way to write a part; the message names its place.
    """
    return [_encode_message(message, i) for i, message in enumerate(messages)]


def _encode_message(message: Message, position: int) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role}
    if message.content is not None or not message.tool_calls:
        where = f"messages[{position}].content"
        wire["content"] = encode_content(message.content, message.role, where)
    if message.tool_calls:
        wire["tool_calls"] = [encode_call(call) for call in message.tool_calls]
    if message.role == "tool":
        # OpenAI knows no name there: the call has it.
        wire["tool_call_id"] = message.tool_call_id
    elif message.name is not None:
        wire["name"] = message.name
    return wire


def decode_messages(values: Sequence[Any]) -> tuple[Message, ...]:
    """
    A conversation from JSON values, as a caller writes it.

    Args:
        values: Dicts with a `role`; a field that is null counts as absent.

    Returns:
        The messages: `developer` is the system, a `function` is a tool.

    Raises:
        InvalidRequest: Naming the position and the field, in OpenAI's words.
    """
    messages: list[Message] = []
    old: dict[str, str] = {}
    for position, value in enumerate(values):
        messages.append(_decode_message(value, f"messages[{position}]", old))
    return tuple(messages)


def _decode_message(value: Any, where: str, old: dict[str, str]) -> Message:
    if not isinstance(value, Mapping):
        raise refused(f"Invalid type for '{where}': expected an object.", where, "invalid_type")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        known = ", ".join(f"'{each}'" for each in _ROLES)
        said = f"Invalid value: '{role}'. Supported values are: {known}."
        raise refused(said, f"{where}.role", "invalid_value")
    given = {name: field for name, field in value.items() if field is not None}
    if unknown := next((name for name in given if name not in _FIELDS[role]), None):
        name = f"{where}.{unknown}"
        raise refused(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    if role == "function":
        return _decode_old_result(given, where, old)
    content = given.get("content")
    return Message(
        role=_ROLES[role],
        content=_decode_said(given, where) if role == "assistant" else _content(content, where),
        tool_calls=_decode_calls(given, where, old),
        tool_call_id=string(given.get("tool_call_id"), f"{where}.tool_call_id"),
        name=string(given.get("name"), f"{where}.name"),
    )


def _content(value: Any, where: str) -> str | tuple[Part, ...] | None:
    return None if value is None else decode_content(value, f"{where}.content")


def _decode_said(given: Mapping[str, Any], where: str) -> str | tuple[Part, ...] | None:
    """What an assistant said: its text, and what it thought or refused before or after it."""
    content = _content(given.get("content"), where)
    thought = given.get("reasoning_content") or given.get("reasoning")
    refusal = given.get("refusal")
    if not isinstance(thought, str) and not isinstance(refusal, str):
        return content
    parts = (TextPart(content),) if isinstance(content, str) and content else content or ()
    if isinstance(thought, str):
        parts = (ThinkingPart((TextPart(thought),)), *parts)
    return (*parts, TextPart(refusal)) if isinstance(refusal, str) else tuple(parts)


def _decode_calls(
    given: Mapping[str, Any], where: str, old: dict[str, str]
) -> tuple[ToolCall, ...]:
    calls = decode_calls(given.get("tool_calls", ()), f"{where}.tool_calls")
    if (called := given.get("function_call")) is not None:
        made = [{"id": f"call_{len(old)}", "function": called}]
        (call,) = decode_calls(made, f"{where}.function_call")
        old[call.name] = call.id
        return (*calls, call)
    return calls


def _decode_old_result(given: Mapping[str, Any], where: str, old: dict[str, str]) -> Message:
    name = string(given.get("name"), f"{where}.name") or ""
    if name not in old:
        said = f"'{where}': a function's result without the call of {name!r} before it."
        raise refused(said, f"{where}.name")
    content = _content(given.get("content"), where)
    return Message(role="tool", content=content, tool_call_id=old[name], name=name)
