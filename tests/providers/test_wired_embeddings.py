"""Vectors from a vendor: the loop of chats, with another body and another answer."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import msgspec
import pytest

from loom.catalog.lookup import Catalog
from loom.core.embeddings import EmbeddingsRequest, as_chat
from loom.core.errors import (
    InvalidAPIKey,
    InvalidRequest,
    LoomError,
    MalformedReply,
    RateLimited,
    Unreachable,
)
from loom.core.events import Completed, Sending
from loom.core.request import Timeouts
from loom.core.secret import Secret
from loom.layers.cost import Costing
from loom.providers.key import Key
from loom.providers.wired import Endpoint
from loom.providers.wired_embeddings import LayeredEmbeddings, WiredEmbeddings
from loom.testing import FakeClock, FakeReply, FakeTransport, cancel_everywhere
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.dialect import Dialect
from loom.wire.mistral.dialect import MistralDialect

pytestmark = pytest.mark.anyio

DAY = date(2026, 8, 21)
KEY = "canary-not-a-real-key"
ASK = EmbeddingsRequest(model="mistral-embed", texts=("canary text", "b"))
WHOLE = (
    b'{"id":"a","object":"list","model":"mistral-embed","usage":{"prompt_tokens":30,'
    b'"total_tokens":30,"completion_tokens":0},"data":[{"embedding":[0.5],"index":0},'
    b'{"embedding":[0.25],"index":1}]}'
)
REFUSED = b'{"object":"error","message":"No ' + KEY.encode() + b'","type":"x","code":"1"}'


def wired(
    *replies: FakeReply | Exception, dialect: Dialect | None = None
) -> tuple[WiredEmbeddings, FakeTransport]:
    transport = FakeTransport(*replies)
    endpoint = Endpoint(name="mistral", url="https://x/v1/embeddings", key=Key(Secret(KEY)))
    provider = WiredEmbeddings(
        endpoint, "mistral-large-latest", dialect or MistralDialect(), transport, FakeClock()
    )
    return provider, transport


async def test_vectors_come_with_all_that_is_known_of_the_call() -> None:
    """Usage, ids, limits, attempts and times, as of a chat."""
    headers = {"content-type": "application/json", "x-kong-request-id": "one"}
    headers |= {"x-ratelimit-limit-req-minute": "360", "x-ratelimit-tokens-query-cost": "30"}
    provider, transport = wired(FakeReply(headers=headers, chunks=(WHOLE,)))

    response = await LayeredEmbeddings(provider).embed(ASK)

    assert [[0.5], [0.25]] == response.vectors
    assert (30, 0, 30) == (
        response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens
    )  # fmt: skip
    assert ("mistral-embed", "a", "one") == (response.model, response.id, response.request_id)
    assert (360, 30) == (
        response.rate_limit.limit_requests_minute, response.rate_limit.query_cost_tokens
    )  # fmt: skip
    assert (1, {"provider": "mistral"}) == (response.attempts, response.metadata)
    assert response.timeline is not None
    assert ["settled"] == [attempt.charge for attempt in response.timeline.attempts]
    (sent,) = transport.requests
    assert {"model": "mistral-embed", "input": list(ASK.texts)} == json.loads(sent.body)
    assert ("https://x/v1/embeddings", False) == (sent.url, sent.stream)
    assert "application/json" == sent.headers["accept"]


async def test_its_events_are_those_of_a_plain_answer() -> None:
    """`Sending`, then `Completed`; the vectors are `parsed`, and there are no choices."""
    provider, _ = wired(FakeReply.of(WHOLE))
    sending, completed = [event async for event in provider.stream(as_chat(ASK))]
    assert Sending(1) == sending
    assert isinstance(completed, Completed)
    assert () == completed.response.choices
    assert [[0.5], [0.25]] == completed.response.parsed.vectors


@pytest.mark.parametrize(
    ("reply", "error", "charge", "status"),
    [
        (FakeReply.of(REFUSED, status=401), InvalidAPIKey, "released", 401),
        (FakeReply.of(REFUSED, status=429), RateLimited, "released", 429),
        (FakeReply.of(REFUSED, status=422), InvalidRequest, "released", 422),
        (FakeReply.of(b"{}"), MalformedReply, "unknown", 200),
        (FakeReply.of(WHOLE.replace(b'"index":1', b'"index":7')), MalformedReply, "unknown", 200),
        (FakeReply.of(b" "), MalformedReply, "unknown", 200),
        (Unreachable("gone", phase="connect"), Unreachable, "released", None),
        (Unreachable("gone", phase="reset", uncertain=True), Unreachable, "unknown", None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_a_failure_is_the_vendors_error_without_key_and_text(
    reply: FakeReply | Exception, error: type[LoomError], charge: str, status: int | None
) -> None:
    """Mapped, redacted, and with what it may have cost."""
    provider, transport = wired(reply)

    with pytest.raises(error) as caught:
        await LayeredEmbeddings(provider).embed(ASK)

    raised = caught.value
    assert raised.timeline is not None
    (attempt,) = raised.timeline.attempts
    assert (charge, status) == (attempt.charge, attempt.status)
    assert ("mistral", "mistral-embed") == (raised.provider, raised.model)
    assert "canary" not in f"{raised!r} {raised.curl} {raised.message}"
    assert raised.curl is not None
    assert "https://x/v1/embeddings" in raised.curl
    assert 0 == transport.in_use


async def test_usage_that_nobody_reported_is_estimated() -> None:
    """Fault matrix, row 46: by the bytes that were sent, and said so."""
    body = WHOLE.replace(b'"prompt_tokens":30', b'"prompt_tokens":null')
    provider, _ = wired(FakeReply.of(body))
    response = await LayeredEmbeddings(provider).embed(ASK)
    assert (True, 0) == (response.usage.estimated, response.usage.output_tokens)
    assert response.usage.input_tokens > 0
    assert response.timeline is not None
    assert "estimated" == response.timeline.attempts[0].charge


async def test_limits_and_deadline_go_to_the_transport() -> None:
    """By phase, as of a chat."""
    provider, transport = wired(FakeReply.of(WHOLE))
    timeouts = Timeouts(first_byte_s=7.0, total_s=9.0)
    await LayeredEmbeddings(provider).embed(msgspec.structs.replace(ASK, timeouts=timeouts))
    (sent,) = transport.requests
    assert 7.0 == sent.timeouts.first_byte_s
    assert sent.deadline_s is not None


async def test_an_unknown_price_is_none() -> None:
    """The price of the model that answered, or none: never a guess."""
    for model, cost in (("mistral-embed", Decimal("0.000003")), ("nobodys-embed", None)):
        provider, _ = wired(FakeReply.of(WHOLE.replace(b"mistral-embed", model.encode())))
        priced = Costing(provider, catalog=Catalog.builtin(), clock=FakeClock(), as_of=DAY)
        response = await LayeredEmbeddings(priced).embed(ASK)
        assert cost == response.usage.cost_usd


async def test_openais_words() -> None:
    """The same loop in the other dialect."""
    provider, transport = wired(FakeReply.of(WHOLE), dialect=ChatCompletionsDialect())
    asked = msgspec.structs.replace(ASK, dimension=1, as_base64=True)
    assert [[0.5], [0.25]] == (await LayeredEmbeddings(provider).embed(asked)).vectors
    expected = {"dimensions": 1, "encoding_format": "base64", "input": list(ASK.texts)}
    assert {"model": "mistral-embed", **expected} == json.loads(transport.requests[0].body)


async def test_cancelled_anywhere_nothing_leaks() -> None:
    """No socket and no generator is held, whichever suspension it was."""
    provider, transport = wired(FakeReply.of(WHOLE))
    layered = LayeredEmbeddings(provider)
    survey = await cancel_everywhere(
        lambda: layered.embed(ASK), probes={"sockets": lambda: transport.in_use}
    )
    assert survey.suspensions > 2
