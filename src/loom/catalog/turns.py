"""
The turns of a conversation as a prompt format sees them: messages of one role joined.

Source: mistral-common 1.13.1, `protocol/instruct/normalize.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Turn", "lead_of", "turns_of"]

_Json: TypeAlias = Mapping[str, Any]

_BETWEEN_MESSAGES = "\n\n"


class Turn(NamedTuple):
    """
    Messages of one role that follow each other.

    Attributes:
        role: Whose they are.
        content: Texts joined as far as possible, and the parts between them that are no text.
        calls: The tools that an assistant calls.
        prefix: Whether the answer continues this turn.
        call_id: Which call a tool's result answers.
        name: The tool's name, where the caller gave it.
    """

    role: str
    content: tuple[str | _Json, ...]
    calls: tuple[_Json, ...] = ()
    prefix: bool = False
    call_id: str = ""
    name: str | None = None

    @property
    def text(self) -> str:
        """Its texts in one piece."""
        return "".join(piece for piece in self.content if isinstance(piece, str))


def turns_of(messages: Sequence[_Json], joint: str, *, own_system: bool) -> list[Turn]:
    """
    Join the messages of a request.

    Args:
        messages: As they go over the wire, in any order of roles.
        joint: What stands between two texts of one message.
        own_system: Whether the format has marks for the system; else no turn of it is given.

    Returns:
        At least one turn.
    """
    turns: list[Turn] = []
    for role, group in groupby(messages, key=lambda message: message.get("role")):
        turns.extend(_of_one_role(str(role), list(group), joint, own_system=own_system))
    if not turns or (not own_system and turns[0].role != "user"):
        turns.insert(0, Turn("user", ()))
    return turns


def _of_one_role(
    role: str, messages: list[_Json], joint: str, *, own_system: bool
) -> Iterator[Turn]:
    contents = [message.get("content") for message in messages]
    if role == "user":
        yield Turn(role, _merged(contents, joint))
    elif role == "assistant":
        yield Turn(
            role,
            _merged(contents, joint),
            calls=tuple(call for one in messages for call in one.get("tool_calls") or ()),
            prefix=any(one.get("prefix") for one in messages),
        )
    elif role == "tool" or own_system:
        for message, content in zip(messages, contents, strict=True):
            yield Turn(
                role,
                _merged([content], joint),
                call_id=message.get("tool_call_id") or "",
                name=message.get("name"),
            )


def _merged(contents: Sequence[Any], joint: str) -> tuple[str | _Json, ...]:
    pieces: list[str | _Json] = []
    for content in contents:
        between = _BETWEEN_MESSAGES
        for part in [content] if isinstance(content, str) else content or ():
            text = part if isinstance(part, str) else _text_of(part)
            if text is None:
                pieces.append(part)
            elif text and pieces and isinstance(pieces[-1], str):
                pieces[-1] += between + text
            elif text:
                pieces.append(text)
            if text != "":
                between = joint
    return tuple(pieces)


def _text_of(part: _Json) -> str | None:
    return part.get("text") or "" if part.get("type") == "text" else None


def lead_of(messages: Sequence[_Json]) -> str:
    """
    The system's text for formats that write it before a user's.

    Args:
        messages: As they go over the wire.

    Returns:
        All system messages, and what parts them from the user's; empty when there is none.
    """
    texts = [
        "".join(
            piece
            for piece in _merged([message["content"]], _BETWEEN_MESSAGES)
            if isinstance(piece, str)
        )
        for message in messages
        if message.get("role") == "system" and message.get("content")
    ]
    text = _BETWEEN_MESSAGES.join(texts)
    return text + _BETWEEN_MESSAGES if text else ""
