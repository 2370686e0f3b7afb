"""
History rules: what OpenAI takes of a conversation, and what is repaired before sending.

What holds for every vendor stands in `wire/history.py`. A conversation that another vendor began
goes on here: what only that vendor reads (thoughts, references to its sources) is left out, and
each time is named.

Source: openai 3.57 `types/chat/chat_completion_*_message_param.py`; sentences of the API in public
issues ("must be followed by tool messages responding to each 'tool_call_id'"; "string too long.
Expected a string with maximum length 40").
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.messages import Message, ReferencePart, ThinkingPart
from loom.wire.chat_completions.parts import encode_content
from loom.wire.chat_completions.refusals import MOST_ID_CHARACTERS
from loom.wire.history import LegalHistory, Repair

__all__ = ["legal_history"]


def legal_history(messages: Sequence[Message]) -> LegalHistory:
    """
    Make a conversation legal for OpenAI.

    Repairs: thoughts and references are left out; an assistant turn that is empty, or empty
    without them, is left out; tool results that stand elsewhere move behind their call, in the
    order of the calls; a repeated equal result is left out; an id that is empty, longer than 40
    characters, or that an earlier call of the same turn has, is replaced.

    Args:
        messages: The conversation, oldest first.

    Returns:
        The legal history with its repairs.

    Raises:
        InvalidRequest: No messages; a tool result without its call, a call without its result,
            or two different results for one call; a trailing assistant turn, with `prefix` or
            without. The message names the position.
    """
    if not messages:
        raise InvalidRequest("messages must hold at least one message")
    if _is_plain(messages):
        _check_end(messages[-1], len(messages) - 1)
        return LegalHistory(messages=tuple(messages))
    repairs: list[str] = []
    portable = [_portable(message, i, repairs) for i, message in enumerate(messages)]
    for i, message in enumerate(portable):
        # Here, where places are still those of the caller; they are written afterwards.
        encode_content(message.content, message.role, f"messages[{i}].content")
    history = Repair(portable, keeps_id=_keeps_id, check_end=_check_end, raises_system=False).run()
    if repairs:
        history = msgspec.structs.replace(history, repairs=(*repairs, *history.repairs))
    return history


def _is_plain(messages: Sequence[Message]) -> bool:
    for message in messages:
        if message.tool_calls or message.tool_call_id or message.prefix or message.role == "tool":
            return False
        if message.role == "assistant" and (
            not message.content or not isinstance(message.content, str)
        ):
            return False
    return True


def _keeps_id(call_id: str) -> bool:
    return 0 < len(call_id) <= MOST_ID_CHARACTERS


def _portable(message: Message, position: int, repairs: list[str]) -> Message:
    content = message.content
    if message.role != "assistant" or content is None or isinstance(content, str):
        return message
    kept = tuple(p for p in content if not isinstance(p, ThinkingPart | ReferencePart))
    if len(kept) == len(content):
        return message
    left = {type(part) for part in content} & {ThinkingPart, ReferencePart}
    words = " and ".join(_WORDS[kind] for kind in sorted(left, key=_word))
    repairs.append(f"messages[{position}]: left out {words}, which OpenAI does not read")
    return msgspec.structs.replace(message, content=kept or None)


_WORDS: dict[type, str] = {ThinkingPart: "thoughts", ReferencePart: "references"}


def _word(kind: type) -> str:
    return _WORDS[kind]


def _check_end(last: Message, position: int) -> None:
    if last.role != "assistant":
        return
    if last.prefix:
        raise InvalidRequest(
            f"messages[{position}]: OpenAI cannot go on from a given text (prefix=True); ask for"
            " the beginning in a user message"
        )
    raise InvalidRequest(
        f"messages[{position}]: the last message is the assistant's; OpenAI answers a user or a"
        " tool. Add a user message"
    )
