"""Every recorded chat exchange through the real client over a real socket."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from tests.client.replay import replaying
from tests.recorded import Exchange, chat_exchanges, truth_of
from tests.wire.test_recorded import expected_code, meaning, told

from loom import AsyncMistral, LoomError, StreamTruncated, TextDelta, ThinkingDelta

pytestmark = pytest.mark.anyio

ASKED = [e for e in chat_exchanges() if e.request is not None]
ANSWERED = [e for e in ASKED if e.status == 200]
REFUSED = [e for e in ASKED if e.status != 200]
STREAMS = [e for e in chat_exchanges() if e.status == 200 and e.stream]
KEY = "canary-not-a-real-key"


def words(exchange: Exchange) -> tuple[Any, Any, dict[str, Any]]:
    """A recorded body as a caller would write it: messages, tools, options."""
    assert exchange.request is not None
    options = {name: value for name, value in exchange.request.items() if name != "stream"}
    return options.pop("messages"), options.pop("tools", None), options


def cost_of(response: Any) -> Decimal | None:
    """The formula of the reference page, with the row that the answer names."""
    usage, price = response.usage, response.usage.price
    if price is None:
        return None
    factor = price.priority_factor if usage.service_tier == "priority" else Decimal(1)
    cached = price.cached_input_usd_per_mtok
    fresh = usage.input_tokens - usage.cached_tokens
    parts = [
        fresh * (price.input_usd_per_mtok or 0),
        usage.cached_tokens * (price.input_usd_per_mtok or 0 if cached is None else cached),
        usage.output_tokens * (price.output_usd_per_mtok or 0),
    ]
    return sum(parts, Decimal(0)) / 1_000_000 * factor


@pytest.mark.parametrize("exchange", ANSWERED, ids=str)
async def test_answer_comes_out_as_recorded(exchange: Exchange) -> None:
    """Text, thinking, calls, finish reason, usage and cost are the recording's."""
    messages, tools, options = words(exchange)
    async with (
        replaying() as server,
        AsyncMistral(KEY, base_url=server.base_url, retry=None) as client,
    ):
        server.answer(exchange)
        if exchange.stream:
            stream = client.stream(messages, tools, **options)
            events = [event async for event in stream]
            response = await stream.final()
            texts = [e.text for e in events if isinstance(e, TextDelta) and e.choice == 0]
            thoughts = [e.text for e in events if isinstance(e, ThinkingDelta) and e.choice == 0]
            assert response.content == "".join(texts)
            assert response.thinking == "".join(thoughts)
        else:
            response = await client.chat(messages, tools, **options)
        sent = server.requests
    assert truth_of(exchange) == told(response)
    if "audio" not in exchange.kind:
        assert cost_of(response) == response.usage.cost_usd
    assert response.metadata["provider"] == "mistral"
    assert 1 == len(sent)
    recorded = meaning({"max_tokens": 4096, "temperature": 1.0, **(exchange.request or {})})
    assert recorded == meaning(sent[0])


@pytest.mark.parametrize("exchange", REFUSED, ids=str)
async def test_refusal_becomes_the_right_error(exchange: Exchange) -> None:
    """A recorded error reply becomes the class of the table, and shows neither key nor prompt."""
    messages, tools, options = words(exchange)
    async with (
        replaying() as server,
        AsyncMistral(KEY, base_url=server.base_url, retry=None) as client,
    ):
        server.answer(exchange)
        with pytest.raises(LoomError) as caught:
            if exchange.stream:
                await client.stream(messages, tools, **options).final()
            else:
                await client.chat(messages, tools, **options)
    error = caught.value
    assert expected_code(exchange.status, json.loads(exchange.body)) == error.code
    assert exchange.status == error.http_status
    assert KEY not in repr(error) + str(error) + repr(vars(error))
    assert error.provider == "mistral"


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
async def test_stream_cut_at_event_boundaries_is_whole_or_truncated(exchange: Exchange) -> None:
    """Cut at each event boundary and one byte to either side, by a break or a clean end."""
    whole = truth_of(exchange)
    first = whole["choices"][0]
    boundaries = [i + 2 for i in range(len(exchange.body)) if exchange.body.startswith(b"\n\n", i)]
    async with (
        replaying() as server,
        AsyncMistral(KEY, base_url=server.base_url, retry=None) as client,
    ):
        for boundary in boundaries:
            for size in (boundary - 1, boundary, boundary + 1):
                for clean in (True, False):
                    server.cut(exchange, size, clean=clean)
                    stream = client.stream("Hello", n=exchange.choices)
                    try:
                        assert whole == told(await stream.final())
                    except StreamTruncated as error:
                        assert error.partial is not None
                        assert first["text"].startswith(error.partial.text)
                        assert first["thinking"].startswith(error.partial.thinking)
                        assert size <= boundaries[-1]
                    else:
                        assert b'"finish_reason"' in exchange.body[:size]
