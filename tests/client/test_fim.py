"""`client.fim`: what stands in a gap, with the layers of chats, against the simulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import msgspec
import pytest
from tests.client.loopback import answer

from loom import (
    AsyncMistral,
    Budget,
    BudgetExceeded,
    Completed,
    Fallback,
    InvalidRequest,
    LoomError,
    Mistral,
    ModelNotFound,
    OpenAI,
    RetryPolicy,
    Route,
    ServiceUnavailable,
    TextDelta,
)
from loom.core.events import Relayed
from loom.core.request import ChatRequest, Verbatim
from loom.ledger.memory import MemoryLedger
from loom.server.simulator import Simulator
from loom.testing import FakeClock, FakeReply, FakeTransport, cancel_everywhere
from loom.wire.mistral.infill_dialect import InfillDialect

pytestmark = pytest.mark.anyio

PROMPT, SUFFIX = "def add(a, b):\n", "\n\nprint(add(1, 2))"
DAY = date(2026, 8, 21)


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator(as_of=DAY) as running:
        yield running


def client(sim: Simulator, **options: Any) -> AsyncMistral:
    options.setdefault("clock", FakeClock(auto=True))
    return AsyncMistral(sim.api_key, base_url=sim.base_url, as_of=DAY, **options)


async def test_what_stands_in_the_gap(sim: Simulator) -> None:
    """It comes with tokens, cost and the vendor's id; the temperature is the vendor's."""
    async with client(sim) as m:
        response = await m.fim(PROMPT, SUFFIX, max_tokens=50)

    assert "return a + b" == response.content.strip()
    (request,) = sim.journal
    expected = {"model": "codestral-latest", "prompt": PROMPT, "suffix": SUFFIX, "max_tokens": 50}
    assert ("/v1/fim/completions", expected) == (request.path, json.loads(request.body))
    assert (request.cost_usd, "codestral-latest") == (response.usage.cost_usd, response.model)
    assert request.answer_headers["mistral-correlation-id"] == response.request_id


def test_the_blocking_twin(sim: Simulator) -> None:
    """Nothing behind the gap; options go by their names."""
    options: dict[str, Any] = {"temperature": 0, "top_p": 0.5, "min_tokens": 1, "random_seed": 7}
    options |= {"stop": ["\n\n"], "metadata": {"a": "b"}}
    with Mistral(sim.api_key, base_url=sim.base_url, as_of=DAY, max_tokens=9) as m:
        assert m.fim(PROMPT, **options).content
    (request,) = sim.journal
    expected = {"model": "codestral-latest", "prompt": PROMPT, "max_tokens": 9, **options}
    assert expected == json.loads(request.body)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((3,), {}, "'prompt' must be a string, not int"),
        ((PROMPT, 3), {}, "'suffix' must be a string, not int"),
        ((PROMPT,), {"n": 2}, "unknown option 'n'"),
        ((PROMPT,), {"tools": []}, "unknown option 'tools'"),
        ((PROMPT,), {"max_token": 2}, "did you mean 'max_tokens'"),
        ((PROMPT,), {"max_tokens": 0}, "'max_tokens' must be at least 1"),
        ((PROMPT,), {"temperature": 3}, "'temperature' must be between 0 and 2"),
    ],
    ids=str,
)
async def test_what_is_not_as_it_must_be(
    sim: Simulator, arguments: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    """It is named, and nothing is sent."""
    async with client(sim) as m:
        with pytest.raises(InvalidRequest, match=words):
            await m.fim(*arguments, **options)
        with pytest.raises(ModelNotFound, match="did you mean 'codestral-latest'"):
            await m.fim(PROMPT, model="codestral-latst")
    assert 0 == len(sim.journal)


def test_openai_has_no_such_request() -> None:
    """It is said before anything is sent."""
    with OpenAI(sim=True) as m, pytest.raises(InvalidRequest, match="OpenAI has no request"):
        m.fim(PROMPT)


async def test_it_is_tried_again_as_often_as_the_policy_says() -> None:
    """And no more often."""
    with Simulator(faults={"503": 1.0}) as sim:
        async with client(sim, retry=RetryPolicy(attempts=2)) as m:
            with pytest.raises(ServiceUnavailable):
                await m.fim(PROMPT)
    assert 2 == len(sim.journal)


async def test_routes_to_other_models_are_not_taken(sim: Simulator) -> None:
    """They are for chats; another key of the same model is asked."""
    fallback = Fallback([Route(model="mistral-small-latest"), Route(api_key=sim.api_key)])
    async with AsyncMistral(
        "a-key-that-is-refused", base_url=sim.base_url, fallback=fallback, retry=None
    ) as m:
        assert 2 == (await m.fim(PROMPT)).attempts
    assert {"codestral-latest"} == {json.loads(one.body)["model"] for one in sim.journal}


async def test_the_row(sim: Simulator) -> None:
    """One for each call, with its kind; a budget refuses before anything is sent."""
    ledger = MemoryLedger()
    async with client(sim, ledger=ledger) as m:
        response = await m.fim(PROMPT, SUFFIX, tags={"a": "b"})
    (row,) = await ledger.entries()
    assert ("fim", "settled", response.usage.cost_usd) == (row.kind, row.state, row.cost_usd)
    async with client(sim, budget=Budget(limit_usd="0.0001")) as m:
        with pytest.raises(BudgetExceeded):
            await m.fim(PROMPT)
    assert 1 == len(sim.journal)


class TestRelayed:
    """A caller's own words go through, and the vendor's come back."""

    def request(self, *, stream: bool) -> ChatRequest:
        """As a gateway makes it of a body."""
        body = json.dumps({"model": "codestral-latest", "prompt": PROMPT, "stream": stream})
        read = InfillDialect().decode_request(body.encode())
        own = Verbatim(dialect="mistral-fim", body=body.encode(), request=read)
        return msgspec.structs.replace(read, verbatim=own)

    async def test_a_stream(self, sim: Simulator) -> None:
        """Events as the vendor sent them; the row is settled with what was read on the way."""
        ledger = MemoryLedger()
        request = self.request(stream=True)
        async with client(sim, ledger=ledger) as m:
            events = [event async for event in m.provider.stream(request)]
        assert isinstance(events[-1], Completed)
        relayed = b"".join(event.data for event in events if isinstance(event, Relayed))
        assert b'"object":"chat.completion.chunk"' in relayed
        assert not [event for event in events if isinstance(event, TextDelta)]
        assert request.verbatim is not None
        assert request.verbatim.body == sim.journal[0].body
        (row,) = await ledger.entries()
        assert ("fim", sim.journal[0].cost_usd) == (row.kind, row.cost_usd)

    async def test_a_plain_answer(self, sim: Simulator) -> None:
        """It comes with the vendor's body."""
        request = self.request(stream=False)
        async with client(sim) as m:
            response = await m.provider.chat(request)
        assert response.raw_body is not None
        assert response.content == json.loads(response.raw_body)["choices"][0]["message"]["content"]
        assert request.verbatim is not None
        assert request.verbatim.body == sim.journal[0].body

    async def test_in_a_stream_without_own_words(self, sim: Simulator) -> None:
        """Model events, as of a chat."""
        request = msgspec.structs.replace(self.request(stream=True), verbatim=None)
        async with client(sim) as m:
            events = [event async for event in m.provider.stream(request)]
        assert [event for event in events if isinstance(event, TextDelta)]


async def test_cancelled_anywhere_nothing_is_held() -> None:
    """No socket and no open row, whichever suspension it was."""
    transport, ledger = FakeTransport(FakeReply.of(answer())), MemoryLedger()
    async with AsyncMistral(
        "test-key", transport=transport, ledger=ledger, clock=FakeClock(auto=True)
    ) as m:
        survey = await cancel_everywhere(
            lambda: m.fim(PROMPT, SUFFIX),
            probes={
                "sockets": lambda: transport.in_use,
                "open rows": lambda: len(ledger._book.open),
            },
        )
    assert survey.suspensions > 2


async def test_what_is_asked_is_shown_nowhere(sim: Simulator) -> None:
    """Prompt and suffix are neither in a message nor in the curl command."""
    async with client(sim, retry=None, headers={"x-loom-fault": "503"}) as m:
        with pytest.raises(LoomError) as caught:
            await m.fim("canaryprompt", "canarysuffix")
    error = caught.value
    assert "canary" not in f"{error!r} {error.curl} {error.explain(curl=True)}"
