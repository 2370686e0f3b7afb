"""A breaker around a provider: who is asked, who is refused, what counts."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import pytest

from loom.core.errors import (
    CircuitOpen,
    ConfigInvalid,
    InvalidRequest,
    LoomError,
    RateLimited,
    ServiceUnavailable,
    StreamTruncated,
    TimedOut,
    Unreachable,
)
from loom.core.events import Completed, Sending, StreamEvent, TextDelta, Throttled
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.layers.breaker import Breaker, Breaking
from loom.testing import (
    LAYER_LAWS,
    FakeClock,
    LayerCase,
    LayerLaw,
    Witness,
    cancel_everywhere,
    turn,
)

pytestmark = pytest.mark.anyio

ASK = ChatRequest(model="m", messages=(Message.user("x"),), stream=True)
PLAIN = ChatRequest(model="m", messages=(Message.user("x"),))
SCOPE = ("https://x", "0123abcd")
KEY = (*SCOPE, "m")


def breaking(
    inner: LLMProvider, breaker: Breaker | None = None, clock: FakeClock | None = None
) -> Breaking:
    return Breaking(
        inner,
        breaker=Breaker() if breaker is None else breaker,
        clock=clock or FakeClock(auto=True),
        scope=lambda: SCOPE,
    )


async def read(layer: LLMProvider, request: ChatRequest = ASK) -> list[StreamEvent]:
    async with aclosing(layer.stream(request)) as events:
        return [event async for event in events]


async def fail(layer: LLMProvider, times: int) -> None:
    for _ in range(times):
        with suppress(LoomError):
            await read(layer)


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_breaking_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """Closing, order, contexts, limits: the contract of every layer."""
    breaker = Breaker(min_calls=10_000)
    await law(
        LayerCase(
            make=lambda inner: breaking(inner, breaker),
            probes={"probes": lambda: breaker.probes_held},
        )
    )


async def test_an_open_breaker_asks_nobody() -> None:
    """`CircuitOpen` with the wait, and nothing is sent (fault matrix, row 63)."""
    witness, clock = Witness(error=ServiceUnavailable("503")), FakeClock(auto=True)
    layer = breaking(witness, clock=clock)
    await fail(layer, 20)
    clock.advance(2.5)
    with pytest.raises(CircuitOpen, match=r"tried again in 7\.5 s") as raised:
        await read(layer)
    error = raised.value
    assert 20 == witness.calls
    assert (7.5, 0, "witness", "m") == (
        error.retry_after_s, error.attempts, error.provider, error.model
    )  # fmt: skip
    assert error.timeline is not None
    assert [("circuit_open", 0)] == [(a.code, a.sends) for a in error.timeline.attempts]


@pytest.mark.parametrize(
    "error",
    [
        ServiceUnavailable("503"),
        TimedOut("late", phase="first_byte"),
        Unreachable("reset", phase="reset"),
        StreamTruncated("cut"),
    ],
    ids=lambda error: error.code,
)
async def test_failures_of_the_provider_open_it(error: LoomError) -> None:
    """Twenty in the window."""
    breaker = Breaker()
    await fail(breaking(Witness(error=error), breaker), 20)
    assert "open" == breaker.states()[KEY].state


@pytest.mark.parametrize(
    "error",
    [
        RateLimited("429"),
        InvalidRequest("400"),
        TimedOut("408", http_status=408),
        Unreachable("the proxy is down", phase="proxy"),
        TimedOut("your deadline", phase="total"),
    ],
    ids=lambda error: f"{error.code}-{error.phase}",
)
async def test_other_errors_do_not(error: LoomError) -> None:
    """They are no fault of the provider's."""
    breaker = Breaker()
    await fail(breaking(Witness(error=error), breaker), 40)
    assert "closed" == breaker.states()[KEY].state


async def test_cancellations_and_readers_that_leave_do_not() -> None:
    """Fault matrix, rows 53 and 54."""
    breaker = Breaker(min_calls=1, failure_ratio=0.01)
    layer = breaking(Witness(), breaker)
    for _ in range(30):
        async with aclosing(layer.stream(ASK)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
        task = asyncio.ensure_future(read(layer))
        await turn(2)
        task.cancel()
        await asyncio.wait([task])
    await read(layer)
    assert "closed" == breaker.states()[KEY].state


async def test_a_failure_in_the_middle_of_a_stream_counts() -> None:
    """The answer was cut, whoever handed on its beginning."""
    breaker = Breaker()
    await fail(breaking(Witness(error=StreamTruncated("cut"), fail_at=4), breaker), 20)
    assert "open" == breaker.states()[KEY].state


class Slow(Witness):
    """Waits in a queue of ours, then for its first byte."""

    def __init__(self, clock: FakeClock, *, queue_s: float, first_byte_s: float) -> None:
        super().__init__()
        self._clock, self._queue_s, self._first_byte_s = clock, queue_s, first_byte_s

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        yield Throttled(self._queue_s)
        self._clock.advance(self._queue_s)
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                yield event
                if isinstance(event, Sending):
                    self._clock.advance(self._first_byte_s)


@pytest.mark.parametrize(
    ("queue_s", "first_byte_s", "request_", "state"),
    [
        (0.0, 31.0, ASK, "open"),
        (0.0, 29.0, ASK, "closed"),
        (500.0, 1.0, ASK, "closed"),
        (0.0, 300.0, PLAIN, "closed"),
    ],
    ids=["slow", "fast", "queued", "plain"],
)
async def test_slow_first_bytes_count_from_sending(
    queue_s: float, first_byte_s: float, request_: ChatRequest, state: str
) -> None:
    """Not from the queue; and a plain answer is made before its first byte."""
    clock, breaker = FakeClock(auto=True), Breaker(window_s=3600)
    layer = breaking(Slow(clock, queue_s=queue_s, first_byte_s=first_byte_s), breaker, clock)
    for _ in range(20):
        await read(layer, request_)
    assert state == breaker.states()[KEY].state


async def half_open(error: LoomError | None = None) -> tuple[Breaking, Breaker, FakeClock, Witness]:
    clock, breaker = FakeClock(), Breaker()
    await fail(breaking(Witness(error=ServiceUnavailable("503")), breaker, clock), 20)
    clock.advance(10)
    witness = Witness(error=error)
    return breaking(witness, breaker, clock), breaker, clock, witness


async def test_one_probe_at_a_time() -> None:
    """The others are refused while it is on its way."""
    layer, breaker, _, witness = await half_open()
    probe = layer.stream(ASK)
    assert isinstance(await anext(probe), Sending)
    assert 1 == breaker.probes_held
    with pytest.raises(CircuitOpen) as raised:
        await read(layer)
    assert 1.0 == raised.value.retry_after_s
    assert 1 == witness.calls
    async with aclosing(probe):
        rest = [event async for event in probe]
    assert isinstance(rest[-1], Completed)
    assert 0 == breaker.probes_held


async def test_of_two_that_queued_one_is_sent() -> None:
    """Both passed the door; at `Sending` only one may go."""
    layer, breaker, _, _ = await half_open()
    results = await asyncio.gather(*(read(layer) for _ in range(5)), return_exceptions=True)
    assert 4 == sum(isinstance(result, CircuitOpen) for result in results)
    assert 0 == breaker.probes_held


async def test_who_leaves_the_queue_takes_no_other_probe_with_him() -> None:
    """A call that was never sent is no probe: its end says nothing of the one on its way."""
    clock, breaker = FakeClock(), Breaker()
    await fail(breaking(Witness(error=ServiceUnavailable("503")), breaker, clock), 20)
    clock.advance(10)
    queued = breaking(Slow(clock, queue_s=0, first_byte_s=0), breaker, clock).stream(ASK)
    assert isinstance(await anext(queued), Throttled)
    probe = breaking(Witness(), breaker, clock).stream(ASK)
    assert isinstance(await anext(probe), Sending)
    await queued.aclose()
    assert 1 == breaker.probes_held
    with pytest.raises(CircuitOpen):
        await read(breaking(Witness(), breaker, clock))
    await probe.aclose()
    assert 0 == breaker.probes_held


async def test_three_successes_close_it() -> None:
    """Then everybody passes."""
    layer, breaker, _, _ = await half_open()
    for _ in range(3):
        await read(layer)
    assert "closed" == breaker.states()[KEY].state
    results = await asyncio.gather(*(read(layer) for _ in range(5)))
    assert 5 == len(results)


async def test_a_failed_probe_opens_it_for_longer() -> None:
    """20 s now."""
    layer, breaker, _, _ = await half_open(ServiceUnavailable("503"))
    with pytest.raises(ServiceUnavailable):
        await read(layer)
    assert ("open", 20.0) == (breaker.states()[KEY].state, breaker.states()[KEY].open_for_s)


async def test_a_probe_that_is_cancelled_gives_its_permit_back() -> None:
    """At every suspension, once and twice (fault matrix, row 64)."""
    layer, breaker, _, witness = await half_open()

    async def call() -> None:
        await read(layer)
        breaker._states[KEY] = opened_state

    opened_state = breaker.states()[KEY].at(1e9)
    breaker._states[KEY] = opened_state
    await cancel_everywhere(
        call,
        probes={"probes": lambda: breaker.probes_held, "streams": lambda: witness.held},
    )


async def test_an_outcome_of_an_earlier_state_is_not_counted() -> None:
    """A call that left before the breaker opened tells nothing about the probe."""
    clock, breaker = FakeClock(), Breaker()
    early = breaking(Witness(), breaker, clock).stream(ASK)
    await anext(early)
    await fail(breaking(Witness(error=ServiceUnavailable("503")), breaker, clock), 20)
    async with aclosing(early):
        async for _ in early:
            pass
    assert "open" == breaker.states()[KEY].state


async def test_models_and_keys_fail_apart() -> None:
    """One model's outage closes no other model's door."""
    breaker = Breaker()
    layer = breaking(Witness(error=ServiceUnavailable("503")), breaker)
    await fail(layer, 20)
    other = ChatRequest(model="other", messages=ASK.messages)
    with pytest.raises(ServiceUnavailable):
        await read(layer, other)
    assert {(*SCOPE, "m"), (*SCOPE, "other")} == set(breaker.states())


async def test_changes_are_logged_once_each(caplog: pytest.LogCaptureFixture) -> None:
    """A line when it opens, is half open, and closes."""
    caplog.set_level(logging.WARNING, logger="loom.breaker")
    layer, _, _, _ = await half_open()
    for _ in range(4):
        await read(layer)
    assert [
        "Circuit breaker of m at https://x is open for 10.0s",
        "Circuit breaker of m at https://x is half open",
        "Circuit breaker of m at https://x is closed",
    ] == caplog.messages


def test_threads_share_it() -> None:
    """No outcome is lost between them."""
    breaker = Breaker(min_calls=8000, window_s=3600)

    def work() -> None:
        for _ in range(1000):
            breaker.end(KEY, breaker.send(KEY, 1.0), "failure", 1.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "open" == breaker.states()[KEY].state


@pytest.mark.parametrize(
    "changes",
    [
        {"window_s": 0.5},
        {"min_calls": 0},
        {"failure_ratio": 0},
        {"failure_ratio": 1.1},
        {"open_s": 0},
        {"open_s": 200},
        {"probes": 0},
        {"slow_s": 0},
    ],
    ids=str,
)
def test_a_breaker_out_of_range_is_refused(changes: dict[str, float]) -> None:
    """The message names the argument."""
    with pytest.raises(ConfigInvalid, match=next(iter(changes))):
        Breaker(**changes)  # type: ignore[arg-type]  # that is the point
