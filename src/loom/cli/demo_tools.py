"""The part of `looms demo` in which the model uses tools: one, then three in the time of one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from loom.agent.events import AgentEvent, ToolFinished, ToolStarted
from loom.agent.response import AgentResponse
from loom.cli.tool_text import call_text
from loom.core.ambient import SystemClock
from loom.core.events import TextDelta
from loom.shuttle.function import tool
from loom.shuttle.tool import Tool

if TYPE_CHECKING:
    from loom.client.agent_blocking import Agent
    from loom.client.blocking import Mistral

__all__ = ["Parallel", "Tale", "one_tool", "three_tools"]

_ONE = "How is the weather in Paris? Use get_weather."
_THREE = "How is the weather in Paris, Rome and Oslo? Use get_weather."
# No weather station is asked: what a tool gives back is the caller's own business.
_OBSERVED: dict[str, dict[str, int | str]] = {
    "Paris": {"temperature_c": 18, "sky": "light rain"},
    "Rome": {"temperature_c": 24, "sky": "clear"},
    "Oslo": {"temperature_c": 7, "sky": "snow"},
}
_CLOCK = SystemClock()


class Tale(Protocol):
    """Where the demonstration is told."""

    def line(self, words: str = "", *, style: str | None = None) -> None:
        """Show a line."""

    def pause(self) -> None:
        """Let the reader read."""

    def text(self, pieces: Iterator[str]) -> None:
        """Show text as it comes."""


class Parallel(msgspec.Struct, frozen=True, kw_only=True):
    """
    What three tools at once took.

    Attributes:
        response: The answer.
        each_s: Seconds that each tool takes.
        together_s: Seconds from the first one's beginning to the last one's end.
    """

    response: AgentResponse
    each_s: float
    together_s: float


def one_tool(stage: Tale, client: Mistral) -> AgentResponse:
    """
    Let the model use a function, and show what it makes of the result.

    Args:
        stage: Where it is shown.
        client: Talks to the simulator.

    Returns:
        The answer.
    """
    with _agent(client, 0.0) as agent, agent.stream(_ONE) as stream:
        stage.text(_told(stage, iter(stream), returns=True))
        return stream.final()


def three_tools(stage: Tale, client: Mistral, *, each_s: float) -> Parallel:
    """
    Let the model use a function three times in one answer.

    Args:
        stage: Where it is shown.
        client: Talks to the simulator.
        each_s: How long the function takes, in seconds.

    Returns:
        The answer, and how long the three took together.
    """
    times: list[float] = []

    def timed(events: Iterator[AgentEvent]) -> Iterator[AgentEvent]:
        for event in events:
            if isinstance(event, ToolStarted | ToolFinished):
                times.append(_CLOCK.monotonic_s())
            yield event
            if isinstance(event, ToolFinished) and len(times) == 2 * len(_OBSERVED):
                together_s = times[-1] - times[0]
                words = f"three of {each_s:.1f} s each: done after {together_s:.1f} s"
                stage.line(f"                    {words}", style="bold green")
                stage.line()

    with _agent(client, each_s) as agent, agent.stream(_THREE) as stream:
        stage.text(_told(stage, timed(iter(stream)), returns=False))
        response = stream.final()
    return Parallel(response=response, each_s=each_s, together_s=times[-1] - times[0])


def _told(stage: Tale, events: Iterator[AgentEvent], *, returns: bool) -> Iterator[str]:
    """Show what tools do, and give the texts."""
    for event in events:
        match event:
            case ToolStarted(call=call):
                stage.line(f"  the model calls   {call_text(call)}", style="magenta")
                if returns:
                    stage.pause()
            case ToolFinished(result=result) if returns:
                stage.line(f"  your code returns {result.content}", style="green")
                stage.pause()
                stage.line()
            case TextDelta(text=text):
                yield text
            case _:
                pass


def _agent(client: Mistral, takes_s: float) -> Agent:
    from loom.client.agent_blocking import Agent  # noqa: PLC0415 - start-up time

    return Agent(llm=client, tools=[_weather(takes_s)])


def _weather(takes_s: float) -> Tool:
    @tool
    async def get_weather(city: str) -> dict[str, int | str]:
        """The weather in a city, now."""
        await _CLOCK.sleep(takes_s)
        return _OBSERVED[city]

    return get_weather
