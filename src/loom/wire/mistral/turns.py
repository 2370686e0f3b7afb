"""
The order of turns as the vendor judges it: the 400s of a history that is well formed.

`history.py` repairs histories before they are sent; this one refuses them, in the words of the
API. Both follow the same rules.

Source: mistral-common 1.13.1, `protocol/instruct/validator.py`, whose sentences are the API's;
where recordings of 2026 say otherwise they win (docs/decisions.md lists where).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from loom.core.errors import InvalidRequest
from loom.wire.tool_ids import is_legal_id

__all__ = ["check_function_name", "check_turns"]

_NEXT = {
    "system": frozenset({"system", "user", "assistant"}),
    "user": frozenset({"assistant", "system", "user"}),
    "assistant": frozenset({"assistant", "user", "tool"}),
    "tool": frozenset({"assistant", "tool", "user"}),
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def check_turns(messages: Sequence[Mapping[str, Any]]) -> None:
    """
    Refuse a history that the vendor refuses.

    Args:
        messages: As the wire writes them; their shapes are right (`schema.py`).

    Raises:
        InvalidRequest: With status 400 and the vendor's code: 3230 for the order, 3240 for an
            empty assistant turn, 3280 for a tool id.
    """
    _check_order(messages)
    _check_pairs(messages)
    for place, message in enumerate(messages):
        match message["role"]:
            case "assistant":
                _check_assistant(message, last=place == len(messages) - 1)
            case "tool":
                _check_result(message)


def check_function_name(name: str, kind: str = "invalid_request_error") -> None:
    """
    Refuse a tool's name that the vendor refuses.

    Args:
        name: 1 to 64 of `a-z A-Z 0-9 _ -`.
        kind: The error's type on the wire.

    Raises:
        InvalidRequest: With status 400.
    """
    if not _NAME.fullmatch(name):
        said = f"Function name was {name} but must be a-z, A-Z, 0-9, "
        said += "or contain underscores and dashes, with a maximum length of 64."
        raise _refused(said, kind, "3280" if kind == "invalid_function_call" else None)


def _refused(said: str, kind: str, code: str | None) -> InvalidRequest:
    return InvalidRequest(said, http_status=400, vendor_type=kind, vendor_code=code)


def _disordered(said: str) -> InvalidRequest:
    return _refused(said, "invalid_request_message_order", "3230")


def _check_order(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise _disordered("Conversation must have at least one message")
    last = messages[-1]
    if len(messages) == 1:
        if last["role"] not in {"user", "system"}:
            raise _disordered("Conversation must start with a user message or system message")
        return
    if last["role"] == "assistant" and not last.get("prefix"):
        # The API says "with prefix True", mistral-common 1.13.1 "with prefix".
        raise _disordered(
            "Expected last role User or Tool (or Assistant with prefix True) for serving"
            " but got assistant"
        )
    for before, message in pairwise(messages):
        if message["role"] not in _NEXT[before["role"]]:
            raise _disordered(f"Unexpected role '{message['role']}' after role '{before['role']}'")


def _check_pairs(messages: Sequence[Mapping[str, Any]]) -> None:
    # mistral-common passes over the first message; recorded histories that open with calls
    # (status 200) show that the API does not.
    called: set[str] = set()
    answered: set[str] = set()
    for message in messages:
        if message["role"] == "tool":
            call_id = str(message.get("tool_call_id"))
            if call_id in answered:
                raise _disordered(f"Duplicate tool call id {call_id} in tool results")
            if call_id not in called:
                raise _disordered(f"Unexpected tool call id {call_id} in tool results")
            answered.add(call_id)
        elif message["role"] == "assistant":
            _check_count(called, answered)
            called, answered = set(), set()
            for call in message.get("tool_calls") or ():
                call_id = call.get("id", "null")
                if call_id in called:
                    raise _disordered(f"Duplicate tool call id {call_id} in assistant message")
                called.add(call_id)
    _check_count(called, answered)


def _check_count(called: set[str], answered: set[str]) -> None:
    if len(called) != len(answered):
        raise _disordered("Not the same number of function calls and responses")


def _check_assistant(message: Mapping[str, Any], *, last: bool) -> None:
    calls = message.get("tool_calls") or ()
    if not message.get("content") and not calls:
        said = "Assistant message must have either content or tool_calls, but not none."
        raise _refused(said, "invalid_request_assistant_message", "3240")
    for call in calls:
        call_id = call.get("id", "null")
        if call_id == "null":
            said = "Tool call id has to be defined in serving mode."
            raise _refused(said, "invalid_function_call", "3280")
        if not is_legal_id(call_id):
            raise _refused(_bad_id(call_id), "invalid_function_call", "3280")
        check_function_name(call["function"]["name"], "invalid_function_call")
    if message.get("prefix") and not last:
        said = "Assistant message with prefix True must be last message"
        raise _refused(said, "invalid_request_assistant_message", "3240")


def _check_result(message: Mapping[str, Any]) -> None:
    # An id that is not legal was refused with its call.
    if message.get("name") is not None:
        check_function_name(message["name"])


def _bad_id(call_id: str) -> str:
    return f"Tool call id was {call_id} but must be a-z, A-Z, 0-9, with a length of 9."
