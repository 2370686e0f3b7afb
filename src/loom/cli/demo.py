"""`looms demo`: the main job on one screen, without a key and without a network."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from loom.cli.clean import Cleaner
from loom.cli.demo_steady import FALLBACK, stay_up
from loom.cli.listen import response_object
from loom.cli.options import common_options, pass_terminal
from loom.cli.terminal import Terminal, cost_line, dollars
from loom.config.load import started_by_uv
from loom.core.ambient import SystemClock
from loom.core.events import TextDelta
from loom.core.messages import Message
from loom.core.request import ToolSpec
from loom.core.response import LLMResponse

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
_TOOL_QUESTION = "How is the weather in Paris? Use get_weather."
_WEATHER = ToolSpec(
    name="get_weather",
    description="The weather in a city, now.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)
# No weather station is asked: what a tool gives back is the caller's own business.
_OBSERVED = {"temperature_c": 18, "sky": "light rain"}

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

    It starts the simulator on this machine, streams an answer, has a tool called, lets the vendor
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
        asked, answered = _tool_call(stage, client)
        stage.step(3, "Stay up when the vendor does not", "Mistral(fallback=[...], breaker=...)")
        steady = stay_up(stage, client, wait_ms=_WAIT_MS if stage.paced else _SHORT_WAIT_MS)
    calls = (
        ("chat", streamed),
        ("tool call", asked),
        ("answer", answered),
        ("after 429", steady["rate_limit"]),
        ("fallback", steady["outage"]),
    )
    now, then = _costs(stage, calls)
    stage.line()
    stage.title("Try next", "")
    for command in _next_commands():
        stage.line(f"  {command}", style="cyan")
    if terminal.json:
        terminal.write_json(
            {
                "chat": response_object(streamed),
                "tool": {
                    "calls": asked.tool_calls,
                    "result": _OBSERVED,
                    "asked": response_object(asked),
                    "answered": response_object(answered),
                },
                "steady": {name: response_object(answer) for name, answer in steady.items()},
                "cost_usd": f"{now:f}",
                "cost_usd_as_of": {_THEN: f"{then:f}"},
                "next": _next_commands(),
                "elapsed_s": round(SystemClock().monotonic_s() - begun_s, 3),
            }
        )


def _streamed_chat(stage: _Stage, client: Mistral) -> LLMResponse:
    stage.step(1, "Ask, and read along", f'm.stream("{_QUESTION}")')
    with client.stream(_QUESTION) as stream:
        return stage.tell(stream)


def _tool_call(stage: _Stage, client: Mistral) -> tuple[LLMResponse, LLMResponse]:
    stage.step(2, "Give it a tool", f'm.chat("{_TOOL_QUESTION}", tools=[...])')
    question = Message.user(_TOOL_QUESTION)
    asked = client.chat([question], tools=[_WEATHER])
    history = [question, asked.message]
    for call in asked.tool_calls:
        words = ", ".join(f"{name}={value!r}" for name, value in call.input.items())
        result = msgspec.json.encode(_OBSERVED).decode()
        stage.line(f"  the model calls   {call.name}({words})", style="magenta")
        stage.pause()
        stage.line(f"  your code returns {result}", style="green")
        stage.pause()
        history.append(Message.tool(call, result))
    stage.line()
    with client.stream(history, tools=[_WEATHER]) as stream:
        return asked, stage.tell(stream)


def _costs(stage: _Stage, calls: Iterable[tuple[str, LLMResponse]]) -> tuple[Decimal, Decimal]:
    from loom.client.facts import cost  # noqa: PLC0415 - start-up time

    stage.step(4, "Know what it cost", "r.usage.cost_usd")
    now = then = Decimal(0)
    stage.line(
        f"  {'':10} {'tokens in':>10} {'out':>6} {'today':>12} {'Nov 2024':>12}", style="dim"
    )
    for name, response in calls:
        usage = response.usage
        today = usage.cost_usd or Decimal(0)
        # The same tokens at the price that this model's alias had then.
        alias = FALLBACK if name == "fallback" else _MODEL
        past = cost(alias, usage.input_tokens, usage.output_tokens, _THEN) or Decimal(0)
        now, then = now + today, then + past
        stage.line(
            f"  {name:10} {usage.input_tokens:10,} {usage.output_tokens:6,}"
            f" {dollars(today):>12} {dollars(past):>12}"
        )
    stage.line(
        f"  {'total':10} {'':10} {'':6} {dollars(now):>12} {dollars(then):>12}", style="bold"
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
        cleaner, column = Cleaner(), 0
        for event in stream:
            if isinstance(event, TextDelta) and self._shown:
                column = self._wrapped(cleaner.feed(event.text), column)
        response = stream.final()
        self.line("\n")
        used = cost_line(response.model, response.usage, response.latency_s)
        self.line(f"  {used}", style="dim")
        self.pause()
        return response

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
