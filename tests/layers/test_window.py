"""`Fitting`: nothing beyond the window is sent, and what surely fits is not counted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.catalog.lookup import Catalog
from loom.core.errors import ContextTooLong, InvalidRequest
from loom.core.messages import DocumentPart, ImagePart, Message, TextPart, ToolCall
from loom.core.model import ModelCard
from loom.core.plan import TokenCount
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest, Fit, ResponseFormat, Sampling, ToolSpec
from loom.layers.bounds import fewest_tokens, most_tokens
from loom.layers.window import Fitting, Window
from loom.providers.wired import Endpoint, WiredProvider
from loom.testing import (
    LAYER_LAWS,
    FakeClock,
    FakeReply,
    FakeTransport,
    LayerCase,
    LayerLaw,
    cancel_everywhere,
)
from loom.wire.mistral.dialect import MistralDialect

pytestmark = pytest.mark.anyio
CATALOG = Catalog.builtin()
NOV_2024 = date(2024, 11, 30)  # the window of mistral-large-latest is 32,768 tokens
WINDOW = 32_768
BODY = (
    b'{"id":"a","model":"mistral-large-latest","usage":{"prompt_tokens":1,"completion_tokens":1},'
    b'"choices":[{"index":0,"finish_reason":"stop","message":{"content":"yes"}}]}'
)


class Counting:
    """Counts words, and how often it was asked."""

    def __init__(self, *, estimated: bool = False, each: int = 1) -> None:
        self.asked = 0
        self._estimated = estimated
        self._each = each

    def __call__(self, body: Mapping[str, Any], card: ModelCard | None) -> TokenCount:
        del card
        self.asked += 1
        words = sum(len(str(message["content"]).split()) for message in body["messages"])
        return TokenCount(tokens=words * self._each, estimated=self._estimated)


def over(inner: LLMProvider, counting: Counting | None = None, *, fit: Fit = "error") -> Fitting:
    window = Window(MistralDialect(), counting or Counting())
    return Fitting(
        inner, window=window, catalog=CATALOG, clock=FakeClock(), as_of=NOV_2024, fit=fit
    )


def wired(*replies: FakeReply) -> tuple[WiredProvider, FakeTransport]:
    transport = FakeTransport(*replies or (FakeReply.of(BODY),))
    endpoint = Endpoint(name="mistral", url="https://x/v1/chat/completions")
    return WiredProvider(endpoint, "x", MistralDialect(), transport, FakeClock()), transport


def asking(
    *messages: Message, max_tokens: int | None = 4096, model: str = "mistral-large-latest"
) -> ChatRequest:
    return ChatRequest(model=model, messages=messages, sampling=Sampling(max_tokens=max_tokens))


def words(count: int) -> Message:
    return Message.user("word " * count)


def sent(transport: FakeTransport) -> list[str]:
    body = msgspec.json.decode(transport.requests[0].body)
    return [message["content"] for message in body["messages"]]


SMALL = asking(words(3))
LONG = asking(words(20_000), Message.assistant("yes"), words(3), max_tokens=None)


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A catalogue that knows the laws' own provider."""
    rows = tmp_path_factory.mktemp("rows") / "prices.toml"
    rows.write_text(
        '[[model]]\nid = "mistral-large-latest"\nprovider = "witness"\ncontext_window = 32768\n'
    )
    return CATALOG.with_overlay(rows)


@pytest.mark.parametrize("request_", [SMALL, LONG], ids=["sure", "counted"])
@pytest.mark.parametrize("each", [1, 2], ids=["whole", "shortened"])
@pytest.mark.parametrize("law", LAYER_LAWS)
async def test_fitting_keeps_the_laws_of_a_layer(
    law: LayerLaw, each: int, request_: ChatRequest, witnessed: Catalog
) -> None:
    """Closing, order, contexts, limits: whether a request is counted, shortened or passed on."""
    counting = Counting(each=each)
    window = Window(MistralDialect(), counting)

    def make(inner: LLMProvider) -> Fitting:
        return Fitting(inner, window=window, catalog=witnessed, clock=FakeClock(), fit="slide")

    await law(LayerCase(make=make, request=request_))

    assert (request_ is LONG) == (counting.asked > 0)


@pytest.mark.parametrize("fit", ["error", "slide"])
async def test_a_cancelled_call_leaves_nothing(fit: Fit) -> None:
    """At every suspension, the wait for the count among them."""
    each = 2 if fit == "slide" else 1
    provider, transport = wired()
    layer = over(provider, Counting(each=each), fit=fit)

    survey = await cancel_everywhere(
        lambda: layer.chat(LONG), probes={"sockets": lambda: transport.in_use}
    )

    assert survey.suspensions > 1


async def test_what_surely_fits_is_not_counted() -> None:
    """A token is at least one byte: a short request costs no count."""
    provider, _ = wired()
    counting = Counting()
    await over(provider, counting).chat(asking(words(100)))
    assert 0 == counting.asked


async def test_what_may_not_fit_is_counted_and_sent() -> None:
    """Many bytes are not many tokens."""
    provider, transport = wired()
    counting = Counting()
    response = await over(provider, counting).chat(asking(words(20_000)))
    assert 1 == counting.asked
    assert 1 == len(transport.requests)
    assert "repairs" not in response.metadata


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "refused"),
    [
        (WINDOW - 4096, 4096, False),
        (WINDOW - 4095, 4096, True),
        (WINDOW, None, False),
        (WINDOW + 1, None, True),
        (1, WINDOW, True),
        (1, WINDOW - 1, False),
    ],
)
async def test_the_border_is_prompt_and_answer_together(
    prompt: int, max_tokens: int | None, *, refused: bool
) -> None:
    """To the token; nothing is sent beyond it."""
    provider, transport = wired()
    layer = over(provider)
    request = asking(words(prompt), max_tokens=max_tokens)
    if not refused:
        await layer.chat(request)
        assert 1 == len(transport.requests)
        return
    with pytest.raises(ContextTooLong) as caught:
        await layer.chat(request)
    assert [] == transport.requests
    error = caught.value
    assert (prompt, WINDOW) == (error.tokens, error.limit)
    assert ("mistral", "mistral-large-latest", 0) == (error.provider, error.model, error.attempts)
    for number in (prompt, WINDOW, max_tokens):
        assert number is None or str(number) in error.message
    assert 'fit="slide"' in error.hint


async def test_the_error_holds_no_prompt() -> None:
    """Numbers and the model's name, and nothing that was said."""
    provider, _ = wired()
    with pytest.raises(ContextTooLong) as caught:
        await over(provider).chat(asking(words(40_000)))
    assert "word " not in str(caught.value)


async def test_an_unknown_window_is_not_checked() -> None:
    """A model that the catalogue does not know is the vendor's to judge."""
    provider, transport = wired()
    counting = Counting()
    await over(provider, counting).chat(asking(words(99_999), model="not-in-the-catalogue"))
    assert (0, 1) == (counting.asked, len(transport.requests))


async def test_the_window_is_that_of_the_day() -> None:
    """Today's window is larger than that of 2024."""
    provider, transport = wired()
    window = Window(MistralDialect(), Counting())
    clock = FakeClock(datetime(2026, 11, 23, tzinfo=UTC))
    layer = Fitting(provider, window=window, catalog=CATALOG, clock=clock)
    await layer.chat(asking(words(40_000)))
    assert 1 == len(transport.requests)


async def test_a_window_of_the_user_s_own_is_kept_too(tmp_path: Path) -> None:
    """However small it is, and though the row names no abilities."""
    rows = tmp_path / "prices.toml"
    rows.write_text('[[model]]\nid = "house-7b"\ncontext_window = 2000\n')
    provider, _ = wired()
    window = Window(MistralDialect(), Counting())
    catalog = CATALOG.with_overlay(rows)
    layer = Fitting(provider, window=window, catalog=catalog, clock=FakeClock(), as_of=NOV_2024)
    with pytest.raises(ContextTooLong):
        await layer.chat(asking(words(2001), model="house-7b", max_tokens=None))


class TestEstimates:
    """An estimated count refuses only what is beyond doubt."""

    async def test_what_may_fit_is_sent(self) -> None:
        """The estimate is too high, the words are not: the vendor judges."""
        provider, transport = wired()
        await over(provider, Counting(estimated=True, each=2)).chat(asking(words(20_000)))
        assert 1 == len(transport.requests)

    async def test_too_many_words_are_refused(self) -> None:
        """A token never holds two words; the error says that it is an estimate."""
        provider, transport = wired()
        with pytest.raises(ContextTooLong, match="about 80000 tokens"):
            await over(provider, Counting(estimated=True, each=2)).chat(asking(words(40_000)))
        assert [] == transport.requests

    async def test_sliding_takes_the_estimate_as_it_is(self) -> None:
        """Turns go until the estimate fits; the last one is sent though it may not."""
        provider, transport = wired()
        request = asking(words(9), Message.assistant("yes"), words(20_000))
        layer = over(provider, Counting(estimated=True, each=2), fit="slide")
        await layer.chat(request)
        assert ["word " * 20_000] == sent(transport)


class TestSlide:
    """With `fit="slide"` the oldest turns go."""

    async def test_the_oldest_turns_go_and_are_reported(self) -> None:
        """As few as need be; what was left out stands in the metadata."""
        provider, transport = wired()
        layer = over(provider, fit="slide")
        response = await layer.chat(
            asking(
                Message.system("be brief"),
                words(20_000),
                Message.assistant("one"),
                words(10_000),
                Message.assistant("two"),
                words(10_000),
            )
        )
        assert ["be brief", "word " * 10_000, "two", "word " * 10_000] == sent(transport)
        assert (
            "left out the oldest turns, 2 of 6 messages, to fit the window of 32768 tokens",
        ) == response.metadata["repairs"]
        assert "mistral" == response.metadata["provider"]

    async def test_a_streamed_answer_reports_it_too(self) -> None:
        """The report comes with the last event."""
        chunk = (
            b'data: {"id":"a","model":"m","choices":[{"index":0,"delta":{"content":"yes"},'
            b'"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
            b"data: [DONE]\n\n"
        )
        provider, _ = wired(FakeReply.sse(chunk))
        request = asking(words(40_000), Message.assistant("one"), words(5))
        request = msgspec.structs.replace(request, stream=True)
        events = [event async for event in over(provider, fit="slide").stream(request)]
        assert "left out" in events[-1].response.metadata["repairs"][0]  # type: ignore[union-attr]  # the last is Completed

    async def test_other_repairs_are_kept(self) -> None:
        """They count positions without what was left out, and it is said."""
        provider, _ = wired()
        request = asking(
            words(40_000), Message.assistant("one"), words(5), Message.assistant(""), words(5)
        )
        response = await over(provider, fit="slide").chat(request)
        first, second = response.metadata["repairs"]
        assert first.endswith("what follows counts without them")
        assert second.startswith("messages[1]: left out an assistant turn")

    async def test_a_request_says_it_for_itself(self) -> None:
        """The request's own word goes before the layer's."""
        provider, transport = wired()
        request = asking(words(40_000), Message.assistant("one"), words(5))
        with pytest.raises(ContextTooLong):
            await over(provider, fit="slide").chat(msgspec.structs.replace(request, fit="error"))
        await over(provider).chat(msgspec.structs.replace(request, fit="slide"))
        assert ["word " * 5] == sent(transport)

    async def test_a_last_turn_that_does_not_fit_is_an_error(self) -> None:
        """Its numbers are those of what could be sent at the least."""
        provider, transport = wired()
        request = asking(words(5), Message.assistant("one"), words(40_000))
        with pytest.raises(ContextTooLong, match="with the last turn alone") as caught:
            await over(provider, fit="slide").chat(request)
        assert (40_000, WINDOW) == (caught.value.tokens, caught.value.limit)
        assert [] == transport.requests

    async def test_a_history_that_cannot_be_legal_is_refused_as_ever(self) -> None:
        """A call without a result is an error of the history, not of its length."""
        provider, transport = wired()
        call = Message.assistant(tool_calls=(ToolCall("abcdefghi", "look"),))
        with pytest.raises(InvalidRequest, match="no result"):
            await over(provider, fit="slide").chat(asking(words(40_000), call, words(5)))
        assert [] == transport.requests


OLD_ENGINE = (
    b'{"object":"error","message":"Prompt contains 40960 tokens and 0 draft tokens, too large for'
    b' model with 32768 maximum context length","type":"invalid_request_invalid_args","param":null,'
    b'"code":"3051"}'
)
NEW_ENGINE = (
    b'{"object":"error","message":"Prompt 300000 > 262144 maximum context length","type":'
    b'"invalid_request_prompt_too_long","param":null,"code":"3059"}'
)


@pytest.mark.parametrize(
    ("body", "tokens", "limit"), [(OLD_ENGINE, 40960, 32768), (NEW_ENGINE, 300_000, 262_144)]
)
async def test_the_vendor_s_own_refusal_is_the_same_error(
    body: bytes, tokens: int, limit: int
) -> None:
    """Codes 3051 and 3059 come with the vendor's numbers."""
    provider, _ = wired(FakeReply.of(body, status=400))
    with pytest.raises(ContextTooLong) as caught:
        await over(provider).chat(asking(words(5)))
    assert (tokens, limit) == (caught.value.tokens, caught.value.limit)
    assert 1 == caught.value.attempts


class TestBounds:
    """What a request has at least and at most, without counting."""

    @pytest.mark.parametrize(
        "request_",
        [
            asking(Message.user("é" * 100)),
            asking(Message.user(TextPart("é" * 100), ImagePart("https://x/a.png"))),
            asking(Message.tool("abcdefghi", "é" * 100)),
            asking(Message.assistant("é", tool_calls=(ToolCall("a", "b" * 9, {"c": "é" * 90}),))),
            ChatRequest(model="x", messages=(), tools=(ToolSpec(name="t", description="é" * 100),)),
            ChatRequest(model="x", messages=(), prediction="é" * 100),
            ChatRequest(model="x", messages=(), extra={"messages": "é" * 100}),
            ChatRequest(
                model="x",
                messages=(),
                response_format=ResponseFormat(type="json_schema", schema={"a": "é" * 100}),
            ),
        ],
    )
    def test_every_byte_of_text_may_be_a_token(self, request_: ChatRequest) -> None:
        """Texts, calls, results, tools, schemas and further fields count."""
        assert 180 < most_tokens(request_) < 20_000

    @pytest.mark.parametrize(
        "request_",
        [
            asking(Message.user("what?", DocumentPart("https://x/a.pdf"))),
            ChatRequest(model="x", messages=(), extra={"what": object()}),
        ],
    )
    def test_what_does_not_tell_its_size_may_have_any(self, request_: ChatRequest) -> None:
        """A document behind an address is never surely small."""
        assert float("inf") == most_tokens(request_)

    @given(st.lists(st.text(), min_size=1, max_size=4))
    def test_the_least_is_below_the_most(self, texts: list[str]) -> None:
        """For any text."""
        request = asking(*map(Message.user, texts))
        assert fewest_tokens(request) <= most_tokens(request)
