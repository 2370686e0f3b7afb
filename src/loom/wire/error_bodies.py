"""
What an error body says, in any shape that was ever recorded or quoted.

The envelope, `{"error": {...}}`, bare `detail`, Kong's `message`, the conversations flavour,
2024's JSON inside a string, HTML pages, nothing. What a vendor echoes of the request (`input`)
is never taken over: it may hold a prompt. Which class it means is the dialect's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import (
    Conflict,
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
from loom.wire.headers import rate_limit_state, refuses_retry, request_id, retry_after_s

__all__ = [
    "ErrorFacts",
    "class_of_status",
    "error_of",
    "facts_of_body",
    "facts_of_json",
    "says_too_long",
]

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
    r"|maximum context length is (?P<f>\d+) tokens"
    # OpenAI's, vLLM's old and vLLM's new sentence.
    r".*(?:requested|resulted in|request has) (?P<e>\d+) (?:input )?tokens",
    re.DOTALL,
)
_TITLE = re.compile(r"<title>(.{1,200}?)</title>", re.IGNORECASE | re.DOTALL)
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class ErrorFacts(msgspec.Struct):
    """
    What an error body says.

    Attributes:
        message: Cleaned, and cut where it is long.
        code: The vendor's own code.
        type: The vendor's own type.
        status: The HTTP status that the body names; None where it names none.
    """

    message: str = ""
    code: str | None = None
    type: str | None = None
    status: int | None = None


def class_of_status(status: int) -> type[LoomError]:
    """
    The class of an error of which nothing but its status is known.

    Args:
        status: The HTTP status, other than 200.

    Returns:
        The class.
    """
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 300 <= status < 400:
        return UnexpectedRedirect
    if status >= 500:
        return ServiceUnavailable
    return InvalidRequest if status >= 400 else MalformedReply


def says_too_long(message: str) -> bool:
    """
    Whether a message says that a prompt passes the model's window.

    Args:
        message: The vendor's.

    Returns:
        True for any sentence that was recorded or quoted.
    """
    return _OVERFLOW.search(message) is not None


def error_of(
    kind: type[LoomError],
    facts: ErrorFacts,
    status: int,
    headers: Mapping[str, str],
    *,
    vendor: str,
    hint: str | None = None,
) -> LoomError:
    """
    An error with everything that its reply tells of it.

    Args:
        kind: Its class, which the dialect has found.
        facts: What the body says.
        status: The HTTP status that it had, or would have.
        headers: Names in lower case; none for an error inside a stream.
        vendor: Whose it is, for the message.
        hint: What to do next; None takes the table's.

    Returns:
        The error; it is not raised.
    """
    error = kind(
        f"{vendor} API error ({status}): {facts.message}",
        http_status=status,
        retry_after_s=retry_after_s(headers),
        request_id=request_id(headers),
        hint=hint,
        rate_limit=rate_limit_state(headers),
        vendor_code=facts.code,
        vendor_type=facts.type,
    )
    # Fault matrix, row 41: a status that is no answer will be none the next time.
    if kind is MalformedReply or refuses_retry(headers):
        error.retryable = False
    _tell_sizes(error, facts.message)
    return error


def _tell_sizes(error: LoomError, message: str) -> None:
    if isinstance(error, ContextTooLong) and (sizes := _OVERFLOW.search(message)):
        found = sizes.groupdict()
        error.tokens = int(found["a"] or found["c"] or found["e"])
        error.limit = int(found["b"] or found["d"] or found["f"])


def facts_of_body(body: bytes, status: int) -> ErrorFacts:
    """
    Read the body of a reply that is no answer.

    Args:
        body: As it came; may be empty, HTML, or cut.
        status: The HTTP status.

    Returns:
        What it says; the message is never empty.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return ErrorFacts(
            message=_text_of_page(body) or _REASONS.get(status, "no explanation given")
        )
    if isinstance(value, Mapping):
        facts = facts_of_json(value)
        facts.message = facts.message or _REASONS.get(status, "no explanation given")
        return facts
    return ErrorFacts(message=_clean(str(value)))


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


def facts_of_json(value: Mapping[str, Any]) -> ErrorFacts:
    """
    Read an error's JSON values.

    Args:
        value: The body, or what stands under `error` in it.

    Returns:
        What it says; the message may be empty.
    """
    inner = value.get("error")
    if isinstance(inner, Mapping):
        return facts_of_json(inner)
    said = value.get("message") or value.get("detail") or inner or ""
    if isinstance(said, str) and said.startswith("{"):
        said = _unpacked(said)
    status = value.get("raw_status_code")
    code = value.get("code")
    kind = value.get("type")
    return ErrorFacts(
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
