"""
Vectors from a vendor: the request loop of chats with another body, and a door to it.

    LayeredEmbeddings(Accounting(Costing(Retrying(Breaking(Limiting(WiredEmbeddings))))))

In between everything has the shape of a chat (`core/embeddings.py`), so the layers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from loom.core.embeddings import (
    EmbeddingsProvider,
    EmbeddingsRequest,
    EmbeddingsResponse,
    as_chat,
    as_chat_response,
    from_chat,
    from_chat_response,
)
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.providers.wired import WiredProvider
from loom.wire.encoded import EncodedRequest

__all__ = ["LayeredEmbeddings", "WiredEmbeddings"]


class WiredEmbeddings(WiredProvider):
    """
    Asks a vendor for vectors, over a transport, in its dialect; takes requests of that kind alone.

    Arguments are those of `WiredProvider`; the endpoint's address is that of embeddings.
    """

    def _encode(self, request: ChatRequest) -> EncodedRequest:
        return self._dialect.encode_embeddings_request(from_chat(request))

    def _decode(self, body: bytes, headers: Mapping[str, str], request: ChatRequest) -> LLMResponse:
        asked = from_chat(request)
        return as_chat_response(self._dialect.decode_embeddings_response(body, headers, asked))


class LayeredEmbeddings(EmbeddingsProvider):
    """
    Turns texts into vectors by whoever serves requests of that kind, with all its layers.

    Args:
        provider: Who answers; it is not closed with this.
    """

    def __init__(self, provider: LLMProvider) -> None:
        self._provider = provider

    async def embed(self, request: EmbeddingsRequest) -> EmbeddingsResponse:
        """
        Ask, and wait for the vectors.

        Args:
            request: What is asked.

        Returns:
            A vector for each text, with cost, attempts and timeline.

        Raises:
            LoomError: Whatever the provider raises.
        """
        return from_chat_response(await self._provider.chat(as_chat(request)))
