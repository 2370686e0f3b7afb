"""Mistral's dialect: one object, both roles; each method hands over to the file that knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.embeddings import EmbeddingsRequest, EmbeddingsResponse
from loom.core.errors import InvalidRequest, LoomError
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.wire.dialect import Dialect
from loom.wire.encoded import EncodedRequest, ErrorReply, encode_json
from loom.wire.mistral.embeddings import (
    decode_embeddings_request,
    encode_embeddings_request,
    encode_embeddings_response,
)
from loom.wire.mistral.encoder import MistralEncoder, encode_chat_response
from loom.wire.mistral.errors import decode_error_body, decode_error_reply, encode_error_reply
from loom.wire.mistral.history import legal_history
from loom.wire.mistral.infill import decode_infill_request
from loom.wire.mistral.reply import MistralDecoder
from loom.wire.mistral.request import decode_chat_request, encode_chat_request
from loom.wire.mistral.shape import no_object, problem
from loom.wire.mistral.strict import (
    FindModel,
    check_embeddings_request,
    check_fim_request,
    check_request,
)
from loom.wire.vectors import read_vectors

__all__ = ["MistralDialect"]

_decode = msgspec.json.Decoder().decode


class MistralDialect(Dialect):
    """
    The format of `api.mistral.ai` as of August 2026.

    Args:
        strict: Server role: whether requests that the real API refuses are refused, in its words.
        find: Server role, with `strict`: looks up a model; None takes every model.
        bare_detail: Server role: whether a 422 goes out without its envelope.
        fragments: Server role: whether streamed tool calls go out in pieces.
    """

    name = "mistral"

    def __init__(
        self,
        *,
        strict: bool = False,
        find: FindModel | None = None,
        bare_detail: bool = False,
        fragments: bool = False,
    ) -> None:
        self._strict = strict
        self._find = find
        self._bare_detail = bare_detail
        self._fragments = fragments

    def encode_request(self, request: ChatRequest) -> EncodedRequest:
        """
        The body for a request, its history made legal.

        Args:
            request: What is asked.

        Returns:
            The body, the repairs, and the tool ids that were mapped.

        Raises:
            InvalidRequest: If the history cannot be made legal, or a value is not JSON.
        """
        history = legal_history(request.messages)
        if history.messages is not request.messages:
            request = msgspec.structs.replace(request, messages=history.messages)
        body = encode_json(encode_chat_request(request))
        return EncodedRequest(body=body, repairs=history.repairs, tool_ids=history.tool_ids)

    def decode_response(self, body: bytes, headers: Mapping[str, str]) -> LLMResponse:
        """A plain answer; raises what `ReplyDecoder.read_whole` raises."""
        return MistralDecoder.read_whole(body, headers)

    def decoder(self, headers: Mapping[str, str], choices: int = 1) -> MistralDecoder:
        """A decoder for one streamed answer of `choices` answers."""
        return MistralDecoder(headers, choices)

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
        """Server role: what a caller asks; raises `InvalidRequest`, as Mistral does if `strict`."""
        value = _object(body)
        if self._strict:
            check_request(value, find=self._find)
        return decode_chat_request(value)

    def decode_infill_request(self, body: bytes) -> ChatRequest:
        """
        Server role: what is to stand in a gap, in the shape of a chat.

        Args:
            body: JSON, UTF-8.

        Returns:
            The prompt as the user's message, the suffix in `extra`.

        Raises:
            InvalidRequest: If it is no such request; the message names the field.
            ModelNotFound: If the model is unknown.
        """
        value = _object(body)
        check_fim_request(value, find=self._find)
        return decode_infill_request(value)

    def decode_embeddings_request(self, body: bytes) -> EmbeddingsRequest:
        """Server role: texts that are to become vectors; raises as `decode_infill_request` does."""
        value = _object(body)
        check_embeddings_request(value, find=self._find)
        return decode_embeddings_request(value)

    def encode_embeddings(self, response: EmbeddingsResponse, request: EmbeddingsRequest) -> bytes:
        """Server role: vectors."""
        return encode_embeddings_response(response, request)

    def encode_response(self, response: LLMResponse) -> bytes:
        """Server role: a plain answer."""
        return encode_chat_response(response)

    def encoder(self, request: ChatRequest, id: str, created: int) -> MistralEncoder:  # noqa: A002 - the wire's name
        """Server role: an encoder for one streamed answer."""
        choices = request.sampling.n or 1
        return MistralEncoder(request.model, id, created, choices, fragments=self._fragments)

    def encode_error(self, error: LoomError) -> ErrorReply:
        """Server role: an error."""
        return encode_error_reply(error, bare_detail=self._bare_detail)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        ctx = {"error": _why(error)}
        found = problem("json_invalid", ("body", 0), "JSON decode error", {}, ctx)
        raise InvalidRequest("the body is not JSON", http_status=422, detail=[found]) from None
    if not isinstance(value, Mapping):
        found = no_object(value, ("body",))
        raise InvalidRequest("the body must be a JSON object", http_status=422, detail=[found])
    return value


def _why(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else "Expecting value"
