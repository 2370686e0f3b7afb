"""An answer that came in one piece, said as a stream would have."""

from __future__ import annotations

from loom.core.events import (
    Finished,
    PartReceived,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import Message, RawPart, TextPart, ThinkingPart, ToolCall
from loom.core.response import Choice, LLMResponse, Usage
from loom.providers.whole import events_of

CALL = ToolCall("abcdefghi", "f", arguments="{}")
HOLOGRAM = RawPart("hologram", {"rays": 7})


def answer(*messages: Message, usage: Usage) -> LLMResponse:
    choices = tuple(
        Choice(index=i, message=message, finish_reason="stop" if i == 0 else None)
        for i, message in enumerate(messages)
    )
    return LLMResponse(choices=choices, usage=usage, model="m")


def test_every_kind_of_part_is_an_event() -> None:
    """Thoughts, text, other parts and calls in their order; the reason; then the usage."""
    parts = (ThinkingPart((TextPart("hm"),)), TextPart("so"), HOLOGRAM)
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    response = answer(Message.assistant(parts, tool_calls=(CALL,)), usage=usage)
    assert [
        ThinkingDelta("hm"),
        TextDelta("so"),
        PartReceived(HOLOGRAM),
        ToolCallDelta(0, "abcdefghi", "f", "{}"),
        Finished("stop"),
        UsageReported(usage),
    ] == list(events_of(response))


def test_what_did_not_come_is_no_event() -> None:
    """Empty text, a reason that was not said, and usage that was counted here."""
    messages = (Message.assistant("a"), Message.assistant(""))
    response = answer(*messages, usage=Usage(estimated=True))
    assert [TextDelta("a"), Finished("stop")] == list(events_of(response))
