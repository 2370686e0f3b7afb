"""`client.embeddings`: vectors with the layers of chats, against the simulator over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from tests.client.canary import leaks, places
from tests.transport.hostile import Peer, serve_in_thread

from loom import (
    AsyncMistral,
    AsyncOpenAI,
    Breaker,
    Budget,
    BudgetExceeded,
    CallerError,
    CircuitOpen,
    EmbeddingsResponse,
    Fallback,
    InvalidRequest,
    Limiter,
    LoomError,
    Mistral,
    ModelNotFound,
    OpenAI,
    RateLimit,
    RetryPolicy,
    Route,
    ServiceUnavailable,
    provider,
)
from loom.config.vendors import VENDORS, Vendor
from loom.core.request import Timeouts
from loom.ledger.entry import Entry
from loom.ledger.memory import MemoryLedger
from loom.server.simulator import Simulator
from loom.testing import FakeClock, FakeReply, FakeTransport, Witness, cancel_everywhere
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio

KEY = "loom-canary-key-0123456789"
TEXTS = ["the cat sat", "on the mat"]
# A traceback shows lines of code: they must not hold the text itself.
SECRET, SECRETS = ["canarytext one", "canarytext two"], ("loom-canary-key-0123456789", "canarytext")
DAY = date(2026, 8, 21)
BODY = json.dumps(
    {
        "id": "a",
        "model": "mistral-embed",
        "data": [{"embedding": [1.0], "index": 0}, {"embedding": [2.0], "index": 1}],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
    }
).encode()
BROKEN = b'{"object":"error","message":"No.","type":"x","code":"1"}'


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(as_of=DAY) as running:
        yield running


def client(sim: Simulator, **options: Any) -> AsyncMistral:
    options.setdefault("clock", FakeClock(auto=True))
    return AsyncMistral(sim.api_key, base_url=sim.base_url, as_of=DAY, **options)


async def only_row(ledger: MemoryLedger) -> Entry:
    (row,) = await ledger.entries()
    return row


async def test_a_vector_for_each_text(sim: Simulator) -> None:
    """In their order, alike for alike texts, with tokens, cost and the vendor's id."""
    async with client(sim) as m:
        response = await m.embeddings([*TEXTS, TEXTS[0]])

    first, second, third = response.vectors
    assert 1024 == len(first)
    assert (True, False) == (first == third, first == second)
    (request,) = sim.journal
    assert ("/v1/embeddings", request.prompt_tokens) == (request.path, response.usage.input_tokens)
    assert request.cost_usd == response.usage.cost_usd
    assert "mistral-embed" == response.model
    assert request.answer_headers["mistral-correlation-id"] == response.request_id
    assert 1 == response.attempts


def test_the_blocking_twin_gives_the_same(sim: Simulator) -> None:
    """One text is a list of one; base64 and numbers of one byte come out as numbers."""
    with Mistral(sim.api_key, base_url=sim.base_url, as_of=DAY) as m:
        plain, packed = m.embeddings("x"), m.embeddings("x", as_base64=True)
        small = m.embeddings("x", "codestral-embed", dimension=8, dtype="int8")
    assert list(plain.vectors[0]) == pytest.approx(list(packed.vectors[0]), rel=1e-6)
    assert (8, True) == (len(small.vectors[0]), all(type(n) is int for n in small.vectors[0]))


def test_openais_twin() -> None:
    """The usual model is OpenAI's; a price that nobody knows is None."""
    with OpenAI(sim=True) as m:
        response = m.embeddings("x")
        assert ("text-embedding-3-small", 1536) == (response.model, len(response.vectors[0]))
        assert response.usage.cost_usd is None
        with pytest.raises(InvalidRequest, match="not as 'int8'"):
            m.embeddings("x", dtype="int8")


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        (3, {}, "'texts' must be a string or a list of them, not int"),
        (None, {}, "not None"),
        (b"x", {}, "not bytes"),
        ([], {}, "at least one text"),
        (["x", 3], {}, r"'texts\[1\]' must be a string, not int"),
        ("x", {"dimension": 0}, "'dimension' must be a whole number"),
        ("x", {"dimension": True}, "'dimension' must be a whole number"),
        ("x", {"dtype": "float64"}, "'dtype' must be one of 'float', 'int8'"),
        ("x", {"as_base64": 1}, "'as_base64' must be True or False"),
        ("x", {"temperature": 0}, "unknown option 'temperature'"),
        ("x", {"tag": {}}, "did you mean 'tags'"),
        ("x", {"timeout_s": 0}, "'timeout_s' must be between"),
    ],
    ids=str,
)
async def test_what_is_not_as_it_must_be(
    sim: Simulator, texts: Any, options: dict[str, Any], words: str
) -> None:
    """It is named, and nothing is sent."""
    async with client(sim) as m:
        with pytest.raises(InvalidRequest, match=words):
            await m.embeddings(texts, **options)
    assert 0 == len(sim.journal)


async def test_a_misspelt_model_is_found_here(sim: Simulator) -> None:
    """As of a chat."""
    async with client(sim) as m:
        with pytest.raises(ModelNotFound, match="did you mean 'mistral-embed'"):
            await m.embeddings("x", "mistral-emebd")
    assert 0 == len(sim.journal)


async def test_a_closed_client_says_so(sim: Simulator) -> None:
    """Misuse is a plain RuntimeError."""
    m = client(sim)
    await m.aclose()
    with pytest.raises(RuntimeError, match="this client is closed"):
        await m.embeddings("x")


class TestLayers:
    """Everything around a chat is around it too."""

    async def test_it_is_tried_again_as_often_as_the_policy_says(self) -> None:
        """And no more often; each attempt is in the timeline."""
        with Simulator(faults={"503": 1.0}) as sim:
            async with client(sim, retry=RetryPolicy(attempts=3)) as m:
                with pytest.raises(ServiceUnavailable) as caught:
                    await m.embeddings("x")
        assert (3, 3) == (caught.value.attempts, len(sim.journal))
        assert caught.value.timeline is not None
        assert [503] * 3 == [each.status for each in caught.value.timeline.attempts]

    async def test_an_answer_after_a_retry(self, sim: Simulator) -> None:
        """It says how many requests it took."""
        async with client(sim, headers={"x-loom-fault": "503;times=1"}) as m:
            response = await m.embeddings("x")
        assert 2 == response.attempts
        assert response.timeline is not None
        assert ["released", "settled"] == [each.charge for each in response.timeline.attempts]

    async def test_breaker_and_limiter_are_those_of_the_client(self, sim: Simulator) -> None:
        """An account is one, whatever is asked of it: its keys hold origin, key and model."""
        breaker, limiter = Breaker(min_calls=1), Limiter(RateLimit(requests_per_minute=60))
        async with client(sim, breaker=breaker, rate_limit=limiter) as m:
            await m.chat("x")
            await m.embeddings("x")
            assert {"mistral-embed", m.model} == {key[2] for key in breaker.states()}
            assert {key[:2] for key in breaker.states()} == {key[:2] for key in limiter.states()}
            assert 1 == len({key[:2] for key in breaker.states()})
        assert 0 == limiter.held

    async def test_an_open_breaker_sends_nothing(self) -> None:
        """After failures of embeddings, embeddings are not asked for."""
        with Simulator(faults={"503": 1.0}) as sim:
            async with client(sim, retry=None, breaker=Breaker(min_calls=1)) as m:
                with pytest.raises(ServiceUnavailable):
                    await m.embeddings("x")
                with pytest.raises(CircuitOpen):
                    await m.embeddings("x")
        assert 1 == len(sim.journal)

    async def test_another_key_of_the_same_model_is_asked(self, sim: Simulator) -> None:
        """Another model is not: its vectors would mean something else."""
        fallback = Fallback([Route(model="mistral-small-latest"), Route(api_key=sim.api_key)])
        async with AsyncMistral(
            "a-key-that-is-refused", base_url=sim.base_url, fallback=fallback, retry=None
        ) as m:
            response = await m.embeddings("x")
        assert ({"mistral-embed"}, 2) == (
            {json.loads(request.body)["model"] for request in sim.journal}, response.attempts
        )  # fmt: skip

    async def test_limits_of_time(self) -> None:
        """A vendor that says nothing is left after `first_byte_s`."""

        async def silent(peer: Peer) -> None:
            await peer.request()
            await peer.gone()

        with serve_in_thread(silent) as server:
            async with AsyncMistral(KEY, base_url=f"http://{server.where}", retry=None) as m:
                with pytest.raises(LoomError) as caught:
                    await m.embeddings("x", timeouts=Timeouts(first_byte_s=0.05))
        assert ("timeout", "first_byte") == (caught.value.code, caught.value.phase)
        assert caught.value.uncertain


class TestMoney:
    """One row for each call; budgets are kept."""

    async def test_the_row(self, sim: Simulator) -> None:
        """Kind, tokens, cost and attribution; more was kept free than it cost."""
        ledger = MemoryLedger()
        async with client(sim, ledger=ledger, client_name="c") as m:
            response = await m.embeddings(TEXTS, session="s", tags={"a": "b"})
        row = await only_row(ledger)
        assert ("embeddings", "settled", "c", "s") == (row.kind, row.state, row.client, row.session)
        assert ({"a": "b"}, response.usage.cost_usd) == (dict(row.tags), row.cost_usd)
        assert (response.usage.input_tokens, 0) == (row.input_tokens, row.output_tokens)
        assert row.reserved_usd is not None
        assert row.cost_usd is not None
        assert row.reserved_usd > row.cost_usd > 0

    async def test_a_budget_refuses_before_anything_is_sent(self, sim: Simulator) -> None:
        """The worst case of the texts does not fit, or it does and the money is spent."""
        async with client(sim, budget=Budget(limit_usd="0.00001")) as m:
            await m.embeddings("x")
            with pytest.raises(BudgetExceeded):
                await m.embeddings("x" * 1000)
        assert 1 == len(sim.journal)

    async def test_a_budget_is_shared_with_chats(self, sim: Simulator) -> None:
        """There is one purse."""
        ledger = MemoryLedger()
        budget = Budget(limit_usd="1", per="client")
        async with client(sim, ledger=ledger, budget=budget, client_name="c") as m:
            cost = [(await m.chat("x")).usage.cost_usd, (await m.embeddings("x")).usage.cost_usd]
        (total,) = await ledger.totals()
        assert sum(each or Decimal(0) for each in cost) == total.cost_usd
        assert {"chat", "embeddings"} == {each.group for each in await ledger.totals(by="kind")}

    @pytest.mark.parametrize(
        ("fault", "state"),
        [("503", "released"), ("401", "released"), ("10-reset-body", "uncertain")],
    )
    async def test_a_failure(self, sim: Simulator, fault: str, state: str) -> None:
        """Nothing, or what may have been billed."""
        ledger = MemoryLedger()
        headers = {"x-loom-fault": fault}
        async with client(sim, ledger=ledger, retry=None, headers=headers) as m:
            with pytest.raises(LoomError) as caught:
                await m.embeddings("x")
        row = await only_row(ledger)
        assert (state, caught.value.code) == (row.state, row.code)
        assert ("uncertain" == state) is bool(row.cost_usd)


class Books:
    """A client with every layer on, and what it may hold."""

    def __init__(self, transport: Any, base_url: str = "http://127.0.0.1:9") -> None:
        self.clock = FakeClock(auto=True)
        self.breaker = Breaker(min_calls=10_000)
        self.limiter = Limiter(RateLimit(requests_per_minute=10_000, concurrency=2))
        self.ledger = MemoryLedger()
        self.client = AsyncMistral(
            KEY, base_url=base_url, transport=transport, clock=self.clock, breaker=self.breaker,
            rate_limit=self.limiter, ledger=self.ledger, budget="1000", as_of=DAY,
        )  # fmt: skip
        self.probes = {
            "permits": lambda: self.limiter.held + self.limiter.queued,
            "probes": lambda: self.breaker.probes_held,
            "open rows": lambda: len(self.ledger._book.open),
        }

    async def ask(self) -> None:
        response = await self.client.embeddings(TEXTS)
        assert [[1.0], [2.0]] == [list(vector) for vector in response.vectors]


async def test_cancelled_anywhere_in_memory_nothing_is_held() -> None:
    """A retry on the way: no socket, permit, probe or open row, whichever suspension it was."""
    asked = 0

    def reply(_: object) -> FakeReply:
        nonlocal asked
        asked += 1
        return FakeReply.of(BODY) if asked % 2 == 0 else FakeReply.of(BROKEN, status=503)

    transport = FakeTransport(answer=reply)
    books = Books(transport)

    async def ask() -> None:
        nonlocal asked
        asked = 0
        await books.ask()

    survey = await cancel_everywhere(
        ask, probes={**books.probes, "sockets": lambda: transport.in_use}
    )
    assert survey.suspensions > 5
    await books.client.aclose()


async def test_cancelled_anywhere_over_sockets_nothing_is_held() -> None:
    """The same with one connection at most: whoever kept it would be missed at once."""
    transport = HttpTransport(max_connections=1)

    async def serve(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer(BODY, b"content-type: application/json")

    with serve_in_thread(serve) as server:
        books = Books(transport, f"http://{server.where}")
        # The loop's own generator and the library's import are there before the first round.
        await books.ask()
        more = {
            "slots": lambda: transport.permits_in_use,
            "more than one socket": lambda: max(0, transport.open_sockets - 1),
        }
        survey = await cancel_everywhere(books.ask, probes={**books.probes, **more})
        assert survey.suspensions
        await books.client.aclose()
        server.wait_closed()


@pytest.mark.parametrize(
    "fault", ["503", "10-reset-body", "30-html-200", "12-cut-json", "401", "422"]
)
async def test_no_error_shows_a_key_or_a_text(fault: str) -> None:
    """Neither in a field, nor in a frame, nor in the curl command."""
    with Simulator(any_key=True) as sim:
        async with AsyncMistral(
            KEY, base_url=sim.base_url, retry=None, headers={"x-loom-fault": fault}
        ) as m:
            try:
                await m.embeddings(SECRET)
            except LoomError as error:
                found = places(error)
    assert [] == leaks(SECRETS, found)


async def test_a_refused_argument_is_in_no_frame(sim: Simulator) -> None:
    """What is refused here was read by several functions."""
    async with client(sim) as m:
        try:
            await m.embeddings(SECRET, dimension=0)
        except CallerError as error:
            found = places(error)
    assert [] == leaks(SECRETS, found)


async def test_a_vendor_without_a_usual_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """One must be named; what is no vendor over the wire makes no vectors."""
    made = Witness()
    nobody = Vendor(name="nobody", title="Nobody", model="m", provider=lambda _: made)
    monkeypatch.setitem(VENDORS, "nobody", nobody)
    async with provider("nobody:m") as m:
        with pytest.raises(InvalidRequest, match="no model of Nobody is usual for embeddings"):
            await m.embeddings("x")
        with pytest.raises(InvalidRequest, match="witness offers no embeddings"):
            await m.embeddings("x", "any")
    assert 0 == made.calls


async def test_openai_compatible_servers_are_asked_at_their_address() -> None:
    """The path follows the address as it is."""
    transport = FakeTransport(FakeReply.of(BODY))
    async with AsyncOpenAI(base_url="http://localhost:9/v1", transport=transport, model="m") as m:
        response = await m.embeddings(TEXTS, "nomic-embed-text")
    assert isinstance(response, EmbeddingsResponse)
    assert "http://localhost:9/v1/embeddings" == transport.requests[0].url
