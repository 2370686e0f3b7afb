"""A stream costs what the plain answer costs, to the last digit, and so says the ledger (R-15)."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import msgspec
import pytest
from tests.client.replay import replaying
from tests.client.test_recorded_exchanges import words
from tests.recorded import Exchange, chat_exchanges, needed, truth_of

from loom import AsyncMistral
from loom.catalog.lookup import Catalog
from loom.core.response import LLMResponse
from loom.ledger.entry import Entry
from loom.ledger.memory import MemoryLedger

pytestmark = pytest.mark.anyio

KEY = "canary-not-a-real-key"
# The whole usage, as recorded: the same object goes into both forms of the answer.
ANSWERED = [
    e
    for e in chat_exchanges()
    if e.status == 200 and e.request is not None and b'"usage"' in e.body
]


def usage_of(exchange: Exchange) -> Any:
    """The recorded usage, read with nothing but `json`."""
    if not exchange.stream:
        return json.loads(exchange.body)["usage"]
    events = [line[6:] for line in exchange.body.split(b"\n") if line.startswith(b"data: {")]
    return next(u for event in reversed(events) if (u := json.loads(event).get("usage")))


def plain(exchange: Exchange) -> Exchange:
    """A plain answer with the model, the words and the usage of an exchange."""
    truth = truth_of(exchange)
    first = truth["choices"][0]
    body = {
        "id": "1", "object": "chat.completion", "created": 1, "model": truth["model"],
        "usage": usage_of(exchange),
        "choices": [
            {
                "index": 0,
                "finish_reason": first["finish_reason"],
                "message": {"role": "assistant", "content": first["text"] or "x"},
            }
        ],
    }  # fmt: skip
    return msgspec.structs.replace(exchange, stream=False, body=json.dumps(body).encode())


def streamed(exchange: Exchange) -> Exchange:
    """The same as a stream of two events."""
    truth = truth_of(exchange)
    first = truth["choices"][0]
    common = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": truth["model"]}
    said: dict[str, Any] = {"role": "assistant", "content": first["text"] or "x"}
    events = [
        {**common, "choices": [{"index": 0, "delta": said, "finish_reason": None}]},
        {
            **common,
            "choices": [
                {"index": 0, "delta": {"content": ""}, "finish_reason": first["finish_reason"]}
            ],
            "usage": usage_of(exchange),
        },
    ]
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return msgspec.structs.replace(exchange, stream=True, body=body.encode())


async def answered(exchange: Exchange, asked: Exchange) -> tuple[LLMResponse, Entry]:
    """The answer to a call, and its row."""
    messages, tools, options = words(asked)
    ledger = MemoryLedger()
    bare = {
        name: value
        for name, value in exchange.headers.items()
        if not name.startswith(("content-type", "x-ratelimit"))
    }
    async with (
        replaying() as server,
        AsyncMistral(
            KEY, base_url=server.base_url, retry=None, as_of="2026-01", ledger=ledger
        ) as client,
    ):
        server.answer(msgspec.structs.replace(exchange, headers=bare))
        if exchange.stream:
            response = await client.stream(messages, tools, **options).final()
        else:
            response = await client.chat(messages, tools, **options)
        (row,) = await ledger.entries()
    return response, row


def counted(usage: Any) -> tuple[object, ...]:
    return (
        usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.audio_tokens,
        usage.audio_seconds, usage.cost_usd,
    )  # fmt: skip


def test_there_are_recordings() -> None:
    """Without them nothing below is asked; with them there are many, of both kinds."""
    needed()
    assert {True, False} == {exchange.stream for exchange in ANSWERED}
    assert len(ANSWERED) >= 20


@pytest.mark.parametrize("exchange", ANSWERED, ids=str)
async def test_a_stream_costs_what_the_plain_answer_costs(exchange: Exchange) -> None:
    """The recording, and both forms with its usage: one cost, and the row's is the same."""
    other = plain(exchange) if exchange.stream else streamed(exchange)
    recorded, row = await answered(exchange, exchange)
    turned, other_row = await answered(other, exchange)

    assert counted(recorded.usage) == counted(turned.usage)
    for response, entry in ((recorded, row), (turned, other_row)):
        assert ("settled", counted(response.usage)) == (entry.state, counted(entry))
        price = response.usage.price
        assert (price.id if price is not None else "") == entry.price_id
    assert str(recorded.usage.cost_usd) == str(turned.usage.cost_usd) == str(row.cost_usd)


def test_most_of_them_have_a_price() -> None:
    """What has no price would be equal for nothing."""
    needed()
    cards = [
        Catalog.builtin().find(truth_of(exchange)["model"], date(2026, 1, 15))
        for exchange in ANSWERED
    ]
    assert sum(card is not None and card.price is not None for card in cards) > len(cards) / 2
