"""Spans and metrics of an agent: turns, and tools inside them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from opentelemetry import trace
from tests.agent.kit import answer
from tests.layers.telemetry import Seen

from loom import AsyncAgent, AsyncMistral, MemorySessions, Message, RateLimited, ToolCall, tool
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.testing import FakeReply, FakeTransport, turn_until
from loom.wire.mistral.dialect import MistralDialect

pytestmark = pytest.mark.anyio

MODEL = "mistral-small-latest"
CALLS = Message.assistant(
    tool_calls=(
        ToolCall("abcdefgh1", "look", {"place": "Lyon"}),
        ToolCall("abcdefgh2", "fail", {}),
        ToolCall("abcdefgh3", "nosuch", {}),
    )
)


async def one_turn(seen: Seen, *script: Any, tools: Any, **more: Any) -> Any:
    with Simulator(provider=ScriptedProvider(script, model=MODEL)) as sim:
        async with (
            AsyncMistral(
                sim.api_key, base_url=sim.base_url, model=MODEL, telemetry=seen.telemetry
            ) as client,
            AsyncAgent(llm=client, tools=tools, name="shop", **more) as agent,
        ):
            return await agent.chat("canary: what is there?", session="ann" if more else None)


@tool
async def look(place: str) -> str:
    """Look there."""
    # What a tool does appears inside its span.
    trace.get_current_span().add_event("looked")
    return f"canary: {place} is sunny"


@tool
def fail() -> str:
    """Fail."""
    trace.get_current_span().add_event("failing")
    raise ValueError("canary")


def by_name(seen: Seen) -> dict[str, Any]:
    return {span.name: span for span in seen.spans}


async def test_a_turn_is_a_tree() -> None:
    """Calls of the model and tools are children of the turn; its span ends last."""
    seen = Seen()
    response = await one_turn(seen, CALLS, "Sunny.", tools=[look, fail], sessions=MemorySessions())
    spans = by_name(seen)
    turn = spans["invoke_agent shop"]
    children = [span for span in seen.spans if span.parent == turn.context]
    assert {"execute_tool look", "execute_tool fail", f"chat {MODEL}"} == {c.name for c in children}
    assert 4 == len(children)
    assert turn is seen.spans[-1]
    found = dict(turn.attributes or {})
    assert "invoke_agent" == found["gen_ai.operation.name"]
    assert "mistral_ai" == found["gen_ai.provider.name"]
    assert "shop" == found["gen_ai.agent.name"]
    assert "ann" == found["gen_ai.conversation.id"]
    assert response.usage.input_tokens == found["gen_ai.usage.input_tokens"]
    assert 2 == found["loom.agent.calls"]


async def test_a_tool_runs_inside_its_span() -> None:
    """Spans and events that the tool's own code makes belong to it, in a thread too."""
    seen = Seen()
    await one_turn(seen, CALLS, "Sunny.", tools=[look, fail])
    spans = by_name(seen)
    assert ["looked"] == [event.name for event in spans["execute_tool look"].events]
    assert ["failing"] == [event.name for event in spans["execute_tool fail"].events]
    assert "tool_failed" == spans["execute_tool fail"].attributes["error.type"]
    assert "Look there." == spans["execute_tool look"].attributes["gen_ai.tool.description"]


async def test_the_callers_span_is_the_parent_and_stays_current() -> None:
    """A turn belongs to what was current when it began, and leaves it so."""
    seen = Seen()
    tracer = seen.tracers.get_tracer("mine")
    with tracer.start_as_current_span("mine") as mine:
        await one_turn(seen, CALLS, "Sunny.", tools=[look, fail])
        assert trace.get_current_span() is mine
    assert by_name(seen)["invoke_agent shop"].parent == mine.get_span_context()


async def test_durations_are_measured() -> None:
    """One point for the turn, one for each tool that ran, with its error."""
    seen = Seen()
    await one_turn(seen, CALLS, "Sunny.", tools=[look, fail])
    metrics = seen.metrics()
    (turn,) = metrics["gen_ai.invoke_agent.duration"]
    assert "shop" == turn.attributes["gen_ai.agent.name"]
    tools = {
        point.attributes["gen_ai.tool.name"]: point.attributes.get("error.type")
        for point in metrics["gen_ai.execute_tool.duration"]
    }
    assert {"look": None, "fail": "tool_failed"} == tools


async def test_nothing_that_was_said_is_recorded() -> None:
    """Arguments and results are opt-in."""
    seen = Seen()
    await one_turn(seen, CALLS, "canary", tools=[look, fail])
    assert "canary" not in seen.dump()
    assert "Lyon" not in seen.dump()


async def test_content_is_recorded_if_so_wished() -> None:
    """With `content=True` a tool's span has both."""
    seen = Seen(content=True)
    await one_turn(seen, CALLS, "Sunny.", tools=[look, fail])
    found = by_name(seen)["execute_tool look"].attributes
    assert {"place": "Lyon"} == json.loads(found["gen_ai.tool.call.arguments"])
    assert "canary: Lyon is sunny" == found["gen_ai.tool.call.result"]


async def test_a_turn_that_fails_says_how() -> None:
    """The turn's span has the error's code."""
    seen = Seen()
    with pytest.raises(RateLimited):
        await one_turn(
            seen,
            *(RateLimited("slow down", retry_after_s=0) for _ in range(5)),
            tools=[look],
        )
    assert "rate_limit_exceeded" == by_name(seen)["invoke_agent shop"].attributes["error.type"]


async def test_a_turn_that_is_left_ends_its_spans() -> None:
    """A tool that is broken off with its turn has a span that says so."""
    seen = Seen()
    gate, begun = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> None:
        """Wait."""
        begun.set()
        await gate.wait()

    message = Message.assistant(tool_calls=(ToolCall("abcdefgh1", "wait", {}),))
    body = MistralDialect().encode_response(answer(message, finish="tool_calls"))
    client = AsyncMistral(
        "k" * 32, model=MODEL, transport=FakeTransport(FakeReply.of(body)), telemetry=seen.telemetry
    )
    async with client, AsyncAgent(llm=client, tools=[wait], name="shop") as agent:
        turn = asyncio.ensure_future(agent.chat("?"))
        await turn_until(begun.is_set)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
    spans = by_name(seen)
    assert "cancelled" == spans["execute_tool wait"].attributes["error.type"]
    assert "cancelled" == spans["invoke_agent shop"].attributes["error.type"]
