"""The public API as type checkers see it: mypy and pyright read this file, nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import assert_type

import msgspec

import loom
from loom import (
    AsyncMistral,
    AsyncOpenAI,
    AsyncStream,
    ChatRequest,
    Completed,
    EmbeddingsResponse,
    Layer,
    LLMProvider,
    LLMResponse,
    LoomError,
    Message,
    Mistral,
    ModelCard,
    OpenAI,
    Plan,
    Quote,
    Stream,
    StreamEvent,
    TextDelta,
    Timeouts,
    TokenCount,
    ToolCall,
    ToolSpec,
    Usage,
)


class Weather(msgspec.Struct):
    town: str
    degrees_c: float


def blocking() -> None:
    client = Mistral(
        "key",
        model="mistral-small-latest",
        max_tokens=100,
        temperature=0,
        timeout_s=timedelta(seconds=5),
        deadline_s=10.0,
        timeouts=Timeouts(first_byte_s=1.0),
        base_url="https://api.mistral.ai/v1",
        headers={"x-team": "red"},
        as_of=date(2024, 11, 30),
        fit="slide",
    )
    with Mistral(sim=True) as again:
        assert_type(again, Mistral)
    assert_type(client.name, str)
    assert_type(client.model, str)

    response = client.chat("Hello")
    assert_type(response, LLMResponse)
    assert_type(response.content, str)
    assert_type(response.thinking, str)
    assert_type(response.tool_calls, tuple[ToolCall, ...])
    assert_type(response.usage, Usage)
    assert_type(response.usage.total_tokens, int)
    assert_type(response.usage.cost_usd, Decimal | None)
    assert_type(response.message, Message)
    assert_type(response.request_id, str | None)

    stream = client.stream([Message.user("Hello"), {"role": "assistant", "content": "Hi"}])
    assert_type(stream, Stream)
    with stream as events:
        for event in events:
            assert_type(event, StreamEvent)
            if isinstance(event, TextDelta):
                assert_type(event.text, str)
            elif isinstance(event, Completed):
                assert_type(event.response, LLMResponse)
    for piece in client.stream("Hello").text_stream:
        assert_type(piece, str)
    assert_type(client.stream("Hello").final(), LLMResponse)
    stream.close()

    client.chat("Weather?", output=Weather, temperature=0.2, stop=["\n"], timeout_s=3)
    client.chat("Weather?", tools=[ToolSpec(name="weather", parameters={"type": "object"})])
    assert_type(client.count("Hello"), TokenCount)
    quote = client.quote("Hello", [ToolSpec(name="weather")], fit="slide")
    assert_type(quote, Quote)
    assert_type(quote.max_cost_usd, Decimal | None)
    plan = client.plan("Hello")
    assert_type(plan, Plan)
    assert_type(plan.room, int | None)
    vectors = client.embeddings(["Hello", "Hi"], dimension=64, as_base64=True, tags={"a": "b"})
    assert_type(vectors, EmbeddingsResponse)
    assert_type(vectors.vectors, Sequence[Sequence[float]])
    assert_type(client.fim("def f(", "return a", max_tokens=9), LLMResponse)
    assert_type(client.with_options(temperature=0.0), Mistral)
    client.close()


async def asynchronous() -> None:
    client = AsyncMistral("key")
    async with AsyncMistral(sim=True) as again:
        assert_type(again, AsyncMistral)
    assert_type(await client.chat("Hello"), LLMResponse)
    assert_type(await client.count("Hello"), TokenCount)
    assert_type(await client.quote("Hello"), Quote)
    assert_type(await client.plan("Hello"), Plan)
    assert_type(await client.embeddings("Hello", "codestral-embed"), EmbeddingsResponse)
    assert_type(await client.fim("def f("), LLMResponse)

    stream = client.stream("Hello")
    assert_type(stream, AsyncStream)
    async with stream as events:
        async for event in events:
            assert_type(event, StreamEvent)
    async for piece in client.stream("Hello").text_stream:
        assert_type(piece, str)
    assert_type(await client.stream("Hello").final(), LLMResponse)
    await stream.aclose()
    await client.aclose()


async def other_vendor() -> None:
    blocking = OpenAI("key", model="gpt-4.1", limit_field="max_tokens", temperature=None)
    assert_type(blocking.chat("Hello"), LLMResponse)
    assert_type(blocking.stream("Hello"), Stream)
    assert_type(blocking.request("Hello"), ChatRequest)
    assert_type(blocking.with_options(max_tokens=10), OpenAI)
    with blocking as same:
        assert_type(same, OpenAI)

    client = AsyncOpenAI(base_url="http://localhost:11434/v1", fallback="mistral:ministral-3b-2512")
    assert_type(await client.chat("Hello"), LLMResponse)
    assert_type(client.stream("Hello"), AsyncStream)
    assert_type(client.provider, LLMProvider)
    assert_type(client.request("Hello", temperature=0), ChatRequest)
    async with client as again:
        assert_type(again, AsyncOpenAI)
    async with loom.provider("openai:gpt-4.1", api_key="key") as named:
        assert_type(await named.chat("Hello"), LLMResponse)


def facts() -> None:
    assert_type(loom.cost("mistral-large-latest", 1000, 2000), Decimal | None)
    assert_type(loom.cost("mistral-large-latest", 1000, 2000, as_of="2024-11"), Decimal | None)
    assert_type(loom.recommend("development"), ModelCard)
    assert_type(loom.models(provider="openai"), tuple[ModelCard, ...])


def errors(error: LoomError) -> None:
    assert_type(error.code, str)
    assert_type(error.retryable, bool)
    assert_type(error.retry_after_s, float | None)
    assert_type(error.request_id, str | None)
    assert_type(error.hint, str)


class Shouting(Layer):
    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        async for event in self.inner.stream(request):
            if isinstance(event, TextDelta):
                yield TextDelta(event.text.upper(), event.choice)
            else:
                yield event


def layered(provider: LLMProvider) -> LLMProvider:
    return Shouting(provider)
