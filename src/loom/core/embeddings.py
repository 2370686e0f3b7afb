"""Texts as vectors: what is asked, what comes back, and who answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from loom.core.response import Usage

__all__ = ["EmbeddingDtype", "EmbeddingsProvider", "EmbeddingsRequest", "EmbeddingsResponse"]

EmbeddingDtype: TypeAlias = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""How a number of a vector is written; the binary kinds put eight of them into one byte."""


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    Texts to be turned into vectors.

    Attributes:
        model: The model's id or alias.
        texts: One vector for each.
        dimension: Numbers of a vector; None for the model's own.
        dtype: How the numbers are written.
        as_base64: Whether the wire carries a vector as base64 of its bytes.
    """

    model: str
    texts: tuple[str, ...]
    dimension: int | None = None
    dtype: EmbeddingDtype = "float"
    as_base64: bool = False


class EmbeddingsResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    The vectors.

    Attributes:
        vectors: In the order of the texts; of length 1 each.
        model: As the caller named it.
        id: The answer's id, 32 hex digits.
        usage: What it cost.
    """

    vectors: Sequence[Sequence[float]]
    model: str
    id: str
    usage: Usage


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
