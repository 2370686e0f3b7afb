"""What is tried again, what is not, and what is told of it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import pytest

from loom.core.errors import (
    CircuitOpen,
    InvalidRequest,
    LoomError,
    MalformedReply,
    RateLimited,
    ServiceUnavailable,
    StreamTruncated,
    TimedOut,
)
from loom.core.events import Completed, Retried, Sending, StreamEvent, TextDelta
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Timeouts
from loom.core.response import Choice, LLMResponse, Usage
from loom.core.timeline import Attempt, Timeline
from loom.layers.retry import Retrying
from loom.layers.retry_policy import RetryPolicy, RetryQuota
from loom.testing import (
    LAYER_LAWS,
    FakeClock,
    FakeDice,
    LayerCase,
    LayerLaw,
    Witness,
    cancel_everywhere,
)

pytestmark = pytest.mark.anyio

ASK = ChatRequest(model="m", messages=(Message.user("x"),), stream=True)
ANSWER = LLMResponse(
    choices=(Choice(message=Message.assistant("hi"), finish_reason="stop"),),
    usage=Usage(),
    model="m",
)


class Scripted(LLMProvider):
    """Fails as told, then answers."""

    name = "mistral"
    model = "m"

    def __init__(self, *failures: LoomError, clock: FakeClock, after_text: bool = False) -> None:
        self.failures = list(failures)
        self.calls = 0
        self._clock = clock
        self._after_text = after_text

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.calls += 1
        now_s = self._clock.monotonic_s()
        attempt = Attempt(provider="mistral", model="m", sent_s=now_s, ended_s=now_s)
        timeline = Timeline(began_s=request.began_s or 0.0, attempts=(attempt,))
        yield Sending()
        if self._after_text:
            yield TextDelta("h")
        if self.failures:
            self.failures[0].attempts = min(self.failures[0].attempts, 1)
            error = self.failures.pop(0) if len(self.failures) > 1 else self.failures[0]
            if error.code != "done":
                error.timeline = timeline
                raise error
        yield Completed(_with(timeline))

    async def aclose(self) -> None:
        """Hold nothing, so give nothing back."""


def _with(timeline: Timeline) -> LLMResponse:
    return LLMResponse(
        choices=ANSWER.choices, usage=ANSWER.usage, model=ANSWER.model, timeline=timeline
    )


class _Done(LoomError):
    """Stands in a script for "answers from now on"."""

    code = "done"

    @classmethod
    def row(cls) -> Any:
        return ServiceUnavailable.row()


DONE = _Done("done")


def retrying(
    *failures: LoomError,
    policy: RetryPolicy | None = None,
    draws: Sequence[float] = (0.5,),
    after_text: bool = False,
) -> tuple[Retrying, Scripted, FakeClock]:
    clock = FakeClock(auto=True)
    inner = Scripted(*failures, clock=clock, after_text=after_text)
    layer = Retrying(inner, policy=policy or RetryPolicy(), clock=clock, dice=FakeDice(draws))
    return layer, inner, clock


async def read(layer: LLMProvider, request: ChatRequest = ASK) -> list[StreamEvent]:
    async with aclosing(layer.stream(request)) as events:
        return [event async for event in events]


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_retrying_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """Closing, order, contexts, limits: the contract of every layer."""
    await law(
        LayerCase(
            make=lambda inner: Retrying(
                inner, policy=RetryPolicy(), clock=FakeClock(auto=True), dice=FakeDice()
            )
        )
    )


async def test_an_answer_passes_as_it_is() -> None:
    """No failure, no further event, the very answer."""
    layer, inner, clock = retrying(DONE)
    sending, completed = await read(layer)
    assert Sending(1) == sending
    assert isinstance(completed, Completed)
    assert (1, []) == (inner.calls, clock.slept)


async def test_a_failure_is_announced_and_tried_again() -> None:
    """`Retried` with its wait, then a numbered `Sending`, and the answer knows of both."""
    layer, inner, clock = retrying(ServiceUnavailable("503"), DONE)
    first, retried, second, completed = await read(layer)
    assert (Sending(1), Sending(2)) == (first, second)
    assert isinstance(retried, Retried)
    assert (1, 0.25, 3) == (retried.attempt, retried.wait_s, retried.limit)
    assert isinstance(completed, Completed)
    timeline = completed.response.timeline
    assert timeline is not None
    assert (2, 2) == (completed.response.attempts, timeline.sends)
    assert [0.25, 0.0] == [attempt.wait_s for attempt in timeline.attempts]
    assert (2, [0.25]) == (inner.calls, clock.slept)


@pytest.mark.parametrize(
    ("error", "requests"),
    [(ServiceUnavailable("503"), 3), (RateLimited("429"), 5), (InvalidRequest("400"), 1)],
    ids=["503", "429", "400"],
)
async def test_the_last_failure_tells_of_all(error: LoomError, requests: int) -> None:
    """As many requests as configured, and no more; the error counts them."""
    layer, inner, _ = retrying(error)
    with pytest.raises(type(error)) as raised:
        await read(layer)
    assert requests == inner.calls == raised.value.attempts
    assert raised.value.timeline is not None
    assert requests == raised.value.timeline.sends


async def test_an_open_breaker_ends_the_retries() -> None:
    """The error is the vendor's, and a note says why it was not asked again."""
    opened = CircuitOpen("it is open", attempts=0, retry_after_s=10.0)
    layer, inner, _ = retrying(ServiceUnavailable("503"), opened)
    with pytest.raises(ServiceUnavailable) as raised:
        await read(layer)
    assert (2, 1) == (inner.calls, raised.value.attempts)
    assert ["not tried again: it is open"] == raised.value.__notes__


async def test_a_refusal_at_once_is_the_error() -> None:
    """Nothing was sent, and the breaker says so."""
    layer, _, _ = retrying(CircuitOpen("it is open", attempts=0))
    with pytest.raises(CircuitOpen) as raised:
        await read(layer)
    assert 0 == raised.value.attempts


async def test_a_failed_call_leaves_no_ring_behind() -> None:
    """Its errors are freed with their last user, not when the collector comes."""

    class Failing(Scripted):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
            del request
            yield Sending()
            raise _Named("gone")

    class _Named(ServiceUnavailable):
        pass

    clock = FakeClock(auto=True)
    inner = Failing(clock=clock)
    layer = Retrying(inner, policy=RetryPolicy(), clock=clock, dice=FakeDice())
    gc.collect()
    gc.disable()
    try:
        with suppress(ServiceUnavailable):
            await read(layer)
        left = [thing for thing in gc.get_objects() if isinstance(thing, _Named)]
    finally:
        gc.enable()
    assert [] == left


async def test_kinds_of_failures_share_the_attempts() -> None:
    """A 429 as the third failure may still be tried again: five are its limit."""
    layer, inner, _ = retrying(
        ServiceUnavailable("503"), RateLimited("429"), RateLimited("429"), DONE
    )
    await read(layer)
    assert 4 == inner.calls


@pytest.mark.parametrize(
    "error", [TimedOut("late", phase="first_byte"), MalformedReply("html")], ids=["silent", "html"]
)
async def test_a_silent_route_or_a_broken_reply_is_tried_once_more(error: LoomError) -> None:
    """Fault matrix, rows 8 and 12."""
    layer, inner, _ = retrying(error)
    with pytest.raises(type(error)):
        await read(layer)
    assert 2 == inner.calls


async def test_nothing_is_sent_again_once_text_came() -> None:
    """The reader has a part of the answer: a second one would repeat it."""
    layer, inner, clock = retrying(StreamTruncated("cut"), after_text=True)
    with pytest.raises(StreamTruncated):
        await read(layer)
    assert (1, []) == (inner.calls, clock.slept)


async def test_waits_are_the_vendors() -> None:
    """Each attempt's own `Retry-After`, up to 10 % later."""
    layer, _, clock = retrying(
        RateLimited("429", retry_after_s=2.0), RateLimited("429", retry_after_s=7.0), DONE
    )
    await read(layer)
    assert [pytest.approx(2.1), pytest.approx(7.35)] == clock.slept


@pytest.mark.parametrize("asked_s", [61.0, 1e9])
async def test_a_huge_wait_raises_at_once(asked_s: float) -> None:
    """With the value, and without a sleep."""
    layer, inner, clock = retrying(RateLimited("429", retry_after_s=asked_s))
    with pytest.raises(RateLimited) as raised:
        await read(layer)
    assert (asked_s, 1, []) == (raised.value.retry_after_s, inner.calls, clock.slept)
    assert any("longer than may be waited" in note for note in raised.value.__notes__)


async def test_a_wait_beyond_the_deadline_raises_at_once() -> None:
    """Waiting would only make the failure late (R-19, R-23)."""
    layer, inner, clock = retrying(RateLimited("429", retry_after_s=5.0))
    hasty = ChatRequest(model="m", messages=ASK.messages, timeouts=Timeouts(total_s=4.0))
    with pytest.raises(RateLimited):
        await read(layer, hasty)
    assert (1, []) == (inner.calls, clock.slept)


async def test_all_attempts_share_one_deadline() -> None:
    """Waits count: 8 s are over after the waits of 1, 2 and 4 seconds."""
    layer, inner, clock = retrying(RateLimited("429"), draws=[0.999])
    hasty = ChatRequest(model="m", messages=ASK.messages, timeouts=Timeouts(total_s=8.0))
    with pytest.raises(RateLimited):
        await read(layer, hasty)
    assert 4 == inner.calls
    assert sum(clock.slept) < 8


async def test_the_quota_holds_back_a_storm() -> None:
    """Under total failure 1.1 requests a call are sent once the reserve is spent (SRE)."""
    layer, inner, _ = retrying(ServiceUnavailable("503"))
    for _ in range(5000):
        with pytest.raises(ServiceUnavailable) as raised:
            await read(layer)
    assert inner.calls <= 1.1 * 5000 + 100
    assert any("retry quota" in note for note in raised.value.__notes__)


async def test_successes_earn_the_quota_back() -> None:
    """A call that succeeds after retries costs the quota nothing."""
    policy = RetryPolicy(quota=RetryQuota(reserve=2))
    clock = FakeClock(auto=True)
    inner = Scripted(ServiceUnavailable("503"), DONE, clock=clock)
    layer = Retrying(inner, policy=policy, clock=clock, dice=FakeDice())
    for _ in range(20):
        inner.failures = [ServiceUnavailable("503"), DONE]
        await read(layer)
    assert 2.0 == layer.tokens.left


async def test_a_wait_that_is_broken_off_gives_its_token_back() -> None:
    """Cancelled in the sleep, or left at `Retried` (fault matrix, row 52)."""
    clock = FakeClock()
    inner = Scripted(ServiceUnavailable("503"), clock=clock)
    layer = Retrying(inner, policy=RetryPolicy(), clock=clock, dice=FakeDice())
    task = asyncio.ensure_future(read(layer))
    await clock.until_asleep()
    assert 99.0 == layer.tokens.left
    task.cancel()
    await asyncio.wait([task])
    assert (100.0, 0) == (layer.tokens.left, clock.sleepers)

    async with aclosing(layer.stream(ASK)) as events:
        async for event in events:
            if isinstance(event, Retried):
                break
    assert 100.0 == layer.tokens.left


async def test_a_cancellation_anywhere_leaves_nothing() -> None:
    """At every suspension, once and twice: streams closed, nobody asleep."""
    clock = FakeClock(auto=True)
    witness = Witness(error=ServiceUnavailable("503"))
    policy = RetryPolicy(quota=None)
    layer = Retrying(witness, policy=policy, clock=clock, dice=FakeDice())

    async def call() -> None:
        with pytest.raises(ServiceUnavailable):
            await read(layer)

    survey = await cancel_everywhere(
        call, probes={"streams": lambda: witness.held, "asleep": lambda: clock.sleepers}
    )
    assert survey.suspensions > 6


async def test_the_log_has_the_pages_lines(caplog: pytest.LogCaptureFixture) -> None:
    """`Rate limit hit ...`, `Request failed ...`, `Success ...`, `max retries exceeded`."""
    caplog.set_level(logging.INFO, logger="loom.retry")
    layer, _, _ = retrying(
        RateLimited("429", retry_after_s=2.0), ServiceUnavailable("overloaded"), DONE, draws=[0.0]
    )
    await read(layer)
    layer, _, _ = retrying(ServiceUnavailable("down"), draws=[0.0])
    with pytest.raises(ServiceUnavailable):
        await read(layer)
    assert [
        "Rate limit hit, retrying in 2.0s (attempt 1/5)",
        "Request failed (attempt 2/3), retrying in 0.0s: overloaded",
        "Success: received response after 2 retries",
        "Request failed (attempt 1/3), retrying in 0.0s: down",
        "Request failed (attempt 2/3), retrying in 0.0s: down",
        "max retries exceeded (3 attempts): down",
    ] == caplog.messages


async def test_a_stream_without_its_end_is_not_tried_again() -> None:
    """Who folds it says that it was cut."""

    class Silent(Scripted):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
            del request
            self.calls += 1
            yield Sending()

    clock = FakeClock(auto=True)
    inner = Silent(clock=clock)
    layer = Retrying(inner, policy=RetryPolicy(), clock=clock, dice=FakeDice())
    with pytest.raises(StreamTruncated):
        await layer.chat(ASK)
    assert 1 == inner.calls
