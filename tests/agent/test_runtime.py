"""Sessions of an agent: isolated, in order, and gone on with after a crash."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.agent.kit import Echo, Rig, answer, asking, call, calls, results

from loom.agent.events import Done, Summarised, ToolFinished, ToolStarted
from loom.agent.limits import AgentLimits
from loom.agent.runtime import AgentRuntime
from loom.agent.session import Begun, Condensed, Said, Withdrawn
from loom.agent.session_memory import MemorySessions
from loom.agent.session_sqlite import SQLiteSessions
from loom.core.errors import Conflict, ContentBlocked, InvalidRequest, RateLimited
from loom.core.messages import Message
from loom.core.response import Usage
from loom.shuttle.tool import Tool
from loom.testing import FakeClock, FakeDice, turn_until

pytestmark = pytest.mark.anyio


def one(name: str = "echo", id: str = "abcdefgh1", **given: Any) -> Message:  # noqa: A002 - the wire's word
    return calls(call(id, name, **given))


async def test_a_session_goes_on() -> None:
    """The second turn holds the first one, tools and all."""
    rig = Rig([one(), "It rains.", "Still."], Echo(), sessions=MemorySessions())
    await rig.chat("Does it rain?", session="ann")
    response = await rig.chat("And now?", session="ann")
    roles = [message.role for message in rig.requests[2].messages]
    assert ["user", "assistant", "tool", "assistant", "user"] == roles
    assert "ann" == response.session
    assert ["And now?", "Still."] == [message.text for message in response.messages]


async def test_sessions_are_isolated() -> None:
    """What is said in one session is not told in another."""
    rig = Rig(["Hi Ann.", "Hi Bob."], sessions=MemorySessions())
    await rig.chat("I am Ann.", session="ann")
    await rig.chat("I am Bob.", session="bob")
    assert ["I am Bob."] == [message.text for message in rig.requests[1].messages]


async def test_a_turn_without_a_session_gets_one_if_there_is_a_store() -> None:
    """The response names the session, so that it can go on; two turns have two."""
    store = MemorySessions()
    rig = Rig(["Hi.", "Hello."], sessions=store)
    first, second = await rig.chat(), await rig.chat()
    assert first.session != second.session
    assert 2 == len(await store.list())


async def test_without_a_store_nothing_is_kept() -> None:
    """Each turn stands alone, and has no session."""
    rig = Rig(["Hi.", "Hello."])
    first = await rig.chat()
    await rig.chat()
    assert first.session is None
    assert 1 == len(rig.requests[1].messages)


async def test_calls_carry_their_session() -> None:
    """Rows of a ledger and budgets of a session know it."""
    rig = Rig(["Hi."], sessions=MemorySessions())
    await rig.chat(session="ann")
    assert "ann" == rig.requests[0].attribution.session


async def test_turns_of_one_session_queue() -> None:
    """The second turn begins when the first one is over, and sees it."""
    gate = asyncio.Event()
    rig = Rig([one(), "One.", "Two."], Echo(gives=gate), sessions=MemorySessions())
    first = asyncio.ensure_future(rig.chat("first", session="ann"))
    second = asyncio.ensure_future(rig.chat("second", session="ann"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert 1 == len(rig.provider.requests)
    gate.set()
    assert ["One.", "Two."] == [(await first).content, (await second).content]
    assert "One." in [message.text for message in rig.requests[2].messages]


async def test_turns_of_two_sessions_do_not_wait_for_each_other() -> None:
    """A hanging tool holds up its own session only."""
    gate = asyncio.Event()
    rig = Rig([one(), "Quick.", "Slow."], Echo(gives=gate), sessions=MemorySessions())
    slow = asyncio.ensure_future(rig.chat(session="ann"))
    await turn_until(lambda: bool(rig.provider.requests))
    assert "Quick." == (await rig.chat(session="bob")).content
    gate.set()
    assert "Slow." == (await slow).content


async def test_who_waits_for_a_session_can_be_cancelled() -> None:
    """A turn that is given up in the queue leaves the queue in order."""
    gate = asyncio.Event()
    rig = Rig([one(), "One.", "Three."], Echo(gives=gate), sessions=MemorySessions())
    first = asyncio.ensure_future(rig.chat("first", session="ann"))
    second = asyncio.ensure_future(rig.chat("second", session="ann"))
    third = asyncio.ensure_future(rig.chat("third", session="ann"))
    for _ in range(10):
        await asyncio.sleep(0)
    second.cancel()
    gate.set()
    assert ["One.", "Three."] == [(await first).content, (await third).content]
    assert second.cancelled()


async def test_a_turn_that_queues_while_the_agent_is_closed_does_not_begin() -> None:
    """Nothing is asked and nothing is opened again for who waited."""
    gate = asyncio.Event()
    rig = Rig([one(), "One.", one(), "Two."], Echo(gives=gate), sessions=MemorySessions())
    first = asyncio.ensure_future(rig.chat("first", session="ann"))
    second = asyncio.ensure_future(rig.chat("second", session="ann"))
    for _ in range(10):
        await asyncio.sleep(0)
    await rig.runtime.aclose()
    assert "One." == (await first).content
    with pytest.raises(RuntimeError, match="this agent is closed"):
        await second
    assert 2 == len(rig.requests)


async def test_a_turn_that_fails_before_its_first_answer_leaves_nothing() -> None:
    """What was not answered can be said again, and is not said twice."""
    store = MemorySessions()
    rig = Rig([RateLimited("slow down"), "Hi."], sessions=store)
    with pytest.raises(RateLimited):
        await rig.chat("Hello?", session="ann")
    assert () == await store.read("ann")
    await rig.chat("Hello?", session="ann")
    assert 1 == len(rig.requests[1].messages)


async def test_a_turn_that_fails_in_the_middle_can_be_resumed() -> None:
    """The results that are there are used, and the tool does not run again."""
    tool = Echo()
    rig = Rig([one(), RateLimited("slow down"), "Here."], tool, sessions=MemorySessions())
    with pytest.raises(RateLimited):
        await rig.chat(session="ann")
    response = await rig.chat("", session="ann")
    assert "Here." == response.content
    assert 1 == len(tool.inputs)
    assert ["done"] == results(rig.requests[2].messages)
    assert ["user", "assistant", "tool", "assistant"] == [m.role for m in response.messages]


async def broken_off(
    store: Any, script: list[Any], *tools: Tool, after: int = 1, at: type = ToolStarted
) -> Rig:
    """Do a turn that ends, as by a crash, when the `after`th event of a kind is seen."""
    rig = Rig(script, *tools, sessions=store)
    turn = rig.runtime.stream((Message.user("Hello?"),), asking(), session="ann")
    async for event in turn:
        if isinstance(event, at):
            after -= 1
            if not after:
                break
    # A crash closes nothing in order; what is durable by now is all that the next process has.
    await turn.aclose()
    return rig


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_after_a_crash_nothing_is_done_twice(kind: str, tmp_path: Path) -> None:
    """Of three calls the first is done, the second had begun, the third had not."""
    store = MemorySessions() if kind == "memory" else SQLiteSessions(tmp_path / "s.db")
    names = ("first", "second", "third")
    script = [calls(*(call(f"abcdefgh{n}", name) for n, name in enumerate(names)))]
    before = [Echo(name) for name in names]
    limits = AgentLimits(max_parallel=1)
    rig = Rig(script, *before, sessions=store, limits=limits)
    turn = rig.runtime.stream((Message.user("Hello?"),), asking(), session="ann")
    begun = 0
    async for event in turn:
        begun += isinstance(event, ToolStarted)
        if begun == 2:
            break
    await turn.aclose()
    after = [Echo(name) for name in names]
    again = Rig(["Done."], *after, sessions=store)
    response = await again.chat("", session="ann")
    told = results(again.requests[0].messages)
    assert "done" == told[0]
    assert "interrupted" in told[1]
    assert "done" == told[2]
    assert [0, 0, 1] == [len(tool.inputs) for tool in after]
    assert "Done." == response.content
    await store.aclose()


@pytest.mark.parametrize(
    ("gives", "at", "told"),
    [("done", ToolFinished, "done"), (asyncio.Event(), ToolStarted, "interrupted")],
    ids=["ended", "begun"],
)
async def test_after_a_crash_the_same_call_is_not_run_for_its_twin(
    gives: Any, at: type, told: str
) -> None:
    """Of calls that are the same one runs: it began before the crash, and stands for both."""
    store = MemorySessions()
    twins = calls(call("abcdefgh1", "echo", n=1), call("abcdefgh2", "echo", n=1))
    await broken_off(store, [twins], Echo(gives=gives), at=at)
    tool = Echo()
    again = Rig(["Done."], tool, sessions=store)
    await again.chat("", session="ann")
    assert [] == tool.inputs
    assert [True, True] == [told in text for text in results(again.requests[0].messages)]


async def test_a_repeatable_tool_is_run_again() -> None:
    """A tool that says so may be run twice, and its result is real."""
    store = MemorySessions()
    await broken_off(store, [one()], Echo(gives=asyncio.Event()))
    tool = Echo(repeatable=True)
    again = Rig(["Done."], tool, sessions=store)
    await again.chat("", session="ann")
    assert 1 == len(tool.inputs)
    assert ["done"] == results(again.requests[0].messages)


async def test_a_new_turn_after_a_crash_closes_the_old_one() -> None:
    """Calls without results get one that says what happened; no tool runs."""
    store = MemorySessions()
    await broken_off(store, [one()], Echo(gives=asyncio.Event()))
    tool = Echo()
    again = Rig(["Yes?"], tool, sessions=store)
    await again.chat("Are you there?", session="ann")
    assert [] == tool.inputs
    assert "interrupted" in results(again.requests[0].messages)[0]


async def test_a_session_that_is_complete_has_nothing_to_go_on_with() -> None:
    """Resuming a finished conversation, or one that is not there, says so."""
    rig = Rig(["Hi."], sessions=MemorySessions())
    await rig.chat(session="ann")
    for session in ("ann", "nobody"):
        with pytest.raises(InvalidRequest, match="nothing to go on with"):
            await rig.chat("", session=session)


async def test_another_writer_is_noticed() -> None:
    """Two processes on one session: the second is told, and loses nothing silently."""
    store = MemorySessions()
    gate = asyncio.Event()
    tool = Echo(gives=gate)
    rig = Rig([one(), "Hi."], tool, sessions=store)
    turn = asyncio.ensure_future(rig.chat(session="ann"))
    await turn_until(lambda: bool(tool.running))
    await store.append("ann", [Said(message=Message.user("me too"))], expected=3)
    gate.set()
    with pytest.raises(Conflict):
        await turn


async def test_what_was_blocked_is_withdrawn() -> None:
    """A turn that moderation refused is not told again with the next one."""
    store = MemorySessions()
    rig = Rig([one(), ContentBlocked("no"), "Fine."], Echo(), sessions=store)
    with pytest.raises(ContentBlocked):
        await rig.chat("Something bad", session="ann")
    assert isinstance((await store.read("ann"))[-1], Withdrawn)
    await rig.chat("Something good", session="ann")
    assert ["Something good"] == [message.text for message in rig.requests[2].messages]


async def test_a_long_conversation_is_summarised() -> None:
    """With 70 % of the window used, all but the last turns are told in few words, for a price."""
    store = MemorySessions()
    script = [
        answer(Message.assistant("One."), tokens=(100, 5)),
        answer(Message.assistant("Two."), tokens=(500, 5)),
        answer(Message.assistant("Three."), tokens=(720, 5)),
        answer(Message.assistant("She is Ann."), tokens=(300, 20)),
        answer(Message.assistant("Four."), tokens=(200, 5)),
    ]
    rig = Rig(script, sessions=store, context="summarise", window=lambda _: 1000)
    for text in ("I am Ann.", "Two?", "Three?"):
        await rig.chat(text, session="ann")
    events = await rig.events("Four?", session="ann")
    assert Summarised(2) in events
    done = events[-1]
    assert isinstance(done, Done)
    assert "Four." == done.response.content
    assert 525 == done.response.usage.total_tokens
    told = [message.text for message in rig.requests[4].messages]
    assert "She is Ann." in told[0]
    assert ["Two?", "Two.", "Three?", "Three.", "Four?"] == told[1:]
    assert 1 == sum(isinstance(entry, Condensed) for entry in await store.read("ann"))


async def test_a_short_conversation_is_left_as_it_is() -> None:
    """Below 70 % of the window, and with an unknown window, nothing is summarised."""
    for window in (1000, None):
        kept = MemorySessions()
        rig = Rig(
            ["One.", "Two.", "Three."],
            sessions=kept,
            context="summarise",
            window=lambda _, window=window: window,
        )
        for text in ("One?", "Two?", "Three?"):
            await rig.chat(text, session="ann")
        assert 3 == len(rig.requests)


async def test_a_session_warns_of_its_cost_once(caplog: pytest.LogCaptureFixture) -> None:
    """The line comes with the turn that passes the threshold, and not again."""
    usage = Usage(input_tokens=1, output_tokens=1, total_tokens=2, cost_usd=Decimal("0.06"))
    script = [msgspec.structs.replace(answer(Message.assistant("Hi.")), usage=usage)] * 3
    rig = Rig(script, sessions=MemorySessions())
    caplog.set_level(logging.INFO, "loom.agent")
    costs = [(await rig.chat(session="ann")).session_cost_usd for _ in range(3)]
    assert [Decimal("0.06"), Decimal("0.12"), Decimal("0.18")] == costs
    told = [record.getMessage() for record in caplog.records]
    assert 1 == told.count("Session cost exceeds threshold")
    assert 3 == told.count("Turn completed")
    warned = next(r for r in caplog.records if r.levelno == logging.WARNING)
    assert "0.120000" == warned.__dict__["total_cost"]


async def test_tools_that_a_source_brings_are_asked_for_anew() -> None:
    """A source that has other tools by now offers them in the next turn; it is closed once."""

    class Source:
        def __init__(self) -> None:
            self.brings: list[Tool] = [Echo("one")]
            self.closed = 0

        async def tools(self) -> list[Tool]:
            return self.brings

        async def aclose(self) -> None:
            self.closed += 1

    source = Source()
    rig = Rig(["Hi.", "Hi."])
    rig.runtime = AgentRuntime(
        rig.provider, clock=FakeClock(auto=True), dice=FakeDice(), tools=[source]
    )
    await rig.chat()
    source.brings = [Echo("two"), Echo("three")]
    await rig.chat()
    names = [[spec.name for spec in request.tools] for request in rig.requests]
    assert [["one"], ["two", "three"]] == names
    await rig.runtime.aclose()
    assert 1 == source.closed


async def test_results_are_durable_before_the_next_step() -> None:
    """Each step stands in the session before it is told: answer, begin, result."""
    store = MemorySessions()
    rig = Rig([one(), "Done."], Echo(), sessions=store)
    turn = rig.runtime.stream((Message.user("?"),), asking(), session="ann")
    async for event in turn:
        kinds = [type(entry) for entry in await store.read("ann")]
        if isinstance(event, ToolStarted):
            assert [Said, Said, Begun] == kinds
        elif isinstance(event, ToolFinished):
            assert [Said, Said, Begun, Said] == kinds
        elif isinstance(event, Done):
            assert [Said, Said, Begun, Said, Said] == kinds
