"""What OpenAI refuses of a request, as an error that `errors.py` writes to the letter."""

from __future__ import annotations

from loom.core.errors import InvalidRequest

__all__ = ["MOST_ID_CHARACTERS", "refused"]

MOST_ID_CHARACTERS = 40
"""OpenAI refuses a longer id of a tool call; any other goes out as it is."""


def refused(message: str, param: str | None = None, code: str | None = None) -> InvalidRequest:
    """
    Server role: what OpenAI refuses with 400, in its words.

    Args:
        message: The sentence.
        param: The field that it is about.
        code: OpenAI's code, for example "invalid_type".
    """
    return InvalidRequest(
        message,
        http_status=400,
        vendor_type="invalid_request_error",
        vendor_code=code,
        detail=[{"param": param}],
    )
