"""How the door says no: an error in the dialect of whoever called, as far as that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from loom.core.errors import LoomError
from loom.server.gateway.dialects import dialect_of
from loom.wire.encoded import ErrorReply

__all__ = ["MakeReply", "reply_in_dialect"]

MakeReply: TypeAlias = Callable[[LoomError, str, Mapping[bytes, bytes]], ErrorReply]
"""Makes an error's reply for the caller of a path with these headers."""


def reply_in_dialect(error: LoomError, path: str, headers: Mapping[bytes, bytes]) -> ErrorReply:
    """
    An error as its caller reads it.

    Args:
        error: What is wrong.
        path: The URL's path; empty if it was not read.
        headers: Names in lower case; empty if they were not read.

    Returns:
        Status, headers and body.
    """
    # Both are imported when somebody must be refused, or by whoever serves them anyway.
    if dialect_of(path, headers) == "mistral":
        from loom.wire.mistral import errors as mistral  # noqa: PLC0415 - start-up time

        return mistral.encode_error_reply(error)
    from loom.wire.chat_completions import errors as openai  # noqa: PLC0415 - start-up time

    return openai.encode_error_reply(error)
