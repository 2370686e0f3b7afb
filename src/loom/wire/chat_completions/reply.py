"""
OpenAI's answers, client role: a plain body, or a stream of chunks.

Servers that speak like OpenAI add what the model thought: `reasoning_content` (DeepSeek, vLLM
before 0.11, LM Studio) or `reasoning` (vLLM, Ollama, OpenRouter).

Source: openai 3.57 `types/chat/chat_completion.py` and `chat_completion_chunk.py`; vLLM, "Reasoning
Outputs" (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import LoomError, MalformedReply
from loom.core.events import PartReceived, StreamEvent, TextDelta, ThinkingDelta
from loom.core.messages import RawPart, TextPart, ThinkingPart
from loom.core.response import Usage
from loom.wire.answer import Answer
from loom.wire.chat_completions.errors import decode_error_body
from loom.wire.chat_completions.usage import WireUsage, decode_usage
from loom.wire.chunks import CallFragment, Forms
from loom.wire.reply import ReplyDecoder, take_calls

__all__ = ["ChatCompletionsDecoder"]


class _OldCall(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    tool_calls: list[CallFragment] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: _OldCall | None = None


_TEXTS = ("reasoning_content", "reasoning", "refusal")


class ChatCompletionsDecoder(ReplyDecoder):
    """
    Decodes one streamed answer; any cut of the bytes gives the same answer.

    A refusal is text, as a person shall read it, and the answer's finish reason is "refusal".

    Args:
        headers: The reply's headers, names in lower case.
        choices: How many answers were asked for (`n`).
    """

    forms = Forms(_Delta, WireUsage)

    @staticmethod
    def take(answer: Answer, delta: _Delta, events: list[StreamEvent]) -> None:
        """Add a delta (or a whole message, which is one large delta) to an answer."""
        # Relays between two versions send both, with the same text.
        if thought := delta.reasoning_content or delta.reasoning:
            answer.add_part(ThinkingPart((TextPart(thought),)))
            events.append(ThinkingDelta(thought, answer.index))
        content = delta.content
        if isinstance(content, str):
            _take_text(answer, content, events)
        elif content is not None:
            for place, value in enumerate(content):
                _take_part(answer, value, f"content[{place}]", events)
        if delta.refusal:
            answer.refused = True
            _take_text(answer, delta.refusal, events)
        take_calls(answer, delta.tool_calls, events)
        if (old := delta.function_call) is not None:
            # Deprecated in 2023; some relays have nothing newer. There is only one, without an id.
            piece = {"name": old.name, "arguments": old.arguments}
            calls = [msgspec.convert({"function": piece, "index": 0}, CallFragment)]
            take_calls(answer, calls, events)

    @staticmethod
    def reason(answer: Answer, word: str) -> str:
        """Why an answer ended: "function_call" is an old word, "refusal" is ours."""
        if word == "function_call":
            return "tool_calls"
        return "refusal" if answer.refused and word == "stop" else word

    @staticmethod
    def read_usage(value: Any) -> Usage:
        """Usage from JSON values that the typed decode refused; None for none."""
        return decode_usage(value)

    @staticmethod
    def read_error(value: Mapping[str, Any]) -> LoomError:
        """The error of a body that came with status 200."""
        return decode_error_body(value)

    @staticmethod
    def tidy(said: Mapping[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
        """A delta from JSON values that the typed decode refused."""
        texts = {name: said.get(name) for name in _TEXTS if isinstance(said.get(name), str)}
        return {"content": said.get("content"), "tool_calls": calls, **texts}

    def _take_text(self, payload: bytes, events: list[StreamEvent]) -> bool:
        """The fast path, for events that surely hold nothing but text."""
        # As a part of a text the quotes would be escaped: these are names of fields.
        if b'"reasoning' in payload or b'"refusal"' in payload or b'"function_call"' in payload:
            return False
        return super()._take_text(payload, events)


def _take_text(answer: Answer, text: str, events: list[StreamEvent]) -> None:
    if text:
        answer.add_text(text)
        events.append(TextDelta(text, answer.index))


def _take_part(answer: Answer, value: Any, where: str, events: list[StreamEvent]) -> None:
    """A chunk of a content list: OpenAI sends none, relays of other vendors do."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(kind, str):
        raise MalformedReply(f"the answer's {where} is not a chunk that can be read")
    if kind in ("text", "refusal") and isinstance(value.get(kind), str):
        answer.refused = answer.refused or kind == "refusal"
        _take_text(answer, value[kind], events)
        return
    part = RawPart(kind, {name: field for name, field in value.items() if name != "type"})
    answer.add_part(part)
    events.append(PartReceived(part, answer.index))
