"""
Vectors on the wire, and the reply that brings them: Mistral and OpenAI write both alike.

Source: contract/mistral.md section 8 and the recorded exchanges; openai 3.57
`types/create_embedding_response.py`.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from loom.core.embeddings import EmbeddingDtype, EmbeddingsRequest, EmbeddingsResponse
from loom.core.errors import LoomError, MalformedReply
from loom.core.response import Usage
from loom.wire.counts import count
from loom.wire.headers import rate_limit_state, request_id

__all__ = ["pack_floats", "read_vectors"]

_FLOAT_BYTES = 4
_SIGNED = frozenset({"int8", "binary"})


class _Row(msgspec.Struct):
    embedding: list[float] | str
    index: int | None = None


class _WholeRow(_Row):
    embedding: list[int] | str  # type: ignore[assignment]  # whole numbers, as they came


class _Reply(msgspec.Struct):
    data: list[_Row]
    model: str = ""
    id: str = ""
    usage: Any = None


class _WholeReply(_Reply):
    data: list[_WholeRow]  # type: ignore[assignment]  # whole numbers, as they came


_read = msgspec.json.Decoder(_Reply).decode
_read_whole = msgspec.json.Decoder(_WholeReply).decode


def read_vectors(
    body: bytes,
    headers: Mapping[str, str],
    request: EmbeddingsRequest,
    read_error: Callable[[Mapping[str, Any]], LoomError],
) -> EmbeddingsResponse:
    """
    Vectors from a reply.

    A vector is read as it comes, as a list or as base64, whatever was asked for: not every server
    knows `encoding_format`.

    Args:
        body: The reply's body.
        headers: Names in lower case.
        request: What was asked.
        read_error: Reads an error's body.

    Returns:
        A vector for each text; `usage.estimated` is True when the vendor reported no tokens.

    Raises:
        MalformedReply: If it is no such reply, or holds not one vector for each text.
        LoomError: If it is an error body in spite of status 200.
    """
    try:
        reply = _read(body) if request.dtype == "float" else _read_whole(body)
        vectors = [_vector(row.embedding, request.dtype) for row in _ordered(reply.data)]
    except (msgspec.DecodeError, RecursionError, UnicodeError, binascii.Error, struct.error) as why:
        raise _told(_problem(body, why, read_error), headers) from None
    if len(vectors) != len(request.texts):
        said = f"the reply holds {len(vectors)} vectors for {len(request.texts)} texts"
        raise _told(MalformedReply(said), headers)
    return EmbeddingsResponse(
        vectors=vectors,
        model=reply.model,
        id=reply.id,
        usage=_usage(reply.usage),
        request_id=request_id(headers),
        rate_limit=rate_limit_state(headers),
        raw_body=body,
    )


def pack_floats(vector: Sequence[float]) -> str:
    """
    A vector as base64: little-endian floats of four bytes.

    Args:
        vector: Its numbers.

    Returns:
        The text, as OpenAI's SDK unpacks it.
    """
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")


def _ordered(rows: Sequence[_Row]) -> Sequence[_Row]:
    # In all recordings they come in order, and nobody promises it.
    places = [place if row.index is None else row.index for place, row in enumerate(rows)]
    if places == list(range(len(rows))):
        return rows
    if sorted(places) != list(range(len(rows))):
        raise msgspec.ValidationError("the indexes are not those of the texts")
    return [row for _, row in sorted(zip(places, rows, strict=True), key=lambda pair: pair[0])]


def _vector(found: Sequence[float] | str, dtype: EmbeddingDtype) -> Sequence[float]:
    vector = _unpacked(found, dtype) if isinstance(found, str) else found
    if not vector:
        raise msgspec.ValidationError("a vector is empty")
    return vector


def _unpacked(text: str, dtype: EmbeddingDtype) -> Sequence[float]:
    # As `pack_floats` writes floats; else a byte for a number.
    data = base64.b64decode(text, validate=True)
    if dtype == "float":
        return struct.unpack(f"<{len(data) // _FLOAT_BYTES}f", data)
    return struct.unpack(f"{len(data)}{'b' if dtype in _SIGNED else 'B'}", data)


def _usage(value: Any) -> Usage:
    """Tokens; estimated where there is no count."""
    if isinstance(value, Mapping):
        tokens, total = count(value.get("prompt_tokens")), count(value.get("total_tokens"))
        if tokens is not None:
            return Usage(input_tokens=tokens, total_tokens=tokens if total is None else total)
    return Usage(estimated=True)


def _problem(
    body: bytes, why: Exception, read_error: Callable[[Mapping[str, Any]], LoomError]
) -> LoomError:
    """What is wrong with a reply that holds no vectors; it may be an error's (matrix, row 32)."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        value = None
    if isinstance(value, dict) and "data" not in value:
        is_error = str(value.get("object")).lower() == "error"
        if is_error or value.keys() & {"error", "detail", "message"}:
            return read_error(value)
    # What the decoder says names fields and types, and no value.
    return MalformedReply(f"the reply holds no vectors that can be read: {why}")


def _told(error: LoomError, headers: Mapping[str, str]) -> LoomError:
    error.request_id = request_id(headers)
    error.rate_limit = rate_limit_state(headers)
    return error
