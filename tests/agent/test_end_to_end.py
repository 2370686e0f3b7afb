"""Agents over real sockets: what a model asks for is run, and what goes back is legal."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import pytest

from loom import (
    AsyncMistral,
    InvalidRequest,
    Message,
    Mistral,
    Route,
    ServiceUnavailable,
    ToolCall,
    tool,
)
from loom.agent.events import CallCompleted, Done, ToolFinished, ToolStarted
from loom.agent.limits import AgentLimits
from loom.client.agent import AsyncAgent
from loom.client.agent_blocking import Agent
from loom.core.events import TextDelta
from loom.ledger.open import open_ledger
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.shuttle.permission import Permissions
from loom.testing import FakeClock

MODEL = "mistral-small-latest"

Script: TypeAlias = Sequence[Message | str]


def asks(*wanted: tuple[str, dict[str, Any]]) -> Message:
    """Give an answer that calls tools."""
    calls = [
        ToolCall(f"call{number:05}", name, arguments=json.dumps(given))
        for number, (name, given) in enumerate(wanted)
    ]
    return Message.assistant("", tool_calls=tuple(calls))


def raw(name: str, arguments: str) -> Message:
    return Message.assistant("", tool_calls=(ToolCall("call00000", name, {}, arguments),))


@contextmanager
def served(*script: Message | str) -> Iterator[Simulator]:
    """Serve a script at a strict Mistral: an illegal history gets a 400, and fails the test."""
    with Simulator(provider=ScriptedProvider(script, model=MODEL)) as sim:
        yield sim
        assert [200] * len(script) == [entry.status for entry in sim.journal.entries()]


def ask(
    script: Script, *tools: Any, chat: dict[str, Any] | None = None, **more: Any
) -> tuple[Any, list[list[dict[str, Any]]]]:
    """Do one turn; give its response, and the messages of each request as they were sent."""
    with (
        served(*script) as sim,
        Mistral(sim.api_key, base_url=sim.base_url, model=MODEL) as client,
        Agent(llm=client, tools=tools, **more) as agent,
    ):
        response = agent.chat("Go on.", **(chat or {}))
        sent = [json.loads(entry.body)["messages"] for entry in sim.journal.entries()]
    return response, sent


def told(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "tool"]


@tool
async def get_weather(location: str, unit: Literal["c", "f"] = "c") -> dict[str, Any]:
    """
    Current weather for a place.

    Args:
        location: City name, for example "San Francisco".
        unit: Celsius or Fahrenheit.
    """
    return {"location": location, "temperature": 18, "unit": unit}


def test_one_tool() -> None:
    """The tool runs with its defaults, and its result is in the second request."""
    response, sent = ask([asks(("get_weather", {"location": "Lyon"})), "18 degrees."], get_weather)
    assert "18 degrees." == response.content
    assert ['{"location":"Lyon","temperature":18,"unit":"c"}'] == told(sent[1])
    assert response.usage.cost_usd == sum(call.usage.cost_usd for call in response.calls)
    assert response.usage.cost_usd > Decimal(0)
    assert 1 == len(response.tool_executions)


def test_three_tools_in_parallel_take_the_time_of_one() -> None:
    """All three run at once: none ends before all have begun, in worker threads too."""
    meeting = threading.Barrier(3, timeout=20)

    @tool
    def meet(name: str) -> str:
        """Wait for the two others."""
        meeting.wait()
        return f"{name} met"

    script: Script = [asks(*(("meet", {"name": name}) for name in "abc")), "All met."]
    response, sent = ask(script, meet)
    assert ["a met", "b met", "c met"] == told(sent[1])
    assert "All met." == response.content


def test_a_chain_of_ten() -> None:
    """Each answer asks for the next; eleven requests, each legal, usage added up."""

    @tool
    def add_one(number: int) -> int:
        """Add one."""
        return number + 1

    script: Script = [*(asks(("add_one", {"number": n})) for n in range(10)), "Ten."]
    response, sent = ask(script, add_one)
    assert [str(n + 1) for n in range(10)] == told(sent[10])
    assert 11 == len(response.calls)
    assert sum(call.usage.input_tokens for call in response.calls) == response.usage.input_tokens


def test_a_failing_tool() -> None:
    """The model is told the class and the words, and no traceback."""

    @tool
    def fail() -> str:
        """Fail."""
        raise ValueError("the shop is closed")

    response, sent = ask([asks(("fail", {})), "Closed."], fail)
    assert ["error: ValueError: the shop is closed"] == told(sent[1])
    assert "Closed." == response.content


def test_a_hanging_tool() -> None:
    """It is left at its limit; the other one of the same answer is not harmed."""

    @tool(timeout_s=0.2)
    async def hang() -> str:
        """Hang."""
        await asyncio.Event().wait()
        return "never"

    script: Script = [asks(("hang", {}), ("get_weather", {"location": "Lyon"})), "Too slow."]
    response, sent = ask(script, hang, get_weather)
    slow, quick = told(sent[1])
    assert "error: timed out after 0.2 s" == slow
    assert "Lyon" in quick
    assert "Too slow." == response.content


def test_a_tool_that_returns_ten_megabytes() -> None:
    """The model is shown the beginning, and how much there was."""

    @tool
    def read_all() -> str:
        """Read all."""
        return "x" * 10_000_000

    response, sent = ask([asks(("read_all", {})), "Long."], read_all)
    (shown,) = told(sent[1])
    assert len(shown) < 66_000
    assert "10,000,000 bytes" in shown
    assert response.tool_executions[0].cut


def test_an_unknown_tool() -> None:
    """The model is told which tools there are."""
    _, sent = ask([asks(("get_wether", {"location": "Lyon"})), "Sorry."], get_weather)
    assert told(sent[1])[0].startswith("error: tool not found: get_wether")
    assert "get_weather" in told(sent[1])[0]


def test_bad_json_twice() -> None:
    """The model is told twice, writes it right, and the tool runs."""
    script: Script = [
        raw("get_weather", '{"location": "Ly'),
        raw("get_weather", '{"city": "Lyon"}'),
        asks(("get_weather", {"location": "Lyon"})),
        "At last.",
    ]
    response, sent = ask(script, get_weather)
    first, second, third = told(sent[3])
    assert first.startswith("error: invalid arguments")
    assert "location" in second
    assert "Lyon" in third
    assert "At last." == response.content


@pytest.mark.parametrize(
    ("permissions", "expected"),
    [
        (Permissions(approve=lambda _: "deny"), "error: permission denied"),
        (Permissions(approve=lambda _: "ask"), "error: permission denied"),
        (Permissions(approve=lambda _: "ask", ask=lambda _: True), "Lyon"),
        (Permissions(approve=lambda _: "ask", ask=lambda _: False), "error: permission denied"),
    ],
    ids=["denied", "nobody to ask", "asked, yes", "asked, no"],
)
def test_denied_and_asked(permissions: Permissions, expected: str) -> None:
    """A person, or a rule, decides; the model is told what was decided."""
    script: Script = [asks(("get_weather", {"location": "Lyon"})), "Well."]
    _, sent = ask(script, get_weather, permissions=permissions)
    assert expected in told(sent[1])[0]


def test_identical_calls_run_once() -> None:
    """Two equal calls of one answer are one execution with two results."""
    ran: list[str] = []

    @tool
    def note(text: str) -> str:
        """Note it."""
        ran.append(text)
        return "noted"

    _, sent = ask([asks(("note", {"text": "a"}), ("note", {"text": "a"})), "Noted."], note)
    assert ["a"] == ran
    assert ["noted", "noted"] == told(sent[1])


def test_a_stream_tells_what_happens() -> None:
    """Text, tools, costs and the end arrive one after the other."""
    script: Script = [asks(("get_weather", {"location": "Lyon"})), "18 degrees in Lyon."]
    with (
        served(*script) as sim,
        Mistral(sim.api_key, base_url=sim.base_url, model=MODEL) as client,
        Agent(llm=client, tools=[get_weather]) as agent,
        agent.stream("Weather?") as events,
    ):
        seen = list(events)
        final = events.final()
    kinds = [type(event) for event in seen]
    order = [kinds.index(kind) for kind in (ToolStarted, ToolFinished, TextDelta, Done)]
    assert order == sorted(order)
    assert 2 == kinds.count(CallCompleted)
    assert "18 degrees in Lyon." == "".join(e.text for e in seen if isinstance(e, TextDelta))
    assert "18 degrees in Lyon." == final.content


async def rows_of(ledger: Path) -> list[tuple[str | None, int]]:
    opened = open_ledger(ledger)
    try:
        return [(row.session, row.input_tokens) for row in await opened.entries()]
    finally:
        await opened.aclose()


def test_a_turn_writes_a_row_of_each_call(tmp_path: Path) -> None:
    """The ledger has one row for each request, with the session, and they sum up to the turn."""
    script: Script = [asks(("get_weather", {"location": "Lyon"})), "18 degrees."]
    ledger = tmp_path / "calls.db"
    with (
        served(*script) as sim,
        Mistral(sim.api_key, base_url=sim.base_url, model=MODEL, ledger=ledger) as client,
        Agent(llm=client, tools=[get_weather], sessions=tmp_path / "chats.db") as agent,
    ):
        response = agent.chat("Weather?", session="ann")
    rows = asyncio.run(rows_of(ledger))
    assert [("ann", call.usage.input_tokens) for call in response.calls] == rows


def test_a_conversation_of_another_vendor_goes_on() -> None:
    """Ids of any form in a history are mapped, and the turn goes on with tools."""
    foreign = ToolCall("call_AbC_123", "get_weather", {"location": "Lyon"})
    history = [
        Message.user("Weather in Lyon?"),
        Message.assistant(tool_calls=(foreign,)),
        Message.tool(foreign, "18 degrees"),
        Message.user("And in Nice?"),
    ]
    with (
        served(asks(("get_weather", {"location": "Nice"})), "Warm.") as sim,
        Mistral(sim.api_key, base_url=sim.base_url, model=MODEL) as client,
        Agent(llm=client, tools=[get_weather]) as agent,
    ):
        assert "Warm." == agent.chat(history).content


def test_structured_output_after_tools() -> None:
    """The last answer comes back as a value of the type."""

    class Forecast(msgspec.Struct):
        city: str
        degrees: int

    script: Script = [
        asks(("get_weather", {"location": "Lyon"})),
        '{"city": "Lyon", "degrees": 18}',
    ]
    response, _ = ask(script, get_weather, chat={"output": Forecast})
    assert Forecast("Lyon", 18) == response.parsed


@pytest.mark.anyio
async def test_an_async_agent_with_a_provider_of_its_own() -> None:
    """A name is enough to say who answers; here a client, closed by its owner."""
    script: Script = [asks(("get_weather", {"location": "Lyon"})), "18 degrees."]
    with served(*script) as sim:
        async with (
            AsyncMistral(sim.api_key, base_url=sim.base_url, model=MODEL) as client,
            AsyncAgent(llm=client, tools=[get_weather], limits=AgentLimits(max_turns=2)) as agent,
        ):
            assert "get_weather" == (await agent.tools())[0].name
            response = await agent.chat("Weather?")
            assert "18 degrees." == response.content
            assert "max_turns" == response.stopped_by


def test_a_blocking_agent_knows_its_conversations(tmp_path: Path) -> None:
    """They are listed, searched, read, exported and deleted without a loop."""
    with (
        Simulator() as sim,
        Mistral(sim.api_key, base_url=sim.base_url, model=MODEL) as client,
        Agent(llm=client, sessions=tmp_path / "chats.db") as agent,
        Agent(llm=client) as forgetful,
    ):
        agent.chat("My name is Ann.", session="ann")
        agent.chat("What is my name?", session="ann")
        sessions = agent.sessions
        assert sessions is not None
        assert ["ann"] == [info.id for info in sessions.list(search="Ann")]
        assert 4 == len(sessions.read("ann")) == len(sessions.messages("ann"))
        assert "My name is Ann." in sessions.export("ann", "markdown")
        with pytest.raises(InvalidRequest, match="no session 'bob'"):
            sessions.export("bob")
        assert sessions.delete("ann")
        assert sessions.info("ann") is None
        assert forgetful.sessions is None


@pytest.mark.parametrize("streams", [False, True], ids=["chat", "stream"])
def test_another_vendor_goes_on_in_the_middle_of_a_turn(streams: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """The first asks for a tool and falls silent; the second is told the result, and answers."""
    down = [ServiceUnavailable("down") for _ in range(3)]
    first = ScriptedProvider([asks(("get_weather", {"location": "Lyon"})), *down], model=MODEL)
    second = ScriptedProvider(["18 degrees."], model="gpt-4.1")
    with Simulator(provider=first) as mistral, Simulator(provider=second, any_key=True) as openai:
        route = Route(
            provider="openai", model="gpt-4.1", base_url=openai.openai_base_url, api_key="k" * 32
        )
        clock = FakeClock(auto=True)
        with (
            Mistral(
                mistral.api_key, base_url=mistral.base_url, model=MODEL, fallback=route, clock=clock
            ) as client,
            Agent(llm=client, tools=[get_weather]) as agent,
        ):
            response = agent.stream("?").final() if streams else agent.chat("?")
        sent = json.loads(openai.journal.entries()[-1].body)["messages"]
    assert "18 degrees." == response.content
    assert ["user", "assistant", "tool"] == [message["role"] for message in sent]
    assert "Lyon" in sent[2]["content"]
    assert ["mistral", "openai"] == [call.metadata["provider"] for call in response.calls]


def test_a_turn_that_broke_off_goes_on_as_a_stream(tmp_path: Path) -> None:
    """What is left to do is seen as it happens, and nothing is done twice."""
    ran: list[str] = []

    @tool
    def note(text: str) -> str:
        """Note it."""
        ran.append(text)
        return "noted"

    down = [ServiceUnavailable("down")] * 3
    first = ScriptedProvider([asks(("note", {"text": "a"})), *down, "Noted."], model=MODEL)
    clock = FakeClock(auto=True)
    with (
        Simulator(provider=first) as sim,
        Mistral(sim.api_key, base_url=sim.base_url, model=MODEL, clock=clock) as client,
        Agent(llm=client, tools=[note], sessions=tmp_path / "chats.db") as agent,
    ):
        with pytest.raises(ServiceUnavailable):
            agent.chat("Note a.", session="ann")
        with agent.resume_stream("ann") as events:
            kinds = [type(event) for event in events]
        assert "Noted." == events.final().content
    assert ["a"] == ran
    assert ToolStarted not in kinds
    assert TextDelta in kinds
