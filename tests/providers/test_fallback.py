"""Several routes: when the next one is asked, what is told, what comes back."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from loom.core.errors import (
    CircuitOpen,
    ContentBlocked,
    ContextTooLong,
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    ModelNotFound,
    RateLimited,
    ServiceUnavailable,
    StreamTruncated,
    TimedOut,
)
from loom.core.events import Completed, Rerouted, Restarted, Sending, StreamEvent, TextDelta
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Timeouts
from loom.core.timeline import Attempt, Timeline
from loom.providers.fallback import Branch, FallingBack
from loom.testing import (
    LAYER_LAWS,
    FakeClock,
    LayerCase,
    LayerLaw,
    Witness,
    cancel_everywhere,
)

pytestmark = pytest.mark.anyio

ASK = ChatRequest(model="asked", messages=(Message.user("x"),), stream=True)
PLAIN = ChatRequest(model="asked", messages=(Message.user("x"),))


class Route(Witness):
    """A witness that keeps what it was asked, and tells a timeline when it fails."""

    def __init__(self, error: LoomError | None = None, *, fail_at: int = 1) -> None:
        if error is not None:
            attempt = Attempt(provider="witness", model="m", sent_s=1.0, ended_s=2.0)
            error.timeline = Timeline(began_s=0.5, attempts=(attempt,))
        super().__init__(error=error, fail_at=fail_at)
        self.asked: list[ChatRequest] = []

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.asked.append(request)
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                yield event


def falling_back(
    *routes: LLMProvider,
    models: Sequence[str | None] = (),
    rescue: bool = False,
    first_token_s: float | None = None,
    scopes: Sequence[tuple[str, str]] = (),
) -> FallingBack:
    branches = []
    for place, route in enumerate(routes):
        scope = scopes[place] if scopes else ("https://x", str(place))
        branches.append(
            Branch(
                provider=route,
                model=models[place] if models else None,
                scope=lambda scope=scope: scope,  # type: ignore[misc]  # bound now
            )
        )
    return FallingBack(branches, clock=FakeClock(), first_token_s=first_token_s, rescue=rescue)


async def read(provider: LLMProvider, request: ChatRequest = ASK) -> list[StreamEvent]:
    async with aclosing(provider.stream(request)) as events:
        return [event async for event in events]


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_it_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """With one route it is like any layer."""
    await law(LayerCase(make=falling_back))


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_it_keeps_them_with_a_second_route(law: LayerLaw) -> None:
    """The second route answers, or is not asked."""
    await law(LayerCase(make=lambda inner: falling_back(inner, Witness())))


async def test_the_first_route_answers() -> None:
    """Nobody else is asked, nothing is changed."""
    first, second = Route(), Route()
    response = await falling_back(first, second).chat(PLAIN)
    assert (1, 0) == (first.calls, second.calls)
    assert "failed_routes" not in response.metadata


@pytest.mark.parametrize(
    "error",
    [
        ServiceUnavailable("503"),
        RateLimited("429"),
        TimedOut("silent", phase="first_byte"),
        CircuitOpen("open", attempts=0),
        ContextTooLong("too long"),
        ModelNotFound("no such model"),
        InvalidAPIKey("401"),
    ],
    ids=lambda error: error.code,
)
async def test_what_may_be_different_elsewhere_goes_there(error: LoomError) -> None:
    """A notice says so, and the answer says which routes failed."""
    first, second = Route(error, fail_at=0), Route()
    provider = falling_back(first, second, models=[None, "other"])
    rerouted, *rest = await read(provider)
    assert Rerouted(error, "witness", "other") == rerouted
    completed = rest[-1]
    assert isinstance(completed, Completed)
    assert ({"route": "witness:asked", "code": error.code},) == completed.response.metadata[
        "failed_routes"
    ]
    assert ["other"] == [request.model for request in second.asked]
    assert error.attempts + 1 == completed.response.attempts


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("400"),
        ContentBlocked("filtered"),
        TimedOut("your deadline", phase="total"),
    ],
    ids=lambda error: error.code,
)
async def test_what_is_the_same_everywhere_stays(error: LoomError) -> None:
    """The reason reaches the caller, and nobody else is asked (FB13)."""
    first, second = Route(error), Route()
    with pytest.raises(type(error)) as raised:
        await read(falling_back(first, second))
    assert raised.value is error
    assert 0 == second.calls


async def test_a_refused_key_is_not_tried_with_another_model() -> None:
    """Only a route with another key or address may do better."""
    same, other = Route(), Route()
    scopes = [("https://x", "a"), ("https://x", "a"), ("https://x", "b")]
    provider = falling_back(Route(InvalidAPIKey("401")), same, other, scopes=scopes)
    await provider.chat(PLAIN)
    assert (0, 1) == (same.calls, other.calls)


async def test_after_the_first_text_nothing_is_sent_again() -> None:
    """Without `rescue` the error comes out; a second answer would repeat the first."""
    first, second = Route(StreamTruncated("cut"), fail_at=3), Route()
    with pytest.raises(StreamTruncated):
        await read(falling_back(first, second))
    assert 0 == second.calls


async def test_rescue_begins_anew_and_says_so() -> None:
    """`Restarted`, then the whole answer of the next route (FB08)."""
    first, second = Route(StreamTruncated("cut"), fail_at=4), Route()
    events = await read(falling_back(first, second, models=[None, "other"], rescue=True))
    (anew,) = (event for event in events if isinstance(event, Restarted))
    assert ("cut", "witness", "other") == (anew.reason, anew.provider, anew.model)
    assert isinstance(anew.error, StreamTruncated)
    place = events.index(anew)
    assert [TextDelta("a"), TextDelta("b")] == [
        event for event in events[place:] if isinstance(event, TextDelta)
    ]
    assert isinstance(events[-1], Completed)
    assert [1, 2] == [event.attempt for event in events if isinstance(event, Sending)]


async def test_the_first_error_is_not_masked() -> None:
    """The others are in its notes, and their attempts in its timeline (FB14)."""
    first = StreamTruncated("cut in the middle")
    provider = falling_back(
        Route(first, fail_at=3),
        Route(InvalidRequest("prefill is refused"), fail_at=0),
        models=[None, "other"],
        rescue=True,
    )
    with pytest.raises(StreamTruncated) as raised:
        await read(provider)
    assert raised.value is first
    assert ["fallback witness:other: prefill is refused"] == first.__notes__
    assert 2 == first.attempts
    assert first.timeline is not None
    assert 2 == first.timeline.sends


async def test_a_plain_call_travels_as_a_stream_until_the_last_route() -> None:
    """So a silent route is noticed after `first_token_s`, and a cut one costs only time."""
    first, last = Route(StreamTruncated("cut"), fail_at=4), Route()
    provider = falling_back(first, last, first_token_s=12.0)
    events = await read(provider, PLAIN)
    assert [Sending, Rerouted, Sending, Completed] == [type(event) for event in events]
    assert (True, 12.0) == (first.asked[0].stream, first.asked[0].timeouts.first_token_s)
    assert (False, None) == (last.asked[0].stream, last.asked[0].timeouts.first_token_s)


async def test_a_shorter_limit_of_the_call_holds() -> None:
    """The fallback's limit is no licence to wait longer."""
    first = Route()
    request = ChatRequest(
        model="asked", messages=ASK.messages, timeouts=Timeouts(first_token_s=3.0)
    )
    await read(falling_back(first, Route(), first_token_s=12.0), request)
    assert 3.0 == first.asked[0].timeouts.first_token_s


async def test_all_routes_share_one_deadline() -> None:
    """The second route has what the first one left."""
    first, second = Route(ServiceUnavailable("503")), Route()
    await read(falling_back(first, second))
    assert first.asked[0].deadline_s == second.asked[0].deadline_s is not None


async def test_a_cancellation_anywhere_leaves_nothing() -> None:
    """On each route, once and twice."""
    first, second = Route(ServiceUnavailable("503"), fail_at=3), Route()

    async def call() -> None:
        await read(falling_back(first, second, rescue=True))

    await cancel_everywhere(
        call, probes={"first": lambda: first.held, "second": lambda: second.held}
    )


async def test_only_its_own_routes_are_closed() -> None:
    """A provider that the caller made is the caller's."""
    own, foreign = Witness(), Witness()
    provider = FallingBack(
        [Branch(provider=own), Branch(provider=foreign, owned=False)], clock=FakeClock()
    )
    await provider.aclose()
    assert (1, 0) == (own.shut, foreign.shut)


async def test_the_log_says_where_a_call_went(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each change of route."""
    caplog.set_level(logging.WARNING, logger="loom.fallback")
    await read(falling_back(Route(ServiceUnavailable("down")), Route(), models=[None, "other"]))
    assert ["Falling back to witness:other: down"] == caplog.messages
