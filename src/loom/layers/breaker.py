"""
Stops asking a provider that fails, and finds out by single probes when it is well again.

The states stand in `layers/breaker_state.py`; here they are held under a lock, and fed with what
happens to the calls.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TypeAlias

from loom.core.ambient import Clock
from loom.core.errors import CircuitOpen, ConfigInvalid, LoomError
from loom.core.events import NOTICES, Completed, Sending, StreamEvent
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.core.timeline import Attempt, Timeline
from loom.layers.breaker_state import BreakerRules, BreakerState, Outcome

__all__ = ["Breaker", "BreakerKey", "Breaking"]

_log = logging.getLogger("loom.breaker")

BreakerKey: TypeAlias = tuple[str, str, str]
"""Origin, fingerprint of the key, model: what fails together."""


class Breaker:
    """
    A circuit breaker for each origin, key and model; give one to several clients to share it.

    It opens when of at least `min_calls` calls in `window_s` seconds the part `failure_ratio`
    failed: server errors, time limits, broken connections and streams, replies that cannot be
    read, and first bytes of streams that took longer than `slow_s`. A 429, another 4xx and a
    cancellation are no failures. Open, it raises `CircuitOpen` without asking anybody; then it
    lets single probes through, and `probes` successes in a row close it.

    Args:
        window_s: How far it looks back, 1 to 3600 seconds.
        min_calls: At least 1.
        failure_ratio: Above 0, up to 1.
        open_s: How long it stays open the first time, in seconds; each failed probe doubles it.
        open_max_s: The longest it stays open, in seconds; at least `open_s`.
        probes: Successes in a row that close it, at least 1.
        slow_s: Seconds from sending to the first byte of a stream beyond which it counts as a
            failure; None: however long. A plain answer is made before its first byte, and is
            never slow.

    Raises:
        ConfigInvalid: If a number is out of its range.

    Source: the project's reliability anchors, row "resilience4j".
    """

    def __init__(
        self,
        *,
        window_s: float = 30.0,
        min_calls: int = 20,
        failure_ratio: float = 0.5,
        open_s: float = 10.0,
        open_max_s: float = 120.0,
        probes: int = 3,
        slow_s: float | None = 30.0,
    ) -> None:
        _check(1 <= window_s <= 3600, "window_s", "between 1 and 3600 seconds")
        _check(min_calls >= 1, "min_calls", "at least 1")
        _check(0 < failure_ratio <= 1, "failure_ratio", "above 0, up to 1")
        _check(0 < open_s <= open_max_s, "open_s", "above 0, up to open_max_s")
        _check(probes >= 1, "probes", "at least 1")
        _check(slow_s is None or slow_s > 0, "slow_s", "above 0 seconds, or None")
        self.rules = BreakerRules(
            window_s=window_s,
            min_calls=min_calls,
            failure_ratio=failure_ratio,
            open_s=open_s,
            open_max_s=open_max_s,
            probes=probes,
        )
        self.slow_s = slow_s
        self._states: dict[BreakerKey, BreakerState] = {}
        self._lock = threading.Lock()

    def states(self) -> Mapping[BreakerKey, BreakerState]:
        """
        Every breaker that has seen a call.

        Returns:
            Its state as it was when it last changed, by origin, key fingerprint and model.
        """
        with self._lock:
            return dict(self._states)

    @property
    def probes_held(self) -> int:
        """Probes that are on their way."""
        return sum(state.probing for state in self.states().values())

    def check(self, key: BreakerKey, now_s: float) -> int:
        """
        Refuse a call that could not leave now, before it queues for anything.

        Fault matrix, row 63: no socket is opened.

        Args:
            key: Who is asked.
            now_s: Seconds of a monotonic clock.

        Returns:
            The epoch of the state.

        Raises:
            CircuitOpen: If the breaker is open, or a probe is on its way.
        """
        return self._pass(key, now_s, leaving=False).epoch

    def send(self, key: BreakerKey, now_s: float) -> int:
        """
        Take note that a call leaves for the vendor; `end` must be called for it.

        Args:
            key: Who is asked.
            now_s: Seconds of a monotonic clock.

        Returns:
            The epoch of the state that let it pass; half open, the call is the probe.

        Raises:
            CircuitOpen: If the breaker opened meanwhile, or another call is the probe.
        """
        return self._pass(key, now_s, leaving=True).epoch

    def end(
        self, key: BreakerKey, epoch: int, outcome: Outcome, now_s: float, *, sent: bool = True
    ) -> None:
        """
        Take note of how a call ended.

        Args:
            key: Who was asked.
            epoch: What `send` gave; an outcome of an earlier state is not counted.
            outcome: How.
            now_s: Seconds of a monotonic clock.
            sent: Whether it left: one that only queued is no probe, and ends none.
        """
        with self._lock:
            before = self._states.get(key, _CLOSED)
            if before.epoch != epoch or (before.probing and not sent and outcome == "ignored"):
                return
            state = self._states[key] = before.after(outcome, now_s, self.rules)
        _tell(key, before, state)

    def _pass(self, key: BreakerKey, now_s: float, *, leaving: bool) -> BreakerState:
        state = self._states.get(key, _CLOSED)
        if state.state == "closed":
            return state  # neither time nor a call that leaves changes it: no lock
        with self._lock:
            before = self._states.get(key, _CLOSED)
            state = before.at(now_s)
            wait_s = state.retry_after_s(now_s)
            if leaving and wait_s <= 0 and state.state == "half_open":
                state = state.probed()
            if state is not before:
                self._states[key] = state
        _tell(key, before, state)
        if wait_s > 0:
            raise _open(key, wait_s)
        return state


class Breaking(Layer):
    """
    Puts a breaker around a provider.

    Args:
        inner: The provider that answers.
        breaker: Holds the states.
        clock: Tells the time.
        scope: Gives origin and key fingerprint of whom `inner` asks; a key may change.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        breaker: Breaker,
        clock: Clock,
        scope: Callable[[], tuple[str, str]],
    ) -> None:
        super().__init__(inner)
        self._breaker = breaker
        self._clock = clock
        self._scope = scope

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass every event on, and take note of how the call ends.

        Args:
            request: What is asked.

        Yields:
            The inner provider's events.

        Raises:
            CircuitOpen: If nothing may be sent now.
            LoomError: Whatever the inner provider raises.
        """
        watch = _Watch(self._breaker, (*self._scope(), request.model), self._clock)
        slow_s = self._breaker.slow_s if request.stream else None
        try:
            watch.check()
            events = self.inner.stream(request)
            try:
                async for event in events:
                    kind = type(event)
                    if kind is Sending:
                        watch.send()
                    elif kind is Completed:
                        watch.end("success")
                    elif not watch.heard and kind not in NOTICES:
                        watch.hear(slow_s)
                    yield event
            finally:
                await events.aclose()
        except CircuitOpen as error:
            raise watch.told(error, request, self.name) from None
        except LoomError as error:
            watch.end("failure" if error.counts_for_breaker else "ignored")
            raise
        finally:
            # Cancelled, or left early: a probe that told nothing makes room for another (fault
            # matrix, row 64).
            watch.end("ignored")


class _Watch:
    """One call, as the breaker sees it; its end is told once."""

    __slots__ = ("_breaker", "_clock", "_epoch", "_key", "_sent", "_sent_s", "heard")

    def __init__(self, breaker: Breaker, key: BreakerKey, clock: Clock) -> None:
        self.heard = False
        self._breaker = breaker
        self._key = key
        self._clock = clock
        self._epoch: int | None = None
        self._sent = False
        self._sent_s = clock.monotonic_s()

    def check(self) -> None:
        self._epoch = self._breaker.check(self._key, self._sent_s)

    def send(self) -> None:
        self._epoch = None  # a refusal now leaves nothing to be ended
        self._sent_s = self._clock.monotonic_s()
        self._epoch = self._breaker.send(self._key, self._sent_s)
        self._sent = True

    def hear(self, slow_s: float | None) -> None:
        self.heard = True
        if slow_s is not None and self._clock.monotonic_s() - self._sent_s > slow_s:
            self.end("failure")

    def end(self, outcome: Outcome) -> None:
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            now_s = self._clock.monotonic_s()
            self._breaker.end(self._key, epoch, outcome, now_s, sent=self._sent)

    def told(self, error: CircuitOpen, request: ChatRequest, provider: str) -> CircuitOpen:
        error.provider = error.provider or provider
        if error.timeline is None:
            now_s = self._clock.monotonic_s()
            attempt = Attempt(
                provider=provider,
                model=request.model,
                sent_s=now_s,
                ended_s=now_s,
                sends=0,
                code=error.code,
            )
            began_s = now_s if request.began_s is None else request.began_s
            error.timeline = Timeline(began_s=began_s, attempts=(attempt,))
        return error


_CLOSED = BreakerState()


def _tell(key: BreakerKey, before: BreakerState, state: BreakerState) -> None:
    if before.epoch == state.epoch:
        return
    origin, _, model = key
    rest = f" for {state.open_for_s:.1f}s" if state.state == "open" else ""
    name = state.state.replace("_", " ")
    _log.warning("Circuit breaker of %s at %s is %s%s", model, origin, name, rest)


def _open(key: BreakerKey, wait_s: float) -> CircuitOpen:
    origin, _, model = key
    return CircuitOpen(
        f"the circuit breaker of {model!r} at {origin} is open: too many calls failed;"
        f" it is tried again in {wait_s:.1f} s",
        retry_after_s=wait_s,
        model=model,
        attempts=0,
    )


def _check(holds: bool, name: str, bounds: str) -> None:  # noqa: FBT001 - reads like an assert
    if not holds:
        raise ConfigInvalid(f"'{name}' of a breaker must be {bounds}")
