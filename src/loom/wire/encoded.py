"""What a dialect makes for the wire: a request's body, an error's reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import InvalidRequest

__all__ = ["EncodedRequest", "ErrorReply", "encode_json"]

_encode = msgspec.json.Encoder().encode


class EncodedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """
    A request as it is sent.

    Attributes:
        body: JSON, UTF-8.
        repairs: What was changed in the history to make it legal, one sentence each.
        tool_ids: Ids on the wire, and the caller's ids that they stand for.
    """

    body: bytes
    repairs: tuple[str, ...] = ()
    tool_ids: Mapping[str, str] = {}

    def __repr__(self) -> str:
        """Sizes; never what is sent."""
        return f"EncodedRequest(body={len(self.body)} bytes, repairs={len(self.repairs)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [("body", f"{len(self.body)} bytes"), ("repairs", len(self.repairs))]


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    """An error as a server answers it."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


def encode_json(body: dict[str, Any]) -> bytes:
    """
    A request's body as bytes.

    Args:
        body: JSON values.

    Returns:
        JSON, UTF-8.

    Raises:
        InvalidRequest: If a value is not JSON.
    """
    try:
        return _encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"the request cannot be written as JSON: {type(error).__name__};"
            " metadata, tools, schemas and extra fields must be plain JSON values,"
            " and text must not hold lone surrogates"
        ) from None
