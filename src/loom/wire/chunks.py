"""What an answer of the chat-completions family looks like: types of the fast path."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from loom.core.response import Usage

__all__ = ["CallFragment", "Forms"]


class _Delta(Protocol):
    """What every delta has."""

    content: Any
    tool_calls: list[CallFragment] | None


class _WireUsage(Protocol):
    """Usage as a dialect's fast path decodes it."""

    @abstractmethod
    def value(self) -> Usage:
        """The usage that it stands for."""


D = TypeVar("D", bound=_Delta)
U = TypeVar("U", bound=_WireUsage)


class _Function(msgspec.Struct):
    """A function's name and arguments, or a piece of them."""

    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class CallFragment(msgspec.Struct):
    """A tool call, whole or a piece of one."""

    function: _Function
    id: str | None = None
    index: int | None = None


class _ChunkChoice(msgspec.Struct, Generic[D]):
    """A piece of one answer."""

    delta: D
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, Generic[D, U]):
    """An event of a stream."""

    choices: list[_ChunkChoice[D]] = []
    usage: U | None = None
    id: str = ""
    model: str = ""
    created: int | None = None
    service_tier: str | None = None


class _LaterChunk(msgspec.Struct, Generic[D, U]):
    """An event whose id, model and time are known from the first: nothing else is read."""

    choices: list[_ChunkChoice[D]] = []
    usage: U | None = None


class _WholeChoice(msgspec.Struct, Generic[D]):
    """One answer of a plain body."""

    message: D
    index: int = 0
    finish_reason: str | None = None


class _WholeAnswer(msgspec.Struct, Generic[D, U]):
    """A plain body."""

    choices: list[_WholeChoice[D]]
    usage: U | None = None
    id: str = ""
    model: str = ""
    created: int | None = None
    service_tier: str | None = None


class Forms:
    """
    The decoders of one dialect.

    Attributes:
        chunk_type: An event of a stream.
        whole_type: A plain body.
        later: Decodes an event of which only choices and usage are needed.
        chunk: Decodes an event.
        whole: Decodes a plain body.

    Args:
        delta: What a message, or a piece of one, holds; `content` and `tool_calls` at least.
        usage: How usage is written; its `value()` is ours.
    """

    def __init__(self, delta: Any, usage: Any) -> None:
        self.chunk_type: Any = _Chunk[delta, usage]
        self.whole_type: Any = _WholeAnswer[delta, usage]
        later_type: Any = _LaterChunk[delta, usage]
        self.later = msgspec.json.Decoder(later_type).decode
        self.chunk = msgspec.json.Decoder(self.chunk_type).decode
        self.whole = msgspec.json.Decoder(self.whole_type).decode
