"""Telemetry of a whole client against the simulator: routes, retries, threads, settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.layers.telemetry import Seen

from loom.client.aio import AsyncMistral, AsyncOpenAI
from loom.client.blocking import Mistral
from loom.core.errors import ConfigInvalid, LoomError
from loom.core.route import Route
from loom.layers.retry_policy import RetryPolicy
from loom.server.simulator import Simulator
from loom.testing import FakeClock, simulator

MODEL = "mistral-small-latest"


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with simulator() as running:
        yield running


@pytest.fixture
def seen() -> Seen:
    return Seen()


def options(sim: Simulator, seen: Seen, fault: str = "", **more: Any) -> dict[str, Any]:
    return {
        "api_key": sim.api_key,
        "base_url": sim.base_url,
        "model": MODEL,
        "headers": {"x-loom-fault": fault} if fault else {},
        "clock": FakeClock(auto=True),
        "telemetry": seen.telemetry,
        **more,
    }


def test_a_blocking_call_is_a_child_of_the_callers_span(sim: Simulator, seen: Seen) -> None:
    """The work is done on another thread, and the caller's context goes along."""
    tracer = seen.tracers.get_tracer("caller")
    with Mistral(**options(sim, seen)) as m, tracer.start_as_current_span("outer") as outer:
        m.chat("Hello")
        with m.stream("Hello") as stream:
            list(stream)
    ids = {span.name: span for span in seen.spans}
    assert [f"chat {MODEL}", f"chat {MODEL}", "outer"] == [span.name for span in seen.spans]
    for span in seen.spans[:2]:
        assert span.parent is not None
        assert outer.get_span_context().span_id == span.parent.span_id
    found: dict[str, Any] = dict(ids[f"chat {MODEL}"].attributes or {})
    assert ("mistral_ai", "127.0.0.1", int(sim.base_url.split(":")[2].split("/")[0])) == (
        found["gen_ai.provider.name"],
        found["server.address"],
        found["server.port"],
    )
    assert found["loom.cost.usd_micros"] >= 0
    assert found["loom.price.id"].startswith("mistral-small")


@pytest.mark.anyio
async def test_another_vendor_has_its_own_name(sim: Simulator, seen: Seen) -> None:
    """`openai`, with its model, its price and its address."""
    given = {**options(sim, seen), "base_url": sim.openai_base_url, "model": "gpt-4o-mini"}
    async with AsyncOpenAI(**given, as_of="2024-11") as client:
        await client.chat("Hello")
    found: dict[str, Any] = dict(seen.spans[0].attributes or {})
    assert ("openai", "gpt-4o-mini", "gpt-4o-mini@2024-11-01") == (
        found["gen_ai.provider.name"],
        found["gen_ai.request.model"],
        found["loom.price.id"],
    )


@pytest.mark.anyio
async def test_an_async_call_is_a_child_of_the_callers_span(sim: Simulator, seen: Seen) -> None:
    """The same without a thread between."""
    tracer = seen.tracers.get_tracer("caller")
    async with AsyncMistral(**options(sim, seen)) as m:
        with tracer.start_as_current_span("outer") as outer:
            await m.chat("Hello")
    assert seen.spans[0].parent is not None
    assert outer.get_span_context().span_id == seen.spans[0].parent.span_id


def test_a_retry_is_an_event_of_the_one_span(sim: Simulator, seen: Seen) -> None:
    """One span for the call, whatever it took."""
    with Mistral(**options(sim, seen, "503;times=1")) as m:
        m.chat("Hello")
    ((name, found),) = seen.events
    assert ("loom.retried", "service_unavailable", 1) == (
        name,
        found["error.type"],
        found["loom.attempt"],
    )
    assert 2 == seen.attributes["loom.attempts"]


def test_a_route_is_an_event_of_the_one_span(sim: Simulator, seen: Seen) -> None:
    """The model of the request stays that of the call; the answer's is the one that answered."""
    with simulator() as other:
        port = int(other.base_url.split(":")[2].split("/")[0])
        route = Route(model="ministral-8b-latest", base_url=other.base_url, api_key=other.api_key)
        chosen = options(sim, seen, retry=None, fallback=[route], model=f"{MODEL}+503")
        with Mistral(**chosen) as m:
            m.chat("Hello")
    ((name, found),) = seen.events
    assert ("loom.rerouted", "ministral-8b-latest") == (name, found["gen_ai.request.model"])
    assert f"chat {MODEL}+503" == seen.span.name
    assert "ministral" in seen.attributes["gen_ai.response.model"]
    assert port == seen.attributes["server.port"]


def test_a_failed_call_has_its_code(sim: Simulator, seen: Seen) -> None:
    """Every attempt is counted in it."""
    policy = RetryPolicy(attempts=2)
    with Mistral(**options(sim, seen, "503", retry=policy)) as m, pytest.raises(LoomError):
        m.chat("Hello")
    assert ("service_unavailable", 2, 503) == tuple(
        seen.attributes[name]
        for name in ("error.type", "loom.attempts", "http.response.status_code")
    )


@pytest.mark.parametrize(
    ("opted", "old"),
    [
        ("", True),
        ("http,database", True),
        ("gen_ai_latest_experimental", False),
        ("http, gen_ai_latest_experimental", False),
    ],
)
def test_the_environment_chooses_the_names_of_metrics(
    sim: Simulator, seen: Seen, monkeypatch: pytest.MonkeyPatch, opted: str, old: bool  # noqa: FBT001 - a parameter
) -> None:  # fmt: skip
    """New ones always, and the old histogram until somebody asks for the newest alone."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opted)
    with Mistral(**options(sim, seen)) as m:
        m.chat("Hello")
    names = seen.metrics().keys()
    assert "gen_ai.client.inference.usage.input_tokens" in names
    assert old is ("gen_ai.client.token.usage" in names)


def test_telemetry_can_be_turned_on_and_off_for_a_twin(sim: Simulator, seen: Seen) -> None:
    """`with_options` takes it as the constructor does."""
    with Mistral(**options(sim, seen)) as m:
        m.with_options(telemetry=None).chat("Hello")
        assert () == seen.spans
        m.with_options(temperature=0).chat("Hello")
        assert 1 == len(seen.spans)


@pytest.mark.parametrize("kind", [Mistral, AsyncMistral])
def test_a_tracer_provider_is_no_telemetry(sim: Simulator, seen: Seen, kind: type) -> None:
    """What is easily mixed up is refused, with what to write."""
    with pytest.raises(ConfigInvalid, match=r"telemetry=Telemetry\(\)"):
        kind(**options(sim, seen, telemetry=seen.tracers))
