"""Mistral's answers, client role: a plain body, or a stream of chunks (contract: section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import LoomError, MalformedReply
from loom.core.events import PartReceived, StreamEvent, TextDelta, ThinkingDelta
from loom.core.messages import TextPart, ThinkingPart
from loom.core.response import Usage
from loom.wire.answer import Answer
from loom.wire.chunks import CallFragment, Forms
from loom.wire.mistral.errors import decode_error_body
from loom.wire.mistral.messages import decode_part
from loom.wire.mistral.usage import WireUsage, decode_usage
from loom.wire.reply import ReplyDecoder, take_calls

__all__ = ["MistralDecoder"]


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    tool_calls: list[CallFragment] | None = None


class MistralDecoder(ReplyDecoder):
    """
    Decodes one streamed answer; any cut of the bytes gives the same answer.

    `copy.copy` gives an independent decoder in the same state.

    Args:
        headers: The reply's headers, names in lower case.
        choices: How many answers were asked for (`n`).
    """

    forms = Forms(_Delta, WireUsage)

    @staticmethod
    def take(answer: Answer, delta: _Delta, events: list[StreamEvent]) -> None:
        """Add a delta (or a whole message, which is one large delta) to an answer."""
        content = delta.content
        if isinstance(content, str):
            if content:
                answer.add_text(content)
                events.append(TextDelta(content, answer.index))
        elif content is not None:
            for i, value in enumerate(content):
                _take_part(answer, value, f"content[{i}]", events)
        take_calls(answer, delta.tool_calls, events)

    @staticmethod
    def read_usage(value: Any) -> Usage:
        """Usage from JSON values that the typed decode refused; None for none."""
        return decode_usage(value)

    @staticmethod
    def read_error(value: Mapping[str, Any]) -> LoomError:
        """The error of a body that came with status 200."""
        return decode_error_body(value)


def _take_part(answer: Answer, value: Any, where: str, events: list[StreamEvent]) -> None:
    try:
        part = decode_part(value, where, lenient=True)
    except LoomError:
        raise MalformedReply(f"the answer's {where} is not a chunk that can be read") from None
    answer.add_part(part)
    match part:
        case TextPart(text=text):
            events.append(TextDelta(text, answer.index))
        case ThinkingPart():
            events.append(ThinkingDelta(part.text, answer.index))
        case _:
            events.append(PartReceived(part, answer.index))
