"""What a call asks a limiter for, what it is granted, and what its user sees: plain values."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import msgspec

__all__ = ["Ask", "LimitKey", "LimitState", "Permit", "Refused"]

LimitKey: TypeAlias = tuple[str, str, str]
"""Origin, fingerprint of the key, and the name under which a model's limit is counted."""

Refused: TypeAlias = Literal["quota", "capacity"]
"""Why a server answered 429: the quota is used up, or the model is overloaded."""


class Ask(msgspec.Struct, frozen=True):
    """
    What a call asks for.

    Attributes:
        reserve: Tokens that it hardly uses more of.
        expected: Tokens that it uses on average.
        most: Tokens that it cannot use more of, its `max_tokens` among them; at least `reserve`.
        month_end_s: When the month ends, in seconds of the monotonic clock; infinite if no month
            is counted.
    """

    reserve: int
    expected: int
    most: int
    month_end_s: float = math.inf


class Permit(msgspec.Struct, frozen=True):
    """
    What a call was granted.

    Attributes:
        at_s: When.
        hold: Tokens that are held for it, and that it paid at the pace.
        margin: How much more it may use, as far as is known.
    """

    at_s: float
    hold: int
    margin: int


class LimitState(msgspec.Struct, frozen=True, kw_only=True):
    """
    A limiter at one moment, for one key.

    Attributes:
        held: Calls on their way.
        held_tokens: Tokens that are reserved for them.
        queued: Calls that wait in this process.
        used_requests: Requests that count now.
        used_tokens: Tokens that count now, without those held.
        used_tokens_month: Tokens of this month.
        limit_requests: How many may count, as learnt so far; infinite if there is no limit.
        limit_tokens: The same of tokens.
        limit_concurrency: How many calls may be on their way; infinite if there is no limit.
        requests_per_s: The pace at which requests leave.
        tokens_per_s: The pace at which tokens do.
        scale: The part of the limits that is used: less after the server refused a call.
        held_back_s: Seconds for which the server asked to wait.
        flight_s: How long calls take, on average.
    """

    held: int = 0
    held_tokens: int = 0
    queued: int = 0
    used_requests: int = 0
    used_tokens: int = 0
    used_tokens_month: int = 0
    limit_requests: float = math.inf
    limit_tokens: float = math.inf
    limit_concurrency: float = math.inf
    requests_per_s: float = math.inf
    tokens_per_s: float = math.inf
    scale: float = 1.0
    held_back_s: float = 0.0
    flight_s: float = 0.0
