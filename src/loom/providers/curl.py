"""A request as a shell command that anyone may see: no key, no text of a conversation."""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from loom.core.secret import Secret
from loom.transport.contract import HttpRequest

__all__ = ["redacted_curl"]

# A body beyond this is named and not shown: its command would fit into no terminal.
_LONGEST_BODY = 256 * 1024

_LONGEST_WORD = 64

# What stands behind these is a word of the API and nobody's text.
_PLAIN_FIELDS = frozenset(
    {
        "finish_reason",
        "format",
        "model",
        "object",
        "prompt_mode",
        "reasoning_effort",
        "role",
        "service_tier",
        "tool_choice",
        "type",
    }
)


def redacted_curl(request: HttpRequest) -> str:
    """
    A command that repeats a request.

    Every text is replaced by its length, so that shape and size are those of the real one.

    Args:
        request: What was sent.

    Returns:
        A `curl` command of several lines; the key stands in it as `$MISTRAL_API_KEY`.
    """
    parts = [f"curl -sS -X {request.method} {shlex.quote(request.url)}"]
    for name, value in request.headers.items():
        if isinstance(value, Secret):
            parts.append(f'-H "{name}: Bearer $MISTRAL_API_KEY"')
        elif name in ("content-type", "accept"):
            parts.append(f"-H {shlex.quote(f'{name}: {value}')}")
        else:
            parts.append(f"-H {shlex.quote(f'{name}: ...')}")
    parts.append(f"--data {shlex.quote(_redacted_body(request.body))}")
    return " \\\n  ".join(parts)


def _redacted_body(body: bytes) -> str:
    if len(body) > _LONGEST_BODY:
        return f"({len(body)} bytes)"
    try:
        return msgspec.json.encode(_redacted(msgspec.json.decode(body))).decode()
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return f"({len(body)} bytes)"


def _redacted(value: Any, field: str = "") -> Any:
    match value:
        case str():
            plain = field in _PLAIN_FIELDS and len(value) <= _LONGEST_WORD and value.isascii()
            return value if plain and " " not in value else f"({len(value)} characters)"
        case dict():
            return {name: _redacted(inner, name) for name, inner in value.items()}
        case list():
            return [_redacted(inner, field) for inner in value]
        case _:
            return value
