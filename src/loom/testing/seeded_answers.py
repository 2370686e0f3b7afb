"""
The bytes of a vendor in memory: answers in Mistral's format whose text says whose they are.

Source: contract/mistral.md, sections 4 and 6; the shortest bodies that a client reads as answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

__all__ = [
    "DONE",
    "END",
    "STREAM",
    "Piece",
    "chunked",
    "error_body",
    "event",
    "http_head",
    "number_of",
    "plain_body",
    "text_of",
    "text_pieces",
    "who_asks",
]

Piece: TypeAlias = "str | dict[str, Any]"
"""A piece of an answer: words, or a call of a tool as the wire has it."""

DONE = b"data: [DONE]\n\n"
"""The last event of a stream."""

END = b"0\r\n\r\n"
"""The last chunk of a body."""

STREAM = {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked"}
"""The headers of a stream."""

_USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
_REASONS = {200: "OK", 302: "Found", 400: "Bad Request", 429: "Too Many Requests"}

# The names of calls, as numbers that stand in their requests.
_WORDS = {"call": 0, "again": 1000, "anew": 2000}

_encode = msgspec.json.Encoder().encode


def number_of(name: str) -> int:
    """
    Give the number that stands in the requests of a turn.

    Args:
        name: For example "call 3", "again 3" or "anew 1".
    """
    word, _, number = name.partition(" ")
    return _WORDS[word] + int(number)


def who_asks(messages: Sequence[Mapping[str, Any]], number: int | None) -> str:
    """
    Say whose a request is.

    Args:
        messages: Its messages; the last one of a plain call is its name.
        number: The number that a turn puts into its requests; None: a plain call.
    """
    if number is None:
        return str(messages[-1]["content"])
    word = max((base, word) for word, base in _WORDS.items() if base <= number)[1]
    return f"{word} {number - _WORDS[word]}"


def text_pieces(call: str, number: int, words: int) -> list[str]:
    """
    The answer to a request; no other request has the same.

    Args:
        call: Who asked.
        number: Which request of all.
        words: Pieces between the first and the last.
    """
    return [f"<{call}|{number}", *(f" w{i}" for i in range(words)), f" {call}|{number}>"]


def text_of(pieces: Sequence[Piece]) -> str:
    """
    The words of an answer.

    Args:
        pieces: All of it.
    """
    return "".join(piece for piece in pieces if isinstance(piece, str))


def plain_body(head: Mapping[str, Any], pieces: Sequence[Piece]) -> bytes:
    """
    A plain answer.

    Args:
        head: Its `id` and `model`.
        pieces: Of the only choice.
    """
    calls = [piece for piece in pieces if isinstance(piece, dict)]
    message = {"role": "assistant", "content": text_of(pieces), "tool_calls": calls or None}
    finish = "tool_calls" if calls else "stop"
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return _encode(
        {**head, "object": "chat.completion", "created": 1, "choices": choices, "usage": _USAGE}
    )


def event(
    head: Mapping[str, Any], piece: Piece, *, finish: str | None = None, usage: bool = False
) -> bytes:
    """
    An event of a stream.

    Args:
        head: The answer's `id` and `model`.
        piece: The next piece.
        finish: Why the answer ends here.
        usage: Whether it tells the tokens.
    """
    delta = {"content": piece} if isinstance(piece, str) else {"content": "", "tool_calls": [piece]}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
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
