"""
Which failures are tried again, when, and how often: pure policy.

Everything that decides a retry stands here; `layers/retry.py` carries it out.
"""

from __future__ import annotations

import threading

import msgspec

from loom.core.errors import ConfigInvalid, LoomError, RateLimited

__all__ = ["RetryPolicy", "RetryQuota", "Tokens"]

# A name that was not found is asked for again at once: resolvers lose a packet now and then.
# Fault matrix, row 2.
_FAST_S = 0.05

# How much later than asked a retry may come, so that callers do not come back all at once.
# Source: the project's requirement R-19.
_LATER = 0.10


class RetryQuota(msgspec.Struct, frozen=True, kw_only=True):
    """
    How many retries a client may make, so that a failing vendor is not buried under them.

    Each call puts `per_call` tokens in, each success `per_success`, a retry takes one out, and
    gets it back if it succeeds. Under total failure `1 + per_call` requests are sent for each
    call once the reserve is spent.

    Attributes:
        reserve: Tokens at the start, and at most; at least 0.
        per_call: 0 to 1.
        per_success: At least 0.

    Source: the reserve is that of the AWS SDKs (500 tokens at 5 a retry), the ratio that of
    Google's SRE book, "Handling Overload" (10 %).
    """

    reserve: float = 100.0
    per_call: float = 0.1
    per_success: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is out of its range."""
        if not (self.reserve >= 0 and 0 <= self.per_call <= 1 and self.per_success >= 0):
            raise ConfigInvalid(
                "a retry quota has a reserve of at least 0, 'per_call' of 0 to 1 and"
                f" 'per_success' of at least 0: {self!r}"
            )


class Tokens:
    """
    What is left of a quota; may be used from several threads.

    Args:
        quota: The rules; None: there is no limit.
    """

    def __init__(self, quota: RetryQuota | None) -> None:
        self._quota = quota
        self._left = 0.0 if quota is None else quota.reserve
        self._lock = threading.Lock()

    @property
    def left(self) -> float:
        """Tokens that are left."""
        return self._left

    def begin(self) -> None:
        """Take note of a call."""
        if self._quota is not None:
            self._add(self._quota.per_call)

    def succeed(self, taken: int) -> None:
        """
        Take note of an answer.

        Args:
            taken: Tokens that the call's retries took; they come back.
        """
        if self._quota is not None:
            self._add(self._quota.per_success + taken)

    def take(self) -> bool:
        """
        Take one for a retry.

        Returns:
            Whether there was one.
        """
        if self._quota is None:
            return True
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def give_back(self) -> None:
        """Give one back whose retry was not made."""
        if self._quota is not None:
            self._add(1.0)

    def _add(self, tokens: float) -> None:
        quota = self._quota
        if quota is not None and self._left < quota.reserve:
            with self._lock:
                self._left = min(quota.reserve, self._left + tokens)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """
    When a failed attempt is followed by another.

    What the vendor asks for is kept: a retry comes within 10 % after `Retry-After`, and where it
    asks for more than `retry_after_cap_s`, or than is left until the deadline, the error is
    raised at once. Else the wait is drawn (full jitter):

        draw * min(cap_s, base_s * 2 ** (attempt - 1))

    and with `jitter_s` it is `min(cap_s, base_s * 2 ** (attempt - 1)) + draw * jitter_s`.

    Attributes:
        attempts: Requests at most, the first counted; at least 1.
        rate_limit_attempts: The same when the last answer was a 429; at least 1.
        base_s: The first wait, in seconds, above 0.
        rate_limit_base_s: The same after a 429.
        cap_s: The longest wait of our own, in seconds.
        jitter_s: Seconds added at random to the whole wait; None: full jitter.
        retry_after_cap_s: The longest wait that is granted to the vendor, in seconds.
        silent_attempts: Requests at most to a route that sends no first byte.
        malformed_attempts: Requests at most to one whose reply cannot be read.
        codes: Codes of errors that are tried again; None: all that `core/error_table.py` calls
            retryable.
        wait_for_breaker: Whether a call waits for an open breaker, where the time allows.
        quota: Limits the retries of a client as a whole; None: no limit.

    Source: the rows and figures of the project's fault matrix; `docs/retries.md` explains them and
    holds the same formulas (keep in sync: `tests/docs/test_retries.py` compares them).
    """

    attempts: int = 3
    rate_limit_attempts: int = 5
    base_s: float = 0.5
    rate_limit_base_s: float = 1.0
    cap_s: float = 20.0
    jitter_s: float | None = None
    retry_after_cap_s: float = 60.0
    silent_attempts: int = 2
    malformed_attempts: int = 2
    codes: frozenset[str] | None = None
    wait_for_breaker: bool = False
    quota: RetryQuota | None = RetryQuota()

    def __post_init__(self) -> None:
        """Refuse what is out of its range."""
        for name in _COUNTS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigInvalid(f"'{name}' must be a whole number of at least 1: {value!r}")
        for name in _SECONDS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigInvalid(f"'{name}' must be seconds above 0: {value!r}")
        if self.jitter_s is not None and not self.jitter_s >= 0:
            raise ConfigInvalid(f"'jitter_s' must be seconds of at least 0: {self.jitter_s!r}")

    @classmethod
    def off(cls) -> RetryPolicy:
        """One attempt and no more."""
        return cls(attempts=1, rate_limit_attempts=1)

    @classmethod
    def rate_limit_only(cls) -> RetryPolicy:
        """
        The reference page's first recipe: 5 attempts, 2 s doubling, after a 429 only.

        Source: reference page, section "ERR_RATE_LIMIT".
        """
        codes = frozenset({"rate_limit_exceeded", "capacity_exceeded"})
        return cls(rate_limit_attempts=5, rate_limit_base_s=2.0, jitter_s=0.0, codes=codes)

    @classmethod
    def robust(cls) -> RetryPolicy:
        """
        The reference page's second recipe: 5 attempts, 1 s doubling to 32 s, up to 1 s jitter.

        It names 429, 500 and 503; time limits and broken connections are tried again too.

        Source: reference page, section "Error Handling with Retry".
        """
        return cls(attempts=5, base_s=1.0, rate_limit_base_s=1.0, cap_s=32.0, jitter_s=1.0)

    def limit(self, error: LoomError) -> int:
        """
        Requests at most for a call whose last one ended so.

        Args:
            error: How it failed.

        Returns:
            At least 1; 1 means that there is no other.
        """
        if not self._retries(error):
            return 1
        if isinstance(error, RateLimited):
            return self.rate_limit_attempts
        if error.code == "invalid_api_key":
            return 2
        return self.attempts

    def wait_s(self, attempt: int, error: LoomError, draw: float) -> float | None:
        """
        Seconds to wait before attempt `attempt + 1`.

        Args:
            attempt: Attempts made so far, from 1.
            error: How the last one failed; `retry_after_s` is what the vendor asked for.
            draw: Uniform in [0, 1); given by the caller, so that a test can choose it.

        Returns:
            Seconds, at least 0; None if the vendor asks for more than `retry_after_cap_s`.

        Raises:
            ValueError: If `attempt` is below 1.
        """
        if attempt < 1:
            raise ValueError(f"attempt counts from 1, not {attempt}")
        asked_s = error.retry_after_s
        if asked_s is not None:
            return None if asked_s > self.retry_after_cap_s else asked_s * (1 + draw * _LATER)
        if error.code == "invalid_api_key":
            return 0.0  # there is another key: nothing is to be waited for
        if error.phase == "dns" and attempt == 1:
            return draw * _FAST_S
        base_s = self.rate_limit_base_s if isinstance(error, RateLimited) else self.base_s
        # Beyond 2 ** 60 every wait is the longest, and the power would be a number of many digits.
        wait_s = min(self.cap_s, base_s * 2.0 ** min(attempt - 1, 60))
        return draw * wait_s if self.jitter_s is None else wait_s + draw * self.jitter_s

    def kind_limit(self, error: LoomError) -> tuple[str, int] | None:
        """
        A limit of its own that some failures have, whatever else failed before.

        Args:
            error: How the last attempt failed.

        Returns:
            The kind and how many requests may end so; None for other failures.
        """
        # Fault matrix, rows 8, 10 and 14: headers without an answer behind them are silence too.
        silent = error.code == "timeout" and error.phase in ("first_byte", "idle")
        if silent or error.code == "stream_stalled":
            return "silent", self.silent_attempts
        if error.code == "malformed_reply":
            return "malformed", self.malformed_attempts
        return None

    def _retries(self, error: LoomError) -> bool:
        if error.code == "circuit_open":
            return self.wait_for_breaker
        if not error.retryable or error.phase == "total":
            return False
        return self.codes is None or error.code in self.codes


_COUNTS = ("attempts", "rate_limit_attempts", "silent_attempts", "malformed_attempts")
_SECONDS = ("base_s", "rate_limit_base_s", "cap_s", "retry_after_cap_s")
