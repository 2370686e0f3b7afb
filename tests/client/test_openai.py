"""A second vendor behind the same client: what holds for one holds for both."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

import loom
from loom import (
    AsyncMistral,
    AsyncOpenAI,
    BudgetExceeded,
    ChatRequest,
    Completed,
    ConfigInvalid,
    ContextTooLong,
    InvalidAPIKey,
    InvalidRequest,
    LLMProvider,
    Message,
    ModelNotFound,
    OpenAI,
    RateLimited,
    Rerouted,
    Restarted,
    Retried,
    RetryPolicy,
    Route,
    ServiceUnavailable,
    TextDelta,
    ToolSpec,
)
from loom.client.aio import AsyncClient
from loom.config.vendors import VENDORS, Vendor
from loom.ledger.memory import MemoryLedger
from loom.ledger.open import open_ledger
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.testing import FakeClock, FakeReply, FakeTransport

pytestmark = pytest.mark.anyio

Make: TypeAlias = Callable[..., AsyncClient]

DAY = "2026-11-26"
CANARY = "loom-canary-key-0123456789"
NAMES = {"mistral": "mistral-small-latest", "openai": "gpt-4.1-mini"}
OTHER = {"mistral": "openai", "openai": "mistral"}
WEATHER = ToolSpec(
    name="get_weather",
    description="Tells the weather of a city.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)
ANSWER = msgspec.json.encode(
    {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4.1-mini",
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": "Hi."}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
                  "prompt_tokens_details": {"cached_tokens": 400}},
    }
)  # fmt: skip


@dataclass
class Person:
    name: str


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(params=["mistral", "openai"])
def vendor(request: pytest.FixtureRequest) -> str:
    """Each of the two."""
    name: str = request.param
    return name


@pytest.fixture
def make(sim: Simulator, vendor: str) -> Make:
    """Make a client of the vendor that asks the simulator."""

    def client(**options: Any) -> AsyncClient:
        options.setdefault("clock", FakeClock(auto=True))
        options.setdefault("model", NAMES[vendor])
        options.setdefault("as_of", DAY)
        if vendor == "mistral":
            return AsyncMistral(sim.api_key, base_url=sim.base_url, **options)
        return AsyncOpenAI(sim.api_key, base_url=sim.openai_base_url, **options)

    return client


class TestBoth:
    """What a client promises, of each vendor."""

    async def test_an_answer_has_everything(self, make: Make, vendor: str) -> None:
        """Content, exact cost, ids, limits, and who gave it."""
        async with make() as client:
            response = await client.chat([Message.system("Be brief."), "Why?"])
        assert response.content
        assert (vendor, NAMES[vendor]) == (client.name, client.model)
        assert vendor == response.metadata["provider"]
        usage, price = response.usage, response.usage.price
        assert price is not None
        assert price.input_usd_per_mtok is not None
        assert price.output_usd_per_mtok is not None
        assert usage.cost_usd == (
            usage.input_tokens * price.input_usd_per_mtok
            + usage.output_tokens * price.output_usd_per_mtok
        ) / Decimal(10**6)
        assert response.request_id
        assert response.rate_limit.limit_requests_minute
        assert 1 == response.attempts

    async def test_a_stream_costs_what_a_plain_answer_costs(self, make: Make) -> None:
        """The same tokens and the same price, to the last digit."""
        async with make() as client:
            plain = await client.chat("Tell me a story")
            streamed = await client.stream("Tell me a story").final()
        assert (plain.content, plain.usage) == (streamed.content, streamed.usage)

    async def test_tools_are_called_and_answered(self, make: Make) -> None:
        """A call comes back with its arguments; its result goes on under its id."""
        async with make() as client:
            said = [Message.user("What is the weather in Paris?")]
            asked = await client.chat(said, [WEATHER], tool_choice="any")
            call = asked.tool_calls[0]
            assert "get_weather" == call.name
            said += [asked.message, Message.tool(call, "21 degrees")]
            answer = await client.chat(said, [WEATHER])
        assert answer.content

    async def test_a_value_of_a_type_comes_back(self, make: Make) -> None:
        """`output=` sends a schema and gives a value."""
        async with make() as client:
            response = await client.chat("Who was Ada?", output=Person)
        assert isinstance(response.parsed, Person)

    async def test_errors_are_the_same_kinds(self, make: Make, vendor: str) -> None:
        """With provider, model, attempts, and the vendor's name in the text."""
        title = VENDORS[vendor].title
        async with make(retry=None) as client:
            for fault, kind in (("503", ServiceUnavailable), ("429", RateLimited)):
                with pytest.raises(kind, match=f"^{title} API error") as raised:
                    await client.chat("Hi", model=f"{NAMES[vendor]}+{fault}")
                assert (vendor, 1) == (raised.value.provider, raised.value.attempts)

    async def test_a_wrong_key_is_named(self, sim: Simulator, vendor: str) -> None:
        """401 is `InvalidAPIKey`, and the key is nowhere in it."""
        kind, address = {
            "mistral": (AsyncMistral, sim.base_url),
            "openai": (AsyncOpenAI, sim.openai_base_url),
        }[vendor]
        async with kind(CANARY, base_url=address) as client:
            with pytest.raises(InvalidAPIKey) as raised:
                await client.chat("Hi")
        assert CANARY not in str(raised.value) + (raised.value.curl or "")

    async def test_failures_are_tried_again(self, make: Make, vendor: str) -> None:
        """As the policy says; each wait is an event."""
        async with make(retry=RetryPolicy(attempts=3)) as client:
            events = []
            with pytest.raises(ServiceUnavailable) as raised:
                async for event in client.stream("Hi", model=f"{NAMES[vendor]}+503"):
                    events.append(event)  # noqa: PERF401 - what came before the error counts
        assert 2 == sum(isinstance(event, Retried) for event in events)
        assert 3 == raised.value.attempts

    async def test_a_misspelt_model_is_refused_here(self, make: Make, vendor: str) -> None:
        """With the vendor's own nearest ids; nothing is sent."""
        slip = NAMES[vendor].replace("mini", "mni").replace("small", "smal")
        async with make() as client:
            client._place = msgspec.structs.replace(client._place, own=True)
            with pytest.raises(ModelNotFound, match=f"did you mean '{NAMES[vendor]}'"):
                await client.chat("Hi", model=slip)

    async def test_the_window_is_kept(self, make: Make, vendor: str) -> None:
        """What cannot fit is refused before it is sent, and `fit="slide"` leaves out turns."""
        model = {"mistral": "ministral-3b-2512", "openai": "gpt-4o-mini"}[vendor]
        long = [Message.user("word " * 150_000), Message.assistant("Yes."), Message.user("And?")]
        async with make(model=model) as client:
            with pytest.raises(ContextTooLong, match="the window of"):
                await client.chat(long)
            response = await client.chat(long, fit="slide")
        assert "left out the oldest turns" in response.metadata["repairs"][0]

    async def test_a_budget_holds(self, make: Make) -> None:
        """The worst case is kept free before anything is sent."""
        async with make(budget="0.000001") as client:
            with pytest.raises(BudgetExceeded):
                await client.chat("Hi")

    async def test_each_call_has_a_row(self, make: Make, vendor: str) -> None:
        """With the vendor, the model and the cost of the answer."""
        ledger = MemoryLedger()
        async with make(ledger=ledger) as client:
            response = await client.chat("Hi")
        rows = await ledger.entries()
        assert [(vendor, NAMES[vendor], response.usage.cost_usd)] == [
            (row.provider, row.asked_model, row.cost_usd) for row in rows
        ]

    async def test_a_plan_is_what_is_sent(self, make: Make, sim: Simulator) -> None:
        """Byte for byte, and its quote is above the bill."""
        async with make() as client:
            plan = await client.plan("Hi", [WEATHER], temperature=0)
            response = await client.chat("Hi", [WEATHER], temperature=0)
        assert plan.body == msgspec.json.decode(sim.journal[-1].body)
        assert plan.quote.max_cost_usd is not None
        assert response.usage.cost_usd is not None
        assert response.usage.cost_usd <= plan.quote.max_cost_usd

    async def test_request_is_what_chat_asks(self, make: Make) -> None:
        """`provider` answers it, with all layers around."""
        async with make(max_tokens=50) as client:
            request = client.request("Hi", temperature=0)
            assert isinstance(request, ChatRequest)
            assert (50, 0) == (request.sampling.max_tokens, request.sampling.temperature)
            assert isinstance(client.provider, LLMProvider)
            response = await client.provider.chat(request)
        assert response.usage.cost_usd is not None

    async def test_the_log_says_whose_call_it_was(
        self, make: Make, vendor: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """`OpenAI request` and `OpenAI response`, in the logger of its name."""
        title = VENDORS[vendor].title
        with caplog.at_level(logging.INFO, logger=f"loom.{vendor}"):
            async with make() as client:
                await client.chat("Hi")
        assert [f"{title} request", f"{title} response"] == [
            record.message for record in caplog.records if record.name == f"loom.{vendor}"
        ]

    async def test_another_vendor_answers_when_this_one_fails(
        self, make: Make, sim: Simulator, vendor: str
    ) -> None:
        """Its answer is priced as its own, and the notice says who is asked."""
        other = OTHER[vendor]
        address = {"mistral": sim.base_url, "openai": sim.openai_base_url}[other]
        route = Route(provider=other, model=NAMES[other], base_url=address, api_key=sim.api_key)
        async with make(fallback=route) as client:
            events = [e async for e in client.stream("Hi", model=f"{NAMES[vendor]}+503")]
        rerouted = next(event for event in events if isinstance(event, Rerouted))
        assert (other, NAMES[other]) == (rerouted.provider, rerouted.model)
        assert isinstance(events[-1], Completed)
        response = events[-1].response
        assert other == response.metadata["provider"]
        assert response.usage.price is not None
        assert response.usage.price.id.startswith(NAMES[other].removesuffix("-latest"))

    async def test_a_broken_answer_begins_anew_elsewhere(
        self, make: Make, sim: Simulator, vendor: str
    ) -> None:
        """`rescue=True`, across vendors."""
        other = OTHER[vendor]
        address = {"mistral": sim.base_url, "openai": sim.openai_base_url}[other]
        route = Route(provider=other, model=NAMES[other], base_url=address, api_key=sim.api_key)
        async with make(fallback=route, rescue=True) as client:
            events = [e async for e in client.stream("Hi", model=f"{NAMES[vendor]}+15-reset:3")]
        assert any(isinstance(event, Restarted) for event in events)
        assert isinstance(events[-1], Completed)
        assert other == events[-1].response.metadata["provider"]

    async def test_a_conversation_goes_on_with_the_other_vendor(
        self, make: Make, sim: Simulator, vendor: str
    ) -> None:
        """Ids of calls, thoughts and results of one are legal for the other."""
        other: AsyncClient
        if vendor == "mistral":
            other = AsyncOpenAI(sim.api_key, base_url=sim.openai_base_url, model=NAMES["openai"])
        else:
            other = AsyncMistral(sim.api_key, base_url=sim.base_url, model=NAMES["mistral"])
        said = [Message.system("Be brief."), Message.user("What is the weather in Paris?")]
        async with make() as client, other:
            asked = await client.chat(said, [WEATHER], tool_choice="any")
            call = asked.tool_calls[0]
            thought = loom.ThinkingPart(parts=(loom.TextPart("I must look."),))
            turn = msgspec.structs.replace(
                asked.message, content=(thought, loom.TextPart("Let me see."))
            )
            said += [turn, Message.tool(call, "21 degrees")]
            answer = await other.chat(said, [WEATHER])
            said += [answer.message, Message.user("Thanks!")]
            last = await client.chat(said, [WEATHER])
        assert answer.content
        assert last.content


class TestMaking:
    """Making a client: keys, addresses, defaults."""

    async def test_the_blocking_twin_does_the_same(self, sim: Simulator) -> None:
        """`OpenAI` holds no logic of its own."""
        with OpenAI(sim.api_key, base_url=sim.openai_base_url, model="gpt-4.1") as client:
            response = client.chat("Hi")
            with client.stream("Hi") as stream:
                streamed = stream.final()
            assert isinstance(client.provider, LLMProvider)
            assert "gpt-4.1" == client.request("Hi").model
        assert (response.content, "openai") == (streamed.content, client.name)
        assert "<OpenAI model='gpt-4.1' closed>" == repr(client)

    @pytest.mark.parametrize("kind", [AsyncOpenAI, AsyncMistral])
    async def test_the_simulator_plays_both(self, kind: type[AsyncClient]) -> None:
        """`sim=True` needs no key; a fallback to the other vendor goes to it too."""
        other = "mistral:mistral-small-latest" if kind is AsyncOpenAI else "openai:gpt-4.1-mini"
        async with kind(sim=True, fallback=other, retry=None) as client:  # type: ignore[call-arg] # of both kinds
            response = await client.chat("Hi", model=f"{client.model}+503")
        assert other.partition(":")[0] == response.metadata["provider"]

    async def test_the_usual_model_is_the_days(self) -> None:
        """The newest general model of the catalogue; the page's in November 2024."""
        assert "gpt-3.5-turbo" == AsyncOpenAI(CANARY, as_of="2024-11").model
        with pytest.raises(ConfigInvalid, match="no model of OpenAI is usual on 2024-01-31"):
            AsyncOpenAI(CANARY, as_of="2024-01")

    @pytest.mark.parametrize(
        ("options", "field"),
        [
            ({}, "max_completion_tokens"),
            ({"base_url": "http://localhost:11434"}, "max_tokens"),
            (
                {"base_url": "http://localhost:1/v1", "limit_field": "max_completion_tokens"},
                "max_completion_tokens",
            ),
            ({"limit_field": "max_tokens"}, "max_tokens"),
        ],
        ids=str,
    )
    async def test_the_limit_has_the_word_of_its_server(
        self, options: dict[str, Any], field: str
    ) -> None:
        """OpenAI's newer one for itself, the older one elsewhere, or as it is told."""
        transport = FakeTransport(FakeReply.of(ANSWER))
        key = None if "base_url" in options else CANARY
        async with AsyncOpenAI(key, transport=transport, max_tokens=77, **options) as client:
            await client.chat("Hi")
        body = msgspec.json.decode(transport.requests[0].body)
        assert 77 == body[field]
        assert not {"max_tokens", "max_completion_tokens", "temperature"} - {field} & body.keys()

    async def test_a_server_on_this_machine_gets_no_key(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even the one that lies in the environment; any model of its own may be asked."""
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        transport = FakeTransport(FakeReply.of(ANSWER))
        async with AsyncOpenAI(
            base_url="http://localhost:11434/v1", model="llama3.1:8b", transport=transport
        ) as client:
            await client.chat("Hi", model="gpt-4.1-mni")
        sent = transport.requests[0]
        assert "http://localhost:11434/v1/chat/completions" == sent.url
        assert "authorization" not in sent.headers
        assert CANARY not in repr(client)

    async def test_the_key_and_our_headers_go_to_the_vendor(self) -> None:
        """As a bearer token, to its own address."""
        transport = FakeTransport(FakeReply.of(ANSWER))
        async with AsyncOpenAI(
            CANARY, transport=transport, headers={"OpenAI-Project": "blue"}
        ) as client:
            response = await client.chat("Hi")
        sent = transport.requests[0]
        assert "https://api.openai.com/v1/chat/completions" == sent.url
        assert f"Bearer {CANARY}" == sent.headers["authorization"].reveal()  # type: ignore[union-attr] # a Secret
        assert "blue" == sent.headers["openai-project"]
        # 600 plain, 400 cached and 100 said tokens at $0.40, $0.10 and $1.60 a million.
        assert Decimal("0.00044") == response.usage.cost_usd

    async def test_a_route_to_the_other_vendor_takes_its_own_key(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found by its own name, for its own address; the client's headers stay at home."""
        monkeypatch.setenv("OPENAI_API_KEY", "loom-canary-key-9876543210")
        transport = FakeTransport(FakeReply.of(b"{}", status=503), FakeReply.of(ANSWER))
        async with AsyncMistral(
            CANARY, transport=transport, retry=None, fallback="openai:gpt-4.1-mini",
            headers={"x-relay": "secret"}, clock=FakeClock(auto=True),
            as_of=DAY,
        ) as client:  # fmt: skip
            response = await client.chat("Hi", random_seed=7)
        first, second = transport.requests
        assert "https://api.mistral.ai/v1/chat/completions" == first.url
        assert "https://api.openai.com/v1/chat/completions" == second.url
        assert "Bearer loom-canary-key-9876543210" == second.headers["authorization"].reveal()  # type: ignore[union-attr] # a Secret
        assert "x-relay" not in second.headers
        assert ("gpt-4.1-mini", 7) == tuple(
            msgspec.json.decode(second.body)[name] for name in ("model", "seed")
        )
        assert Decimal("0.00044") == response.usage.cost_usd

    async def test_a_route_without_a_key_is_told_of_when_the_client_is_made(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And names the other vendor's variable."""
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(InvalidAPIKey, match="OPENAI_API_KEY"):
            AsyncMistral(CANARY, fallback="openai:gpt-4.1-mini")

    async def test_a_route_to_a_vendor_alone_takes_its_usual_model(self) -> None:
        """Not the client's, which the other vendor does not have."""
        client = AsyncMistral(CANARY, fallback=Route(provider="openai", api_key=CANARY))
        tree = client.provider
        while not hasattr(tree, "_branches"):
            tree = tree.inner  # type: ignore[attr-defined] # a layer
        assert AsyncOpenAI(CANARY).model == tree._branches[1].model

    async def test_what_the_vendor_has_no_word_for_is_refused(self) -> None:
        """Before anything is sent."""
        transport = FakeTransport(FakeReply.of(ANSWER))
        async with AsyncOpenAI(CANARY, transport=transport) as client:
            with pytest.raises(InvalidRequest, match="OpenAI has no option 'safe_prompt'"):
                await client.chat("Hi", safe_prompt=True)
            with pytest.raises(InvalidRequest, match="'max_tokens' must be between 1 and 32768"):
                await client.chat("Hi", model="gpt-4.1", max_tokens=40_000)
        assert not transport.requests

    async def test_an_unknown_model_costs_none(self) -> None:
        """Never a guess."""
        body = ANSWER.replace(b"gpt-4.1-mini", b"gpt-99")
        async with AsyncOpenAI(CANARY, transport=FakeTransport(FakeReply.of(body))) as client:
            response = await client.chat("Hi", model="gpt-99")
            quote = await client.quote("Hi", model="gpt-99")
        assert response.usage.cost_usd is None
        assert quote.max_cost_usd is None

    async def test_counts_are_estimates_that_say_so(self) -> None:
        """OpenAI's vocabularies are not known here."""
        count = await AsyncOpenAI(CANARY).count("Hello there", [WEATHER], model="gpt-4o")
        assert count.tokens > 5
        assert count.estimated
        assert count.reason is not None
        assert "tokenizer of 'gpt-4o' is not known" in count.reason


class TestByName:
    """`loom.provider`: a client from a vendor's name and a model."""

    @pytest.mark.parametrize(
        ("name", "kind", "model"),
        [
            ("openai:gpt-4.1", AsyncOpenAI, "gpt-4.1"),
            ("mistral:mistral-small-latest", AsyncMistral, "mistral-small-latest"),
            ("mistral", AsyncMistral, "mistral-large-latest"),
            ("openai:llama3.1:8b", AsyncOpenAI, "llama3.1:8b"),
        ],
    )
    async def test_the_vendors_own_client_is_made(
        self, name: str, kind: type[AsyncClient], model: str
    ) -> None:
        """With all arguments of its class."""
        client = loom.provider(name, api_key=CANARY, max_tokens=9)
        assert type(client) is kind
        assert (model, 9) == (client.model, client.request("Hi").sampling.max_tokens)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("opnai:gpt-4.1", "did you mean 'openai'"),
            ("gpt-4.1", "unknown provider 'gpt-4.1'"),
            ("openai:", "names no model"),
        ],
    )
    async def test_what_is_no_name_is_told(self, name: str, words: str) -> None:
        """With the nearest."""
        with pytest.raises(ConfigInvalid, match=words):
            loom.provider(name)

    async def test_an_argument_that_is_none_is_told(self) -> None:
        """As by the class itself."""
        with pytest.raises(TypeError):
            loom.provider("openai:gpt-4.1", api_key=CANARY, nope=1)

    async def test_a_vendor_of_another_package_has_every_layer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Retries, ledger and fallback stand around what it makes."""
        provider = ScriptedProvider()
        plain = Vendor(name="plain", title="Plain", provider=lambda _model: provider)
        monkeypatch.setitem(VENDORS, "plain", plain)
        ledger = MemoryLedger()
        async with loom.provider("plain:big-1", ledger=ledger) as client:
            response = await client.chat("Hi")
            async with aclosing(client.provider.stream(client.request("Hi"))) as events:
                assert isinstance([e async for e in events][-1], Completed)
        assert response.content
        assert 2 == len(await ledger.entries())
        transport = FakeTransport(FakeReply.of(b"{}", status=503))
        async with AsyncMistral(
            CANARY, transport=transport, retry=None, fallback="plain:big-1",
            clock=FakeClock(auto=True),
        ) as falling:  # fmt: skip
            assert response.content == (await falling.chat("Hi")).content

    async def test_a_third_vendor_that_speaks_as_openai_does_is_one_value(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Name, title, address and the name of its key."""
        acme = Vendor(
            name="acme", title="ACME", base_url="https://acme.example/v1",
            key_name="acme_api_key", model="small-1",
        )  # fmt: skip
        monkeypatch.setitem(VENDORS, "acme", acme)
        monkeypatch.setenv("ACME_API_KEY", CANARY)
        transport = FakeTransport(FakeReply.of(ANSWER))
        async with loom.provider("acme:big-1", transport=transport) as client:
            response = await client.chat("Hi")
        assert "https://acme.example/v1/chat/completions" == transport.requests[0].url
        assert ("acme", None) == (response.metadata["provider"], response.usage.cost_usd)
        assert "small-1" == loom.provider("acme").model
        AsyncMistral(CANARY, fallback=Route(provider="acme"))  # its usual model there too
        with pytest.raises(ConfigInvalid, match="the simulator does not play ACME"):
            loom.provider("acme:big-1", sim=True)


async def test_texts_stream(sim: Simulator) -> None:
    """Pieces of text are the answer."""
    async with AsyncOpenAI(sim.api_key, base_url=sim.openai_base_url) as client:
        events = [e async for e in client.stream("Tell me a story")]
    assert isinstance(events[-1], Completed)
    texts = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert events[-1].response.content == texts


async def test_one_ledger_keeps_both(sim: Simulator, tmp_path: Path) -> None:
    """Each call has its row under its own vendor."""
    file = f"sqlite:///{tmp_path / 'calls.db'}"
    async with AsyncMistral(sim.api_key, base_url=sim.base_url, ledger=file) as one:
        await one.chat("Hi")
    async with AsyncOpenAI(sim.api_key, base_url=sim.openai_base_url, ledger=file) as two:
        await two.chat("Hi")
    ledger = open_ledger(file)
    assert {"mistral", "openai"} == {row.provider for row in await ledger.entries()}
    await ledger.aclose()
