"""
The bytes of a vendor in memory: answers in Mistral's format whose text says whose they are.

Source: contract/mistral.md, sections 4 and 6; the shortest bodies that a client reads as answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

__all__ = [
    "DONE",
    "END",
    "STREAM",
    "chunked",
    "error_body",
    "event",
    "http_head",
    "plain_body",
    "text_pieces",
]

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""

END = b"0\r\n\r\n"
"""The last chunk of a body."""

STREAM = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
"""The headers of a stream."""

_USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
_REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 429: "Too Many Requests"}

_encode = msgspec.json.Encoder().encode


def text_pieces(call: str, number: int, words: int) -> list[str]:
    """
    The answer to a request; no other request has the same.

    Args:
        call: Who asked.
        number: Which request of all.
        words: Pieces between the first and the last.
    """
    return [f"<{call}|{number}", *(f" w{i}" for i in range(words)), f" {call}|{number}>"]


def plain_body(head: Mapping[str, Any], text: str) -> bytes:
    """
    A plain answer.

    Args:
        head: Its `id` and `model`.
        text: Of the only choice.
    """
    message = {"role": "assistant", "content": text, "tool_calls": None}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return _encode(
        {**head, "object": "chat.completion", "created": 1, "choices": choices, "usage": _USAGE}
    )


def event(
    head: Mapping[str, Any], text: str, *, finish: str | None = None, usage: bool = False
) -> bytes:
    """
    An event of a stream.

    Args:
        head: The answer's `id` and `model`.
        text: The next piece.
        finish: Why the answer ends here.
        usage: Whether it tells the tokens.
    """
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    told = {"usage": _USAGE} if usage else {}
    data = {**head, "object": "chat.completion.chunk", "created": 1, "choices": [choice], **told}
    return b"data: %s\n\n" % _encode(data)


def error_body(status: int, message: str, kind: str = "", code: str | None = None) -> bytes:
    """
    An error, as Mistral words it.

    Args:
        status: The HTTP status.
        message: For people.
        kind: The vendor's type.
        code: The vendor's code.
    """
    return _encode(
        {
            "object": "error",
            "message": message,
            "type": kind or "invalid_request_error",
            "param": None,
            "code": code,
            "raw_status_code": status,
        }
    )


def http_head(status: int, headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> bytes:
    """
    Status line and headers.

    Args:
        status: The HTTP status.
        headers: By name, or as pairs where a name comes twice.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{lines}\r\n".encode()


def chunked(data: bytes) -> bytes:
    """
    One chunk of a body.

    Args:
        data: At least one byte; none would end the body.
    """
    return b"%x\r\n%s\r\n" % (len(data), data)
