"""Scenes of agents: tools that fail, calls that cannot be understood, a turn that is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.core.messages import Message, ToolCall
from loom.providers.scripted import ScriptedProvider
from loom.shuttle.tool import Tool
from loom.testing.matrix_bench import MODEL, PROMPT, Bench, Line, Scene
from loom.testing.matrix_sight import SHORT_S, Sight, cancelled

if TYPE_CHECKING:
    from loom.agent.response import AgentResponse

__all__ = ["AGENT"]

_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_PARIS = '{"city": "Paris"}'
_ROME = '{"city": "Rome"}'
# As `AgentLimits` has it, and room for the notice.
_MOST_BYTES = 65_536 + 200
_TEN_MB = 10 * 1024 * 1024
_THREADS = "loom-tool"


class _Async(Tool):
    """A tool that does what it is made for, and remembers what it was given."""

    name = "lookup"
    description = "Look a city up."
    parameters: Mapping[str, Any] = _SCHEMA

    def __init__(self, name: str = "lookup", gives: object = "sunny") -> None:
        self.name = name
        self.gives = gives
        self.given: list[str] = []
        self.begun = asyncio.Event()
        self.running = 0

    async def execute(self, input: dict[str, Any]) -> object:  # noqa: A002 - the protocol's name
        """Raise, wait for ever, or give something."""
        self.given.append(input["city"])
        self.running += 1
        try:
            self.begun.set()
            if isinstance(self.gives, Exception):
                raise self.gives
            if self.gives is None:
                await asyncio.get_running_loop().create_future()
            return f"{input['city']}: {self.gives}" if self.gives == "sunny" else self.gives
        finally:
            self.running -= 1


class _Threaded(Tool):
    """A plain function that hangs until it is let go."""

    name = "lookup"
    description = "Look a city up."
    parameters: Mapping[str, Any] = _SCHEMA

    def __init__(self) -> None:
        self.release = threading.Event()

    def execute(self, input: dict[str, Any]) -> str:  # noqa: A002 - the protocol's name
        """Wait."""
        del input
        self.release.wait(60)
        return "too late"


def _calls(*wanted: tuple[str, str]) -> Message:
    """Give an answer that calls tools: names, and arguments as texts."""
    calls = (
        ToolCall(f"call{number:05}", name, arguments=arguments)
        for number, (name, arguments) in enumerate(wanted)
    )
    return Message.assistant("", tool_calls=tuple(calls))


@asynccontextmanager
async def _scripted(bench: Bench, *script: Message | str) -> AsyncIterator[tuple[Any, Line]]:
    """Give a simulator that answers as it is told, and a client of it."""
    from loom.server.simulator import Simulator  # noqa: PLC0415 - brings a server

    provider = ScriptedProvider(script, model=MODEL)
    simulator = Simulator(any_key=True, provider=provider)
    await asyncio.to_thread(simulator.start)
    try:
        async with bench.line(base_url=simulator.base_url) as line:
            yield simulator, line
    finally:
        await asyncio.to_thread(simulator.stop)


def _agent(line: Line, tools: Sequence[Tool]) -> Any:
    from loom.agent.limits import AgentLimits  # noqa: PLC0415 - brings the whole stack
    from loom.client.agent import AsyncAgent  # noqa: PLC0415 - the same

    return AsyncAgent(llm=line.client, tools=tools, limits=AgentLimits(tool_timeout_s=SHORT_S))


async def _turn(
    line: Line, journal: Any, tools: Sequence[Tool], *, stream: bool
) -> tuple[Sight, AgentResponse | None]:
    """Do one turn, and look at it from all sides."""
    async with _agent(line, tools) as agent:
        try:
            if stream:
                async with agent.stream(PROMPT) as events:
                    response = await events.final()
            else:
                response = await agent.chat(PROMPT)
        except LoomError as error:
            return Sight(code=error.code, phase=error.phase or "", error=error), None
    rows = await line.rows()
    asked = [entry for entry in journal if entry.headers.get("x-loom-matrix") == line.mark]
    charges = dict.fromkeys(attempt.charge for row in rows for attempt in row.attempts)
    seen = Sight(
        code="",
        wire=len(asked),
        attempts=sum(call.attempts for call in response.calls),
        charge="+".join(charges),
        broken=await line.left_over("", kept=1),
    )
    running = sum(tool.running for tool in tools if isinstance(tool, _Async))
    cost_usd = sum(row.cost_usd or 0 for row in rows)
    return (
        seen.but(
            {entry.status for entry in asked} != {200} and "a history was refused",
            len(rows) != len(response.calls) and f"the ledger has {len(rows)} rows of it",
            response.usage.cost_usd != cost_usd and f"the ledger has {cost_usd} USD of it",
            running > 0 and f"{running} tools run on",
            not response.content and "there is no answer",
        ),
        response,
    )


def _told(response: AgentResponse | None) -> list[str]:
    """What the model was told of its calls, in order."""
    messages = () if response is None else response.messages
    return [message.text for message in messages if message.role == "tool"]


async def _one_call(
    bench: Bench, tool: Tool, *, stream: bool
) -> tuple[Sight, str, AgentResponse | None]:
    """Let the model call a tool once, beside one that works."""
    well = _Async("other")
    script = (_calls(("lookup", _PARIS), ("other", _ROME)), "There you are.")
    async with _scripted(bench, *script) as (simulator, line):
        seen, response = await _turn(line, simulator.journal, [tool, well], stream=stream)
    told = _told(response)
    text, other = told if len(told) == 2 else ("", "")
    return seen.but(other != "Rome: sunny" and "the other call was not answered"), text, response


async def _raises(bench: Bench, *, stream: bool) -> Sight:
    tool = _Async(gives=ValueError("the shop is closed"))
    seen, text, _ = await _one_call(bench, tool, stream=stream)
    right = text == "error: ValueError: the shop is closed"
    return seen.but(not right and f"the model was told {text!r}")


async def _hangs(bench: Bench, *, stream: bool) -> Sight:
    seen, text, _ = await _one_call(bench, _Async(gives=None), stream=stream)
    right = text == f"error: timed out after {SHORT_S:g} s"
    return seen.but(not right and f"the model was told {text!r}")


async def _hangs_in_thread(bench: Bench, *, stream: bool) -> Sight:
    """Nobody can end a thread: it is left behind, and ends with what it runs."""
    tool = _Threaded()
    try:
        seen, text, _ = await _one_call(bench, tool, stream=stream)
    finally:
        tool.release.set()
    for _ in range(400):
        threads = sum(thread.name.startswith(_THREADS) for thread in threading.enumerate())
        if not threads:
            break
        await SystemClock().sleep(0.005)
    right = text == f"error: timed out after {SHORT_S:g} s"
    return seen.but(
        not right and f"the model was told {text!r}",
        threads > 0 and f"{threads} threads are left",
    )


async def _returns_much(bench: Bench, *, stream: bool) -> Sight:
    seen, text, response = await _one_call(bench, _Async(gives="x" * _TEN_MB), stream=stream)
    cut = response is not None and response.tool_executions[0].cut
    size = len(text.encode())
    return seen.but(
        not 1000 < size <= _MOST_BYTES and f"the model was told {size} bytes",
        not cut and "the result does not say that it was cut",
        text.endswith("x") and "there is no notice",
    )


async def _caused(
    bench: Bench, fault: str, *, stream: bool
) -> tuple[Sight, AgentResponse | None, _Async]:
    """Let the simulator put its fault into the first answers of a turn."""
    bench.simulator.reset()  # `times` counts the requests since then
    tool = _Async()
    async with bench.line(fault=fault) as line:
        seen, response = await _turn(line, bench.simulator.journal, [tool], stream=stream)
    return seen, response, tool


async def _duplicate_ids(bench: Bench, *, stream: bool) -> Sight:
    seen, response, tool = await _caused(bench, "42-duplicate-ids;times=1", stream=stream)
    return seen.but(
        sorted(tool.given) != ["Paris", "Rome"] and f"the tool ran for {tool.given}",
        _told(response) != ["Paris: sunny", "Rome: sunny"] and "results are mixed",
    )


async def _not_understood(bench: Bench, *, stream: bool) -> Sight:
    """The third answer in a row ends the use of tools, whatever is wrong with the calls."""
    seen = Sight(code="")
    for number, fault in enumerate(("43-bad-arguments", "43-wrong-type", "43-unknown-tool")):
        other, response, tool = await _caused(bench, f"{fault};times=3", stream=stream)
        told = _told(response)
        words = "error: tool not found" if "unknown" in fault else "error: invalid arguments"
        other = other.but(
            bool(tool.given) and f"{fault}: the tool ran",
            not all(text.startswith(words) for text in told) and f"{fault}: {told}",
            response is not None
            and response.stopped_by != "max_argument_errors"
            and f"{fault}: stopped by {response.stopped_by}",
        )
        wrong = number > 0 and other.wire != seen.wire and f"{fault}: {other.wire} requests"
        seen = other.but(*seen.broken, wrong)
    return seen


async def _others_run(bench: Bench, *, stream: bool) -> Sight:
    """Of one answer's calls those run that can be understood."""
    tool = _Async()
    wrong = (("lookup", '{"city": "Par'), ("lookup", '["Paris"]'), ("no_such_tool", "{}"))
    script = (_calls(*wrong, ("lookup", _ROME)), "There you are.")
    async with _scripted(bench, *script) as (simulator, line):
        seen, response = await _turn(line, simulator.journal, [tool], stream=stream)
    told = _told(response)
    return seen.but(
        tool.given != ["Rome"] and f"the tool ran for {tool.given}",
        [text.startswith("error: ") for text in told] != [True, True, True, False]
        and f"the model was told {told}",
    )


async def _cancelled_in_tool(bench: Bench, *, stream: bool) -> Sight:
    seen = Sight(code="")
    for times in (1, 2):
        tool = _Async(gives=None)
        async with _scripted(bench, _calls(("lookup", _PARIS))) as (simulator, line):
            async with _agent(line, [tool]) as agent:
                turn = agent.stream(PROMPT).final() if stream else agent.chat(PROMPT)
                task = asyncio.ensure_future(turn)
                await tool.begun.wait()
                code = await cancelled(task, times)
                running = tool.running
                broken = await line.left_over("", kept=1)
            seen = msgspec.structs.replace(
                seen, code=code, wire=len(simulator.journal), charge=await line.written()
            ).but(*broken, running > 0 and "the tool runs on")
    return seen


AGENT: Mapping[str, Scene] = {
    "agent-cancelled-in-tool": Scene(_cancelled_in_tool),
    "agent-duplicate-ids": Scene(_duplicate_ids),
    "agent-not-understood": Scene(_not_understood),
    "agent-others-run": Scene(_others_run),
    "tool-hangs": Scene(_hangs),
    "tool-hangs-in-thread": Scene(_hangs_in_thread),
    "tool-raises": Scene(_raises),
    "tool-returns-much": Scene(_returns_much),
}
"""Rows 42 to 44, and 55."""
