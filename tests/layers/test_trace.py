"""`Tracing`: what spans and points a call makes, and that it changes nothing of the call."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from tests.layers.telemetry import Seen

from loom.core.errors import ConfigInvalid, LoomError, ServiceUnavailable, StreamTruncated
from loom.core.events import (
    Completed,
    Rerouted,
    Restarted,
    Retried,
    Sending,
    StreamEvent,
    TextDelta,
    Throttled,
)
from loom.core.messages import ImagePart, Message
from loom.core.model import Price
from loom.core.provider import LLMProvider, fold
from loom.core.request import ChatRequest, ResponseFormat, Sampling
from loom.core.response import Choice, LLMResponse, Partial, Usage
from loom.core.timeline import Attempt, Timeline
from loom.layers.trace import Telemetry, Tracing
from loom.testing import LAYER_LAWS, FakeClock, LayerCase, LayerLaw, Witness, turn, turn_until

pytestmark = pytest.mark.anyio

ASKED = ChatRequest(model="witness-1", messages=(Message.user("ab?"),), stream=True)
BASE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "witness",
    "gen_ai.request.model": "witness-1",
}
SERVER = {"server.address": "api.example.org", "server.port": 443}
TOKENS = "gen_ai.client.inference.usage."
SPREAD = "gen_ai.client.inference.operation."


def attempt(code: str = "", status: int = 200) -> Attempt:
    return Attempt(
        provider="mistral",
        model="m",
        origin="https://api.example.org",
        sent_s=0,
        ended_s=1,
        code=code,
        status=status,
    )


def answer(usage: Usage | None = None, **more: Any) -> LLMResponse:
    fields: dict[str, Any] = {
        "choices": (Choice(message=Message.assistant("ab"), finish_reason="stop"),),
        "usage": usage or Usage(input_tokens=3, output_tokens=2, total_tokens=5),
        "model": "witness-1-2411",
        "id": "answer-1",
        "request_id": "request-1",
        "timeline": Timeline(began_s=0, attempts=(attempt(),)),
    }
    return LLMResponse(**fields | more)


class Slow(Witness):
    """A witness on a clock: the events come at 1 s, 2 s, 3 s, ..."""

    def __init__(self, clock: FakeClock, *events: StreamEvent, **more: Any) -> None:
        super().__init__(events, **more)
        self._clock = clock

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        async with aclosing(super().stream(request)) as events:
            async for event in events:
                yield event
                await self._clock.sleep(1.0)


def tracing(inner: LLMProvider, seen: Seen | None, **more: Any) -> Tracing:
    telemetry = None if seen is None else seen.telemetry
    fields = {"clock": FakeClock(auto=True), **more}
    return Tracing(inner, telemetry=telemetry, **fields)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def listened() -> Iterator[None]:
    """Turn the log of the witness up."""
    log = logging.getLogger("loom.witness")
    log.setLevel(logging.INFO)
    yield
    log.setLevel(logging.NOTSET)


@pytest.mark.parametrize("law", LAYER_LAWS)
@pytest.mark.parametrize("content", [False, True])
async def test_recording_keeps_the_laws_of_a_layer(law: LayerLaw, content: bool) -> None:  # noqa: FBT001 - a parameter
    """Closing, order, contexts, limits: with spans and metrics, with and without content."""
    seen = Seen(content=content)
    await law(LayerCase(make=lambda inner: tracing(inner, seen)))
    assert all(span.end_time for span in seen.spans)


@pytest.mark.usefixtures("listened")
@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_logging_alone_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """The same with the log turned up and no telemetry."""
    await law(LayerCase(make=lambda inner: tracing(inner, None)))


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_nobody_looking_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """The same when the layer stands aside."""
    await law(LayerCase(make=lambda inner: tracing(inner, None)))


async def test_nobody_looking_gets_the_inner_stream_itself() -> None:
    """No generator of the layer's own stands between; one does as soon as the log is turned up."""
    layer = tracing(Witness(), None)
    log = logging.getLogger("loom.witness")

    unseen = layer.stream(ASKED)
    log.setLevel(logging.INFO)
    watched = layer.stream(ASKED)
    log.setLevel(logging.NOTSET)

    assert ["Witness.stream", "Tracing._watched"] == [
        getattr(events, "__qualname__", "") for events in (unseen, watched)
    ]


async def test_an_answer_is_a_span_with_what_was_asked_and_used(seen: Seen) -> None:
    """Request, response, usage, money and server stand on it, under the GenAI names."""
    request = ChatRequest(
        model="witness-1",
        messages=(Message.user("ab?"),),
        sampling=Sampling(
            temperature=0, top_p=0.9, max_tokens=7, stop="x", random_seed=0, n=2, top_k=5,
            presence_penalty=0.5, frequency_penalty=0.25,
        ),
        reasoning_effort="high",
        response_format=ResponseFormat(type="json_object"),
    )  # fmt: skip
    usage = Usage(
        input_tokens=30, output_tokens=2, total_tokens=42, cached_tokens=4, audio_tokens=10,
        cost_usd=Decimal("0.0000125"), price=Price(id="witness-1@2024-11-01"),
    )  # fmt: skip
    inner = Witness((Sending(), Completed(answer(usage, attempts=2))))

    await tracing(inner, seen).chat(request)

    assert ("chat witness-1", SpanKind.CLIENT) == (seen.span.name, seen.span.kind)
    assert StatusCode.UNSET is seen.span.status.status_code
    assert seen.attributes == {
        **BASE,
        **SERVER,
        "gen_ai.request.temperature": 0,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.top_k": 5,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.request.stop_sequences": ("x",),
        "gen_ai.request.seed": 0,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.presence_penalty": 0.5,
        "gen_ai.request.frequency_penalty": 0.25,
        "gen_ai.request.reasoning.level": "high",
        "gen_ai.output.type": "json",
        "gen_ai.response.id": "answer-1",
        "gen_ai.response.model": "witness-1-2411",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 40,  # sound is counted apart by Mistral, and in here by OTel
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "gen_ai.usage.audio.input_tokens": 10,
        "loom.attempts": 2,
        "loom.cost.usd": "0.0000125",
        "loom.cost.usd_micros": 12,
        "loom.price.id": "witness-1@2024-11-01",
        "loom.request_id": "request-1",
    }


async def test_mistral_has_its_listed_name(seen: Seen) -> None:
    """`mistral` is `mistral_ai` there, and whoever answered is named, not whoever was asked."""
    inner = Witness((Completed(answer(metadata={"provider": "mistral"})),))
    await tracing(inner, seen).chat(ASKED)
    assert "mistral_ai" == seen.attributes["gen_ai.provider.name"]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("https://api.mistral.ai", ("api.mistral.ai", 443)),
        ("http://localhost:8000", ("localhost", 8000)),
        ("http://[::1]:8000", ("::1", 8000)),
        ("http://[::1]", ("::1", 80)),
        ("unix://vendor", ("vendor", None)),
        ("", (None, None)),
    ],
)
async def test_the_server_is_the_last_one_that_was_asked(
    seen: Seen, origin: str, expected: tuple[str | None, int | None]
) -> None:
    """Address and port come from the timeline; the port of the scheme where it says none."""
    last = Attempt(provider="p", model="m", origin=origin, sent_s=0, ended_s=1)
    timeline = Timeline(began_s=0, attempts=(last,))
    await tracing(Witness((Completed(answer(timeline=timeline)),)), seen).chat(ASKED)
    found = seen.attributes
    assert expected == (found.get("server.address"), found.get("server.port"))


async def test_a_stream_tells_when_its_first_chunk_came(seen: Seen) -> None:
    """Counted from when the request left; what `Restarted` took back does not count."""
    clock = FakeClock(auto=True)
    events = (
        Sending(), TextDelta("a"), Restarted("broke", "other", "m"), Sending(2), Throttled(0.5),
        TextDelta("a"), TextDelta("b"), Completed(answer()),
    )  # fmt: skip
    layer = tracing(Slow(clock, *events), seen, clock=clock)

    await fold(layer.stream(ASKED))

    assert (True, 2.0) == (
        seen.attributes["gen_ai.request.stream"],
        seen.attributes["gen_ai.response.time_to_first_chunk"],
    )
    points = seen.metrics()
    (first,) = points["gen_ai.client.operation.time_to_first_chunk"]
    (each,) = points["gen_ai.client.operation.time_per_output_chunk"]
    (whole,) = points["gen_ai.client.operation.duration"]
    assert ((1, 2.0), (1, 1.0), (1, 7.0)) == tuple(
        (point.count, point.sum) for point in (first, each, whole)
    )
    assert {**BASE, **SERVER, "gen_ai.response.model": "witness-1-2411"} == first.attributes


async def test_what_happened_on_the_way_is_an_event_of_the_span(seen: Seen) -> None:
    """Waits, retries and routes, with code and seconds and without any message."""
    error = ServiceUnavailable("secret words")
    inner = Witness(
        (
            Sending(), Retried(1, 0.5, error, 3), Throttled(0.25), Rerouted(error, "mistral", "m2"),
            Restarted("secret words", "other", "m3"), Completed(answer()),
        )
    )  # fmt: skip

    await tracing(inner, seen).chat(ASKED)

    assert [
        ("loom.retried", {"error.type": error.code, "loom.attempt": 1, "loom.wait_s": 0.5}),
        ("loom.throttled", {"loom.wait_s": 0.25}),
        (
            "loom.rerouted",
            {
                "error.type": error.code,
                "gen_ai.provider.name": "mistral_ai",
                "gen_ai.request.model": "m2",
            },
        ),
        ("loom.restarted", {"gen_ai.provider.name": "other", "gen_ai.request.model": "m3"}),
    ] == seen.events
    assert "secret" not in seen.dump()


async def test_an_error_ends_the_span_with_its_code(seen: Seen) -> None:
    """The code alone: a message may quote whatever the vendor wrote."""
    error = ServiceUnavailable(
        "secret words",
        attempts=3,
        request_id="request-9",
        partial=Partial(text="secret", usage=Usage(input_tokens=3, output_tokens=1)),
        timeline=Timeline(began_s=0, attempts=(attempt("service_unavailable", 503),)),
    )
    inner = Witness((Sending(), TextDelta("a"), Completed(answer())), error=error, fail_at=2)

    with pytest.raises(ServiceUnavailable):
        await fold(tracing(inner, seen).stream(ASKED))

    assert (StatusCode.ERROR, "service_unavailable") == (
        seen.span.status.status_code,
        seen.span.status.description,
    )
    expected = {
        "error.type": "service_unavailable",
        "http.response.status_code": 503,
        "loom.attempts": 3,
        "loom.request_id": "request-9",
        "gen_ai.response.finish_reasons": ("error",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 1,
    }
    assert expected.items() <= seen.attributes.items()
    assert ([], False) == (list(seen.span.events), "secret" in seen.dump())


async def test_a_call_that_was_never_sent_has_no_server(seen: Seen) -> None:
    """What is refused here has a code, and neither address nor status."""
    inner = Witness((Sending(),), error=ConfigInvalid("no"), fail_at=0)
    with pytest.raises(ConfigInvalid):
        await tracing(inner, seen).chat(ASKED)
    assert {"error.type", "loom.attempts"} == seen.attributes.keys() - {
        *BASE, "gen_ai.request.stream",
    }  # fmt: skip


async def test_a_stream_without_an_end_is_no_success(seen: Seen) -> None:
    """Its span has the code of the error that the reader gets."""
    with pytest.raises(StreamTruncated):
        await fold(tracing(Witness((Sending(), TextDelta("a"))), seen).stream(ASKED))
    assert "stream_truncated" == seen.attributes["error.type"]


async def test_a_foreign_error_is_named_by_its_class(seen: Seen) -> None:
    """A bug in somebody's provider ends the span too."""

    class Broken(Witness):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
            yield Sending()
            raise ZeroDivisionError("secret")

    with pytest.raises(ZeroDivisionError):
        await tracing(Broken(), seen).chat(ASKED)
    assert ("ZeroDivisionError", 1) == (
        seen.attributes["error.type"],
        seen.attributes["loom.attempts"],
    )


async def test_a_reader_that_leaves_abandons_the_call(seen: Seen) -> None:
    """The span ends when he leaves, not when the collector comes."""
    async with aclosing(tracing(Witness(), seen).stream(ASKED)) as events:
        async for event in events:
            if type(event) is TextDelta:
                break
    assert ("abandoned", StatusCode.ERROR) == (
        seen.attributes["error.type"],
        seen.span.status.status_code,
    )


async def test_a_reader_that_has_the_answer_may_leave(seen: Seen) -> None:
    """`Completed` ends the span with success, and before it is handed on."""
    async with aclosing(tracing(Witness(), seen).stream(ASKED)) as events:
        async for event in events:
            if type(event) is Completed:
                assert "stop" == seen.attributes["gen_ai.response.finish_reasons"][0]
                break
    assert "error.type" not in seen.attributes


async def test_an_error_of_the_reader_after_the_answer_changes_nothing(seen: Seen) -> None:
    """The call had succeeded by then, whatever is thrown into its stream."""
    events = tracing(Witness((Completed(answer()),)), seen).stream(ASKED)
    await anext(events)
    with pytest.raises(ServiceUnavailable):
        await events.athrow(ServiceUnavailable("mine"))
    assert (1, False) == (len(seen.spans), "error.type" in seen.attributes)


async def test_a_cost_without_a_row_of_prices_is_told(seen: Seen) -> None:
    """A provider may know what it took without saying from which list."""
    usage = Usage(cost_usd=Decimal("0.01"))
    await tracing(Witness((Completed(answer(usage)),)), seen).chat(ASKED)
    assert (10_000, False) == (
        seen.attributes["loom.cost.usd_micros"],
        "loom.price.id" in seen.attributes,
    )


async def test_a_dropped_stream_ends_its_span(seen: Seen) -> None:
    """The collector closes what nobody closed."""
    events = tracing(Witness(), seen).stream(ASKED)
    await anext(events)
    assert () == seen.spans
    del events
    gc.collect()
    await turn(10)
    assert "abandoned" == seen.attributes["error.type"]


async def test_a_cancelled_call_says_so(seen: Seen) -> None:
    """A call that is cancelled while it waits for the vendor is `cancelled`."""
    clock = FakeClock()
    call = asyncio.ensure_future(tracing(Slow(clock, Sending()), seen).chat(ASKED))
    await turn_until(lambda: bool(clock.slept))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ("cancelled", 1) == (seen.attributes["error.type"], seen.attributes["loom.attempts"])


async def test_the_parent_is_current_when_the_first_event_is_asked_for(seen: Seen) -> None:
    """Not when the stream was made; and the reader never runs inside the call's span."""
    tracer = seen.tracers.get_tracer("reader")
    with tracer.start_as_current_span("early"):
        events = tracing(Witness(), seen).stream(ASKED)
    with tracer.start_as_current_span("reading") as reading:
        async for _ in events:
            assert reading is trace.get_current_span()
            with tracer.start_as_current_span("inside"):
                pass
    parents = {span.name: span.parent and span.parent.span_id for span in seen.spans}
    mine = reading.get_span_context().span_id
    assert (mine, mine) == (parents["inside"], parents["chat witness-1"])
    assert not trace.get_current_span().get_span_context().is_valid


async def test_tokens_are_counted_by_kind_and_spread_by_call(seen: Seen) -> None:
    """Counters for what is spent, by modality; histograms for percentiles, not split."""
    usage = Usage(input_tokens=30, output_tokens=2, cached_tokens=4, audio_tokens=10)
    layer = tracing(Witness((Completed(answer(usage)),)), seen)
    await layer.chat(ASKED)
    await layer.chat(ASKED)
    points = seen.metrics()
    split_by = {**BASE, **SERVER, "gen_ai.response.model": "witness-1-2411"}

    def spent(name: str) -> dict[str, int]:
        for point in points[TOKENS + name]:
            assert split_by.items() <= point.attributes.items()
        return {
            point.attributes["gen_ai.token.modality"]: point.value
            for point in points[TOKENS + name]
        }

    assert {"text": 60, "audio": 20} == spent("input_tokens")
    assert {"text": 4} == spent("output_tokens")
    assert {"text": 8} == spent("cache_read.input_tokens")
    (spread,) = points[SPREAD + "input_tokens"]
    assert (2, 80, split_by) == (spread.count, spread.sum, spread.attributes)
    assert (4, 16) == spread.explicit_bounds[1:3]
    (duration,) = points["gen_ai.client.operation.duration"]
    assert (0.01, 0.02, 81.92) == (*duration.explicit_bounds[:2], duration.explicit_bounds[-1])


async def test_tokens_of_a_mixed_prompt_are_of_unknown_kind(seen: Seen) -> None:
    """The vendor reports text and images in one number."""
    picture = Message.user("What?", ImagePart("https://example.org/a.png"))
    request = ChatRequest(model="witness-1", messages=(picture,))
    await tracing(Witness((Completed(answer()),)), seen).chat(request)
    (point,) = seen.metrics()[TOKENS + "input_tokens"]
    assert "unknown" == point.attributes["gen_ai.token.modality"]


@pytest.mark.parametrize("estimated", [False, True])
async def test_tokens_that_nobody_reported_are_not_counted(seen: Seen, estimated: bool) -> None:  # noqa: FBT001 - a parameter
    """A zero of unknown kind, and nothing in the histograms, as the conventions ask."""
    if estimated:
        usage = Usage(input_tokens=3, output_tokens=2, estimated=True)
        await tracing(Witness((Completed(answer(usage)),)), seen).chat(ASKED)
        assert seen.attributes["loom.usage.estimated"] is True
        assert 3 == seen.attributes["gen_ai.usage.input_tokens"]
    else:
        inner = Witness(error=ServiceUnavailable("no"))
        with pytest.raises(LoomError):
            await tracing(inner, seen).chat(ASKED)
    points = seen.metrics()
    for name in ("input_tokens", "output_tokens"):
        (point,) = points[TOKENS + name]
        assert (0, "unknown") == (point.value, point.attributes["gen_ai.token.modality"])
        assert SPREAD + name not in points
    assert "gen_ai.client.token.usage" not in points


async def test_a_failed_call_has_a_duration_with_its_code(seen: Seen) -> None:
    """Latencies of failures can be told from those of answers."""
    with pytest.raises(LoomError):
        await tracing(Witness(error=ServiceUnavailable("no")), seen).chat(ASKED)
    (point,) = seen.metrics()["gen_ai.client.operation.duration"]
    assert {**BASE, "error.type": "service_unavailable"} == point.attributes


@pytest.mark.parametrize("old_metrics", [False, True])
async def test_the_older_histogram_can_be_left_out(seen: Seen, old_metrics: bool) -> None:  # noqa: FBT001 - a parameter
    """`gen_ai.client.token.usage` has a point for each direction, or none at all."""
    layer = tracing(Witness((Completed(answer()),)), seen, old_metrics=old_metrics)
    await layer.chat(ASKED)
    points = seen.metrics().get("gen_ai.client.token.usage", [])
    found = {point.attributes["gen_ai.token.type"]: point.sum for point in points}
    assert ({"input": 3, "output": 2} if old_metrics else {}) == found
    assert SPREAD + "input_tokens" in seen.metrics()


async def test_two_telemetries_share_a_meter_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same instruments are made twice, which is no conflict."""
    seen = Seen()
    twin = Telemetry(tracer_provider=seen.tracers, meter_provider=seen.meters)
    await tracing(Witness((Completed(answer()),)), seen).chat(ASKED)
    await Tracing(
        Witness((Completed(answer()),)), clock=FakeClock(), telemetry=twin
    ).chat(ASKED)  # fmt: skip
    (spread,) = seen.metrics()[SPREAD + "input_tokens"]
    assert (2, []) == (spread.count, caplog.messages)


def test_without_a_provider_the_global_one_holds_whenever_it_is_set() -> None:
    """A `Telemetry` that was made first records too; one that nobody set records nothing."""
    program = """
import asyncio
from opentelemetry import trace
from loom.layers.trace import Telemetry, Tracing
from loom.testing import FakeClock, Witness
from tests.layers.telemetry import Seen
from tests.layers.test_trace import ASKED

layer = Tracing(Witness(), clock=FakeClock(), telemetry=Telemetry())
asyncio.run(layer.chat(ASKED))
seen = Seen()
trace.set_tracer_provider(seen.tracers)
asyncio.run(layer.chat(ASKED))
print(seen.span.name)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert ("chat witness-1\n", "") == (done.stdout, done.stderr)


def test_without_opentelemetry_one_error_names_the_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has not installed it is told how."""
    monkeypatch.delitem(sys.modules, "loom.layers.trace_otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'looms\[otel\]'"):
        Telemetry()


def test_a_telemetry_shows_whether_it_keeps_content() -> None:
    """That is the one thing to be careful about."""
    assert "Telemetry(content=True)" == repr(Seen(content=True).telemetry)
