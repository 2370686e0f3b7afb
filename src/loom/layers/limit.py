"""Sends nothing that the limits have no room for: the layer around a provider."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from loom.core.ambient import Clock
from loom.core.errors import CapacityExceeded, LimitExceeded, LoomError, RateLimited
from loom.core.events import NOTICES, Completed, Sending, StreamEvent, Throttled
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse, RateLimitState, Usage
from loom.core.timeline import Attempt, Timeline
from loom.layers.limit_state import LimitKey, Refused

if TYPE_CHECKING:
    from loom.layers.limit_estimate import Estimate
    from loom.layers.limit_line import Ticket
    from loom.layers.limiter import Limiter

__all__ = ["Limiting"]


class Limiting(Layer):
    """
    Puts a limiter around a provider that sends each request once.

    Args:
        inner: The provider that answers.
        limiter: Holds the limits, and lets calls wait.
        clock: Tells the time.
        scope: Gives origin and key fingerprint of whom `inner` asks; a key may change.
        group: Gives the name under which the vendor counts a model's limit, for example the
            model that an alias stands for; None: the name as it is.
        patience_s: Seconds that a call waits at most; a longer wait is refused at once. None: up
            to its deadline.
        learns: Whether limits follow what the vendor announces and refuses; False for limits that
            are not the vendor's.
    """

    def __init__(
        self,
        inner: LLMProvider,
        *,
        limiter: Limiter,
        clock: Clock,
        scope: Callable[[], tuple[str, str]],
        group: Callable[[str], str] | None = None,
        patience_s: float | None = None,
        learns: bool = True,
    ) -> None:
        super().__init__(inner)
        self._limiter = limiter
        self._clock = clock
        self._scope = scope
        self._group = group
        self._patience_s = patience_s
        self._learns = learns

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Wait for a grant, pass every event on, and settle what was used.

        Args:
            request: What is asked.

        Yields:
            `Throttled` if it waits; the inner provider's events.

        Raises:
            LimitExceeded: If there is no room before the deadline; nothing is sent.
            LoomError: Whatever the inner provider raises.
        """
        request = request.begun(self._clock.monotonic_s())
        model = request.model if self._group is None else self._group(request.model)
        call = self._call(model, request)
        try:
            ticket = call.draw()
            while not ticket.granted:
                self._check_patience(ticket)
                yield Throttled(ticket.wait_s)
                await ticket.wait()
                if call.key[:2] == self._scope():
                    break
                # The key was renewed meanwhile: the call leaves under the new one's limits.
                call.end()
                call = self._call(model, request)
                ticket = call.draw()
            events = self.inner.stream(request)
            try:
                async for event in events:
                    kind = type(event)
                    if kind is Sending:
                        call.sent = True
                    elif kind is Completed:
                        call.complete(event.response)  # type: ignore[union-attr] # `kind` says so
                    elif kind not in NOTICES:
                        call.heard = True
                    yield event
            finally:
                await events.aclose()
        except LimitExceeded as error:
            raise call.told(error, self.name) from None
        except LoomError as error:
            call.fail(error)
            raise
        finally:
            call.end()

    def _call(self, model: str, request: ChatRequest) -> _Call:
        key = (*self._scope(), model)
        return _Call(self._limiter, key, request, self._clock, learns=self._learns)

    def _check_patience(self, ticket: Ticket) -> None:
        wait_s = ticket.wait_s
        if self._patience_s is not None and wait_s > self._patience_s:
            raise LimitExceeded(
                f"the limit has no room for this call for {wait_s:.1f} s",
                retry_after_s=wait_s,
                attempts=0,
            )


class _Call:
    """One call, as the limiter sees it; its end is told once."""

    __slots__ = (
        "_clock",
        "_estimate",
        "_learns",
        "_limiter",
        "_request",
        "_ticket",
        "heard",
        "key",
        "sent",
    )

    def __init__(
        self, limiter: Limiter, key: LimitKey, request: ChatRequest, clock: Clock, *, learns: bool
    ) -> None:
        self.sent = False
        self._learns = learns
        self.heard = False
        self._limiter = limiter
        self.key = key
        self._request = request
        self._clock = clock
        self._estimate: Estimate = limiter.estimator.estimate(request, key[2])
        self._ticket: Ticket | None = None

    def draw(self) -> Ticket:
        self._ticket = self._limiter.draw(self.key, self._request, self._estimate, self._clock)
        return self._ticket

    def complete(self, response: LLMResponse) -> None:
        """Settle with the truth: what the header says was charged, else the usage."""
        usage, limits = response.usage, response.rate_limit
        total = limits.query_cost_tokens
        if total is None:
            total = _charged(usage)
        if not usage.estimated:
            self._limiter.estimator.learn(
                self._request, self.key[2], self._estimate,
                # What came from a cache is not charged; the rest of the prompt is as long.
                prompt=usage.input_tokens, total=total + usage.cached_tokens,
            )  # fmt: skip
        self._settle(total)
        self._announce(limits)

    def fail(self, error: LoomError) -> None:
        """Settle a failed call: nothing, what is known, or the whole reservation."""
        attempts = error.timeline.attempts if error.timeline is not None else ()
        charge = attempts[-1].charge if attempts else None
        if isinstance(error, RateLimited):
            charge = "released"
        if attempts and not attempts[-1].sends:
            self.sent = False
        usage = None if error.partial is None else error.partial.usage
        if isinstance(error, RateLimited):
            self._refused(error)
        if error.rate_limit is not None:
            self._announce(error.rate_limit)
        if not self.sent:
            return
        if usage is not None and not usage.estimated:
            self._settle(_charged(usage))
        elif charge == "released" and not self.heard:
            self._settle(0)

    def end(self) -> None:
        """End what was not ended: a stream that was cut is settled at its reservation."""
        if self.sent:
            self._settle(self._estimate.reserve)
        elif self._ticket is not None:
            self._ticket.release()
            self._ticket = None

    def told(self, error: LimitExceeded, provider: str) -> LimitExceeded:
        error.provider = error.provider or provider
        if error.timeline is None:
            now_s = self._clock.monotonic_s()
            attempt = Attempt(
                provider=provider,
                model=self._request.model,
                sent_s=now_s,
                ended_s=now_s,
                sends=0,
                code=error.code,
            )
            began_s = now_s if self._request.began_s is None else self._request.began_s
            error.timeline = Timeline(began_s=began_s, attempts=(attempt,))
        return error

    def _refused(self, error: RateLimited) -> None:
        limits = error.rate_limit
        if not self._learns:
            return
        if limits is not None and limits.limit_requests_minute == 0:
            return  # the model is not in the plan: nothing is used up
        why: Refused = "capacity" if isinstance(error, CapacityExceeded) else "quota"
        self._limiter.refuse(self.key, why, error.retry_after_s, self._clock.monotonic_s())

    def _announce(self, limits: RateLimitState) -> None:
        if not self._learns:
            return
        self._limiter.announce(
            self.key,
            limits.limit_requests_minute,
            limits.limit_tokens_minute,
            self._clock.monotonic_s(),
        )

    def _settle(self, tokens: int) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            ticket.settle(tokens)


def _charged(usage: Usage) -> int:
    # Recorded: 122 tokens in all, 16 of them cached, cost 106.
    return max(0, usage.input_tokens - usage.cached_tokens + usage.output_tokens)
