"""
Texts as vectors: what is asked, what comes back, and who answers.

On its way to a vendor a request for vectors has the shape of a chat (`as_chat`): each text is a
message, and the answer's vectors are its `parsed`. So every layer serves it: retries, breaker,
limits, prices, ledger, traces.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from loom.core.errors import MalformedReply
from loom.core.messages import Message
from loom.core.request import Attribution, ChatRequest, Timeouts
from loom.core.response import LLMResponse, RateLimitState, Usage
from loom.core.timeline import Timeline

__all__ = [
    "EmbeddingDtype",
    "EmbeddingsProvider",
    "EmbeddingsRequest",
    "EmbeddingsResponse",
    "as_chat",
    "as_chat_response",
    "from_chat",
    "from_chat_response",
]

EmbeddingDtype: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""How a number of a vector is written; the binary kinds put eight of them into one byte."""


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    Texts to be turned into vectors.

    Its `repr` shows sizes and no text.

    Attributes:
        model: The model's id or alias.
        texts: One vector for each.
        dimension: Numbers of a vector; None for the model's own.
        dtype: How the numbers are written.
        as_base64: Whether the wire carries a vector as base64 of its bytes.
        timeouts: Limits by phase.
        attribution: For whom the call is made.
        deadline_s: When the call must be over, in seconds of the clock's monotonic time; None:
            it has not begun.
        extra: Further body fields, sent as they are.
    """

    model: str
    texts: tuple[str, ...]
    dimension: int | None = None
    dtype: EmbeddingDtype = "float"
    as_base64: bool = False
    timeouts: Timeouts = Timeouts()
    attribution: Attribution = Attribution()
    deadline_s: float | None = None
    extra: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        """Model and sizes; never what is asked."""
        return f"EmbeddingsRequest(model={self.model!r}, texts={len(self.texts)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [("model", self.model), ("texts", len(self.texts))]


class EmbeddingsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    The vectors.

    Its `repr` shows sizes: a vector is long, and says much of its text.

    Attributes:
        vectors: In the order of the texts.
        model: The model that the response names.
        id: The answer's id; empty where the vendor gives none.
        usage: Tokens and money.
        request_id: The vendor's id of the request, for a support ticket.
        rate_limit: What the headers said of the limits.
        attempts: Requests that were sent for this answer, from 1.
        latency_s: Seconds from the call to the end of the answer, with every attempt and wait.
        timeline: Each attempt with its times, status and charge; None if nobody kept one.
        metadata: `{"provider": ...}` and what layers add.
        raw_body: The vendor's body as it came; None if not kept.
    """

    vectors: Sequence[Sequence[float]]
    model: str
    id: str
    usage: Usage
    request_id: str | None = None
    rate_limit: RateLimitState = RateLimitState()
    attempts: int = 1
    latency_s: float = 0.0
    timeline: Timeline | None = None
    metadata: Mapping[str, Any] = {}
    raw_body: bytes | None = None

    def __repr__(self) -> str:
        """Model, sizes and usage; never the numbers."""
        size = len(self.vectors[0]) if self.vectors else 0
        return (
            f"EmbeddingsResponse(model={self.model!r}, vectors={len(self.vectors)} of {size},"
            f" usage={self.usage!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [("model", self.model), ("vectors", len(self.vectors)), ("usage", self.usage)]


class EmbeddingsProvider(Protocol):
    """Something that turns texts into vectors."""

    @abstractmethod
    async def embed(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """
        Answer in one piece.

        Args:
            request: What is asked.

        Returns:
            A vector for each text.

        Raises:
            LoomError: Any kind of the tree in `core/errors.py`.
        """


# What stands in both forms under one name.
_REQUEST = ("timeouts", "attribution", "deadline_s")
_RESPONSE = (
    "usage", "model", "id", "request_id", "rate_limit", "attempts", "latency_s", "timeline",
    "metadata", "raw_body",
)  # fmt: skip
# What is as usual is left out: layers weigh `extra`, which the model reads in a chat.
_WISHES: dict[str, Any] = {"dimension": None, "dtype": "float", "as_base64": False}
_FIELDS = "fields"


def as_chat(request: EmbeddingsRequest) -> ChatRequest:
    """
    A request for vectors in the shape of a chat.

    Args:
        request: What is asked.

    Returns:
        Its texts as messages; in `extra` what is not as usual.
    """
    extra = {
        name: value for name, usual in _WISHES.items() if (value := getattr(request, name)) != usual
    }
    if request.extra:
        extra[_FIELDS] = request.extra
    return ChatRequest(
        model=request.model,
        messages=tuple([Message(role="user", content=text) for text in request.texts]),
        kind="embeddings",
        extra=extra,
        **{name: getattr(request, name) for name in _REQUEST},
    )


def from_chat(request: ChatRequest) -> EmbeddingsRequest:
    """
    Undo `as_chat`.

    Args:
        request: A request of kind "embeddings".

    Returns:
        What is asked.
    """
    wishes = {name: request.extra.get(name, usual) for name, usual in _WISHES.items()}
    return EmbeddingsRequest(
        model=request.model,
        texts=tuple([message.text for message in request.messages]),
        extra=request.extra.get(_FIELDS, {}),
        **wishes,
        **{name: getattr(request, name) for name in _REQUEST},
    )


def as_chat_response(response: EmbeddingsResponse) -> LLMResponse:
    """
    Vectors in the shape of a chat's answer.

    Args:
        response: The vectors.

    Returns:
        An answer without choices; its `parsed` are the vectors.
    """
    told = {name: getattr(response, name) for name in _RESPONSE}
    return LLMResponse(choices=(), parsed=response, **told)


def from_chat_response(response: LLMResponse) -> EmbeddingsResponse:
    """
    Undo `as_chat_response`, with what layers added.

    Args:
        response: The answer to a request of kind "embeddings".

    Returns:
        The vectors.

    Raises:
        MalformedReply: If it holds none.
    """
    vectors = response.parsed
    if not isinstance(vectors, EmbeddingsResponse):
        raise MalformedReply("the answer to a request for vectors holds none")
    told = {name: getattr(response, name) for name in _RESPONSE}
    return msgspec.structs.replace(vectors, **told)
