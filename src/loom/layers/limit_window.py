"""
An exact moving window, and the pace at which it is used: values, without a clock.

Rule 1: what was used at a time counts for at least the whole span after it. Buckets forget a
little late, never early: whole-second buckets that forget on time lose up to a second, and the
limit is passed by 5 % (measured).
Rule 2: nothing here is refused or granted; `limit_account.py` decides.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import msgspec

__all__ = ["Used", "pace_wait_s"]

_NONE = (0, 0, 0)


class Used(msgspec.Struct, frozen=True):
    """
    Requests and tokens of the last seconds, in buckets.

    Attributes:
        bucket_s: How long a bucket is, in seconds.
        kept: How many buckets count, that of now among them.
        past: Bucket number, requests and tokens of those before, the oldest first.
        last: The same of the newest.
        requests: The sum.
        tokens: The sum.
    """

    bucket_s: float = 0.25
    kept: int = 244
    past: tuple[tuple[int, int, int], ...] = ()
    last: tuple[int, int, int] = _NONE
    requests: int = 0
    tokens: int = 0

    @classmethod
    def over(cls, span_s: float, guard_s: float) -> Used:
        """
        An empty window.

        Args:
            span_s: How long what is used must count, in seconds.
            guard_s: How much longer it may count, at least 0.25 seconds: a bucket's length, the
                rest covers what is late on its way.

        Returns:
            It.
        """
        # 240 buckets are a quarter of a second of a minute.
        bucket_s = min(guard_s, span_s / 240)
        # Binary fractions of seconds add up to themselves: 61.0 is 61 and not 60.999.
        return cls(bucket_s=bucket_s, kept=math.ceil(round((span_s + guard_s) / bucket_s, 6)))

    def at(self, now_s: float) -> Used:
        """
        The window at a time, without what is over.

        Args:
            now_s: Seconds of a monotonic clock, not before the last.

        Returns:
            This one if nothing is over.
        """
        first = int(now_s // self.bucket_s) - self.kept + 1
        oldest = self.past[0] if self.past else self.last
        return self if oldest[0] >= first or oldest == _NONE else self._dropped(first)

    def add(self, requests: int, tokens: int, now_s: float) -> Used:
        """
        Take note of what is used now.

        Args:
            requests: How many; negative takes some back.
            tokens: The same.
            now_s: Seconds of a monotonic clock; a bucket that is over takes nothing.

        Returns:
            The window after it.
        """
        number = int(now_s // self.bucket_s)
        last, past = self.last, self.past
        if number < last[0]:
            return self._added_late(number, requests, tokens)
        if number == last[0]:
            last = (number, last[1] + requests, last[2] + tokens)
        else:
            if last[1] or last[2]:
                past = (*past, last)
            last = (number, requests, tokens)
        return Used(
            self.bucket_s, self.kept, past, last, self.requests + requests, self.tokens + tokens
        )

    def wait_s(self, requests: float, tokens: float, now_s: float) -> float:
        """
        Seconds until so much is forgotten.

        Args:
            requests: How many requests must go.
            tokens: The same of tokens.
            now_s: Seconds of a monotonic clock.

        Returns:
            Seconds; infinite if there is not so much in it.
        """
        for number, some_requests, some_tokens in (*self.past, self.last):
            requests -= some_requests
            tokens -= some_tokens
            if requests <= 0 and tokens <= 0:
                return (number + self.kept) * self.bucket_s - now_s
        return math.inf

    def _dropped(self, first: int) -> Used:
        past = tuple(bucket for bucket in self.past if bucket[0] >= first)
        last = self.last if self.last[0] >= first else _NONE
        requests = sum(bucket[1] for bucket in past) + last[1]
        tokens = sum(bucket[2] for bucket in past) + last[2]
        return Used(self.bucket_s, self.kept, past, last, requests, tokens)

    def _added_late(self, number: int, requests: int, tokens: int) -> Used:
        past = self.past
        if number <= self.last[0] - self.kept:
            return self
        place = bisect_left(past, number, key=_number)
        if place < len(past) and past[place][0] == number:
            bucket = past[place]
            changed = (number, bucket[1] + requests, bucket[2] + tokens)
            past = (*past[:place], changed, *past[place + 1 :])
        else:
            past = (*past[:place], (number, requests, tokens), *past[place:])
        return Used(
            self.bucket_s, self.kept, past, self.last,
            self.requests + requests, self.tokens + tokens,
        )  # fmt: skip


def _number(bucket: tuple[int, int, int]) -> int:
    return bucket[0]


def pace_wait_s(owed_until_s: float, takes_s: float, burst_s: float, now_s: float) -> float:
    """
    Seconds until something may leave at an even pace (GCRA).

    What leaves costs time: its amount over the pace. It may leave when its cost and what is owed
    fit into the burst, or when nothing is owed, however large it is.

    Args:
        owed_until_s: When what left before is paid for, in seconds of a monotonic clock.
        takes_s: What it costs.
        burst_s: How much may be owed.
        now_s: Seconds of the same clock.

    Returns:
        Seconds, at least 0.

    Source: ITU-T I.371, "Generic Cell Rate Algorithm".
    """
    owed_s = owed_until_s - now_s
    if owed_s <= 0:
        return 0.0
    return max(0.0, min(owed_s, owed_s + takes_s - burst_s))
