"""`looms demo`: the main job on one screen, without a key and without a network."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import rich_click as click

from loom.agent.response import AgentResponse
from loom.cli.clean import Cleaner
from loom.cli.demo_steady import FALLBACK, stay_up
from loom.cli.demo_tools import Parallel, one_tool, three_tools
from loom.cli.listen import response_object
from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal, cost_line, dollars
from loom.cli.turn_text import agent_object
from loom.config.load import started_by_uv
from loom.core.ambient import SystemClock
from loom.core.events import TextDelta
from loom.core.response import LLMResponse, Usage

if TYPE_CHECKING:
    from loom.client.blocking import Mistral, Stream

__all__ = ["demo"]

_WORDS_PER_SECOND = 9.0  # about twice as fast as people read aloud
_PAUSE_S = 1.2
_WAIT_MS = 1500
_SHORT_WAIT_MS = 50
_THEN = "2024-11"  # the prices of the reference page
_MODEL = "mistral-large-latest"
_WIDTH = 76

_QUESTION = "Explain Python protocols in two sentences."
_TOOL_S = 1.0
_SHORT_TOOL_S = 0.2

_NEXT = (
    'looms chat --sim "Tell me a story about a loom"',
    f"looms models --as-of {_THEN}",
    "export MISTRAL_API_KEY=... && looms ping",
)


def _next_commands() -> tuple[str, ...]:
    # Who started this by `uv run looms demo` has no `looms` on the path.
    if not started_by_uv():
        return _NEXT
    return tuple(command.replace("looms ", "uv run looms ", 1) for command in _NEXT)


@click.command()
@click.option("--fast", is_flag=True, help="Leave out the pauses: done in some seconds.")
@common_options
@pass_terminal
def demo(terminal: Terminal, /, *, fast: bool) -> None:
    """
    See what Loom does: no key, no network, no bill.

    It starts the simulator on this machine, streams an answer, has tools used, lets the vendor
    fail, and says what each call costs, today and at the prices of November 2024.
    """
    from loom.client.blocking import Mistral  # noqa: PLC0415 - start-up time
    from loom.server.simulator import Simulator  # noqa: PLC0415 - start-up time

    begun_s = SystemClock().monotonic_s()
    stage = _Stage(terminal, paced=not (fast or terminal.json))
    terminal.quiet_log()
    pace = _WORDS_PER_SECOND if stage.paced else None
    with (
        Simulator(words_per_second=pace) as simulator,
        Mistral(simulator.api_key, base_url=simulator.base_url, model=_MODEL) as client,
    ):
        stage.title("Loom", "Mistral, simulated on this machine: no key, no network, no bill.")
        streamed = _streamed_chat(stage, client)
        used, parallel = _tools(stage, client)
        stage.step(4, "Stay up when the vendor does not", "Mistral(fallback=[...], breaker=...)")
        steady = stay_up(stage, client, wait_ms=_WAIT_MS if stage.paced else _SHORT_WAIT_MS)
    calls = (
        ("chat", streamed),
        ("one tool", used),
        ("three tools", parallel.response),
        ("after 429", steady["rate_limit"]),
        ("fallback", steady["outage"]),
    )
    now, then = _costs(stage, calls)
    _say_what_next(stage)
    if terminal.json:
        terminal.write_json(
            {
                "chat": response_object(streamed),
                "tool": _tool_object(used),
                "tools": _tools_object(parallel),
                "steady": {name: response_object(answer) for name, answer in steady.items()},
                "cost_usd": f"{now:f}",
                "cost_usd_as_of": {_THEN: f"{then:f}"},
                "next": _next_commands(),
                "elapsed_s": round(SystemClock().monotonic_s() - begun_s, 3),
            }
        )


def _say_what_next(stage: _Stage) -> None:
    stage.line()
    stage.title("Try next", "")
    for command in _next_commands():
        stage.line(f"  {command}", style="cyan")


def _tool_object(used: AgentResponse) -> dict[str, Any]:
    return {
        "calls": used.calls[0].tool_calls,
        "result": used.tool_executions[0].value,
        "asked": response_object(used.calls[0]),
        "answered": response_object(used.calls[-1]),
    }


def _tools_object(parallel: Parallel) -> dict[str, Any]:
    return {
        **agent_object(parallel.response),
        "each_s": parallel.each_s,
        "together_s": round(parallel.together_s, 3),
    }


def _streamed_chat(stage: _Stage, client: Mistral) -> LLMResponse:
    stage.step(1, "Ask, and read along", f'm.stream("{_QUESTION}")')
    with client.stream(_QUESTION) as stream:
        return stage.tell(stream)


def _tools(stage: _Stage, client: Mistral) -> tuple[AgentResponse, Parallel]:
    stage.step(2, "Give it a function", "Agent(llm=m, tools=[get_weather]).stream(...)")
    used = one_tool(stage, client)
    stage.used(used.usage, used.model, used.latency_s)
    stage.step(
        3, "Let it use three in the time of one", 'agent.stream("... Paris, Rome and Oslo?")'
    )
    parallel = three_tools(stage, client, each_s=_TOOL_S if stage.paced else _SHORT_TOOL_S)
    answer = parallel.response
    stage.used(answer.usage, answer.model, answer.latency_s)
    return used, parallel


def _costs(
    stage: _Stage, calls: Iterable[tuple[str, LLMResponse | AgentResponse]]
) -> tuple[Decimal, Decimal]:
    from loom.client.facts import cost  # noqa: PLC0415 - start-up time

    stage.step(5, "Know what it cost", "r.usage.cost_usd")
    now = then = Decimal(0)
    stage.line(
        f"  {'':11} {'tokens in':>10} {'out':>6} {'today':>12} {'Nov 2024':>12}", style="dim"
    )
    for name, response in calls:
        usage = response.usage
        today = usage.cost_usd or Decimal(0)
        # The same tokens at the price that this model's alias had then.
        alias = FALLBACK if name == "fallback" else _MODEL
        past = cost(alias, usage.input_tokens, usage.output_tokens, _THEN) or Decimal(0)
        now, then = now + today, then + past
        stage.line(
            f"  {name:11} {usage.input_tokens:10,} {usage.output_tokens:6,}"
            f" {dollars(today):>12} {dollars(past):>12}"
        )
    stage.line(
        f"  {'total':11} {'':11} {'':6} {dollars(now):>12} {dollars(then):>12}", style="bold"
    )
    stage.pause()
    return now, then


class _Stage:
    def __init__(self, terminal: Terminal, *, paced: bool) -> None:
        self.paced = paced
        self._terminal = terminal
        self._shown = not terminal.json

    def title(self, words: str, more: str) -> None:
        if self._shown:
            self._terminal.out.print(words, style="bold", end="  " if more else "\n")
            if more:
                self._terminal.out.print(more, style="dim")

    def step(self, number: int, words: str, code: str) -> None:
        self.line()
        self.title(f"{number}  {words}", "")
        self.line(f"  > {code}", style="cyan")
        self.line()
        self.pause()

    def line(self, words: str = "", *, style: str | None = None) -> None:
        if self._shown:
            self._terminal.out.print(words, style=style, soft_wrap=True)

    def pause(self) -> None:
        if self.paced:
            asyncio.run(SystemClock().sleep(_PAUSE_S))

    def tell(self, stream: Stream) -> LLMResponse:
        self.text(event.text for event in stream if isinstance(event, TextDelta))
        response = stream.final()
        self.used(response.usage, response.model, response.latency_s)
        return response

    def text(self, pieces: Iterator[str]) -> None:
        cleaner, column = Cleaner(), 0
        for piece in pieces:
            if self._shown:
                column = self._wrapped(cleaner.feed(piece), column)
        self.line("\n")

    def used(self, usage: Usage, model: str | None, latency_s: float) -> None:
        self.line(f"  {cost_line(model or _MODEL, usage, latency_s)}", style="dim")
        self.pause()

    def _wrapped(self, text: str, column: int) -> int:
        for gap, word in re.findall(r"(\s*)(\S*)", text):
            if "\n" in gap or column + 1 + len(word) > _WIDTH:
                sys.stdout.write("\n" * max(gap.count("\n"), 1))
                column = 0
            if word:
                lead = " " * min(len(gap), 1) if column else "  "
                sys.stdout.write(lead + word)
                column += len(lead) + len(word)
        sys.stdout.flush()
        return column
