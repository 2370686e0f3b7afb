"""
What is used of a limit, held and owed: one value for a key, pure, without a clock.

Everything that decides whether a call may leave stands here; `limit_store.py` holds the values,
`limiter.py` lets calls wait.

Rule 1: all limits of a call are granted together, or none is.
Rule 2: tokens are held from the grant to the end of the call, however long it takes. Then they
count twice over: in a window by when the call left, and in one by when it ended. Neither may pass
the limit, so it does not matter when a server counts. (One window that holds a call to its end and
counts it from there is safe too, but loses its flight time: 60 / (61 + flight) of the quota.)
Rule 3: headers may lower a limit, never raise it, and what they say is left of it is not used: a
small bucket's level is not a minute's quota (measured: 8 % of the quota were used).
"""

from __future__ import annotations

import math

import msgspec

from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import Ask, LimitState, Permit, Refused
from loom.layers.limit_window import Used, pace_wait_s

__all__ = ["Account"]

# An answer may be longer than was reserved for it; this part of the limit absorbs it.
_RESERVE = 0.01
# The slow loop. Source: the project's limiter design, point 4.
_CUT = 0.9
_GAIN = 0.01
_NARROWER = 0.8
_WIDER = 1.1
# Below this nothing would leave any more, and so nothing would be learnt.
_LEAST_SCALE = 0.05
# A header may hold calls back for an hour, not for a year.
_LONGEST_HOLD_S = 3600.0
# Servers that count seconds see requests closer together than they left.
_SECOND_S = 1.1
# How much of what is known of flight times each new one changes.
_NEWS = 0.1
# Calls may end in bunches, of so many seconds more than `burst_s` and of such a part of the limit,
# before others wait for it. A server's bucket of 5 seconds holds it, with 2 seconds of burst.
_ENDS_S = 2.0
_ENDED = 0.99


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """
    What is known of a key; every method gives a new value.

    Attributes:
        rules: What was configured.
        used: Requests by when they left, and the tokens of those that ended by the same time.
        ended: The same tokens by when the calls ended.
        limit_requests: How many requests a window may hold.
        limit_tokens: How many tokens it may hold, with those held.
        announced_requests: The lowest limit of a minute that headers named.
        announced_tokens: The same of tokens.
        scale: The part of the limits that is used.
        cut_s: When it was lowered last.
        clean_s: Since when no call was refused, or when it was raised last.
        hold_until_s: Until when nothing leaves, because the server asked for it or refused calls.
        refused_s: When a call was refused last.
        strikes: Refusals one after the other, without a wish how long to wait.
        held: Calls on their way.
        held_tokens: Tokens held for them.
        margins: How much more each of them may use, squared, added up.
        narrow: Calls that may be on their way since the model was overloaded.
        narrow_top: How many were, then: beyond that the limit is forgotten.
        narrowed_s: When that was lowered or raised last.
        requests_owed_s: When the requests so far are paid for at the pace.
        tokens_owed_s: The same of tokens.
        ended_owed_s: The same of tokens of calls that ended.
        second_owed_s: The same of requests a second.
        month_used: Tokens of the month.
        month_end_s: When it ends.
        flight_s: How long calls take, on average.
    """

    rules: RateLimit
    used: Used
    ended: Used
    limit_requests: float
    limit_tokens: float
    announced_requests: int | None = None
    announced_tokens: int | None = None
    scale: float = 1.0
    cut_s: float = -math.inf
    clean_s: float = -math.inf
    hold_until_s: float = -math.inf
    refused_s: float = -math.inf
    strikes: int = 0
    held: int = 0
    held_tokens: int = 0
    margins: int = 0
    narrow: float = math.inf
    narrow_top: int = 0
    narrowed_s: float = -math.inf
    requests_owed_s: float = -math.inf
    tokens_owed_s: float = -math.inf
    ended_owed_s: float = -math.inf
    second_owed_s: float = -math.inf
    month_used: int = 0
    month_end_s: float = -math.inf
    flight_s: float = 0.0

    @classmethod
    def opened(cls, rules: RateLimit) -> Account:
        """
        Nothing used yet.

        Args:
            rules: The limits.

        Returns:
            It.
        """
        used = Used.over(rules.refill_interval_s, rules.guard_s)
        requests, tokens = _limits(rules, None, None, 1.0)
        return cls(rules=rules, used=used, ended=used, limit_requests=requests, limit_tokens=tokens)

    def at(self, now_s: float) -> Account:
        """
        The account once the time has passed: old use is forgotten, cut limits grow again.

        Args:
            now_s: Seconds of a monotonic clock.

        Returns:
            This one if nothing changed.
        """
        account = self
        used = self.used.at(now_s)
        if used is not self.used:
            account = _with(account, used=used)
        ended = self.ended.at(now_s)
        if ended is not self.ended:
            account = _with(account, ended=ended)
        if account.scale < 1.0:
            interval_s = account.rules.refill_interval_s
            clean = int((now_s - account.clean_s) // interval_s)
            if clean > 0:
                scale = min(1.0, account.scale + _GAIN * clean)
                account = account._scaled(scale, clean_s=account.clean_s + clean * interval_s)  # noqa: SLF001 - its own
        if account.narrow < math.inf:
            step_s = account.rules.refill_interval_s / 6
            clean = int((now_s - account.narrowed_s) // step_s)
            if clean > 0:
                wide = max(account.narrow * _WIDER**clean, account.narrow + clean)
                account = _with(
                    account,
                    narrow=wide if wide < account.narrow_top else math.inf,
                    narrowed_s=account.narrowed_s + clean * step_s,
                )
        return account

    def wait_s(self, ask: Ask, now_s: float) -> float:
        """
        Seconds until a call may leave, if nothing else happens.

        Args:
            ask: What it asks for.
            now_s: Seconds of a monotonic clock; `at` was called for it.

        Returns:
            0 if it may leave now; infinite if another call must end first.
        """
        if self.held >= self._concurrency():
            return math.inf
        wait_s = max(0.0, self.hold_until_s - now_s, self.second_owed_s - now_s)
        month = self.rules.tokens_per_month
        if month is not None and now_s < self.month_end_s and self.month_used >= month:
            wait_s = max(wait_s, self.month_end_s - now_s)
        hold, margin = self._share(ask)
        return max(wait_s, self._pace_wait_s(hold, now_s), self._window_wait_s(hold, margin, now_s))

    def taken(self, ask: Ask, now_s: float) -> tuple[Account, Permit]:
        """
        Grant a call; `wait_s` must be 0.

        Args:
            ask: What it asks for.
            now_s: Seconds of a monotonic clock.

        Returns:
            The account after it, and what was granted.
        """
        permit = Permit(now_s, *self._share(ask))
        second_owed_s = self.second_owed_s
        if self.rules.requests_per_second is not None:
            second_owed_s = now_s + _SECOND_S / self.rules.requests_per_second
        fresh_month = self.month_end_s <= now_s
        account = _with(
            self,
            used=self.used.add(1, 0, now_s),
            held=self.held + 1,
            held_tokens=self.held_tokens + permit.hold,
            margins=self.margins + permit.margin**2,
            requests_owed_s=max(self.requests_owed_s, now_s) + self._request_s(),
            tokens_owed_s=max(self.tokens_owed_s, now_s) + permit.hold * self._token_s(),
            second_owed_s=second_owed_s,
            month_used=0 if fresh_month else self.month_used,
            month_end_s=ask.month_end_s if fresh_month else self.month_end_s,
        )
        return account, permit

    def settled(self, permit: Permit, tokens: int, now_s: float) -> Account:
        """
        End a call with what it used.

        Args:
            permit: What it was granted.
            tokens: What it used; 0 if the server refused it.
            now_s: Seconds of a monotonic clock.

        Returns:
            The account after it.
        """
        token_s = self._token_s()
        flight_s = max(0.0, now_s - permit.at_s)
        return _with(
            self,
            # For servers that count when a call comes, and for those that do when it ends.
            used=self.used.add(0, tokens, permit.at_s) if tokens else self.used,
            ended=self.ended.add(0, tokens, now_s) if tokens else self.ended,
            ended_owed_s=max(self.ended_owed_s, now_s) + tokens * token_s,
            held=self.held - 1,
            held_tokens=self.held_tokens - permit.hold,
            margins=self.margins - permit.margin**2,
            tokens_owed_s=self.tokens_owed_s + (tokens - permit.hold) * token_s,
            month_used=self.month_used + tokens,
            strikes=0 if tokens and permit.at_s > self.refused_s else self.strikes,
            flight_s=self.flight_s + _NEWS * (flight_s - self.flight_s)
            if tokens
            else self.flight_s,
        )

    def released(self, permit: Permit) -> Account:
        """
        Take a grant back for which nothing was sent.

        Args:
            permit: What was granted.

        Returns:
            The account without it.
        """
        return _with(
            self,
            used=self.used.add(-1, 0, permit.at_s),
            held=self.held - 1,
            held_tokens=self.held_tokens - permit.hold,
            margins=self.margins - permit.margin**2,
            requests_owed_s=self.requests_owed_s - self._request_s(),
            tokens_owed_s=self.tokens_owed_s - permit.hold * self._token_s(),
        )

    def refused(self, why: Refused, retry_after_s: float | None, now_s: float) -> Account:
        """
        Learn from a 429; its own call is settled apart.

        Args:
            why: A full model does not shrink the quota, only how many calls are on their way.
            retry_after_s: What the server asked to wait.
            now_s: Seconds of a monotonic clock.

        Returns:
            The account after it.
        """
        if why == "capacity":
            return self._narrowed(now_s)
        strikes = self.strikes
        if retry_after_s is None:
            # Calls that were on their way together are refused together: that is one time.
            strikes += now_s >= self.hold_until_s
            most_s = self.rules.refill_interval_s / 4
            hold_s = min(most_s, 2.0 ** min(strikes - 1, 10)) if strikes > self.strikes else 0.0
        else:
            hold_s = min(retry_after_s, _LONGEST_HOLD_S)
        account = _with(
            self,
            clean_s=now_s,
            refused_s=now_s,
            strikes=strikes,
            hold_until_s=max(self.hold_until_s, now_s + hold_s),
        )
        if now_s - self.cut_s >= self.rules.refill_interval_s:
            account = _with(account, cut_s=now_s)
            account = account._scaled(max(_LEAST_SCALE, self.scale * _CUT), clean_s=now_s)  # noqa: SLF001 - its own
        return account

    def announced(self, requests: int | None, tokens: int | None) -> Account:
        """
        Learn limits of a minute from headers.

        Args:
            requests: What they name; None if they do not. 0 is no limit but a refusal.
            tokens: The same of tokens.

        Returns:
            This one, unless a limit is lower than was known.
        """
        lower_requests = _lower(self.announced_requests, requests)
        lower_tokens = _lower(self.announced_tokens, tokens)
        if (lower_requests, lower_tokens) == (self.announced_requests, self.announced_tokens):
            return self
        account = _with(self, announced_requests=lower_requests, announced_tokens=lower_tokens)
        return account._scaled(self.scale, clean_s=self.clean_s)  # noqa: SLF001 - its own

    def state(self, now_s: float) -> LimitState:
        """
        The account as its user sees it.

        Args:
            now_s: Seconds of a monotonic clock; `at` was called for it.

        Returns:
            It.
        """
        request_s, token_s = self._request_s(), self._token_s()
        return LimitState(
            held=self.held,
            held_tokens=self.held_tokens,
            used_requests=self.used.requests,
            used_tokens=max(self.used.tokens, self.ended.tokens),
            used_tokens_month=self.month_used if now_s < self.month_end_s else 0,
            limit_requests=self.limit_requests,
            limit_tokens=self.limit_tokens,
            limit_concurrency=self._concurrency(),
            requests_per_s=1 / request_s if request_s else math.inf,
            tokens_per_s=1 / token_s if token_s else math.inf,
            scale=self.scale,
            held_back_s=max(0.0, self.hold_until_s - now_s),
            flight_s=self.flight_s,
        )

    def _share(self, ask: Ask) -> tuple[int, int]:
        """What is held for a call, and how much more it may use."""
        # What is larger than the limit goes alone, as servers let it.
        if self.rules.reserve == "most":
            return int(min(ask.most, self.limit_tokens)), 0
        return int(min(ask.expected, self.limit_tokens)), ask.reserve - ask.expected

    def _pace_wait_s(self, hold: int, now_s: float) -> float:
        burst_s = self.rules.burst_s
        if burst_s >= self.rules.refill_interval_s:
            return 0.0
        token_s = self._token_s()
        return max(
            pace_wait_s(self.requests_owed_s, self._request_s(), burst_s, now_s),
            pace_wait_s(self.tokens_owed_s, hold * token_s, burst_s, now_s),
            # Calls end in another rhythm than they leave.
            self.ended_owed_s - now_s - burst_s - _ENDS_S,
        )

    def _window_wait_s(self, hold: int, margin: int, now_s: float) -> float:
        used, limit = self.used, self.limit_tokens
        wait_s = 0.0
        requests = used.requests + 1 - self.limit_requests
        tokens = used.tokens + self.held_tokens + hold - limit
        if margin or self.margins:
            # Not all answers are long ones: the margins of many calls add up like errors do.
            margins = math.sqrt(self.margins + margin**2)
            tokens += min(margins, limit - hold) if self.held else 0.0
        if requests > 0 or tokens > 0:
            wait_s = used.wait_s(requests, tokens, now_s)
        ended = self.ended.tokens - limit * _ENDED
        return max(wait_s, self.ended.wait_s(0, ended, now_s)) if ended > 0 else wait_s

    def _concurrency(self) -> float:
        fixed = self.rules.concurrency
        narrow = math.floor(self.narrow) if self.narrow < math.inf else math.inf
        return narrow if fixed is None else min(fixed, narrow)

    def _request_s(self) -> float:
        return self.rules.counted_s / self.limit_requests

    def _token_s(self) -> float:
        return self.rules.counted_s / self.limit_tokens

    def _narrowed(self, now_s: float) -> Account:
        if now_s - self.narrowed_s < self.rules.refill_interval_s / 12:
            return self
        was = min(self.narrow, self.held + 1)
        return _with(
            self,
            narrow=max(1.0, was * _NARROWER),
            narrow_top=max(self.narrow_top if self.narrow < math.inf else 0, self.held + 1),
            narrowed_s=now_s,
        )

    def _scaled(self, scale: float, *, clean_s: float) -> Account:
        requests, tokens = _limits(
            self.rules, self.announced_requests, self.announced_tokens, scale
        )
        return _with(
            self, scale=scale, clean_s=clean_s, limit_requests=requests, limit_tokens=tokens
        )


_with = msgspec.structs.replace


def _limits(
    rules: RateLimit, requests: int | None, tokens: int | None, scale: float
) -> tuple[float, float]:
    """How many requests and tokens the window may hold."""
    limits = []
    for configured, announced, usable in (
        (rules.requests_per_minute, requests, 1.0),
        (rules.tokens_per_minute, tokens, 1 - _RESERVE),
    ):
        a_minute = _lower(configured, announced)
        # Free of dust: 0.9 * 10 is 9 and not 8.999.
        whole = math.inf if a_minute is None else rules.per_interval(a_minute) * scale * usable
        limits.append(whole if whole == math.inf else max(1.0, math.floor(round(whole, 6))))
    return limits[0], limits[1]


def _lower(known: int | None, said: int | None) -> int | None:
    if not said or said < 0:
        return known
    return said if known is None else min(known, said)
