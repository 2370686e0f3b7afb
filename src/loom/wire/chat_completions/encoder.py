"""
OpenAI's answers, server role: a plain body, or a stream of chunks.

OpenAI has no field for thoughts: they go out as `reasoning_content`, as the servers do that speak
like it. References and parts of unknown kinds have no place and are left out.

Source: openai 3.57 `types/chat/chat_completion.py` and `chat_completion_chunk.py`; OpenAI, "Chat
streaming" (example of a stream, read 2026-11).
"""

from __future__ import annotations

from typing import Any

import msgspec

from loom.core.errors import LoomError
from loom.core.events import (
    Completed,
    Finished,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from loom.core.response import Choice, LLMResponse, Usage
from loom.wire.chat_completions.errors import encode_error_reply
from loom.wire.chat_completions.usage import encode_usage
from loom.wire.sse import encode_event
from loom.wire.values import encode_call

__all__ = ["ChatCompletionsEncoder", "encode_chat_response"]

_encode = msgspec.json.Encoder().encode

# Characters of a call's arguments in a piece: about a token or two. What comes at once leaves in
# no more pieces than this: each has 200 bytes around it.
_PIECE = 8
_MOST_PIECES = 64

# Words that OpenAI's own clients check for; ours on the left.
_REASONS = {
    "content_filter": "content_filter",
    "length": "length",
    "model_length": "length",
    "stop": "stop",
    "tool_calls": "tool_calls",
}


def encode_chat_response(response: LLMResponse) -> bytes:
    """
    A plain answer, keys in the order of OpenAI's examples.

    Args:
        response: The answer.

    Returns:
        JSON, UTF-8.
    """
    body: dict[str, Any] = {
        "id": response.id,
        "object": "chat.completion",
        "created": response.created or 0,
        "model": response.model,
        "choices": [_encode_choice(choice) for choice in response.choices],
        "usage": encode_usage(response.usage),
        **_tier(response.usage),
    }
    return _encode({**body, "system_fingerprint": None})


def _encode_choice(choice: Choice) -> dict[str, Any]:
    message = choice.message
    text: str | None = message.text
    if not text and message.tool_calls:
        text = None
    refusal = text if choice.finish_reason == "refusal" else None
    said: dict[str, Any] = {
        "role": "assistant",
        "content": None if refusal is not None else text,
        "refusal": refusal,
    }
    if message.thinking:
        said["reasoning_content"] = message.thinking
    if message.tool_calls:
        # A call that was cut before its arguments has none.
        none = "" if choice.finish_reason == "length" else "{}"
        said["tool_calls"] = [encode_call(call, none) for call in message.tool_calls]
    return {
        "index": choice.index,
        "message": said,
        "logprobs": None,
        "finish_reason": _reason(choice.finish_reason),
    }


def _reason(word: str | None) -> str:
    return _REASONS.get(word or "stop", "stop")


def _tier(usage: Usage) -> dict[str, str]:
    tier = "default" if usage.service_tier in (None, "standard") else usage.service_tier
    return {"service_tier": tier or "default"}


class ChatCompletionsEncoder:
    """
    Encodes one streamed answer: the role first, calls in pieces, the usage where it was asked for.

    Args:
        model: The model as the caller named it.
        id: The answer's id.
        created: Unix time in seconds.
        choices: How many answers were asked for.
        usage: Whether the caller asked for `stream_options.include_usage`.
    """

    def __init__(
        self,
        model: str,
        id: str,  # noqa: A002 - the wire's name
        created: int,
        choices: int = 1,
        *,
        usage: bool = False,
    ) -> None:
        self._choices = choices
        self._usage = usage
        self._head: dict[str, Any] = {
            "id": id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": None,
        }
        self._opened: set[int] = set()
        self._ended: set[int] = set()
        self._calls: set[tuple[int, int]] = set()

    def start(self) -> bytes:
        """The chunks that open the answers."""
        return b"".join(self._open(choice) for choice in range(self._choices))

    def encode(self, event: StreamEvent) -> bytes:
        """One event as chunks; none for notices and for what OpenAI has no place for."""
        match event:
            case TextDelta(text=text, choice=choice):
                return self._open(choice) + self._chunk(choice, {"content": text})
            case ThinkingDelta(text=text, choice=choice):
                return self._open(choice) + self._chunk(choice, {"reasoning_content": text})
            case ToolCallDelta():
                return self._open(event.choice) + self._call(event)
            case Finished(reason=reason, choice=choice):
                return self._open(choice) + self._end(choice, reason)
            case Completed(response=response):
                return self._close(response)
        return b""

    def error(self, error: LoomError) -> bytes:
        """An error in the middle of a stream; nothing follows it, not even `[DONE]`."""
        return encode_event(encode_error_reply(error).body)

    def _open(self, choice: int) -> bytes:
        if choice in self._opened:
            return b""
        self._opened.add(choice)
        return self._chunk(choice, {"role": "assistant", "content": "", "refusal": None})

    def _call(self, event: ToolCallDelta) -> bytes:
        # Id, type and name once, then arguments in pieces.
        deltas: list[dict[str, Any]] = []
        key = (event.choice, event.index)
        if key not in self._calls:
            self._calls.add(key)
            function = {"name": event.name, "arguments": ""}
            deltas.append({"id": event.id, "type": "function", "function": function})
        text = event.arguments
        size = max(_PIECE, -(-len(text) // _MOST_PIECES))
        pieces = (text[start : start + size] for start in range(0, len(text), size))
        deltas.extend({"function": {"arguments": piece}} for piece in pieces)
        calls = ({"tool_calls": [{"index": event.index, **delta}]} for delta in deltas)
        return b"".join(self._chunk(event.choice, call) for call in calls)

    def _end(self, choice: int, reason: str) -> bytes:
        if choice in self._ended:
            return b""
        self._ended.add(choice)
        return self._chunk(choice, {}, _reason(reason))

    def _close(self, response: LLMResponse) -> bytes:
        out = [
            self._open(choice.index) + self._end(choice.index, choice.finish_reason or "stop")
            for choice in response.choices
        ]
        if self._usage:
            usage = encode_usage(response.usage)
            last = {**self._head, **_tier(response.usage), "choices": [], "usage": usage}
            out.append(encode_event(_encode(last)))
        return b"".join(out) + encode_event(b"[DONE]")

    def _chunk(self, choice: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        said = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [said]}
        if self._usage:
            chunk["usage"] = None
        return encode_event(_encode(chunk))
