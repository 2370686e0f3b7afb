"""The async client end to end: answers, streams, event loops, and what is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import pytest

from loom import (
    AsyncMistral,
    Completed,
    LLMProvider,
    Message,
    OutputInvalid,
    Sending,
    StreamTruncated,
    TextDelta,
    ToolSpec,
)
from loom.server.simulator import Simulator
from loom.testing import FakeReply, FakeTransport, cancel_everywhere
from loom.transport.http import HttpTransport

LOOK = ToolSpec(
    name="look_up",
    parameters={"type": "object", "properties": {"word": {"type": "string"}}},
)
BODY = (
    b'{"id":"a","model":"mistral-small-latest","usage":{"prompt_tokens":3,"completion_tokens":4,'
    b'"total_tokens":7},"choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"content":"{\\"name\\": 7}"}}]}'
)


@dataclass
class Person:
    name: str


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


def client_of(simulator: Simulator, transport: HttpTransport | None = None) -> AsyncMistral:
    return AsyncMistral(simulator.api_key, base_url=simulator.base_url, transport=transport)


@pytest.mark.anyio
async def test_an_answer_has_everything_that_is_promised(simulator: Simulator) -> None:
    """Content, tokens, cost, ids, latency, limits: as the library's page shows it."""
    async with client_of(simulator) as client:
        response = await client.chat([Message.system("Be brief."), Message.user("Why?")])
    assert response.content
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert isinstance(response.usage.cost_usd, Decimal)
    assert ("mistral", "mistral-large-latest") == (client.name, client.model)
    assert "mistral" == response.metadata["provider"]
    assert response.request_id
    assert response.rate_limit.limit_requests_minute
    assert response.latency_s > 0
    assert 1 == response.attempts
    assert response.raw["id"] == response.id


@pytest.mark.anyio
async def test_a_stream_and_a_plain_answer_cost_the_same(simulator: Simulator) -> None:
    """The same question streamed has the same tokens and the same price, to the last digit."""
    async with client_of(simulator) as client:
        plain = await client.chat("Tell me a story")
        streamed = await client.stream("Tell me a story").final()
    assert plain.content == streamed.content
    assert plain.usage == streamed.usage


@pytest.mark.anyio
async def test_a_stream_is_an_iterator_of_events(simulator: Simulator) -> None:
    """`Sending` first, `Completed` last; the texts are the answer."""
    async with client_of(simulator) as client, client.stream("Tell me a story") as stream:
        events = [event async for event in stream]
    assert isinstance(events[0], Sending)
    completed = events[-1]
    assert isinstance(completed, Completed)
    texts = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert completed.response.content == texts
    assert completed.response == await stream.final()


@pytest.mark.anyio
async def test_the_text_stream_is_the_text(simulator: Simulator) -> None:
    """Those who want text only get text only, and the whole answer after it."""
    async with client_of(simulator) as client:
        stream = client.stream("Tell me a story")
        text = "".join([piece async for piece in stream.text_stream])
        assert text == (await stream.final()).content


@pytest.mark.anyio
async def test_leaving_a_stream_early_closes_its_socket(simulator: Simulator) -> None:
    """A `break` in the block, and nothing is held."""
    transport = HttpTransport()
    async with client_of(simulator, transport) as client:
        async with client.stream("Tell me a story") as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        assert 0 == transport.permits_in_use
        with pytest.raises(StreamTruncated, match="closed"):
            await stream.final()


@pytest.mark.anyio
async def test_a_forgotten_stream_warns_and_closes(simulator: Simulator) -> None:
    """A stream that is dropped in the middle is closed, with a ResourceWarning."""
    transport = HttpTransport()
    async with client_of(simulator, transport) as client:
        stream = client.stream("Tell me a story")
        async for event in stream:
            if isinstance(event, TextDelta):
                break
        with pytest.warns(ResourceWarning, match="dropped before its end"):
            del stream
        async with asyncio.timeout(5):
            while transport.permits_in_use:  # noqa: ASYNC110 - the finalizer is a task of the loop
                await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_tool_is_called_and_its_result_used(simulator: Simulator) -> None:
    """Call, result, final answer: the message of the answer goes back as it is."""
    async with client_of(simulator) as client:
        question = Message.user("Please look_up the word weaving")
        first = await client.chat([question], [LOOK])
        (call,) = first.tool_calls
        assert "tool_calls" == first.finish_reason
        result = Message.tool(call, '{"meaning": "crossing threads"}')
        second = await client.chat([question, first.message, result], [LOOK])
    assert "look_up" == call.name
    assert "crossing threads" in second.content


@pytest.mark.anyio
async def test_a_typed_answer_is_a_value(simulator: Simulator) -> None:
    """`output=` gives a value of the type, plain and streamed."""
    async with client_of(simulator) as client:
        response = await client.chat("Name a person", output=Person)
        streamed = await client.stream("Name a person", output=Person).final()
    assert isinstance(response.parsed, Person)
    assert response.parsed == streamed.parsed


@pytest.mark.anyio
async def test_an_answer_that_does_not_fit_is_an_error_with_its_text() -> None:
    """The message says where; the text is on the error, not in its message."""
    async with AsyncMistral("a-key", transport=FakeTransport(FakeReply.of(BODY))) as client:
        with pytest.raises(OutputInvalid, match="name") as caught:
            await client.chat("Name a person", output=Person)
    assert '{"name": 7}' == caught.value.text


@pytest.mark.anyio
async def test_the_connection_test_asks_for_a_word(simulator: Simulator) -> None:
    """`ping` is a small call with everything in it."""
    async with client_of(simulator) as client:
        response = await client.ping()
    assert response.content
    assert response.usage.total_tokens > 0


@pytest.mark.anyio
@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelled_anywhere_the_client_leaks_nothing(
    simulator: Simulator,
    streamed: bool,  # noqa: FBT001 - a case
) -> None:
    """Over a real socket: no permit, no task, no generator is left at any suspension."""
    transport = HttpTransport()
    async with client_of(simulator, transport) as client:

        async def ask() -> object:
            if streamed:
                return await client.stream("Hello", max_tokens=3).final()
            return await client.chat("Hello", max_tokens=3)

        await ask()
        survey = await cancel_everywhere(ask, probes={"permits": lambda: transport.permits_in_use})
    assert survey.suspensions > 0
    assert 0 == transport.open_sockets


def test_one_client_serves_three_event_loops(simulator: Simulator) -> None:
    """Three `asyncio.run` in a row: no "Event loop is closed"."""
    client = client_of(simulator)
    answers = {asyncio.run(client.chat("Hello")).content for _ in range(3)}
    assert 1 == len(answers)
    asyncio.run(client.aclose())


def test_one_client_serves_two_threads(simulator: Simulator) -> None:
    """Two threads, each with a loop of its own."""
    client, answers = client_of(simulator), []

    def ask() -> None:
        answers.append(asyncio.run(client.chat("Hello")).content)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 2 == len(answers)
    asyncio.run(client.aclose())


def test_a_client_shows_no_key() -> None:
    """Neither its repr nor anything it holds prints the key."""
    client = AsyncMistral("canary-not-a-real-key", transport=FakeTransport(FakeReply.of(BODY)))
    assert "canary" not in repr(client)
    assert "canary" not in repr(vars(client))
    assert isinstance(client._assembled.provider, LLMProvider)
