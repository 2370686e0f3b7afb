"""
Tries again what failed before any of the answer came.

When and how often is decided in `layers/retry_policy.py`; this is the flow around it. The loop is
flat: no attempt is made from inside another's `except`, so nothing of a failed one is held.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

import msgspec

from loom.core.ambient import Clock, Dice
from loom.core.errors import CircuitOpen, LoomError
from loom.core.events import NOTICES, Completed, Retried, Sending, StreamEvent
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.core.timeline import Attempt
from loom.layers.retry_policy import RetryPolicy, Tokens

__all__ = ["Retrying"]

_log = logging.getLogger("loom.retry")


class Retrying(Layer):
    """
    Tries again as a policy says, until the deadline and never after the first model event.

    Args:
        inner: The provider that answers.
        policy: Decides.
        clock: Waits, and knows when the deadline has come.
        dice: Draws the jitter.
    """

    def __init__(
        self, inner: LLMProvider, *, policy: RetryPolicy, clock: Clock, dice: Dice
    ) -> None:
        super().__init__(inner)
        self._policy = policy
        self._clock = clock
        self._dice = dice
        self.tokens = Tokens(policy.quota)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Pass on the events of the attempt that succeeds, and a `Retried` before each further one.

        Args:
            request: What is asked.

        Yields:
            The inner provider's events.

        Raises:
            LoomError: How the last attempt failed, with all attempts in its timeline.
        """
        request = request.begun(self._clock.monotonic_s())
        self.tokens.begin()
        story = _Story()
        while True:
            failed: LoomError | None = None
            answered = False
            try:
                events = self.inner.stream(request)
                try:
                    async for event in events:
                        kind = type(event)
                        if kind is Completed:
                            self.tokens.succeed(story.retries)
                            yield story.completed(event)  # type: ignore[arg-type] # `kind` says so
                            return
                        if kind is Sending:
                            yield Sending(story.sends + 1)
                            continue
                        answered = answered or kind not in NOTICES
                        yield event
                finally:
                    await events.aclose()
            except LoomError as error:
                failed = error
            if failed is None:
                return  # a stream without `Completed`; whoever folds it says so
            wait_s = self._wait_s(failed, story, request, answered=answered)
            if wait_s is None:
                try:
                    raise story.told(failed)
                finally:
                    failed = story = None  # type: ignore[assignment] # frame and error form a ring
            rested = False
            until_s = self._clock.monotonic_s() + wait_s
            try:
                yield Retried(story.attempts, wait_s, failed, self._policy.limit(failed))
                # What the reader took over the notice is part of the wait.
                await self._clock.sleep(max(0.0, until_s - self._clock.monotonic_s()))
                rested = True
            finally:
                # Fault matrix, row 52.
                if not rested:
                    self.tokens.give_back()
            story.waited(wait_s)

    def _wait_s(
        self, error: LoomError, story: _Story, request: ChatRequest, *, answered: bool
    ) -> float | None:
        """Seconds until the next attempt, for which a token was taken; None if there is none."""
        own = self._policy.kind_limit(error)
        story.add(error, None if own is None else own[0])
        limit = self._policy.limit(error)
        if answered or limit == 1:
            return None
        if story.attempts >= limit or (own is not None and story.count(own[0]) >= own[1]):
            if story.attempts > 1:
                text = "max retries exceeded (%d attempts): %s"
                _log.warning(text, story.attempts, error.message)
            return None
        wait_s = self._policy.wait_s(story.attempts, error, self._dice.random())
        left_s = (request.deadline_s or 0.0) - self._clock.monotonic_s()
        # A wait that ends after the deadline would only make the failure late (fault matrix,
        # rows 33e and 56).
        if wait_s is None or wait_s >= left_s:
            asked = "asked for" if error.retry_after_s is not None else "to come"
            error.add_note(f"not tried again: the wait {asked} is longer than may be waited")
            return None
        if not self.tokens.take():
            error.add_note("not tried again: too many calls of this client fail (retry quota)")
            return None
        _log.warning("%s", Retried(story.attempts, wait_s, error, limit).text)
        return wait_s


class _Story:
    """What happened in a call so far."""

    __slots__ = ("_kinds", "_past", "_sent", "attempts", "retries", "sends")

    def __init__(self) -> None:
        self.attempts = 0
        self.sends = 0
        self.retries = 0
        self._kinds: dict[str, int] = {}
        self._past: tuple[Attempt, ...] = ()
        self._sent: LoomError | None = None

    def add(self, error: LoomError, kind: str | None) -> None:
        """Take note of a failed attempt."""
        self.attempts += 1
        self.sends += error.attempts
        if not isinstance(error, CircuitOpen):
            self._sent = error
        if kind is not None:
            self._kinds[kind] = self.count(kind) + 1
        if error.timeline is not None:
            self._past += error.timeline.attempts

    def count(self, kind: str) -> int:
        """How many attempts ended so."""
        return self._kinds.get(kind, 0)

    def waited(self, wait_s: float) -> None:
        """Take note of a wait."""
        self.retries += 1
        if self._past:
            last = msgspec.structs.replace(self._past[-1], wait_s=wait_s)
            self._past = (*self._past[:-1], last)

    def told(self, error: LoomError) -> LoomError:
        """Give the last error of an attempt that was sent, with everything that went before."""
        if self._sent is not None and error is not self._sent:
            # That a breaker ended the retries is less than why it did.
            self._sent.add_note(f"not tried again: {error.message}")
            error = self._sent
        if self.attempts > 1:
            error.attempts = self.sends
            if error.timeline is not None:
                error.timeline = msgspec.structs.replace(error.timeline, attempts=self._past)
        return error

    def completed(self, event: Completed) -> Completed:
        """Give the answer, with everything that went before it."""
        if not self.attempts:
            return event
        times = "1 retry" if self.retries == 1 else f"{self.retries} retries"
        _log.info("Success: received response after %s", times)
        response: LLMResponse = event.response
        timeline = response.timeline
        return Completed(
            msgspec.structs.replace(
                response,
                attempts=self.sends + response.attempts,
                timeline=None if timeline is None else timeline.after(self._past),
            )
        )
