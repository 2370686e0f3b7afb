"""`count`, `quote`, `plan` and `fit`: what is known of a call before it is made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from loom import (
    AsyncMistral,
    AudioPart,
    ContextTooLong,
    InvalidRequest,
    Message,
    Mistral,
    Plan,
    Quote,
    TokenCount,
    ToolCall,
    ToolSpec,
)
from loom.catalog.lookup import Catalog
from loom.client import planning
from loom.config.assemble import Assembled
from loom.core.request import ChatRequest, Sampling
from loom.layers.window import Window
from loom.testing import FakeReply, FakeTransport
from loom.wire.mistral.dialect import MistralDialect

BODY = (
    b'{"id":"a","model":"mistral-large-latest","usage":{"prompt_tokens":1,"completion_tokens":1},'
    b'"choices":[{"index":0,"finish_reason":"stop","message":{"content":"yes"}}]}'
)
NOV_2024 = date(2024, 11, 30)
TODAY = date(2026, 11, 23)
WINDOW = 32_768  # of mistral-large-latest in November 2024
LOOK = ToolSpec(name="look", description="Looks.", parameters={"type": "object"})


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport(FakeReply.of(BODY))


@pytest.fixture
def client(transport: FakeTransport) -> Callable[..., AsyncMistral]:
    def make(**options: Any) -> AsyncMistral:
        return AsyncMistral("a-key", as_of="2024-11", transport=transport, **options)

    return make


def planned(count: TokenCount, **fields: Any) -> tuple[Assembled, ChatRequest]:
    """Give parts that count every prompt the same, and a request."""
    with Mistral("a-key", transport=FakeTransport(FakeReply.of(BODY))) as client:
        parts = client._async._assembled
    window = Window(MistralDialect(), lambda _body, _card: count)
    request = ChatRequest(messages=(Message.user("Hi"),), **{"model": "x", **fields})
    return msgspec.structs.replace(parts, window=window), request


class TestNothingIsSent:
    """Whatever is asked about a call, it is not made."""

    @pytest.mark.anyio
    async def test_async(
        self, client: Callable[..., AsyncMistral], transport: FakeTransport
    ) -> None:
        """All three, with tools and options."""
        async with client() as mistral:
            count = await mistral.count("Why is the sky blue?", [LOOK], temperature=0)
            quote = await mistral.quote("Why is the sky blue?", [LOOK], temperature=0)
            plan = await mistral.plan("Why is the sky blue?", [LOOK], temperature=0)

        assert isinstance(count, TokenCount)
        assert isinstance(quote, Quote)
        assert isinstance(plan, Plan)
        assert count.tokens == quote.input_tokens == plan.quote.input_tokens
        assert (count.estimated, count.reason) == (quote.estimated, quote.reason)
        assert [] == transport.requests

    def test_blocking(self, transport: FakeTransport) -> None:
        """The blocking client gives the same."""
        with Mistral("a-key", as_of="2024-11", transport=transport) as mistral:
            count = mistral.count("Why is the sky blue?")
            assert count.tokens == mistral.quote("Why is the sky blue?").input_tokens
            assert count.tokens == mistral.plan("Why is the sky blue?").quote.input_tokens

        assert [] == transport.requests

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", ["count", "quote", "plan"])
    async def test_a_closed_client_plans_nothing(
        self, client: Callable[..., AsyncMistral], name: str
    ) -> None:
        """It says that it is closed."""
        mistral = client()
        await mistral.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await getattr(mistral, name)("Hi")

    @pytest.mark.anyio
    @pytest.mark.parametrize("name", ["count", "quote", "plan"])
    async def test_what_chat_refuses_they_refuse(
        self, client: Callable[..., AsyncMistral], name: str
    ) -> None:
        """An option that does not exist, a history that cannot be legal."""
        mistral = client()
        with pytest.raises(InvalidRequest, match="temprature"):
            await getattr(mistral, name)("Hi", temprature=1)
        with pytest.raises(InvalidRequest, match="no result"):
            await getattr(mistral, name)(
                [Message.assistant(tool_calls=(ToolCall("abcdefghi", "look"),))]
            )


class TestPlan:
    """A plan is exactly what goes out."""

    @pytest.mark.anyio
    async def test_the_body_is_the_one_that_chat_sends(
        self, client: Callable[..., AsyncMistral], transport: FakeTransport
    ) -> None:
        """To the letter, repairs and ids included."""
        call = ToolCall("call_1", "look", {"at": "it"})
        messages = [
            Message.user("Look."),
            Message.assistant(tool_calls=(call,)),
            Message.tool(call, "seen"),
            Message.assistant(""),
            Message.user("And?"),
        ]
        async with client() as mistral:
            plan = await mistral.plan(messages, [LOOK], stop=["."], n=2)
            response = await mistral.chat(messages, [LOOK], stop=["."], n=2)

        assert msgspec.json.decode(transport.requests[0].body) == plan.body
        assert response.metadata["repairs"] == plan.repairs != ()
        assert ["call_1"] == list(plan.tool_ids.values())

    @pytest.mark.anyio
    async def test_the_room_is_what_prompt_and_answer_leave(
        self, client: Callable[..., AsyncMistral]
    ) -> None:
        """Window, prompt and longest answer add up."""
        plan = await client().plan("Why?", max_tokens=1000)
        assert WINDOW == plan.window
        assert plan.room is not None
        assert WINDOW == plan.room + plan.quote.input_tokens + 1000

    @pytest.mark.anyio
    async def test_an_unknown_model_has_no_window_and_no_price(
        self, client: Callable[..., AsyncMistral]
    ) -> None:
        """Unknown is None, never 0."""
        plan = await client().plan("Why?", model="ft:own-model")
        assert (None, None) == (plan.window, plan.room)
        assert (None, None, None) == (
            plan.quote.input_cost_usd,
            plan.quote.max_cost_usd,
            plan.quote.price,
        )


class TestQuote:
    """Money is exact: `Decimal`, by the row in force."""

    @pytest.mark.anyio
    async def test_the_numbers_of_the_reference_page(self) -> None:
        """100 in and 200 out of large cost $0.0028 in November 2024."""
        parts, request = planned(
            TokenCount(tokens=100, estimated=False),
            model="mistral-large-latest",
            sampling=Sampling(max_tokens=200),
        )
        quote = (await planning.plan(parts, request, NOV_2024)).quote
        assert (100, 200) == (quote.input_tokens, quote.max_output_tokens)
        assert Decimal("0.0028") == quote.max_cost_usd
        assert quote.price is not None
        assert quote.price.input_usd_per_mtok is not None
        assert quote.price.input_usd_per_mtok * 100 / 1_000_000 == quote.input_cost_usd
        assert not quote.estimated

    @pytest.mark.anyio
    async def test_every_answer_of_several_is_paid(self) -> None:
        """With `n` above 1 the longest answer counts so many times."""
        parts, request = planned(
            TokenCount(tokens=100, estimated=False),
            model="mistral-large-latest",
            sampling=Sampling(max_tokens=100, n=2),
        )
        quote = (await planning.plan(parts, request, NOV_2024)).quote
        assert (200, Decimal("0.0028")) == (quote.max_output_tokens, quote.max_cost_usd)

    @pytest.mark.anyio
    async def test_an_answer_without_a_limit_may_fill_the_window(self) -> None:
        """Where the model has no limit of its own; nothing is known of an unknown model."""
        exact = TokenCount(tokens=100, estimated=False)
        parts, request = planned(exact, model="mistral-large-latest")
        quote = (await planning.plan(parts, request, NOV_2024)).quote
        assert WINDOW - 100 == quote.max_output_tokens
        parts, request = planned(exact, model="nobody-knows")
        quote = (await planning.plan(parts, request, NOV_2024)).quote
        assert (None, None) == (quote.max_output_tokens, quote.max_cost_usd)

    @pytest.mark.anyio
    async def test_the_worst_tier_is_assumed(self) -> None:
        """`auto` lets the vendor choose the priority tier, at 1.75 times the price."""
        exact = TokenCount(tokens=100, estimated=False)
        fields = {"model": "mistral-large-latest", "sampling": Sampling(max_tokens=200)}
        parts, request = planned(exact, **fields, service_tier="auto")
        quote = (await planning.plan(parts, request, NOV_2024)).quote
        assert Decimal("0.0028") * Decimal("1.75") == quote.max_cost_usd

    @pytest.mark.anyio
    async def test_sound_that_is_billed_by_the_second_has_no_quote(self) -> None:
        """Its length is not known before it is sent; None, and no guess."""
        cards = (card for card in Catalog.builtin().cards(TODAY) if "chat" in card.abilities)
        model = next(
            (c.id for c in cards if c.price is not None and c.price.usd_per_audio_second), None
        )
        if model is None:
            pytest.skip(f"no chat model of {TODAY} is billed by the second")
        parts, request = planned(TokenCount(tokens=100, estimated=True), model=model)
        sound = msgspec.structs.replace(request, messages=(Message.user(AudioPart("AAAA", "wav")),))
        quote = (await planning.plan(parts, sound, TODAY)).quote
        assert quote.input_cost_usd is None
        assert (await planning.plan(parts, request, TODAY)).quote.input_cost_usd is not None

    @pytest.mark.anyio
    async def test_an_estimate_says_so(self) -> None:
        """The reason goes along."""
        parts, request = planned(TokenCount(tokens=9, estimated=True, reason="no vocabulary"))
        quote = (await planning.plan(parts, request, NOV_2024)).quote
        assert (True, "no vocabulary") == (quote.estimated, quote.reason)


class TestFit:
    """`fit` decides what happens beyond the window."""

    LONG = ("word " * 40_000, "And?")

    def messages(self) -> list[Message]:
        first, last = self.LONG
        return [Message.user(first), Message.assistant("Yes."), Message.user(last)]

    @pytest.mark.anyio
    async def test_an_error_by_default(
        self, client: Callable[..., AsyncMistral], transport: FakeTransport
    ) -> None:
        """With both numbers, and nothing sent; a quote and a plan say the same."""
        async with client() as mistral:
            assert (await mistral.count(self.messages())).tokens > WINDOW
            for call in (
                mistral.chat,
                mistral.quote,
                mistral.plan,
                mistral.stream(self.messages()),
            ):
                with pytest.raises(ContextTooLong) as caught:
                    await (call.final() if not callable(call) else call(self.messages()))
                assert caught.value.limit == WINDOW
                assert caught.value.tokens is not None
                assert caught.value.tokens > WINDOW
                assert "mistral" == caught.value.provider
        assert [] == transport.requests

    @pytest.mark.anyio
    @pytest.mark.parametrize("where", ["client", "with_options", "call"])
    async def test_slide(
        self, client: Callable[..., AsyncMistral], transport: FakeTransport, where: str
    ) -> None:
        """Said for the client, for a copy of it, or for one call."""
        mistral = client(fit="slide") if where == "client" else client()
        if where == "with_options":
            mistral = mistral.with_options(fit="slide")
        options = {"fit": "slide"} if where == "call" else {}
        plan = await mistral.plan(self.messages(), **options)
        response = await mistral.chat(self.messages(), **options)

        assert msgspec.json.decode(transport.requests[0].body) == plan.body
        assert ["And?"] == [message["content"] for message in plan.body["messages"]]
        assert "left out the oldest turns, 2 of 3 messages" in plan.repairs[0]
        assert response.metadata["repairs"] == plan.repairs

    @pytest.mark.anyio
    async def test_another_word_is_refused(self, client: Callable[..., AsyncMistral]) -> None:
        """In each place, naming the two that exist."""
        with pytest.raises(InvalidRequest, match="'error' or 'slide'"):
            client(fit="squeeze")
        with pytest.raises(InvalidRequest, match="'error' or 'slide'"):
            client().with_options(fit="squeeze")
        with pytest.raises(InvalidRequest, match="'error' or 'slide'"):
            await client().chat("Hi", fit="squeeze")
