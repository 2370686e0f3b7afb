"""Tells the beginning of a long conversation in few words, so that it fits the model's window."""

from __future__ import annotations

import msgspec

from loom.agent.session import Entry, Said
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse

__all__ = ["condensing_point", "is_long", "summary_of"]

# The share of the window at which a conversation is made shorter: the rest is for the new turn,
# its tools and its answer.
_FULL = 0.7
# Turns of the user that stay as they were said.
_KEPT_TURNS = 2

_ASK = (
    "Summarise our conversation so far, for your own use when it goes on: what was asked, what was"
    " found out and decided, names and numbers to the letter, and what is still open. Write plain"
    " text of at most 400 words, and nothing else."
)


def is_long(entries: tuple[Entry, ...], window: int | None) -> bool:
    """
    Whether a conversation has grown so long that it should be told in fewer words.

    Args:
        entries: The session's.
        window: The model's window in tokens; None when it is unknown.

    Returns:
        True when the last answer, with its prompt, took 70 % of the window or more.
    """
    last = next((e for e in reversed(entries) if isinstance(e, Said) and e.usage is not None), None)
    if window is None or last is None or last.usage is None:
        return False
    return last.usage.input_tokens + last.usage.output_tokens >= _FULL * window


def condensing_point(entries: tuple[Entry, ...]) -> int | None:
    """
    Where the part of a conversation ends that a summary may stand for.

    Args:
        entries: The session's.

    Returns:
        The place of the user's last message but one; None when nothing but that is there.
    """
    places = [
        place
        for place, entry in enumerate(entries)
        if isinstance(entry, Said) and entry.message.role == "user"
    ]
    if len(places) <= _KEPT_TURNS:
        return None
    return places[-_KEPT_TURNS]


async def summary_of(
    provider: LLMProvider, request: ChatRequest, messages: tuple[Message, ...]
) -> LLMResponse:
    """
    Ask the model to tell a conversation in few words.

    Args:
        provider: Who is asked.
        request: The request of the turn: its model, options and system messages are used.
        messages: The part of the conversation that is told.

    Returns:
        The answer.

    Raises:
        LoomError: As a call of the provider.
    """
    asked = msgspec.structs.replace(
        request,
        messages=(*request.messages, *messages, Message.user(_ASK)),
        tool_choice="none" if request.tools else None,
        response_format=None,
        fit="slide",
    )
    return await provider.chat(asked)
