"""What the layers do differently with requests that are no chats."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.layers.telemetry import Seen

from loom.catalog.lookup import Catalog
from loom.core.embeddings import EmbeddingsRequest, EmbeddingsResponse, as_chat, as_chat_response
from loom.core.errors import BudgetExceeded, ServiceUnavailable
from loom.core.events import Completed, Sending
from loom.core.messages import Message
from loom.core.model import ModelCard
from loom.core.request import ChatRequest, Kind
from loom.core.response import LLMResponse, Usage
from loom.layers.account import Accounting
from loom.layers.limit_estimate import Estimator
from loom.layers.trace import Tracing
from loom.layers.window import Fitting, Window
from loom.layers.worst import likely_usage, worst_cost
from loom.ledger.budgets import Budget
from loom.ledger.memory import MemoryLedger
from loom.providers.fallback import Branch, FallingBack
from loom.testing import FakeClock, Witness
from loom.wire.mistral.dialect import MistralDialect

pytestmark = pytest.mark.anyio

CATALOG = Catalog.builtin()
DAY = date(2026, 8, 21)
TEXTS = as_chat(EmbeddingsRequest(model="mistral-embed", texts=("x" * 100, "y" * 100)))
GAP = ChatRequest(
    model="codestral-latest",
    messages=(Message.user("x" * 100),),
    extra={"suffix": "y" * 100},
    kind="fim",
)
USAGE = Usage(input_tokens=60, total_tokens=60)
VECTORS = as_chat_response(
    EmbeddingsResponse(vectors=[[1.0], [2.0]], model="mistral-embed", id="", usage=USAGE)
)
OTHER_KINDS = pytest.mark.parametrize("request_", [GAP, TEXTS], ids=["fim", "embeddings"])


def card(model: str) -> ModelCard:
    found = CATALOG.find(model, DAY, "mistral")
    assert found is not None
    return found


def answering(response: LLMResponse = VECTORS, **more: Any) -> Witness:
    return Witness([Sending(), Completed(response)], **more)


class TestWorstCost:
    """What may be billed at the most, before anything is sent."""

    def test_vectors_have_no_answer_in_tokens(self) -> None:
        """A token for each byte, and what stands around them, at the price of a prompt."""
        worst = worst_cost(TEXTS, card("mistral-embed"))
        assert worst is not None
        # 0.10 USD a million tokens; 200 bytes, and room for marks and options.
        assert Decimal("0.00002") < worst < Decimal("0.00006")

    def test_each_text_has_the_window_for_itself(self) -> None:
        """A hundred long texts are a hundred windows, and a very long one is one."""
        window = card("mistral-embed").context_window or 0
        many = as_chat(EmbeddingsRequest(model="m", texts=("x" * window,) * 100))
        one = as_chat(EmbeddingsRequest(model="m", texts=("x" * window * 9,)))
        price = Decimal("0.10") / 1_000_000
        assert 100 * window * price == worst_cost(many, card("mistral-embed"))
        assert window * price == worst_cost(one, card("mistral-embed"))

    def test_what_stands_behind_a_gap_counts(self) -> None:
        """The suffix is read, so it is paid for."""
        bare = msgspec.structs.replace(GAP, extra={})
        with_suffix, without = (worst_cost(each, card(GAP.model)) for each in (GAP, bare))
        assert with_suffix is not None
        assert without is not None
        assert with_suffix - without >= 100 * Decimal("0.30") / 1_000_000

    def test_an_unknown_price_is_unknown(self) -> None:
        """Never a guess."""
        assert worst_cost(TEXTS, None) is None

    @OTHER_KINDS
    def test_a_call_that_was_broken_off_likely_used_its_prompt(self, request_: ChatRequest) -> None:
        """An estimate of the texts, and no answer."""
        likely = likely_usage(request_, 0)
        assert (True, 0) == (likely.estimated, likely.output_tokens)
        assert likely.input_tokens >= 200 / 3.2


class TestAccounting:
    """One row for each call."""

    @pytest.mark.parametrize("kind", ["chat", "fim", "embeddings"])
    async def test_the_row_says_what_was_asked(self, kind: Kind) -> None:
        """By the kind of the request."""
        ledger = MemoryLedger(clock=FakeClock())
        layer = Accounting(answering(), ledger=ledger, catalog=CATALOG, clock=FakeClock())
        await layer.chat(msgspec.structs.replace(TEXTS, kind=kind))
        (row,) = await ledger.entries()
        assert (kind, "settled", 60) == (row.kind, row.state, row.input_tokens)

    async def test_a_budget_refuses_before_anything_is_sent(self) -> None:
        """The worst case of the texts must fit."""
        inner, ledger = answering(), MemoryLedger(clock=FakeClock())
        budgets = (Budget(limit_usd="0.000001"),)
        layer = Accounting(
            inner, ledger=ledger, budgets=budgets, catalog=CATALOG, clock=FakeClock(), as_of=DAY
        )
        with pytest.raises(BudgetExceeded):
            await layer.chat(msgspec.structs.replace(TEXTS, model="mistral-embed"))
        assert 0 == inner.calls


class TestLimits:
    """What a call will use of a minute's tokens."""

    def test_vectors_use_their_prompt_alone(self) -> None:
        """Nothing is kept free for an answer, whatever was learnt."""
        estimator = Estimator()
        for _ in range(30):
            guess = estimator.estimate(TEXTS, "mistral-embed")
            assert {guess.prompt} == {guess.reserve, guess.expected, guess.most}
            estimator.learn(TEXTS, "mistral-embed", guess, prompt=60, total=60)
        assert 60 == guess.prompt

    def test_what_stands_behind_a_gap_counts(self) -> None:
        """The suffix is part of the prompt."""
        bare = msgspec.structs.replace(GAP, extra={})
        guesses = [Estimator().estimate(each, "m").prompt for each in (GAP, bare)]
        assert guesses[0] - guesses[1] >= 100 / 3.2


class TestWindow:
    """Chats are counted by the templates of chats."""

    @OTHER_KINDS
    async def test_what_is_no_chat_is_the_vendors_to_judge(self, request_: ChatRequest) -> None:
        """However long: it is handed on uncounted."""

        def count(*_: object) -> Any:
            raise AssertionError

        inner = answering()
        layer = Fitting(
            inner, window=Window(MistralDialect(), count), catalog=CATALOG, clock=FakeClock()
        )
        long = (Message.user("word " * 1_000_000),)
        await layer.chat(msgspec.structs.replace(request_, messages=long))
        assert 1 == inner.calls


class TestFallback:
    """Another model is another answer."""

    @pytest.mark.parametrize("kind", ["fim", "embeddings"])
    async def test_routes_to_other_models_are_not_taken(self, kind: Kind) -> None:
        """Another key or address of the same model is."""
        broken = [Witness(error=ServiceUnavailable("down")) for _ in range(2)]
        other, alike = answering(), answering()
        provider = FallingBack(
            [
                Branch(provider=broken[0]),
                Branch(provider=other, model="other"),
                Branch(provider=alike),
            ],
            clock=FakeClock(),
        )
        request = msgspec.structs.replace(TEXTS, kind=kind)
        assert [[1.0], [2.0]] == (await provider.chat(request)).parsed.vectors
        assert (0, 1) == (other.calls, alike.calls)

        alone = FallingBack(
            [Branch(provider=broken[1]), Branch(provider=other, model="other")], clock=FakeClock()
        )
        with pytest.raises(ServiceUnavailable):
            await alone.chat(request)
        assert 0 == other.calls

    async def test_vectors_are_never_streamed(self) -> None:
        """A route that is watched for its first token is asked for a stream; not for vectors."""
        seen: list[ChatRequest] = []

        class Noting(Witness):
            def stream(self, request: ChatRequest) -> Any:
                seen.append(request)
                return super().stream(request)

        noting = Noting([Sending(), Completed(VECTORS)])
        provider = FallingBack(
            [Branch(provider=noting), Branch(provider=noting)], clock=FakeClock(), first_token_s=1.0
        )
        await provider.chat(TEXTS)
        assert [False] == [request.stream for request in seen]


class TestTelemetry:
    """Spans have the well-known names of the operations."""

    @pytest.mark.parametrize(
        ("request_", "operation"),
        [(GAP, "text_completion"), (TEXTS, "embeddings")],
        ids=["fim", "embeddings"],
    )
    async def test_the_operation(self, request_: ChatRequest, operation: str) -> None:
        """Name and attribute say what was asked; without choices nothing has finished."""
        seen = Seen(content=True)
        if request_ is TEXTS:
            request_ = msgspec.structs.replace(TEXTS, extra={**TEXTS.extra, "dimension": 64})
        await Tracing(answering(), clock=FakeClock(), telemetry=seen.telemetry).chat(request_)
        assert f"{operation} {request_.model}" == seen.span.name
        assert operation == seen.attributes["gen_ai.operation.name"]
        assert "gen_ai.response.finish_reasons" not in seen.attributes
        wanted = 64 if request_.kind == "embeddings" else None
        assert wanted == seen.attributes.get("gen_ai.embeddings.dimension.count")
