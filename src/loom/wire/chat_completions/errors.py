"""
OpenAI's error bodies to the error tree, and back.

OpenAI writes `{"error": {"message", "type", "param", "code"}}`; servers that speak like it come
close, and Azure puts more inside. Codes decide first, then words, then the status.

Source: OpenAI, "Error codes" (read 2026-11); openai 3.57 `_exceptions.py`, `_client.py`
(`_make_status_error`). Codes and sentences that stand on no page are quoted in public issues.
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
    InsufficientCredits,
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    ServiceUnavailable,
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
from loom.wire.headers import demands_retry

__all__ = ["decode_error_body", "decode_error_reply", "encode_error_reply"]

_BY_CODE: dict[str, type[LoomError]] = {
    "invalid_api_key": InvalidAPIKey,
    "insufficient_quota": InsufficientCredits,
    "credit_balance_exhausted": InsufficientCredits,
    "billing_hard_limit_reached": InsufficientCredits,
    "billing_not_active": InsufficientCredits,
    "model_not_found": ModelNotFound,
    "context_length_exceeded": ContextTooLong,
    "exceed_context_size_error": ContextTooLong,  # llama.cpp
    "content_filter": ContentBlocked,
    "content_policy_violation": ContentBlocked,
    "moderation_blocked": ContentBlocked,
    "ResponsibleAIPolicyViolation": ContentBlocked,  # Azure
}
# Only with a 429: with a 503 the service as a whole is in trouble.
_OVERLOADED = frozenset({"server_is_overloaded", "engine_overloaded", "slow_down"})

_OVERLOAD = re.compile(r"overloaded|no capacity|capacity exceeded|high demand", re.IGNORECASE)
_QUOTA = re.compile(r"exceeded your current quota|insufficient (balance|credits)", re.IGNORECASE)
_BLOCKED = re.compile(
    r"content[ _](filter|policy|management)|flagged as potentially violating|usage policy",
    re.IGNORECASE,
)
_MISSING = re.compile(r"model.{0,200}(does not exist|not found)", re.IGNORECASE | re.DOTALL)

# The hints of the table speak of Mistral's pages.
_HINTS: dict[type[LoomError], str] = {
    InvalidAPIKey: "Verify the key (OpenAI's are at platform.openai.com/api-keys): typos, white"
    " space, the project it belongs to; for another server, that base_url is that server's.",
    InsufficientCredits: "Add credits, or raise the spend limit (OpenAI:"
    " platform.openai.com/settings/organization/billing); waiting does not help.",
    PermissionDenied: "This key may not do that: look at the key's and the project's permissions,"
    " and whether the service is offered in your country.",
    ModelNotFound: "Check the model id for typos and that the key's project has access to it;"
    " GET /models of the server lists what there is.",
    InvalidRequest: "Correct the named parameter; what a model takes is on its page of the"
    " vendor's documentation.",
    ServiceUnavailable: "Try again with growing waits (OpenAI: see status.openai.com); switch to"
    " another model or provider meanwhile.",
}

_STATUS_OF: dict[str, int] = {
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "requests": 429,
    "tokens": 429,
    "slow_down": 429,
    "model_not_found": 404,
    "not_found_error": 404,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "invalid_request_error": 400,
    "BadRequestError": 400,  # vLLM
    "server_error": 500,
}


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
    error = _error(status, facts_of_body(body, status), headers)
    if demands_retry(headers):
        error.retryable = True
    return error


def decode_error_body(value: Mapping[str, Any]) -> LoomError:
    """
    The error of a body that came inside a stream that began with status 200.

    Args:
        value: The event's JSON values.

    Returns:
        The class that the same body would have with its HTTP status.
    """
    facts = facts_of_json(value)
    status = facts.status or _number(facts.code)
    for word in (facts.code, facts.type):
        status = status or _STATUS_OF.get(word or "")
    return _error(status or 500, facts, {})


def _number(code: str | None) -> int | None:
    # Relays (OpenRouter, vLLM) write the status there.
    number = int(code) if code is not None and code.isascii() and code.isdigit() else 0
    return number if 400 <= number < 600 else None


def _error(status: int, facts: ErrorFacts, headers: Mapping[str, str]) -> LoomError:
    kind = _class_of(status, facts)
    error = error_of(kind, facts, status, headers, vendor="OpenAI", hint=_HINTS.get(kind))
    if status == 404 and not _MISSING.search(facts.message) and facts.code != "model_not_found":
        error.hint = "The path may be unknown there: check base_url. " + error.hint
    return error


def _class_of(status: int, facts: ErrorFacts) -> type[LoomError]:
    text = facts.message
    for word in (facts.code, facts.type):
        if (known := _BY_CODE.get(word or "")) is not None and status < 500:
            return known
    if status == 429:
        return _class_of_429(facts)
    # Fault matrix, row 36b.
    if status in (400, 413, 422) and says_too_long(text):
        return ContextTooLong
    if status in (400, 403, 422) and _BLOCKED.search(f"{facts.code} {facts.type} {text}"):
        return ContentBlocked
    if status == 400 and "does not exist" in text and _MISSING.search(text):
        return ModelNotFound
    return class_of_status(status)


def _class_of_429(facts: ErrorFacts) -> type[LoomError]:
    if _QUOTA.search(facts.message):
        return InsufficientCredits
    # Fault matrix, row 34.
    if facts.code in _OVERLOADED or _OVERLOAD.search(facts.message):
        return CapacityExceeded
    return RateLimited


# How the server role names each error: type and code; a status where it is not the table's.
_WIRE: dict[str, tuple[str, str | None, int | None]] = {
    "invalid_api_key": ("invalid_request_error", "invalid_api_key", None),
    "insufficient_credits": ("insufficient_quota", "insufficient_quota", 429),
    "permission_denied": ("invalid_request_error", "permission_denied", None),
    "model_not_found": ("invalid_request_error", "model_not_found", 404),
    "context_length_exceeded": ("invalid_request_error", "context_length_exceeded", 400),
    "content_blocked": ("invalid_request_error", "content_filter", 400),
    "rate_limit_exceeded": ("requests", "rate_limit_exceeded", None),
    "capacity_exceeded": ("rate_limit_error", "slow_down", None),
    "limit_exceeded": ("requests", "rate_limit_exceeded", None),
    "budget_exceeded": ("insufficient_quota", "insufficient_quota", 429),
}
_PREFIX = re.compile(r"\w+ API error \(\d{3}\): ")


def encode_error_reply(error: LoomError) -> ErrorReply:
    """
    Server role: an error as OpenAI answers it.

    Args:
        error: Any; a prefix as `Mistral API error (400): ` is taken off.

    Returns:
        Status, headers and body.
    """
    own = _WIRE.get(error.code)
    status = error.http_status if own is None or own[2] is None else own[2]
    kind = "invalid_request_error" if status < 500 else "server_error"
    code = error.vendor_code if own is None else own[1]
    if own is not None:
        kind = own[0]
    headers = {"content-type": "application/json"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        headers["retry-after-ms"] = str(max(1, round(error.retry_after_s * 1000)))
    if status == 429 and not error.retryable:
        # The SDK tries a 429 again unless it is told not to.
        headers["x-should-retry"] = "false"
    message = _PREFIX.sub("", error.message, count=1) if error.message else error.code
    if error.code == "model_not_found" and error.model:
        message = f"The model `{error.model}` does not exist or you do not have access to it."
    param = error.detail[0].get("param") if error.detail else None
    envelope = {"message": message, "type": kind, "param": param, "code": code}
    body = msgspec.json.encode({"error": envelope})
    return ErrorReply(status=status, headers=headers, body=body)
