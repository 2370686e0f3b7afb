"""Every answer is priced by the model that it names, on the day of the call."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from loom.catalog.lookup import Catalog
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.layers.cost import Costing
from loom.providers.wired import Endpoint, WiredProvider
from loom.testing import LAYER_LAWS, FakeClock, FakeReply, FakeTransport, LayerCase, LayerLaw
from loom.wire.mistral.dialect import MistralDialect

pytestmark = pytest.mark.anyio
CATALOG = Catalog.builtin()


def costing(inner: LLMProvider) -> Costing:
    return Costing(inner, catalog=CATALOG, clock=FakeClock())


@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_costing_keeps_the_laws_of_a_layer(law: LayerLaw) -> None:
    """Closing, order, contexts, limits: the contract of every layer."""
    await law(LayerCase(make=costing))


def answering(model: str) -> LLMProvider:
    body = (
        b'{"id":"a","model":"%b","usage":{"prompt_tokens":100,"completion_tokens":200},'
        b'"choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}}]}'
    ) % model.encode()
    endpoint = Endpoint(name="mistral", url="https://x/v1/chat/completions")
    transport = FakeTransport(FakeReply.of(body))
    return WiredProvider(endpoint, "asked", MistralDialect(), transport, FakeClock())


@pytest.mark.parametrize(
    ("model", "as_of", "expected"),
    [
        ("mistral-large-latest", date(2024, 11, 30), Decimal("0.0028")),
        ("mistral-large-2402", date(2024, 11, 30), Decimal("0.0028")),
        ("open-mistral-7b", date(2024, 11, 30), Decimal("0.000075")),
        ("mistral-large-latest", date(2026, 11, 23), Decimal("0.00035")),
        ("nobody-knows", date(2026, 11, 23), None),
    ],
)
async def test_price_is_that_of_the_answering_model(
    model: str, as_of: date, expected: Decimal | None
) -> None:
    """Not the model that was asked for, and never a guess."""
    layer = Costing(answering(model), catalog=CATALOG, clock=FakeClock(), as_of=as_of)
    response = await layer.chat(ChatRequest(model="asked", messages=(Message.user("x"),)))
    assert expected == response.usage.cost_usd
    assert (expected is None) == (response.usage.price is None)


async def test_without_as_of_the_clock_tells_the_day() -> None:
    """A call of today has the price of today."""
    clock = FakeClock(datetime(2024, 11, 5, tzinfo=UTC))
    layer = Costing(answering("mistral-small-latest"), catalog=CATALOG, clock=clock)
    response = await layer.chat(ChatRequest(model="asked", messages=(Message.user("x"),)))
    assert Decimal("0.0007") == response.usage.cost_usd
