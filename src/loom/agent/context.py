"""Makes a conversation shorter when it has outgrown the model's window: pure."""

from __future__ import annotations

import msgspec

from loom.core.messages import Message, TextPart
from loom.layers.slide import slide

__all__ = ["shrink"]

# What is kept of a result that is cut: enough to know what it was.
_KEPT = 400
_NOTICE = "\n[the rest was left out, to keep the conversation within the model's window]"


def shrink(messages: tuple[Message, ...]) -> tuple[Message, ...] | None:
    """
    Make a conversation one step shorter.

    Its oldest turn goes; when there is only one turn, the longest result of a tool is cut. No
    call is parted from its result.

    Args:
        messages: The conversation, oldest first.

    Returns:
        A shorter one; None when there is nothing to leave out.
    """
    shorter = slide(messages, lambda kept: len(kept) < len(messages))
    if shorter:
        return shorter
    place = max(
        (index for index, message in enumerate(messages) if message.role == "tool"),
        key=lambda index: _size(messages[index]),
        default=None,
    )
    if place is None or _size(messages[place]) <= _KEPT + len(_NOTICE):
        return None
    kept = messages[place].text[:_KEPT] + _NOTICE
    cut = msgspec.structs.replace(messages[place], content=kept)
    return (*messages[:place], cut, *messages[place + 1 :])


def _size(message: Message) -> int:
    content = message.content
    if content is None or isinstance(content, str):
        return len(content or "")
    # A part that is no text (an image) is longer than any text that would stand for it.
    return sum(len(part.text) if isinstance(part, TextPart) else 100_000 for part in content)
