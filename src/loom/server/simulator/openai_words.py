"""Errors of the table of faults, which are Mistral's, as OpenAI tells them."""

from __future__ import annotations

import msgspec

from loom.wire.chat_completions.errors import encode_error_reply
from loom.wire.mistral.errors import decode_error_body, decode_error_reply

__all__ = ["as_openai_tells"]


def as_openai_tells(body: bytes, status: int | None = None) -> bytes:
    """
    The same error in OpenAI's form, with its type and code.

    Args:
        body: As Mistral writes it.
        status: The HTTP status; None for an event inside a stream.

    Returns:
        JSON, UTF-8.
    """
    if status is None:
        error = decode_error_body(msgspec.json.decode(body))
    else:
        error = decode_error_reply(status, {}, body)
    # Numbers are Mistral's.
    error.vendor_code = None
    return encode_error_reply(error).body
