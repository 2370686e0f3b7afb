"""An answer that came in one piece, as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator

from loom.core.events import (
    Finished,
    ModelEvent,
    PartReceived,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import TextPart, ThinkingPart
from loom.core.response import Choice, LLMResponse

__all__ = ["events_of"]


def events_of(response: LLMResponse) -> Iterator[ModelEvent]:
    """
    Say an answer as a stream would have, in few pieces.

    Args:
        response: A whole answer.

    Yields:
        Its events, without `Completed`.
    """
    for choice in response.choices:
        yield from _events_of(choice)
    if not response.usage.estimated:
        yield UsageReported(response.usage)


def _events_of(choice: Choice) -> Iterator[ModelEvent]:
    index, content = choice.index, choice.message.content
    for part in (TextPart(content),) if isinstance(content, str) else content or ():
        match part:
            case TextPart(text=text):
                if text:
                    yield TextDelta(text, index)
            case ThinkingPart():
                yield ThinkingDelta(part.text, index)
            case _:
                yield PartReceived(part, index)
    for place, call in enumerate(choice.message.tool_calls):
        yield ToolCallDelta(place, call.id, call.name, call.arguments, index)
    if choice.finish_reason is not None:
        yield Finished(choice.finish_reason, index)
