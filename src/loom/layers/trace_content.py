"""
A conversation in the form of the OpenTelemetry GenAI conventions. Only who asks for it gets it.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/non-normative/models.py and the
JSON schemas made from it (`gen-ai-input-messages.json` and its siblings), read 2026-11-26.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

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
)
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse

__all__ = ["answer_content", "request_content"]

# Words of the schema for what Mistral calls otherwise.
_REASONS = {"tool_calls": "tool_call", "model_length": "length"}


def request_content(request: ChatRequest) -> dict[str, Any]:
    """
    What is asked, as attributes of a span.

    Instructions stand in the history, as Mistral takes them, and once more by themselves: viewers
    look for them there.

    Args:
        request: What is asked.

    Returns:
        `gen_ai.input.messages`, and `gen_ai.system_instructions` and `gen_ai.tool.definitions`
        where there are any; each is JSON.
    """
    found: dict[str, Any] = {
        "gen_ai.input.messages": _json([_message(message) for message in request.messages])
    }
    instructions = [
        part for message in request.messages if message.role == "system" for part in _parts(message)
    ]
    if instructions:
        found["gen_ai.system_instructions"] = _json(instructions)
    if request.tools:
        found["gen_ai.tool.definitions"] = _json(
            [
                _known(
                    type="function",
                    name=tool.name,
                    description=tool.description,
                    parameters=dict(tool.parameters),
                )
                for tool in request.tools
            ]
        )
    return found


def answer_content(response: LLMResponse) -> dict[str, Any]:
    """
    What was answered, as attributes of a span.

    Args:
        response: The answer.

    Returns:
        `gen_ai.output.messages`: a message for each choice, as JSON.
    """
    messages = [
        {
            **_message(choice.message),
            "finish_reason": _REASONS.get(choice.finish_reason or "error", choice.finish_reason)
            or "error",
        }
        for choice in response.choices
    ]
    return {"gen_ai.output.messages": _json(messages)}


def _message(message: Message) -> dict[str, Any]:
    return _known(role=message.role, parts=_parts(message), name=message.name)


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.content
    if message.role == "tool":
        response = content if isinstance(content, str) else _plain(content or ())
        return [_known(type="tool_call_response", id=message.tool_call_id, response=response)]
    if isinstance(content, str):
        parts = [{"type": "text", "content": content}] if content else []
    else:
        parts = _plain(content or ())
    for call in message.tool_calls:
        # What is no JSON object is shown as the model wrote it.
        arguments: Any = call.arguments if call.problem else call.input
        parts.append(
            {"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments}
        )
    return parts


def _plain(parts: Iterable[Part]) -> list[dict[str, Any]]:
    return [_part(part) for part in parts]


def _part(part: Part) -> dict[str, Any]:
    shown: dict[str, Any]
    match part:
        case TextPart(text=text):
            shown = {"type": "text", "content": text}
        case ThinkingPart():
            shown = {"type": "reasoning", "content": part.text}
        case ImagePart(url=url):
            shown = _data("image", url)
        case DocumentPart(url=url):
            shown = _data("document", url)
        case AudioPart(data=data, format=form):
            shown = _sound(data, form)
        case FilePart(file_id=file_id):
            shown = {"type": "file", "modality": "document", "file_id": file_id}
        case ReferencePart(reference_ids=ids):
            shown = {"type": "reference", "reference_ids": list(ids)}
        case RawPart(type=kind, fields=fields):
            shown = {**fields, "type": kind}
    return shown


def _sound(data: str, form: str | None) -> dict[str, Any]:
    if data.startswith(("http:", "https:", "data:")):
        return _data("audio", data)
    kind = None if form is None else f"audio/{form}"
    return _known(type="blob", modality="audio", mime_type=kind, content=data)


def _data(modality: str, url: str) -> dict[str, Any]:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:"):
        return {"type": "uri", "modality": modality, "uri": url}
    kind = head.removeprefix("data:").partition(";")[0] or None
    return _known(type="blob", modality=modality, mime_type=kind, content=data)


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _json(value: list[Any] | Mapping[str, Any]) -> str:
    # Spans take no structures yet; the conventions allow JSON text in their place.
    return msgspec.json.encode(value, enc_hook=str).decode()
