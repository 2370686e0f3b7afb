"""Mistral's answers, server role: a plain body, or a stream of chunks (contract: section 4)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from loom.core.errors import LoomError
from loom.core.events import (
    Completed,
    Finished,
    PartReceived,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from loom.core.response import Choice, LLMResponse
from loom.wire.mistral.errors import encode_error_reply
from loom.wire.mistral.messages import encode_part
from loom.wire.mistral.usage import encode_usage
from loom.wire.sse import encode_event
from loom.wire.values import encode_call

__all__ = ["MistralEncoder", "encode_chat_response"]

_encode = msgspec.json.Encoder().encode

# The padding that hides the lengths of chunks from whoever sees only their sizes; these
# characters, in this order, a random number of them (recorded streams since August 2025).
_PADDING = "abcdefghijklmnopqrstuvwxyz0123456789"


def encode_chat_response(response: LLMResponse) -> bytes:
    """
    A plain answer, keys in the recorded order.

    Args:
        response: The answer.

    Returns:
        JSON, UTF-8.
    """
    return _encode(
        {
            "id": response.id,
            "created": response.created or 0,
            "model": response.model,
            "usage": encode_usage(response.usage),
            "object": "chat.completion",
            "choices": [_encode_choice(choice) for choice in response.choices],
        }
    )


# Characters of a call's arguments in a piece: about a token or two.
_PIECE = 8
# Words of other vendors that Mistral's clients do not check for.
_REASONS = {"content_filter": "error", "refusal": "stop"}


class MistralEncoder:
    """
    Encodes one streamed answer.

    Tool calls, finish reason and usage go out with `Completed`, all in one chunk, as Mistral
    does it.

    Args:
        model: The model as the caller named it; the vendor echoes it.
        id: The answer's id, 32 hex digits.
        created: Unix time in seconds.
        choices: How many answers were asked for.
        fragments: Whether calls go out in pieces as they come, as `zai-glm-5-2` sends them.
    """

    def __init__(
        self,
        model: str,
        id: str,  # noqa: A002 - the wire's name
        created: int,
        choices: int = 1,
        *,
        fragments: bool = False,
    ) -> None:
        self._choices = choices
        self._fragments = fragments
        self._head = {"id": id, "object": "chat.completion.chunk", "created": created}
        self._head["model"] = model
        self._chunks = 0
        self._calls: dict[int, list[dict[str, Any]]] = {}
        self._ended: list[tuple[int, str]] = []
        self._started: set[int] = set()

    def start(self) -> bytes:
        """The chunks that open the answers, all of them first, as recorded with `n` above 1."""
        return b"".join(self._open(choice) for choice in range(self._choices))

    def encode(self, event: StreamEvent) -> bytes:
        """One event as chunks; none for notices and for what goes out with `Completed`."""
        match event:
            case TextDelta(text=text, choice=choice):
                return self._open(choice) + self._chunk(choice, {"content": text})
            case ThinkingDelta(text=text, choice=choice):
                thought = {"type": "text", "text": text}
                content = [{"type": "thinking", "thinking": [thought], "closed": True}]
                return self._open(choice) + self._chunk(choice, {"content": content})
            case PartReceived(part=part, choice=choice):
                return self._open(choice) + self._chunk(choice, {"content": [encode_part(part)]})
            case ToolCallDelta(choice=choice) if self._fragments:
                return self._open(choice) + self._call_pieces(event)
            case ToolCallDelta():
                self._hold_call(event)
            case Finished(reason=reason, choice=choice):
                self._ended.append((choice, _REASONS.get(reason, reason)))
            case Completed(response=response):
                return self._close(response)
        return b""

    def error(self, error: LoomError) -> bytes:
        """An error in the middle of a stream; nothing follows it, not even `[DONE]`."""
        return encode_event(encode_error_reply(error).body)

    def _open(self, choice: int) -> bytes:
        if choice in self._started:
            return b""
        self._started.add(choice)
        opening = {"index": choice, "delta": {"role": "assistant", "content": ""}}
        return encode_event(
            _encode({**self._head, "choices": [{**opening, "finish_reason": None}]})
        )

    def _call_pieces(self, event: ToolCallDelta) -> bytes:
        # First the id and the name without arguments, then arguments without either (contract,
        # section 4).
        deltas: list[dict[str, Any]] = []
        if event.name:
            function = {"name": event.name, "arguments": ""}
            deltas.append({"id": event.id, "type": "function", "function": function})
        for start in range(0, len(event.arguments), _PIECE):
            piece = event.arguments[start : start + _PIECE]
            deltas.append({"function": {"name": "", "arguments": piece}})
        calls = ({"tool_calls": [{**delta, "index": event.index}]} for delta in deltas)
        return b"".join(self._chunk(event.choice, call) for call in calls)

    def _hold_call(self, event: ToolCallDelta) -> None:
        # Fragments become whole calls: Mistral's own models send them whole.
        calls = self._calls.setdefault(event.choice, [])
        if event.index < len(calls):
            calls[event.index]["function"]["arguments"] += event.arguments
            return
        function = {"name": event.name, "arguments": event.arguments}
        calls.append({"id": event.id, "type": "function", "function": function})
        calls[-1]["index"] = event.index

    def _close(self, response: LLMResponse) -> bytes:
        ended = self._ended or [
            (choice.index, _reason(choice) or "stop") for choice in response.choices
        ]
        out: list[bytes] = []
        for place, (choice, reason) in enumerate(ended):
            calls = self._calls.get(choice)
            delta: dict[str, Any] = {"tool_calls": calls} if calls else {"content": ""}
            last = place == len(ended) - 1
            usage = {"usage": encode_usage(response.usage)} if last else {}
            out.append(self._open(choice) + self._chunk(choice, delta, reason, usage))
        return b"".join(out) + encode_event(b"[DONE]")

    def _chunk(
        self,
        choice: int,
        delta: dict[str, Any],
        reason: str | None = None,
        usage: dict[str, Any] | None = None,
    ) -> bytes:
        self._chunks += 1
        # Not secret here, and the same stream for the same answer: a hash, not a dice.
        seed = hashlib.sha256(f"{self._head['id']}/{self._chunks}".encode()).digest()[0]
        said = {"index": choice, "delta": delta, "finish_reason": reason}
        chunk = {**self._head, "choices": [said], **(usage or {})}
        return encode_event(_encode({**chunk, "p": _PADDING[: 1 + seed % len(_PADDING)]}))


def _encode_choice(choice: Choice) -> dict[str, Any]:
    message = choice.message
    content: Any = message.content or ""
    if not isinstance(content, str):
        content = [encode_part(part) for part in content]
    # A call that was cut before its arguments has none (recorded with `max_tokens` of 4).
    none = "" if choice.finish_reason == "length" else "{}"
    calls = [
        {**encode_call(call, none), "index": place} for place, call in enumerate(message.tool_calls)
    ]
    said = {"role": "assistant", "tool_calls": calls or None, "content": content}
    return {"index": choice.index, "finish_reason": _reason(choice), "message": said}


def _reason(choice: Choice) -> str | None:
    return _REASONS.get(choice.finish_reason or "", choice.finish_reason)
