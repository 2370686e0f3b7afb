"""OpenAI's dialect: one object, both roles; each method hands over to the file that knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.embeddings import EmbeddingsRequest, EmbeddingsResponse
from loom.core.errors import InvalidRequest, LoomError
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.wire.chat_completions.embeddings import (
    decode_embeddings_request,
    encode_embeddings_request,
    encode_embeddings_response,
)
from loom.wire.chat_completions.encoder import ChatCompletionsEncoder, encode_chat_response
from loom.wire.chat_completions.errors import (
    decode_error_body,
    decode_error_reply,
    encode_error_reply,
)
from loom.wire.chat_completions.history import legal_history
from loom.wire.chat_completions.refusals import refused
from loom.wire.chat_completions.reply import ChatCompletionsDecoder
from loom.wire.chat_completions.request import (
    LimitField,
    decode_chat_request,
    encode_chat_request,
    wants_usage,
)
from loom.wire.dialect import Dialect
from loom.wire.encoded import EncodedRequest, ErrorReply, encode_json
from loom.wire.vectors import read_vectors

__all__ = ["ChatCompletionsDialect"]

_decode = msgspec.json.Decoder().decode


class ChatCompletionsDialect(Dialect):
    """
    The format of `api.openai.com/v1/chat/completions`, and of servers that speak like it.

    Args:
        limit_field: Client role: where the answer's longest length is written. OpenAI's newer
            models take "max_completion_tokens" alone; some other servers know only "max_tokens".
    """

    name = "openai"

    def __init__(self, *, limit_field: LimitField = "max_completion_tokens") -> None:
        self._limit_field = limit_field

    def encode_request(self, request: ChatRequest) -> EncodedRequest:
        """
        The body for a request, its history made legal.

        Args:
            request: What is asked.

        Returns:
            The body, the repairs, and the tool ids that were replaced.

        Raises:
            InvalidRequest: If the history cannot be made legal, an option or a part is none of
                OpenAI's, or a value is not JSON.
        """
        history = legal_history(request.messages)
        if history.messages is not request.messages:
            request = msgspec.structs.replace(request, messages=history.messages)
        body = encode_json(encode_chat_request(request, self._limit_field))
        return EncodedRequest(body=body, repairs=history.repairs, tool_ids=history.tool_ids)

    def decode_response(self, body: bytes, headers: Mapping[str, str]) -> LLMResponse:
        """A plain answer; raises what `ReplyDecoder.read_whole` raises."""
        return ChatCompletionsDecoder.read_whole(body, headers)

    def decoder(self, headers: Mapping[str, str], choices: int = 1) -> ChatCompletionsDecoder:
        """A decoder for one streamed answer of `choices` answers."""
        return ChatCompletionsDecoder(headers, choices)

    def decode_error(self, status: int, headers: Mapping[str, str], body: bytes) -> LoomError:
        """The error that a reply means; it is returned, not raised."""
        return decode_error_reply(status, headers, body)

    def encode_embeddings_request(self, request: EmbeddingsRequest) -> EncodedRequest:
        """The body for texts; raises `InvalidRequest` for what cannot be written."""
        return EncodedRequest(body=encode_json(encode_embeddings_request(request)))

    def decode_embeddings_response(
        self, body: bytes, headers: Mapping[str, str], request: EmbeddingsRequest
    ) -> EmbeddingsResponse:
        """Vectors; raises what `vectors.read_vectors` raises."""
        return read_vectors(body, headers, request, decode_error_body)

    def decode_request(self, body: bytes) -> ChatRequest:
        """Server role: what a caller asks; raises `InvalidRequest` in OpenAI's words."""
        return decode_chat_request(_object(body))

    def decode_infill_request(self, body: bytes) -> ChatRequest:
        """Server role: raises `InvalidRequest`, OpenAI has no such request."""
        del body
        raise InvalidRequest("OpenAI has no request to fill in the middle", http_status=404)

    def decode_embeddings_request(self, body: bytes) -> EmbeddingsRequest:
        """Server role: texts that are to become vectors; raises as `decode_request` does."""
        return decode_embeddings_request(_object(body))

    def encode_embeddings(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Server role: vectors."""
        return encode_embeddings_response(response, request)

    def encode_response(self, response: LLMResponse) -> bytes:
        """Server role: a plain answer."""
        return encode_chat_response(response)

    def encoder(self, request: ChatRequest, id: str, created: int) -> ChatCompletionsEncoder:  # noqa: A002 - the wire's name
        """Server role: an encoder for one streamed answer."""
        choices = request.sampling.n or 1
        usage = wants_usage(request)
        return ChatCompletionsEncoder(request.model, id, created, choices, usage=usage)

    def encode_error(self, error: LoomError) -> ErrorReply:
        """Server role: an error."""
        return encode_error_reply(error)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        said = "We could not parse the JSON body of your request. The OpenAI API expects a JSON"
        raise refused(f"{said} payload.") from None
    if not isinstance(value, Mapping):
        raise refused("the body must be a JSON object")
    return value
