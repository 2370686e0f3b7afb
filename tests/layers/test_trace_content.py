"""What was said, in the form of the GenAI conventions: only for who asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from tests.layers.telemetry import Seen

from loom.core.events import Completed
from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RawPart,
    ReferencePart,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.request import ChatRequest, ToolSpec
from loom.core.response import Choice, LLMResponse, Usage
from loom.layers.trace import Telemetry, Tracing
from loom.layers.trace_content import answer_content, request_content
from loom.testing import FakeClock, Witness

pytestmark = pytest.mark.anyio

CALL = ToolCall("call1", "weather", {"city": "Paris"})
ASKED = ChatRequest(
    model="m",
    messages=(
        Message.system("Be brief."),
        Message.user("Weather?"),
        Message.assistant(tool_calls=(CALL,)),
        Message.tool(CALL, "rainy"),
    ),
    tools=(ToolSpec(name="weather", description="Looks.", parameters={"type": "object"}),),
)
ANSWER = LLMResponse(
    choices=(
        Choice(
            message=Message.assistant((ThinkingPart((TextPart("hm"),)), TextPart("Rain."))),
            finish_reason="stop",
        ),
        Choice(index=1, message=Message.assistant(tool_calls=(CALL,)), finish_reason="tool_calls"),
        Choice(index=2, message=Message.assistant("")),
    ),
    usage=Usage(),
    model="m",
)
WANTED = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions")


def test_a_request_is_a_list_of_messages_with_parts() -> None:
    """Roles, texts, tool calls and their results; instructions and tools by themselves too."""
    found = {name: json.loads(str(value)) for name, value in request_content(ASKED).items()}
    brief = {"type": "text", "content": "Be brief."}
    call = {"type": "tool_call", "id": "call1", "name": "weather", "arguments": {"city": "Paris"}}
    result = {"type": "tool_call_response", "id": "call1", "response": "rainy"}
    assert {
        "gen_ai.input.messages": [
            {"role": "system", "parts": [brief]},
            {"role": "user", "parts": [{"type": "text", "content": "Weather?"}]},
            {"role": "assistant", "parts": [call]},
            {"role": "tool", "parts": [result], "name": "weather"},
        ],
        "gen_ai.system_instructions": [brief],
        "gen_ai.tool.definitions": [
            {
                "type": "function",
                "name": "weather",
                "description": "Looks.",
                "parameters": {"type": "object"},
            }
        ],
    } == found


def test_an_answer_is_a_message_for_each_choice() -> None:
    """Thinking is `reasoning`; reasons have the words of the schema."""
    found = json.loads(str(answer_content(ANSWER)["gen_ai.output.messages"]))
    assert [
        [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": "Rain."}],
        [{"type": "tool_call", "id": "call1", "name": "weather", "arguments": {"city": "Paris"}}],
        [],
    ] == [message["parts"] for message in found]
    assert ["stop", "tool_call", "error"] == [message["finish_reason"] for message in found]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            ImagePart("https://e.org/a"),
            {"type": "uri", "modality": "image", "uri": "https://e.org/a"},
        ),
        (
            ImagePart("data:image/png;base64,QUE="),
            {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "QUE="},
        ),
        (
            DocumentPart("data:;base64,QUE="),
            {"type": "blob", "modality": "document", "content": "QUE="},
        ),
        (
            AudioPart("QUE=", "wav"),
            {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "QUE="},
        ),
        (AudioPart("QUE="), {"type": "blob", "modality": "audio", "content": "QUE="}),
        (
            AudioPart("https://e.org/a"),
            {"type": "uri", "modality": "audio", "uri": "https://e.org/a"},
        ),
        (FilePart("file-1"), {"type": "file", "modality": "document", "file_id": "file-1"}),
        (ReferencePart((1, "a")), {"type": "reference", "reference_ids": [1, "a"]}),
        (RawPart("video", {"url": "x"}), {"type": "video", "url": "x"}),
    ],
)
def test_every_part_has_its_form(part: Part, expected: dict[str, Any]) -> None:
    """Pictures, documents, sounds, files, and kinds that nobody knows."""
    request = ChatRequest(model="m", messages=(Message.user(part),))
    (message,) = json.loads(str(request_content(request)["gen_ai.input.messages"]))
    assert [expected] == message["parts"]


def test_arguments_that_are_no_object_are_shown_as_they_came() -> None:
    """A call that was cut is what one wants to see."""
    call = ToolCall(id="c", name="t", arguments='{"a":')
    request = ChatRequest(model="m", messages=(Message.assistant(tool_calls=(call,)),))
    (message,) = json.loads(str(request_content(request)["gen_ai.input.messages"]))
    assert '{"a":' == message["parts"][0]["arguments"]


@pytest.mark.parametrize("content", [False, True])
async def test_content_is_recorded_for_who_asks(content: bool) -> None:  # noqa: FBT001 - a parameter
    """By default a span holds sizes and names, and none of what was said."""
    seen = Seen(content=content)
    layer = Tracing(
        Witness((Completed(ANSWER),)), clock=FakeClock(), telemetry=seen.telemetry
    )  # fmt: skip
    await layer.chat(ASKED)
    assert content is all(name in seen.attributes for name in WANTED)
    assert content is any("Paris" in str(value) for value in seen.attributes.values())


async def test_a_span_that_is_not_kept_costs_no_content() -> None:
    """Where sampling drops the span, nothing is written for it; the metrics go on."""
    tracers = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    seen = Seen()
    telemetry = Telemetry(tracer_provider=tracers, meter_provider=seen.meters, content=True)
    unencodable = ChatRequest(
        model="m", messages=(Message.user(RawPart("x", {"bad": "\ud800"})),)
    )  # fmt: skip
    layer = Tracing(Witness((Completed(ANSWER),)), clock=FakeClock(), telemetry=telemetry)
    await layer.chat(unencodable)
    assert "gen_ai.client.operation.duration" in seen.metrics()
