"""What reply headers say: limits, waits, request ids. Garbage in them never fails a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from loom.core.response import RateLimitState

__all__ = ["demands_retry", "rate_limit_state", "refuses_retry", "request_id", "retry_after_s"]

_NUMBER = re.compile(r"\d{1,18}(\.\d{1,9})?")
_DURATION = re.compile(
    r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?"
    r"(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_UNITS_S = (86_400.0, 3600.0, 60.0, 1.0, 0.001)

# Three families of Mistral (contract/mistral.md section 5: 2026, 2025, 2024 to mid 2025). Where
# two name one thing, the newer wins: the lower rank.
_FIELDS: dict[str, tuple[str, int]] = {
    "x-ratelimit-limit-req-minute": ("limit_requests_minute", 0),
    "x-ratelimit-remaining-req-minute": ("remaining_requests_minute", 0),
    "x-ratelimit-limit-tokens-minute": ("limit_tokens_minute", 0),
    "x-ratelimitbysize-limit-minute": ("limit_tokens_minute", 1),
    "ratelimitbysize-limit": ("limit_tokens_minute", 2),
    "x-ratelimit-remaining-tokens-minute": ("remaining_tokens_minute", 0),
    "x-ratelimitbysize-remaining-minute": ("remaining_tokens_minute", 1),
    "ratelimitbysize-remaining": ("remaining_tokens_minute", 2),
    "x-ratelimit-limit-tokens-month": ("limit_tokens_month", 0),
    "x-ratelimitbysize-limit-month": ("limit_tokens_month", 1),
    "x-ratelimit-remaining-tokens-month": ("remaining_tokens_month", 0),
    "x-ratelimitbysize-remaining-month": ("remaining_tokens_month", 1),
    "x-ratelimit-tokens-query-cost": ("query_cost_tokens", 0),
    "ratelimitbysize-query-cost": ("query_cost_tokens", 1),
    # OpenAI's, "Rate limits", section "Rate limits in headers" (read 2026-06): of a minute, as its
    # limits are for every paid tier.
    "x-ratelimit-limit-requests": ("limit_requests_minute", 1),
    "x-ratelimit-remaining-requests": ("remaining_requests_minute", 1),
    "x-ratelimit-limit-tokens": ("limit_tokens_minute", 3),
    "x-ratelimit-remaining-tokens": ("remaining_tokens_minute", 3),
}
_RESETS = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens")
_NOTHING = RateLimitState()


def rate_limit_state(headers: Mapping[str, str]) -> RateLimitState:
    """
    The limits that a reply's headers tell of, in any of Mistral's families or OpenAI's.

    Args:
        headers: Names in lower case.

    Returns:
        What they say; None in each field that they do not name, or not with a number.
    """
    found = {name: value for name, value in headers.items() if "ratelimit" in name}
    if not found:
        return _NOTHING
    numbers: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for name, value in found.items():
        field, rank = _FIELDS.get(name, ("", 0))
        if not field or rank > ranks.get(field, rank):
            continue
        if (number := _number(value)) is not None:
            numbers[field], ranks[field] = int(number), rank
    reset_s = _number(found.get("ratelimitbysize-reset"))
    if reset_s is None:
        # OpenAI counts requests and tokens apart: all is free when the later of them is.
        resets = [_duration_s(found[name]) for name in _RESETS if name in found]
        reset_s = max((each for each in resets if each is not None), default=None)
    return RateLimitState(**numbers, reset_s=reset_s, headers=found)


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """
    Seconds that the server asks to wait.

    `retry-after-ms` wins over `retry-after`; a date is measured from the reply's own `date`
    header, so that a wrong clock on this machine does not count. Several headers, negative
    numbers and words are treated as none (fault matrix, rows 33, 33b, 33c, 33d and 33e).

    Args:
        headers: Names in lower case.
        now: Used for a date when the reply has no `date` header.

    Returns:
        Seconds, at least 0; None when nothing sensible was asked.

    Source: RFC 9110, section 10.2.3; `retry-after-ms`: mistralai SDK 3.7.0.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return seconds
    until = _date(value)
    since = _date(headers.get("date")) or now
    if until is None or since is None:
        return None
    return max(0.0, (until - since).total_seconds())


def refuses_retry(headers: Mapping[str, str]) -> bool:
    """
    Whether the server says that the same request will fail again.

    Args:
        headers: Names in lower case.

    Returns:
        True for `x-should-retry: false`.

    Source: the project's reliability anchors, row "urllib3 Retry / openai-python".
    """
    return headers.get("x-should-retry", "").strip().lower() == "false"


def demands_retry(headers: Mapping[str, str]) -> bool:
    """
    Whether the server says that the same request may succeed.

    Args:
        headers: Names in lower case.

    Returns:
        True for `x-should-retry: true`.

    Source: openai 3.57 `_base_client.py`, `_should_retry`.
    """
    return headers.get("x-should-retry", "").strip().lower() == "true"


def request_id(headers: Mapping[str, str]) -> str | None:
    """
    The vendor's id of the request.

    Args:
        headers: Names in lower case.

    Returns:
        The id, at most 128 printable characters; None when there is none.
    """
    for name in ("mistral-correlation-id", "x-kong-request-id", "x-request-id"):
        value = headers.get(name, "")
        if value and value.isprintable():
            return value[:128]
    return None


def _number(value: str | None) -> float | None:
    if value is None:
        return None
    text = value.strip()
    return float(text) if _NUMBER.fullmatch(text) and text.isascii() else None


def _duration_s(text: str) -> float | None:
    """Seconds of a duration as Go writes it: `6m0s`, `1h2m3.5s`, `17ms`."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not any(found.groups()):
        return None
    parts = zip(found.groups(), _UNITS_S, strict=True)
    return sum(float(number) * unit for number, unit in parts if number)


def _date(value: str | None) -> datetime | None:
    if value is None:
        return None
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - brings socket: 5 ms

    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
