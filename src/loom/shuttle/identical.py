"""Which calls of tools are the same: the same tool, and arguments that are equal as JSON."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from loom.core.messages import ToolCall

__all__ = ["call_key"]


def call_key(call: ToolCall) -> Hashable:
    """
    Give a key that is equal for calls of one tool whose arguments are equal as JSON values.

    Args:
        call: What the model asked for; its id does not count.

    Returns:
        The key; of arguments that are no JSON, one that equals no other.
    """
    text = call.arguments if not call.input and call.problem else ""
    try:
        key = (call.name, _canonical(call.input), text)
        hash(key)
    except (TypeError, RecursionError):
        return object()
    return key


def _canonical(value: Any) -> Any:
    if isinstance(value, bool):
        # True is 1 to Python, and not to JSON.
        return ("boolean", value)
    if isinstance(value, dict):
        return frozenset((name, _canonical(item)) for name, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(_canonical(item) for item in value)
    return value
