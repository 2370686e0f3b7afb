"""
The circuit breaker as a table and a value: pure, without a clock.

Rule 1: what may change the state of a breaker stands in `TRANSITIONS`, and nowhere else.
Rule 2: the picture in the documents is drawn from that table (`scripts/diagram.py`), and a test
compares the two.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["TRANSITIONS", "BreakerRules", "BreakerState", "Cause", "Outcome", "State"]

State: TypeAlias = Literal["closed", "open", "half_open"]
"""`closed`: calls pass. `open`: none does. `half_open`: one at a time does, as a probe."""

Cause: TypeAlias = Literal["tripped", "waited", "probe_failed", "proved"]
"""Why a state ends."""

Outcome: TypeAlias = Literal["success", "failure", "ignored"]
"""How a call ended, as the breaker sees it; a 429, a 4xx or a cancellation is ignored."""

TRANSITIONS: dict[tuple[State, Cause], State] = {
    ("closed", "tripped"): "open",
    ("open", "waited"): "half_open",
    ("half_open", "probe_failed"): "open",
    ("half_open", "proved"): "closed",
}
"""Every way from one state to another."""

_BUCKET_S = 1.0


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """
    When a breaker opens, and when it closes.

    Attributes:
        window_s: How far it looks back, in seconds.
        min_calls: Calls in the window below which it never opens.
        failure_ratio: The part of them, above 0 and up to 1, that must have failed.
        open_s: How long it stays open the first time, in seconds; each failed probe doubles it.
        open_max_s: The longest it stays open, in seconds.
        probes: Successes in a row that close it.

    Source: the project's reliability anchors, row "resilience4j".
    """

    window_s: float = 30.0
    min_calls: int = 20
    failure_ratio: float = 0.5
    open_s: float = 10.0
    open_max_s: float = 120.0
    probes: int = 3


class _Bucket(msgspec.Struct, frozen=True):
    """The calls that ended in one second."""

    second: int
    calls: int
    failures: int


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a breaker knows at one moment; every method gives a new value.

    Attributes:
        state: Closed, open or half open.
        epoch: How often the state changed: an outcome of an earlier one says nothing.
        since_s: When the state began.
        open_for_s: How long it is open, or was open last; 0 while it is closed.
        probing: Whether a probe is on its way.
        proofs: Successful probes so far.
        buckets: The window, the oldest second first; only while it is closed.
    """

    state: State = "closed"
    epoch: int = 0
    since_s: float = 0.0
    open_for_s: float = 0.0
    probing: bool = False
    proofs: int = 0
    buckets: tuple[_Bucket, ...] = ()

    def retry_after_s(self, now_s: float) -> float:
        """
        Seconds until a call may pass.

        Args:
            now_s: Seconds of a monotonic clock.

        Returns:
            0 when one may pass now. While a probe is on its way nobody knows: then a second.
        """
        match self.state:
            case "closed":
                return 0.0
            case "open":
                # Sums of floats: at its beginning it is no longer than it is.
                return min(self.open_for_s, max(0.0, self.since_s + self.open_for_s - now_s))
            case "half_open":
                return _BUCKET_S if self.probing else 0.0

    def at(self, now_s: float) -> BreakerState:
        """
        The state once the time has passed.

        Args:
            now_s: Seconds of a monotonic clock.

        Returns:
            Half open where the wait is over; else this one.
        """
        if self.state == "open" and self.retry_after_s(now_s) <= 0:
            return self._to("waited", now_s)
        return self

    def probed(self) -> BreakerState:
        """A probe leaves."""
        return msgspec.structs.replace(self, probing=True)

    def unprobed(self) -> BreakerState:
        """A probe ended and told nothing: another may leave."""
        return msgspec.structs.replace(self, probing=False)

    def after(self, outcome: Outcome, now_s: float, rules: BreakerRules) -> BreakerState:
        """
        The state once a call has ended; its epoch must be this one's.

        Args:
            outcome: How it ended.
            now_s: Seconds of a monotonic clock.
            rules: When to open and to close.

        Returns:
            The new state.
        """
        if self.state == "half_open":
            return self._after_probe(outcome, now_s, rules)
        if self.state == "open" or outcome == "ignored":
            return self
        buckets = self._counted(outcome, now_s, rules.window_s)
        state = msgspec.structs.replace(self, buckets=buckets)
        if outcome == "success":
            return state
        calls = sum(bucket.calls for bucket in buckets)
        failures = sum(bucket.failures for bucket in buckets)
        if calls < rules.min_calls or failures < rules.failure_ratio * calls:
            return state
        return state._to("tripped", now_s, rules.open_s)  # noqa: SLF001 - a value of its own kind

    def _after_probe(self, outcome: Outcome, now_s: float, rules: BreakerRules) -> BreakerState:
        if outcome == "ignored":
            return self.unprobed()
        if outcome == "failure":
            longer_s = min(rules.open_max_s, self.open_for_s * 2)
            return self._to("probe_failed", now_s, longer_s)
        if self.proofs + 1 >= rules.probes:
            return self._to("proved", now_s)
        return msgspec.structs.replace(self, probing=False, proofs=self.proofs + 1)

    def _to(self, cause: Cause, now_s: float, open_for_s: float | None = None) -> BreakerState:
        state = TRANSITIONS[self.state, cause]
        kept_s = self.open_for_s if state == "half_open" else 0.0
        return BreakerState(
            state=state,
            epoch=self.epoch + 1,
            since_s=now_s,
            open_for_s=kept_s if open_for_s is None else open_for_s,
        )

    def _counted(self, outcome: Outcome, now_s: float, window_s: float) -> tuple[_Bucket, ...]:
        second = int(now_s // _BUCKET_S)
        oldest = second - int(window_s // _BUCKET_S)
        kept = self.buckets
        if kept and kept[0].second <= oldest:
            kept = tuple(bucket for bucket in kept if bucket.second > oldest)
        failed = int(outcome == "failure")
        if kept and kept[-1].second >= second:
            last = kept[-1]
            return (*kept[:-1], _Bucket(last.second, last.calls + 1, last.failures + failed))
        return (*kept, _Bucket(second, 1, failed))
