"""A limiter around a provider: what waits, what is settled, what is learnt."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.core.errors import (
    CapacityExceeded,
    InvalidRequest,
    LimitExceeded,
    LoomError,
    RateLimited,
    StreamTruncated,
    Unreachable,
)
from loom.core.events import Completed, Sending, StreamEvent, TextDelta, Throttled
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Sampling, Timeouts
from loom.core.response import Choice, LLMResponse, Partial, RateLimitState, Usage
from loom.core.timeline import Attempt, Charge, Timeline
from loom.layers.limit import Limiting
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import LimitState
from loom.layers.limiter import Limiter
from loom.server.simulator.options import ChargeAt, Tier, WindowKind
from loom.testing import (
    LAYER_LAWS,
    Chance,
    FakeClock,
    LayerCase,
    LayerLaw,
    LoopClock,
    MeteredCall,
    MeteredVendor,
    SeededLoop,
    Witness,
    turn,
)

pytestmark = pytest.mark.anyio

SCOPE = ("https://x", "0123abcd")
KEY = (*SCOPE, "m")
ASK = ChatRequest(
    model="m", messages=(Message.user("x" * 296),), sampling=Sampling(max_tokens=900), stream=True
)
# 328 bytes with what stands around it, over 3.2.
PROMPT = 103


def limiting(
    inner: LLMProvider, limiter: Limiter | None = None, clock: FakeClock | None = None
) -> Limiting:
    return Limiting(
        inner,
        limiter=limiter or Limiter(RateLimit.pro()),
        clock=clock or FakeClock(auto=True),
        scope=lambda: SCOPE,
    )


async def read(layer: LLMProvider, request: ChatRequest = ASK) -> list[StreamEvent]:
    async with aclosing(layer.stream(request)) as events:
        return [event async for event in events]


async def state_after(*events: StreamEvent, error: LoomError | None = None) -> LimitState:
    limiter = Limiter(RateLimit(requests_per_minute=9, tokens_per_minute=9999, burst_s=60))
    witness = Witness((*events, Sending()), error=error, fail_at=len(events))
    with suppress(LoomError):
        await read(limiting(witness, limiter))
    return limiter.state(KEY)


def completed(usage: Usage, cost: int | None = None, *, requests: int | None = None) -> Completed:
    return Completed(
        LLMResponse(
            choices=(Choice(message=Message.assistant("a")),),
            usage=usage,
            model="m",
            rate_limit=RateLimitState(
                query_cost_tokens=cost,
                limit_requests_minute=requests,
                remaining_requests_minute=0,
            ),
        )
    )


def attempted(error: LoomError, charge: Charge, sends: int = 1) -> LoomError:
    attempt = Attempt(provider="x", model="m", sent_s=0.0, ended_s=0.0, charge=charge, sends=sends)
    error.timeline = Timeline(began_s=0.0, attempts=(attempt,))
    return error


@pytest.mark.parametrize("full", [False, True], ids=["free", "full"])
@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_limiting_keeps_the_laws_of_a_layer(law: LayerLaw, *, full: bool) -> None:
    """Whether a call goes at once or waits."""
    limit = RateLimit(requests_per_minute=1) if full else RateLimit(concurrency=9)
    limiter, clock = Limiter(limit), FakeClock(auto=True)
    patient = ChatRequest(
        model="witness-1",
        messages=(Message.user("ab?"),),
        stream=True,
        timeouts=Timeouts(total_s=86_400.0),
    )

    def make(inner: LLMProvider) -> Limiting:
        return limiting(inner, limiter, clock)

    def settled() -> int:
        return sum(state.used_requests - state.held for state in limiter.states().values())

    await law(
        LayerCase(
            make=make,
            # Of those that waited, the window has forgotten the earlier ones.
            settled=None if full else settled,
            request=patient,
            probes={"permits": lambda: limiter.held, "in line": lambda: limiter.queued},
        )
    )


async def test_a_call_that_waits_says_so_first() -> None:
    """`Throttled` with the wait, then what comes; one that goes at once says nothing."""
    clock = FakeClock(auto=True)
    layer = limiting(Witness(), Limiter(RateLimit(requests_per_minute=1)), clock)
    assert Sending() == (await read(layer))[0]
    assert [Throttled(61.0), Sending()] == (await read(layer))[:2]
    assert 1061 == clock.monotonic_s()


async def test_a_call_without_room_before_its_deadline_is_refused() -> None:
    """Nothing is sent, and the error names the wait, provider and model."""
    witness = Witness()
    layer = limiting(witness, Limiter(RateLimit(requests_per_minute=1)))
    await read(layer)
    hasty = ChatRequest(model="m", messages=(Message.user("x"),), timeouts=Timeouts(total_s=30.0))
    with pytest.raises(LimitExceeded) as raised:
        await read(layer, hasty)
    error = raised.value
    assert (61.0, 0, "witness", "m") == (
        error.retry_after_s, error.attempts, error.provider, error.model
    )  # fmt: skip
    assert error.timeline is not None
    assert [("limit_exceeded", 0)] == [(a.code, a.sends) for a in error.timeline.attempts]
    assert 1 == witness.calls


async def test_an_answer_is_settled_with_what_the_vendor_charged() -> None:
    """The header, else the usage without what came from the cache."""
    usage = Usage(input_tokens=100, output_tokens=22, total_tokens=122, cached_tokens=16)
    state = await state_after(Sending(), completed(usage, cost=97))
    assert (0, 0, 97) == (state.held, state.held_tokens, state.used_tokens)
    state = await state_after(Sending(), completed(usage))
    assert (1, 106) == (state.used_requests, state.used_tokens)


@pytest.mark.parametrize(
    ("error", "sent", "requests", "tokens"),
    [
        (StreamTruncated("cut"), True, 1, PROMPT + 900),
        (attempted(Unreachable("reset"), "unknown"), True, 1, PROMPT + 900),
        (attempted(InvalidRequest("422"), "released"), True, 1, 0),
        (attempted(RateLimited("429"), "released"), True, 1, 0),
        (RateLimited("429"), True, 1, 0),
        (attempted(Unreachable("no slot"), "released", sends=0), True, 0, 0),
        (InvalidRequest("it cannot be written"), False, 0, 0),
        (
            StreamTruncated("cut", partial=Partial(usage=Usage(input_tokens=5, output_tokens=2))),
            True, 1, 7,
        ),
    ],
)  # fmt: skip
async def test_a_failure_is_settled_with_what_it_may_have_cost(
    error: LoomError, *, sent: bool, requests: int, tokens: int
) -> None:
    """Released, known, or the whole reservation."""
    state = await state_after(*([Sending()] if sent else []), error=error)
    assert (0, 0) == (state.held, state.held_tokens)
    assert (requests, tokens) == (state.used_requests, state.used_tokens)


async def test_a_reader_that_leaves_pays_the_reservation() -> None:
    """Nobody knows what the vendor wrote; before anything was sent it is nothing."""
    for leave_after, tokens in ((Sending, PROMPT + 900), (Throttled, 0)):
        limiter = Limiter(RateLimit(requests_per_minute=1, tokens_per_minute=9999, burst_s=60))
        layer = limiting(Witness(), limiter)
        if leave_after is Throttled:
            limiter.refuse(KEY, "quota", 9.0, 1000.0)
        async with aclosing(layer.stream(ASK)) as events:
            async for event in events:
                if isinstance(event, leave_after):
                    break
        state = limiter.state(KEY)
        assert (0, 0, tokens) == (state.held, state.queued, state.used_tokens)
        await turn(3)


async def test_estimates_get_better_with_answers() -> None:
    """A prompt that has half the tokens of its bytes, and short answers."""
    limiter = Limiter(RateLimit(tokens_per_minute=10**6, reserve="likely"))
    usage = Usage(input_tokens=50, output_tokens=20, total_tokens=70)
    layer = limiting(Witness((Sending(), completed(usage))), limiter)
    for _ in range(60):
        await read(layer)
    guess = limiter.estimator.estimate(ASK, "m")
    assert (70, 70) == (guess.reserve, guess.expected)


async def test_headers_lower_the_limits_and_errors_do_too() -> None:
    """What they say is left is not used; 0 is a refusal and teaches nothing."""
    limiter = Limiter(RateLimit(requests_per_minute=100, tokens_per_minute=10_000))
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2)
    said = completed(usage, requests=50)
    await read(limiting(Witness((Sending(), said)), limiter))
    assert (50, 1) == (limiter.state(KEY).limit_requests, limiter.state(KEY).used_requests)
    for error in (
        InvalidRequest("422", rate_limit=RateLimitState(limit_requests_minute=40)),
        RateLimited("not in the plan", rate_limit=RateLimitState(limit_requests_minute=0)),
    ):
        with suppress(LoomError):
            await read(limiting(Witness(error=error, fail_at=1), limiter))
    assert (40, 1.0) == (limiter.state(KEY).limit_requests, limiter.state(KEY).scale)


async def test_a_429_is_learnt_from() -> None:
    """Fault matrix, rows 33 and 34: a full quota shrinks it, a full model does not."""
    for error, scale, many in (
        (RateLimited("429", retry_after_s=7), 0.9, float("inf")),
        (CapacityExceeded("429"), 1.0, 1),
    ):
        limiter = Limiter(RateLimit.pro())
        with suppress(LoomError):
            await read(limiting(Witness(error=error, fail_at=1), limiter))
        state = limiter.state(KEY)
        assert (scale, many) == (state.scale, state.limit_concurrency)
        assert (error.retry_after_s or 0) == state.held_back_s


async def test_models_that_share_a_limit_share_a_key() -> None:
    """An alias is counted with its model."""
    limiter = Limiter(RateLimit.pro())
    layer = Limiting(
        Witness(), limiter=limiter, clock=FakeClock(auto=True), scope=lambda: SCOPE,
        group=lambda _: "family",
    )  # fmt: skip
    await read(layer)
    assert [(*SCOPE, "family")] == list(limiter.states())


async def test_a_key_that_is_renewed_in_the_queue_brings_its_own_limits() -> None:
    """What left the queue of the old key takes its turn under the new one."""
    scopes = [("https://x", "old")]
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    layers = [
        Limiting(Witness(), limiter=limiter, clock=clock, scope=lambda: scopes[-1])
        for _ in range(3)
    ]
    first = layers[0].stream(ASK)
    assert isinstance(await anext(first), Sending)
    queued = layers[1].stream(ASK)
    assert isinstance(await anext(queued), Throttled)
    scopes.append(("https://x", "new"))
    newer = layers[2].stream(ASK)
    assert isinstance(await anext(newer), Sending)
    await first.aclose()
    assert isinstance(await anext(queued), Throttled)
    assert [0, 1] == [limiter.state((*scope, "m")).held for scope in scopes]
    await newer.aclose()
    assert isinstance(await anext(queued), Sending)
    await queued.aclose()
    assert (0, 0) == (limiter.held, limiter.queued)


async def test_a_cancelled_wait_makes_room(request: pytest.FixtureRequest) -> None:
    """Fault matrix, row 51: the waiter is gone, and the next is woken."""
    limiter, clock = Limiter(RateLimit(concurrency=1)), FakeClock()
    layer = limiting(Witness(), limiter, clock)
    stream = layer.stream(ASK)
    assert Sending() == await anext(stream)
    waiting = [asyncio.ensure_future(read(layer)) for _ in range(2)]
    await turn(5)
    assert 2 == limiter.queued
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    assert 1 == limiter.queued
    await stream.aclose()
    assert isinstance((await waiting[1])[-1], Completed)
    assert (0, 0) == (limiter.held, limiter.queued)


async def test_a_text_that_was_heard_is_charged_whatever_the_error_says() -> None:
    """An error after the first piece of an answer is not free."""
    error = attempted(InvalidRequest("in the middle"), "released")
    state = await state_after(Sending(), TextDelta("a"), error=error)
    assert PROMPT + 900 == state.used_tokens


def minutes(
    window: WindowKind, charge_at: ChargeAt, seed: int, *, tokens: int, requests: int, workers: int
) -> tuple[MeteredVendor, Limiter, float]:
    """Run calls against a vendor for five virtual minutes, each worker one after the other."""

    async def run() -> tuple[MeteredVendor, Limiter, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SeededLoop)
        clock, chance = LoopClock(loop), Chance(seed)
        tier = Tier(requests_per_minute=requests, tokens_per_minute=tokens)
        vendor = MeteredVendor(tier, clock=clock, window=window, charge_at=charge_at)
        limiter = Limiter(RateLimit(requests_per_minute=requests, tokens_per_minute=tokens))
        layer = Limiting(vendor, limiter=limiter, clock=clock, scope=lambda: SCOPE)
        end_s = loop.time() + 300

        async def work() -> None:
            while loop.time() < end_s:
                call = MeteredCall(
                    prompt=chance.whole(50, 900),
                    answer=chance.whole(1, 500),
                    most=500,
                    seconds=chance.between(0.2, 6),
                    delay_s=chance.between(0.02, 0.2),
                )
                with suppress(LoomError):
                    await layer.chat(call.request())

        tasks = [asyncio.ensure_future(work()) for _ in range(workers)]
        await clock.sleep(300)
        used = vendor.used / tokens / 5
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        return vendor, limiter, used

    with asyncio.Runner(loop_factory=lambda: SeededLoop(seed, most_turns=10**7)) as runner:
        return runner.run(run())


@pytest.mark.parametrize("charge_at", ["finish", "arrival_corrected"])
@pytest.mark.parametrize("window", ["sliding", "calendar", "bucket"])
@settings(max_examples=3)
@given(
    seed=st.integers(0, 2**32),
    plan=st.sampled_from([(100_000, 600, 20), (400_000, 60, 10), (30_000, 100, 5)]),
)
def test_no_server_ever_refuses_a_call(
    window: WindowKind, charge_at: ChargeAt, seed: int, plan: tuple[int, int, int]
) -> None:
    """However it counts a minute, and whenever it charges; and all is given back in the end."""
    tokens, requests, workers = plan
    vendor, limiter, _ = minutes(
        window, charge_at, seed, tokens=tokens, requests=requests, workers=workers
    )
    assert 0 == vendor.refused
    assert vendor.accepted > 50
    assert (0, 0) == (limiter.held, limiter.queued)


def test_the_quota_is_used() -> None:
    """Nearly all of what a minute allows, with calls of three seconds."""
    _, _, used = minutes("sliding", "finish", 1, tokens=100_000, requests=600, workers=30)
    assert used > 0.85
