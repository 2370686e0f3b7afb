"""
History rules: what order of turns Mistral accepts, and what is repaired before sending.

Everything that decides whether a conversation is legal lives here and in `wire/history.py`, which
has what holds for every vendor.

Source: contract/mistral.md section 3 (mistral-common's validator and the recordings).
"""

from __future__ import annotations

from collections.abc import Sequence

from loom.core.errors import InvalidRequest
from loom.core.messages import Message, ToolCall
from loom.wire.history import LegalHistory, Repair
from loom.wire.tool_ids import is_legal_id, legal_name

__all__ = ["legal_history"]


def legal_history(messages: Sequence[Message]) -> LegalHistory:
    """
    Make a conversation legal for Mistral.

    Repairs: an empty assistant turn is left out; a system turn after an assistant or a tool
    turn moves up behind the opening system turns; tool results that stand elsewhere move
    behind their call, in the order of the calls; a repeated equal result is left out; ids
    become nine letters or digits.

    Args:
        messages: The conversation, oldest first.

    Returns:
        The legal history with its repairs.

    Raises:
        InvalidRequest: No messages; a tool result without its call, a call without its result,
            or two different results for one call; a trailing assistant turn without `prefix`;
            a trailing system turn; `prefix` elsewhere. The message names the position.
    """
    if not messages:
        raise InvalidRequest("messages must hold at least one message")
    # Most conversations are legal as they are, with tools too.
    if _is_plain(messages):
        _check_end(messages[-1], len(messages) - 1)
        return LegalHistory(messages=tuple(messages))
    return Repair(messages, keeps_id=is_legal_id, check_end=_check_end, raises_system=True).run()


def _is_plain(messages: Sequence[Message]) -> bool:
    """Whether nothing need be mended: the common case, which is looked at once and not copied."""
    previous = "system"
    waiting: list[ToolCall] = []
    for message in messages:
        if waiting:
            if not _answers(message, waiting.pop()):
                return False
        elif message.tool_calls:
            if not _calls_legally(message):
                return False
            waiting = list(reversed(message.tool_calls))
        elif not _stands_well(message, previous):
            return False
        previous = message.role
    return not waiting


def _answers(message: Message, call: ToolCall) -> bool:
    named = message.name is None or message.name == call.name
    return message.role == "tool" and message.tool_call_id == call.id and named


def _calls_legally(message: Message) -> bool:
    if message.role != "assistant" or message.prefix or message.tool_call_id:
        return False
    ids = {call.id for call in message.tool_calls}
    return len(ids) == len(message.tool_calls) and all(
        is_legal_id(call.id) and legal_name(call.name) == call.name for call in message.tool_calls
    )


def _stands_well(message: Message, previous: str) -> bool:
    role = message.role
    if role == "tool" or message.prefix or message.tool_call_id:
        return False
    if role == "system":
        return previous not in ("assistant", "tool")
    return role != "assistant" or bool(message.content)


def _check_end(last: Message, position: int) -> None:
    where = f"messages[{position}]"
    if last.role == "assistant" and not last.prefix:
        raise InvalidRequest(
            f"{where}: the last message is the assistant's; Mistral answers a user or a tool."
            " Add a user message, or set prefix=True to have the model go on from this text"
        )
    if last.role == "system":
        raise InvalidRequest(
            f"{where}: the last message is the system's; add a user message to be answered"
        )
    if last.role == "assistant" and last.tool_calls:
        raise InvalidRequest(f"{where}: a prefix must be text, it cannot call tools")
