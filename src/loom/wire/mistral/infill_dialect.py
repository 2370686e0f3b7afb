"""Mistral's dialect where it fills in the middle: another body, and a chat's answers."""

from __future__ import annotations

from loom.core.request import ChatRequest
from loom.wire.encoded import EncodedRequest, encode_json
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.mistral.infill import encode_infill_request

__all__ = ["InfillDialect"]


class InfillDialect(MistralDialect):
    """
    The format of `/v1/fim/completions`; answers, streams and errors are those of a chat.

    Server role: `decode_request` takes its bodies, and arguments are those of `MistralDialect`.
    """

    name = "mistral-fim"

    def encode_request(self, request: ChatRequest) -> EncodedRequest:
        """
        The body for a request.

        Args:
            request: One of kind "fim".

        Returns:
            The body; nothing is repaired.

        Raises:
            InvalidRequest: If it is none, or a value is not JSON.
        """
        return EncodedRequest(body=encode_json(encode_infill_request(request)))

    def decode_request(self, body: bytes) -> ChatRequest:
        """Server role: what is to stand in a gap, and nothing else; see `decode_infill_request`."""
        return self.decode_infill_request(body)
