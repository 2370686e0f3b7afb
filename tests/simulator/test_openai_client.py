"""OpenAI's dialect over real sockets: every fault of the table, answers, limits, one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from datetime import date
from typing import Any

import pytest

from loom.core.ambient import SystemClock
from loom.core.errors import ERROR_TABLE, InvalidRequest, LoomError, StreamTruncated
from loom.core.events import Completed, StreamEvent, TextDelta
from loom.core.messages import Message
from loom.core.request import ChatRequest, ResponseFormat, Sampling, Timeouts, ToolSpec
from loom.core.response import LLMResponse
from loom.core.secret import Secret
from loom.providers.key import Key
from loom.providers.wired import Endpoint, WiredProvider
from loom.server.simulator import Simulator
from loom.server.simulator.faults import fault_table
from loom.transport.http import HttpTransport
from loom.wire.chat_completions.dialect import ChatCompletionsDialect

pytestmark = pytest.mark.anyio

MODEL = "gpt-4.1"
DAY = date(2026, 8, 19)
PROMPT = "Explain looms in thirty words"
# What waits for time waits for the client's limits: short ones.
HASTY = Timeouts(connect_s=5, write_s=5, first_byte_s=0.2, idle_s=0.2, total_s=20)
SLOW = ("7-unread", "8-no-headers", "10-stall-body", "14-stall", "25-comments-only")
QUICK = {
    "25-comments-only": "25-comments-only;seconds=0.05",
    "toxic-bandwidth": "toxic-bandwidth:10000000",
    "toxic-latency": "toxic-latency:0",
    "toxic-slow_close": "toxic-slow_close:0",
}
TOOL = ToolSpec(
    name="get_weather",
    description="The weather of a city.",
    parameters={
        "type": "object",
        "properties": {"location": {"type": "string"}},
        "required": ["location"],
    },
)


@pytest.fixture(scope="module")
def simulator() -> Any:
    with Simulator(as_of=DAY) as running:
        yield running


async def ask(
    simulator: Simulator, headers: Mapping[str, str] | None = None, **options: Any
) -> tuple[list[StreamEvent], LLMResponse]:
    """Send one request, without any layer; give the events and the answer."""
    endpoint = Endpoint(
        name="openai",
        url=f"{simulator.openai_base_url}/chat/completions",
        headers=headers or {},
        key=Key(Secret(simulator.api_key)),
    )
    given = {"model": MODEL, "messages": (Message.user(PROMPT),), **options}
    clock, transport = SystemClock(), HttpTransport()
    provider = WiredProvider(endpoint, MODEL, ChatCompletionsDialect(), transport, clock)
    try:
        async with aclosing(provider.stream(ChatRequest(**given))) as stream:
            events = [event async for event in stream]
    finally:
        await provider.aclose()
    last = events[-1]
    assert isinstance(last, Completed)
    return events, last.response


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("row", fault_table().rows, ids=lambda row: row.id)
async def test_a_fault_raises_what_its_row_says(
    simulator: Simulator, row: Any, *, stream: bool
) -> None:
    """The same classes as for Mistral: what breaks a wire has no vendor."""
    expected = row.raises if stream or row.plain is None else row.plain
    headers = {"x-loom-fault": QUICK.get(row.id, row.id)}
    hasty = row.id in SLOW or row.id == "toxic-timeout"
    timeouts = HASTY if hasty else Timeouts()
    asking = ask(simulator, headers, stream=stream, timeouts=timeouts)

    if not expected:
        assert (await asking)[1].choices
        return
    with pytest.raises(LoomError) as raised:
        await asking

    assert expected == raised.value.code
    assert ERROR_TABLE[expected] == raised.value.row()
    assert "openai" == raised.value.provider


async def test_what_came_before_a_cut_is_in_the_error(simulator: Simulator) -> None:
    """`partial` holds the words of the events before it."""
    _, whole = await ask(simulator, stream=True)
    with pytest.raises(StreamTruncated) as raised:
        await ask(simulator, {"x-loom-fault": "15-reset:4"}, stream=True)

    assert raised.value.partial is not None
    # The first event opens the answer without a word.
    assert 3 == len(raised.value.partial.text.split())
    assert whole.content.startswith(raised.value.partial.text)


async def test_the_streamed_answer_is_the_plain_one(simulator: Simulator) -> None:
    """Text and usage; the stream is asked for its usage, so nothing is estimated."""
    _, plain = await ask(simulator)
    events, streamed = await ask(simulator, stream=True)

    assert plain.content == streamed.content
    assert streamed.content == "".join(e.text for e in events if isinstance(e, TextDelta))
    assert plain.usage.output_tokens == streamed.usage.output_tokens
    assert (False, False) == (plain.usage.estimated, streamed.usage.estimated)
    assert "default" == streamed.usage.service_tier


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["plain", "tools", "schema"])
async def test_every_setting_is_seen(simulator: Simulator, kind: str, *, stream: bool) -> None:
    """No option is lost on one branch only (reliability rule R-9)."""
    more: dict[str, Any] = {}
    if kind == "tools":
        more = {"tools": (TOOL,), "tool_choice": "required", "parallel_tool_calls": False}
    if kind == "schema":
        schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
        more = {"response_format": ResponseFormat(type="json_schema", name="p", schema=schema)}
    await ask(
        simulator,
        stream=stream,
        sampling=Sampling(
            temperature=0.5, top_p=0.9, max_tokens=50, stop=("zz",), random_seed=3,
            presence_penalty=0.1, frequency_penalty=0.2, n=2,
        ),
        reasoning_effort="low",
        prompt_cache_key="k",
        service_tier="flex",
        metadata={"a": "b"},
        prediction="x",
        extra={"store": True},
        **more,
    )  # fmt: skip

    seen = ChatCompletionsDialect().decode_request(simulator.journal[-1].body)
    assert stream is seen.stream
    assert (0.5, 0.9, 50, ("zz",), 3, 0.1, 0.2, 2) == (
        seen.sampling.temperature,
        seen.sampling.top_p,
        seen.sampling.max_tokens,
        seen.sampling.stop,
        seen.sampling.random_seed,
        seen.sampling.presence_penalty,
        seen.sampling.frequency_penalty,
        seen.sampling.n,
    )
    assert ("low", "k", "flex", {"a": "b"}, "x", {"store": True}) == (
        seen.reasoning_effort,
        seen.prompt_cache_key,
        seen.service_tier,
        seen.metadata,
        seen.prediction,
        seen.extra,
    )
    assert all(getattr(seen, name) == value for name, value in more.items())


@pytest.mark.parametrize("stream", [True, False])
async def test_calls_and_their_results_go_round(simulator: Simulator, *, stream: bool) -> None:
    """Ids of OpenAI's form come, and go back as they are."""
    asked = Message.user("What is the weather in Paris and Rome?")
    _, first = await ask(simulator, messages=(asked,), tools=(TOOL,), stream=stream)
    results = [Message.tool(call, '{"temperature": 21}') for call in first.tool_calls]
    _, last = await ask(
        simulator, messages=(asked, first.message, *results), tools=(TOOL,), stream=stream
    )

    assert ["Paris", "Rome"] == [call.input["location"] for call in first.tool_calls]
    assert all(call.id.startswith("call_") for call in first.tool_calls)
    assert "temperature 21" in last.content
    assert "repairs" not in last.metadata


async def test_limits_and_ids_are_read(simulator: Simulator) -> None:
    """What the headers say stands on the answer."""
    _, response = await ask(simulator)

    assert str(response.request_id).startswith("req_")
    assert (100, 100_000, 60.0) == (
        response.rate_limit.limit_requests_minute,
        response.rate_limit.limit_tokens_minute,
        response.rate_limit.reset_s,
    )


async def test_nothing_is_sent_that_openai_does_not_have(simulator: Simulator) -> None:
    """An option of Mistral's is refused before a socket is opened."""
    before = len(simulator.journal)
    with pytest.raises(InvalidRequest, match="OpenAI has no option 'safe_prompt'"):
        await ask(simulator, safe_prompt=True)

    assert before == len(simulator.journal)
