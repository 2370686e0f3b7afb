"""Embeddings as Mistral writes them in JSON, both roles (contract: section 8)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from loom.core.embeddings import EmbeddingDtype, EmbeddingsRequest, EmbeddingsResponse
from loom.core.response import Usage
from loom.wire.vectors import pack_floats

__all__ = [
    "VectorSize",
    "decode_embeddings_request",
    "encode_embeddings_request",
    "encode_embeddings_response",
    "vector_size",
]

_encode = msgspec.json.Encoder().encode

_BYTE = 255
_HALF = 128


class VectorSize(msgspec.Struct, frozen=True):
    """
    How many numbers a model's vectors have.

    Attributes:
        usual: When the request does not say.
        most: The largest that may be asked for; None when it cannot be chosen.
    """

    usual: int
    most: int | None = None


# Recorded: 1,024 for mistral-embed, 64 on wish for codestral-embed. The rest: documentation of
# the vendor, "Code embeddings".
_SIZES = {"mistral-embed": VectorSize(1024), "codestral-embed": VectorSize(1536, 3072)}


def vector_size(model: str) -> VectorSize:
    """
    The size of a model's vectors.

    Args:
        model: Its id or alias.

    Returns:
        The size; that of `mistral-embed` for a model that is not known.
    """
    fitting = (size for name, size in _SIZES.items() if model.startswith(name))
    return next(fitting, _SIZES["mistral-embed"])


def encode_embeddings_request(request: EmbeddingsRequest) -> dict[str, Any]:
    """
    A request for embeddings as JSON values; only what is set.

    Args:
        request: What is asked.

    Returns:
        The body.
    """
    body: dict[str, Any] = {"model": request.model, "input": request.texts}
    if request.dimension is not None:
        body["output_dimension"] = request.dimension
    if request.dtype != "float":
        body["output_dtype"] = request.dtype
    if request.as_base64:
        body["encoding_format"] = "base64"
    body.update(request.extra)
    return body


def decode_embeddings_request(body: Mapping[str, Any]) -> EmbeddingsRequest:
    """
    A request for embeddings from JSON values.

    Args:
        body: One that `check_embeddings_request` let through.

    Returns:
        The request; one text is a list of one, and what was not said is not made up.
    """
    texts = body["input"]
    return EmbeddingsRequest(
        model=body["model"],
        texts=(texts,) if isinstance(texts, str) else tuple(texts),
        dimension=body.get("output_dimension"),
        dtype=body.get("output_dtype", "float"),
        as_base64=body.get("encoding_format") == "base64",
    )


def encode_embeddings_response(response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
    """
    An answer, keys in the recorded order.

    Args:
        response: The vectors.
        request: Says how they are written.

    Returns:
        JSON, UTF-8.
    """
    rows = [
        {"object": "embedding", "embedding": _written(vector, request), "index": place}
        for place, vector in enumerate(response.vectors)
    ]
    return _encode(
        {
            "id": response.id,
            "object": "list",
            "data": rows,
            "model": response.model,
            "usage": _usage(response.usage),
        }
    )


def _usage(usage: Usage) -> dict[str, int | None]:
    # Recorded in August 2026: everything but the three counts is null.
    return {
        "prompt_audio_seconds": None,
        "prompt_tokens": usage.input_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.output_tokens,
        "request_count": None,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
        "service_tier": None,
        "prompt_token_details": None,
    }


def _written(vector: Sequence[float], request: EmbeddingsRequest) -> str | Sequence[float]:
    if request.dtype == "float":
        return pack_floats(vector) if request.as_base64 else list(vector)
    numbers = _quantized(vector, request.dtype)
    if not request.as_base64:
        return numbers
    return base64.b64encode(bytes(number & _BYTE for number in numbers)).decode("ascii")


def _quantized(vector: Sequence[float], dtype: EmbeddingDtype) -> list[int]:
    if dtype in ("int8", "uint8"):
        shift = _HALF if dtype == "uint8" else 0
        scaled = (round(number * _HALF) for number in vector)
        return [min(_HALF - 1, max(-_HALF, number)) + shift for number in scaled]
    bits = [number > 0 for number in vector]
    packed = [
        sum(bit << (7 - place) for place, bit in enumerate(bits[start : start + 8]))
        for start in range(0, len(bits), 8)
    ]
    return packed if dtype == "ubinary" else [number - _HALF for number in packed]
