"""
Any interleaving of answers, tools and cancellations leaves a legal history and balanced books.

A world is drawn: what the model answers, what each tool does, when a turn is cancelled, and once
more. After it a calm turn goes on in each session; every request that was sent is judged by the
strict dialect, every row of the ledger and every reservation is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom import AsyncAgent, AsyncMistral, Budget, LoomError, MemorySessions, Message, ToolCall
from loom.agent.history import messages_of, open_calls, settled
from loom.agent.limits import AgentLimits
from loom.agent.session import Said
from loom.core.events import Completed
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, Usage
from loom.ledger.entry import Opening
from loom.ledger.memory import MemoryLedger
from loom.providers.whole import events_of
from loom.shuttle.tool import Tool
from loom.testing import FakeClock, FakeReply, FakeTransport, cancel_everywhere
from loom.transport.contract import HttpRequest
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.mistral.history import legal_history

MODEL = "mistral-small-latest"
BUDGET = Budget(limit_usd="1000")
CALM = "calm"
OPENING = Opening(provider="mistral", asked_model=MODEL)


def streamed(response: LLMResponse) -> bytes:
    encoder = MistralDialect().encoder(ChatRequest(model=response.model, messages=()), "0" * 32, 0)
    events = (*events_of(response), Completed(response))
    return encoder.start() + b"".join(encoder.encode(event) for event in events)


class Worker(Tool):
    """A tool that ends well, raises, takes some turns of the loop, or never ends."""

    name = "work"
    description = "Work."

    def __init__(self) -> None:
        self.running = 0
        self.begun: list[str] = []

    @property
    def parameters(self) -> dict[str, Any]:
        how = {"type": "string", "enum": ["well", "badly", "slowly", "never"]}
        return {"type": "object", "properties": {"how": how}, "required": ["how"]}

    async def execute(self, input: dict[str, Any]) -> str:  # noqa: A002 - the protocol's name
        self.begun.append(input["how"])
        self.running += 1
        try:
            match input["how"]:
                case "badly":
                    raise ValueError("broken")
                case "slowly":
                    for _ in range(7):
                        await asyncio.sleep(0)
                case "never":
                    await asyncio.Event().wait()
            return "worked"
        finally:
            self.running -= 1


class World:
    """A client over a vendor that follows a script, an agent, and everything that is counted."""

    def __init__(self, script: list[Any]) -> None:
        self.script = list(script)
        self.illegal: list[str] = []
        self.transport = FakeTransport(answer=self._answer)
        self.ledger = MemoryLedger()
        self.sessions = MemorySessions()
        self.tool = Worker()
        self.client = AsyncMistral(
            "canary-not-a-real-key",
            model=MODEL,
            transport=self.transport,
            clock=FakeClock(auto=True),
            ledger=self.ledger,
            budget=BUDGET,
            retry=None,
        )
        self.agent = self.new_agent()

    def new_agent(self) -> AsyncAgent:
        limits = AgentLimits(max_turns=6, tool_timeout_s=0.01, warn_usd=None)
        return AsyncAgent(llm=self.client, tools=[self.tool], sessions=self.sessions, limits=limits)

    def _answer(self, request: HttpRequest) -> FakeReply:
        try:
            MistralDialect(strict=True).decode_request(request.body)
        except LoomError as error:
            self.illegal.append(f"{error.message}: {json.loads(request.body)['messages']}")
        step = self.script.pop(0) if self.script else CALM
        if step == "error":
            return FakeReply.of(b'{"message": "broken"}', status=500)
        response = self._response(step)
        if json.loads(request.body).get("stream"):
            return FakeReply.sse(streamed(response))
        return FakeReply.of(MistralDialect().encode_response(response))

    def _response(self, step: Any) -> LLMResponse:
        number = len(self.transport.requests)
        asked = step if isinstance(step, list) else []
        calls = tuple(
            ToolCall(f"id{number:03}{place:04}", name, arguments=arguments)
            for place, (name, arguments) in enumerate(asked)
        )
        text = "" if calls or step == "empty" else f"answer {number}"
        choice = Choice(
            message=Message.assistant(text, tool_calls=calls),
            finish_reason="tool_calls" if calls else "stop",
        )
        usage = Usage(input_tokens=10, output_tokens=5, total_tokens=15)
        return LLMResponse(choices=(choice,), usage=usage, model=MODEL, id="0" * 32, created=0)

    async def judge(self) -> None:
        """Hold everything to what must be true after any world."""
        assert [] == self.illegal
        assert 0 == self.tool.running
        assert 0 == self.transport.in_use
        me = asyncio.current_task()
        assert set() == {task for task in asyncio.all_tasks() if task is not me}
        assert () == await self.ledger.check()
        for standing in await self.ledger.standings(OPENING, [BUDGET]):
            assert Decimal(0) == standing.reserved_usd
        assert len(self.transport.requests) == len(await self.ledger.entries())
        for info in await self.sessions.list():
            entries = await self.sessions.read(info.id)
            messages = (*messages_of(entries), *settled(entries))
            legal_history((*messages, Message.user("?")))
            said = [e.usage for e in entries if isinstance(e, Said) and e.usage is not None]
            assert info.input_tokens == sum(usage.input_tokens for usage in said)


ways = st.sampled_from(["well", "badly", "slowly", "never"])
calls_of = st.one_of(
    st.tuples(st.just("work"), ways.map(lambda how: json.dumps({"how": how}))),
    st.sampled_from([("work", "{}"), ("work", '{"how": "we'), ("nosuch", "{}"), ("work", "")]),
)
steps = st.one_of(
    st.just("text"), st.just("empty"), st.just("error"), st.lists(calls_of, min_size=1, max_size=4)
)
moments = st.one_of(st.none(), st.integers(0, 60))


async def disturbed(turn: asyncio.Task[Any], first: int | None, second: int | None) -> None:
    """Let a turn run; cancel it after some turns of the loop, and perhaps again."""
    for moment in (first, second):
        if moment is None:
            break
        for _ in range(moment):
            await asyncio.sleep(0)
        turn.cancel()
    await asyncio.wait([turn])
    if not turn.cancelled() and (error := turn.exception()) is not None:
        assert isinstance(error, LoomError), error


@settings(max_examples=1000)
@given(
    script=st.lists(steps, max_size=8),
    turns=st.lists(
        st.tuples(st.sampled_from(["ann", "bob"]), st.booleans(), moments, moments),
        min_size=1,
        max_size=4,
    ),
)
def test_any_interleaving_ends_well(script: list[Any], turns: list[Any]) -> None:
    """Whatever was said, run and cancelled: the next turn of each session is legal."""

    async def run() -> None:
        world = World(script)
        running = []
        for session, streams, first, second in turns:
            turn = asyncio.ensure_future(_turn(world.agent, session, streams=streams))
            running.append(disturbed(turn, first, second))
        await asyncio.gather(*running)
        await world.agent.aclose()
        world.script = []
        # As a process that begins anew would: only what is durable is known.
        async with world.new_agent() as agent:
            for info in await world.sessions.list():
                if open_calls(await world.sessions.read(info.id)):
                    assert (await agent.resume(info.id)).content
                assert (await agent.chat("And?", session=info.id)).content
        await world.judge()
        await world.client.aclose()

    asyncio.run(run())


async def _turn(agent: AsyncAgent, session: str, *, streams: bool) -> None:
    if not streams:
        await agent.chat("Go.", session=session)
        return
    async with agent.stream("Go.", session=session) as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("streams", [False, True], ids=["chat", "stream"])
def test_a_turn_cancelled_anywhere_leaves_nothing(streams: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """At each suspension, once and twice: no task, socket, tool or reservation is left."""
    tools = [("work", '{"how": "well"}'), ("work", '{"how": "slowly"}'), ("nosuch", "{}")]

    async def run() -> None:
        world = World([])
        sessions = (f"s{number}" for number in itertools.count())

        def turn() -> Any:
            world.script = [tools, "text"]
            return _turn(world.agent, next(sessions), streams=streams)

        probes: dict[str, Callable[[], int]] = {
            "tools": lambda: world.tool.running,
            "sockets": lambda: world.transport.in_use,
        }
        survey = await cancel_everywhere(turn, probes=probes)
        assert survey.suspensions >= 8
        await world.agent.aclose()
        await world.judge()
        await world.client.aclose()

    asyncio.run(run())


def test_the_judge_can_fail() -> None:
    """A history that breaks the rules is seen: the tests above are no empty promise."""

    async def run() -> None:
        world = World(["text"])
        async with world.client:
            request = world.client.request([Message.user("a")])
            bad = msgspec.structs.replace(request, messages=(Message.user("a"),))
            await world.client.provider.chat(bad)
            world.illegal.append("made up")
            with pytest.raises(AssertionError):
                await world.judge()

    asyncio.run(run())
