"""What a plan allows: requests and tokens a minute, and how closely a client goes up to it."""

from __future__ import annotations

import math
import re
from typing import Literal, Self

import msgspec

from loom.core.errors import ConfigInvalid

__all__ = ["PLANS", "RateLimit", "parse_rate_limit"]

PLANS = ("free", "starter", "pro")
"""Plans that have a name."""

_RATE = re.compile(r"([0-9]{1,12})?(?:/([0-9]{1,12}))?")


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """
    Limits that calls keep before they are sent; those of a call are granted together.

    None is no limit of our own: then what the vendor's headers announce holds.

    Attributes:
        requests_per_minute: At least 1.
        tokens_per_minute: Prompt and answer together, at least 1.
        requests_per_second: Above 0; requests leave evenly, never two at once.
        tokens_per_month: Per calendar month (UTC), at least 1; counted by this process alone.
        concurrency: Requests on their way at once, at least 1.
        refill_interval_s: The seconds in which a limit of a minute is kept in proportion, 1 to
            60: with 30, half of it in any 30 seconds.
        burst_s: How much may leave at once after a pause, in seconds of the limit, 0 to 60. A
            server that counts in small buckets refuses more than a few seconds' worth. From
            `refill_interval_s` on, all of the limit may leave at once.
        reserve: What is held for a call on its way. "most": its prompt and `max_tokens`, which
            no server counts more than. "likely": what 95 % of such answers stay below; more calls
            go at once, and a server that holds `max_tokens` itself refuses some.
        guard_s: How much longer than `refill_interval_s` what was used counts, in seconds, 0.25
            to 10: what leaves in 60 seconds may arrive in 59.

    Raises:
        ConfigInvalid: If a number is out of its range.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    requests_per_second: float | None = None
    tokens_per_month: int | None = None
    concurrency: int | None = None
    refill_interval_s: float = 60.0
    burst_s: float = 2.0
    reserve: Literal["most", "likely"] = "most"
    guard_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is out of its range."""
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigInvalid(f"'{name}' must be a whole number of at least 1: {value!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if name == "requests_per_second" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigInvalid(f"'{name}' must be a number: {value!r}")
            if not low <= value <= high:
                raise ConfigInvalid(f"'{name}' must be between {low:g} and {high:g}: {value!r}")
        if self.reserve not in ("most", "likely"):
            raise ConfigInvalid(f"'reserve' must be 'most' or 'likely': {self.reserve!r}")
        interval_s = self.refill_interval_s
        for name in ("requests_per_minute", "tokens_per_minute"):
            a_minute = getattr(self, name)
            if a_minute is not None and a_minute * interval_s < _MINUTE_S:
                raise ConfigInvalid(
                    f"'refill_interval_s' of {interval_s:g} seconds is too short:"
                    f" {a_minute} a minute is less than one in that time"
                )

    @classmethod
    def free(cls) -> Self:
        """
        The free plan: 5 requests and 10,000 tokens a minute.

        Source: reference page, section "Rate Limits".
        """
        return cls(requests_per_minute=5, tokens_per_minute=10_000)

    @classmethod
    def starter(cls) -> Self:
        """
        The starter plan: 60 requests and 500,000 tokens a minute.

        Source: reference page, section "Rate Limits".
        """
        return cls(requests_per_minute=60, tokens_per_minute=500_000)

    @classmethod
    def pro(cls) -> Self:
        """
        The pro plan: 120 requests and 2,000,000 tokens a minute.

        Source: reference page, section "Rate Limits".
        """
        return cls(requests_per_minute=120, tokens_per_minute=2_000_000)

    @property
    def counted_s(self) -> float:
        """How long what was used counts, in seconds."""
        return self.refill_interval_s + self.guard_s

    def per_interval(self, a_minute: float) -> float:
        """
        What of a minute's limit a refill interval may hold.

        Args:
            a_minute: The limit of a minute.

        Returns:
            Its part.
        """
        return a_minute * self.refill_interval_s / _MINUTE_S


_MINUTE_S = 60.0
_COUNTS = ("requests_per_minute", "tokens_per_minute", "tokens_per_month", "concurrency")
_RANGES = {
    "requests_per_second": (1e-3, math.inf),
    "refill_interval_s": (1.0, 60.0),
    "burst_s": (0.0, 60.0),
    "guard_s": (0.25, 10.0),
}


def parse_rate_limit(text: str) -> RateLimit | None:
    """
    Limits as people write them.

    Args:
        text: A plan (`starter`), or requests and tokens a minute: `60/500000`, `60`, `/500000`.

    Returns:
        The limits; None if the text is none.
    """
    if text in PLANS:
        plan: RateLimit = getattr(RateLimit, text)()
        return plan
    match = _RATE.fullmatch(text)
    numbers = [None if part is None else int(part) for part in match.groups()] if match else []
    if not any(numbers) or 0 in numbers:
        return None
    return RateLimit(requests_per_minute=numbers[0], tokens_per_minute=numbers[1])
