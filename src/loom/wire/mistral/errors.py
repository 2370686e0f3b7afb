"""
Mistral's error bodies to the error tree, and back (contract: section 6).

Bodies are read in `wire/error_bodies.py`; which class Mistral's codes mean is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import (
    CapacityExceeded,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    LoomError,
    ModelNotFound,
    RateLimited,
)
from loom.wire.encoded import ErrorReply
from loom.wire.error_bodies import (
    ErrorFacts,
    class_of_status,
    error_of,
    facts_of_body,
    facts_of_json,
    says_too_long,
)

__all__ = ["decode_error_body", "decode_error_reply", "encode_error_reply"]

_BLOCKED = re.compile(r"guardrail|moderation|content[ _]filter|content[ _]policy", re.IGNORECASE)


def decode_error_reply(status: int, headers: Mapping[str, str], body: bytes) -> LoomError:
    """
    The error that a reply means; it is returned, not raised.

    Args:
        status: The HTTP status.
        headers: Names in lower case.
        body: As it came.

    Returns:
        The most precise class, with the vendor's code, type, waits and request id.
    """
    return _error(status, facts_of_body(body, status), headers)


def decode_error_body(value: Mapping[str, Any]) -> LoomError:
    """
    The error of a body that came inside a stream that began with status 200.

    Args:
        value: The event's JSON values.

    Returns:
        The class that the same body would have with its HTTP status.
    """
    facts = facts_of_json(value)
    status = facts.status or _STATUS_OF_TYPE.get(facts.type or "", 500)
    return _error(status, facts, {})


_STATUS_OF_TYPE = {
    "invalid_model": 400,
    "invalid_request_error": 400,
    "invalid_request_invalid_args": 400,
    "invalid_request_message_order": 400,
    "invalid_request_prompt_too_long": 400,
    "rate_limited": 429,
    "rate_limit_error": 429,
    "service_tier_capacity_exceeded": 429,
    "internal_server_error": 500,
    "server_error": 500,
}


def _error(status: int, facts: ErrorFacts, headers: Mapping[str, str]) -> LoomError:
    kind = _class_of(status, facts)
    error = error_of(kind, facts, status, headers, vendor="Mistral")
    limits = error.rate_limit
    if kind is RateLimited and limits is not None and limits.limit_requests_minute == 0:
        error.retryable = False
        error.hint = "The model is not in your plan (its limit is 0 requests a minute): choose"
        error.hint += " another model or another plan; waiting does not help."
    if kind is InvalidRequest and "temperature" in facts.message:
        error.hint = "temperature: the API takes 0.0 to 1.5 (this client lets up to 2.0 pass)."
    if status == 404 and facts.message == "Not Found":
        error.hint = "The path is unknown there: check base_url. " + error.hint
    return error


def _class_of(status: int, facts: ErrorFacts) -> type[LoomError]:
    text = facts.message
    if facts.code == "1500" or facts.type == "invalid_model":
        return ModelNotFound
    # Fault matrix, row 36b.
    if status in (400, 413, 422) and (
        facts.code in ("3059", "5059")
        or facts.type == "invalid_request_prompt_too_long"
        or says_too_long(text)
    ):
        return ContextTooLong
    # Fault matrix, row 34.
    if status == 429 and (
        facts.code == "3505"
        or facts.type == "service_tier_capacity_exceeded"
        or "capacity exceeded" in text.lower()
    ):
        return CapacityExceeded
    if status in (400, 403, 422) and _BLOCKED.search(f"{facts.type} {text}"):
        return ContentBlocked
    return class_of_status(status)


# How the server role names an error that no vendor gave a type (contract: section 6).
_TYPES: dict[str, tuple[str, str | None]] = {
    "model_not_found": ("invalid_model", "1500"),
    "context_length_exceeded": ("invalid_request_prompt_too_long", "3059"),
    "rate_limit_exceeded": ("rate_limited", "1300"),
    "capacity_exceeded": ("service_tier_capacity_exceeded", "3505"),
    "service_unavailable": ("internal_server_error", "1000"),
}


def encode_error_reply(error: LoomError, *, bare_detail: bool = False) -> ErrorReply:
    """
    Server role: an error as Mistral answers it.

    Args:
        error: Any; its message's prefix `Mistral API error (...)` is taken off. What is in its
            `detail` goes out as it is, as the list of a 422.
        bare_detail: Whether that list goes out as `{"detail": [...]}`, without the envelope.
            Both shapes were seen in one month of 2026 (contract: section 6).

    Returns:
        Status, headers and body: `{"detail": ...}` for 401 and 404, else the envelope.
    """
    status = error.http_status
    message: Any = error.message.removeprefix(f"Mistral API error ({status}): ")
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    if error.detail is not None:
        message = {"detail": _shallow(error.detail)}
    if status == 401 or (status == 404 and message == "Not Found"):
        return ErrorReply(
            status=status, headers=headers, body=msgspec.json.encode({"detail": message})
        )
    if error.detail is not None and bare_detail:
        return ErrorReply(status=status, headers=headers, body=msgspec.json.encode(message))
    kind, code = _TYPES.get(error.code, ("invalid_request_error", None))
    envelope = {
        "object": "error",
        "message": message,
        "type": error.vendor_type or kind,
        "param": None,
        "code": error.vendor_code or code,
        "raw_status_code": status,
    }
    return ErrorReply(status=status, headers=headers, body=msgspec.json.encode(envelope))


def _shallow(detail: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The list, without what the caller sent where that is nested too deeply to be written."""
    try:
        msgspec.json.encode([[[[detail]]]])
    except RecursionError:
        return [{**each, "input": None} for each in detail]
    return detail
