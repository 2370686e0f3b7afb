"""
Mistral's error bodies to the error tree, and back (contract: section 6).

Every shape that was ever recorded or quoted comes through here: the envelope, bare `detail`,
Kong's `message`, the conversations flavour, 2024's JSON inside a string, HTML pages, nothing.
What the vendor echoes of the request (`input`) is never taken over: it may hold a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import (
    CapacityExceeded,
    Conflict,
    ContentBlocked,
    ContextTooLong,
    InsufficientCredits,
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    MalformedReply,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    ServiceUnavailable,
    TimedOut,
    UnexpectedRedirect,
)
from loom.wire.encoded import ErrorReply
from loom.wire.headers import rate_limit_state, refuses_retry, request_id, retry_after_s

__all__ = ["decode_error_body", "decode_error_reply", "encode_error_reply"]

# What is kept of a vendor's message. Source: reliability rule S10 of the project.
_MAX_MESSAGE_CHARACTERS = 2048

# Fault matrix, rows 35 to 40.
_BY_STATUS: dict[int, type[LoomError]] = {
    401: InvalidAPIKey,
    402: InsufficientCredits,
    403: PermissionDenied,
    404: ModelNotFound,
    408: TimedOut,
    409: Conflict,
    413: RequestTooLarge,
    425: Conflict,
    429: RateLimited,
}

_OVERFLOW = re.compile(
    r"Prompt contains (?P<a>\d+) tokens.*model with (?P<b>\d+) maximum context"
    r"|Prompt (?P<c>\d+) > (?P<d>\d+) maximum context"
    r"|maximum context length is (?P<f>\d+) tokens.*requested (?P<e>\d+) tokens",
    re.DOTALL,
)
_TITLE = re.compile(r"<title>(.{1,200}?)</title>", re.IGNORECASE | re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_BLOCKED = re.compile(r"guardrail|moderation|content[ _]filter|content[ _]policy", re.IGNORECASE)


class _Facts(msgspec.Struct):
    message: str = ""
    code: str | None = None
    type: str | None = None
    status: int | None = None


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
    error = _error(status, _facts_of_body(body, status), headers)
    error.request_id = request_id(headers)
    if refuses_retry(headers):
        error.retryable = False
    return error


def decode_error_body(value: Mapping[str, Any]) -> LoomError:
    """
    The error of a body that came inside a stream that began with status 200.

    Args:
        value: The event's JSON values.

    Returns:
        The class that the same body would have with its HTTP status.
    """
    facts = _facts_of_json(value)
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


def _error(status: int, facts: _Facts, headers: Mapping[str, str]) -> LoomError:
    limits = rate_limit_state(headers)
    kind = _class_of(status, facts)
    error = kind(
        f"Mistral API error ({status}): {facts.message}",
        http_status=status,
        retry_after_s=retry_after_s(headers),
        rate_limit=limits,
        vendor_code=facts.code,
        vendor_type=facts.type,
    )
    if isinstance(error, ContextTooLong) and (sizes := _OVERFLOW.search(facts.message)):
        found = sizes.groupdict()
        error.tokens = int(found["a"] or found["c"] or found["e"])
        error.limit = int(found["b"] or found["d"] or found["f"])
    if kind is RateLimited and limits.limit_requests_minute == 0:
        error.retryable = False
        error.hint = "The model is not in your plan (its limit is 0 requests a minute): choose"
        error.hint += " another model or another plan; waiting does not help."
    if kind is MalformedReply:
        # Fault matrix, row 41: a status that is no answer will be none the next time.
        error.retryable = False
    if kind is InvalidRequest and "temperature" in facts.message:
        error.hint = "temperature: the API takes 0.0 to 1.5 (this client lets up to 2.0 pass)."
    if status == 404 and facts.message == "Not Found":
        error.hint = "The path is unknown there: check base_url. " + error.hint
    return error


def _class_of(status: int, facts: _Facts) -> type[LoomError]:  # noqa: PLR0911 - a table with conditions
    text = facts.message
    if facts.code == "1500" or facts.type == "invalid_model":
        return ModelNotFound
    # Fault matrix, row 36b.
    if status in (400, 413, 422) and (
        facts.code in ("3059", "5059")
        or facts.type == "invalid_request_prompt_too_long"
        or _OVERFLOW.search(text)
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
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 300 <= status < 400:
        return UnexpectedRedirect
    if status >= 500:
        return ServiceUnavailable
    return InvalidRequest if status >= 400 else MalformedReply


def _facts_of_body(body: bytes, status: int) -> _Facts:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return _Facts(message=_text_of_page(body) or _REASONS.get(status, "no explanation given"))
    if isinstance(value, Mapping):
        facts = _facts_of_json(value)
        facts.message = facts.message or _REASONS.get(status, "no explanation given")
        return facts
    return _Facts(message=_clean(str(value)))


# For replies without a body; the words of the reference page where it has them.
_REASONS = {
    401: "Invalid API Key",
    402: "Insufficient credits. Please add credits to your account.",
    429: "Rate limit exceeded.",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service temporarily unavailable",
    504: "Gateway timeout",
}


def _facts_of_json(value: Mapping[str, Any]) -> _Facts:
    inner = value.get("error")
    if isinstance(inner, Mapping):
        return _facts_of_json(inner)
    said = value.get("message") or value.get("detail") or inner or ""
    if isinstance(said, str) and said.startswith("{"):
        said = _unpacked(said)
    status = value.get("raw_status_code")
    code = value.get("code")
    kind = value.get("type")
    return _Facts(
        message=_clean(_text_of(said)),
        code=None if code is None else _clean(str(code))[:64],
        type=_clean(kind)[:64] if isinstance(kind, str) else None,
        status=status if isinstance(status, int) and 400 <= status < 600 else None,
    )


def _unpacked(text: str) -> Any:
    # January 2024: the detail list as JSON inside the message string.
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text


def _text_of(said: Any) -> str:
    if isinstance(said, str):
        return said
    if isinstance(said, Mapping):
        return _text_of(said.get("detail") or said.get("msg") or said.get("message") or "")
    if isinstance(said, list):
        return "; ".join(_text_of_item(item) for item in said[:20])
    return ""


def _text_of_item(item: Any) -> str:
    if not isinstance(item, Mapping):
        return _text_of(item)
    loc = item.get("loc")
    place = ".".join(str(step) for step in loc) if isinstance(loc, list) else ""
    said = str(item.get("msg") or item.get("type") or "")
    return f"{place}: {said}" if place else said


def _text_of_page(body: bytes) -> str:
    # Fault matrix, row 29.
    text = body[:65536].decode("utf-8", "replace")
    if "<" not in text[:200]:
        return _clean(text)
    title = _TITLE.search(text)
    return _clean(title.group(1)) if title else "an HTML page"


def _clean(text: str) -> str:
    cleaned = _UNPRINTABLE.sub(" ", text).strip()
    if len(cleaned) > _MAX_MESSAGE_CHARACTERS:
        return cleaned[:_MAX_MESSAGE_CHARACTERS] + " (cut)"
    return cleaned


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
