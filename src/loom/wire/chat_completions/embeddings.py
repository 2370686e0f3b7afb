"""
Embeddings as OpenAI writes them in JSON, both roles.

Source: openai 3.57 `types/embedding_create_params.py` and `create_embedding_response.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.core.embeddings import EmbeddingsRequest, EmbeddingsResponse
from loom.core.errors import InvalidRequest
from loom.wire.chat_completions.refusals import refused
from loom.wire.vectors import pack_floats

__all__ = [
    "EMBEDDING_MODELS",
    "decode_embeddings_request",
    "embedding_size",
    "encode_embeddings_request",
    "encode_embeddings_response",
]

_encode = msgspec.json.Encoder().encode

# OpenAI, "Vector embeddings" (read 2026-11).
_SIZES = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
EMBEDDING_MODELS = frozenset(_SIZES)
"""OpenAI's models that make vectors."""

_USUAL = 1536
_FIELDS = frozenset({"input", "model", "dimensions", "encoding_format", "user"})
# "any array must be 2048 dimensions or less".
_MOST_INPUTS = 2048


def embedding_size(model: str) -> int:
    """
    How many numbers a model's vectors have.

    Args:
        model: Its id.

    Returns:
        1536 for a model that is not known.
    """
    return _SIZES.get(model, _USUAL)


def encode_embeddings_request(request: EmbeddingsRequest) -> dict[str, Any]:
    """
    A request for embeddings as JSON values; only what is set.

    Args:
        request: What is asked.

    Returns:
        The body.

    Raises:
        InvalidRequest: If numbers are wanted in a form that OpenAI does not write.
    """
    if request.dtype != "float":
        raise InvalidRequest(f"OpenAI writes vectors as floats, not as {request.dtype!r}")
    body: dict[str, Any] = {"model": request.model, "input": request.texts}
    if request.dimension is not None:
        body["dimensions"] = request.dimension
    if request.as_base64:
        body["encoding_format"] = "base64"
    body.update(request.extra)
    return body


def decode_embeddings_request(body: Mapping[str, Any]) -> EmbeddingsRequest:
    """
    A request for embeddings from JSON values.

    Args:
        body: The decoded body.

    Returns:
        The request; one text is a list of one, and what was not said is not made up.

    Raises:
        InvalidRequest: With status 400; also for texts that were cut into tokens before: their
            words cannot be known here.
    """
    given = {name: value for name, value in body.items() if value is not None}
    if unknown := sorted(set(given) - _FIELDS):
        raise refused(f"Unrecognized request argument supplied: {unknown[0]}")
    model, form = given.get("model"), given.get("encoding_format", "float")
    if not isinstance(model, str):
        raise refused("you must provide a model parameter")
    if form not in ("float", "base64"):
        said = f"Invalid value: '{form}'. Supported values are: 'float' and 'base64'."
        raise refused(said, "encoding_format", "invalid_value")
    size = given.get("dimensions")
    if size is not None and (type(size) is not int or size < 1):
        said = f"Invalid value for 'dimensions' = {size}. Must be greater than 0."
        raise refused(said, "dimensions")
    return EmbeddingsRequest(
        model=model, texts=_texts(given.get("input")), dimension=size, as_base64=form == "base64"
    )


def _texts(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts or len(texts) > _MOST_INPUTS:
        raise refused("'$.input' is invalid. Please check the API reference.", "input")
    if not all(isinstance(text, str) for text in texts):
        raise refused("'input' must be texts; lists of tokens are not taken here", "input")
    if not all(texts):
        raise refused("'input' cannot be an empty string.", "input")
    return tuple(texts)


def encode_embeddings_response(response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
    """
    An answer.

    Args:
        response: The vectors.
        request: Says how they are written.

    Returns:
        JSON, UTF-8.
    """
    rows = [
        {"object": "embedding", "index": place, "embedding": _written(vector, request)}
        for place, vector in enumerate(response.vectors)
    ]
    usage = {
        "prompt_tokens": response.usage.input_tokens,
        "total_tokens": response.usage.total_tokens,
    }
    return _encode({"object": "list", "data": rows, "model": response.model, "usage": usage})


def _written(vector: Sequence[float], request: EmbeddingsRequest) -> str | Sequence[float]:
    return pack_floats(vector) if request.as_base64 else list(vector)
