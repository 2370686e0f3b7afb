"""Follows one turn of an agent: its events to the two streams, and what it cost in every case."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING

from loom.agent.events import AgentEvent, CallCompleted, Done, Summarised, ToolFinished, ToolStarted
from loom.agent.response import AgentResponse, total_usage
from loom.cli.approve import Approver
from loom.cli.heard import Heard, show_event, warn_if_cut
from loom.cli.listen import usage_object
from loom.cli.terminal import Terminal, Waiting
from loom.cli.tool_text import call_text, result_text
from loom.cli.turn_text import agent_event_object, agent_object, tool_object, turn_line
from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.core.events import Sending, TextDelta, UsageReported
from loom.core.messages import Message, ToolCall
from loom.core.response import LLMResponse, Usage
from loom.shuttle.result import ToolResult

if TYPE_CHECKING:
    from loom.client.agent import AsyncAgentStream

__all__ = ["Follower"]

_STOPPED = {
    "max_turns": "the model was asked as often as --max-turns allows",
    "max_tool_executions": "as many tools ran as may in one turn",
    "max_argument_errors": "the model could not write the arguments of its tools",
    "deadline": "the time for the turn is over",
    "budget": "the budget has no room for more",
}


class Follower:
    """
    Shows one turn.

    Args:
        terminal: Where things go.
        approver: Asks on the same terminal; nothing is written into its question.
        model: Who is asked.
        said: What the user says.
        session: Where the turn is kept; None: nowhere.
        tells_session: Whether the session stands beside the cost.
        live: Whether text is shown as it comes. It may be followed by tool calls, and is no answer
            then; else standard output has the answer alone, when it is known to be one.
        as_of: The day whose prices hold for an estimate; None: today.
    """

    def __init__(
        self,
        terminal: Terminal,
        approver: Approver,
        *,
        model: str,
        said: Iterable[Message] = (),
        session: str | None = None,
        tells_session: bool = True,
        live: bool = True,
        as_of: date | None = None,
    ) -> None:
        self._terminal = terminal
        self._approver = approver
        self._model = model
        self._session = session
        self._tells_session = tells_session
        self._live = live
        self._as_of = as_of
        self._clock = SystemClock()
        self._begun_s = self._clock.monotonic_s()
        self._waiting: Waiting | None = None
        self._calls: list[LLMResponse] = []
        self._results: list[ToolResult] = []
        self._running: list[ToolCall] = []
        self._several = False
        self._unshown: list[AgentEvent] = []
        # Of the call that is on its way: what it was told, what came, and what it reported.
        self._told = [message.text for message in said]
        self._asking = False
        self._heard = Heard()

    async def follow(self, stream: AsyncAgentStream) -> AgentResponse:
        """
        Read a turn to its end.

        Args:
            stream: Its events.

        Returns:
            The answer.

        Raises:
            LoomError: What ended the turn; what came before it was shown, and what it cost.
        """
        try:
            async with stream:
                async for event in stream:
                    self._note(event)
                    self._unshown.append(event)
                    # Nothing is written into an open question; tools begin and end meanwhile.
                    while self._unshown and not self._approver.is_asking:
                        self._show(self._unshown.pop(0))
            response = await stream.final()
        except LoomError as error:
            self._ended_early(error)
            raise
        finally:
            self._stop_waiting()
        self._close(response)
        return response

    def interrupted(self) -> None:
        """Show what there is after Ctrl-C: the text so far, and what it cost so far."""
        terminal = self._terminal
        self._stop_waiting()
        if terminal.err.is_terminal and not terminal.json and not self._heard.text:
            # The terminal has written `^C` where the next line begins.
            terminal.say("")
        usage = self._so_far("interrupted")
        if terminal.json:
            partial = {
                "text": "".join(self._heard.text),
                "usage": usage_object(usage),
                "calls": len(self._calls),
                "tool_executions": [tool_object(result) for result in self._results],
                "session": self._session,
            }
            terminal.print_error("ERR_INTERRUPTED", "interrupted", partial=partial)

    # --- events ------------------------------------------------------------------------------

    def _note(self, event: AgentEvent) -> None:
        self._heard.note(event)
        match event:
            case Sending():
                self._asking = True
            case CallCompleted(response=response):
                self._calls.append(response)
                self._asking, self._heard.thinking, self._heard.usage = False, [], None
            case ToolStarted(call=call):
                self._running.append(call)
                self._several = len(self._running) > 1 or self._several
            case ToolFinished(result=result):
                self._results.append(result)
            case _:
                pass

    def _show(self, event: AgentEvent) -> None:
        if self._terminal.json:
            self._write_json(event)
        else:
            if isinstance(event, Sending):
                self._wait()
            elif not isinstance(event, UsageReported):
                self._stop_waiting()
            self._show_text(event)
            self._show_tools(event)
        if isinstance(event, CallCompleted) and event.response.tool_calls:
            # What was said before tools is no part of the answer.
            self._heard.text = []

    def _write_json(self, event: AgentEvent) -> None:
        if self._live:
            self._terminal.write_json(agent_event_object(event))
        elif isinstance(event, Done):
            self._terminal.write_json(agent_object(event.response))

    def _show_text(self, event: AgentEvent) -> None:
        terminal = self._terminal
        match event:
            case TextDelta() if not self._live:
                pass
            case Summarised(messages=messages):
                terminal.say(f"the first {messages} messages were summarised to make room")
            case Done(response=response) if not self._live:
                self._answer(response)
            case _:
                show_event(terminal, event)

    def _show_tools(self, event: AgentEvent) -> None:
        match event:
            case CallCompleted(response=response):
                self._between(response)
            case ToolStarted(call=call):
                self._terminal.say(f"-> {call_text(call)}")
            case ToolFinished(result=result):
                self._finished(result)
            case _:
                pass

    def _between(self, response: LLMResponse) -> None:
        """Part what a model said before its tools from what comes after them."""
        self._terminal.end_line()
        if not self._live and response.tool_calls and response.content.strip():
            self._terminal.say(response.content.strip())

    def _finished(self, result: ToolResult) -> None:
        terminal = self._terminal
        begun = [call for call in self._running if call is not result.call]
        if len(begun) == len(self._running):
            # It never began: it was denied, or is none of the tools.
            terminal.say(f"-> {call_text(result.call)}")
        self._running = begun
        style = "dim" if result.ok else "red"
        terminal.say(f"<- {result_text(result, name=self._several)}", style=style)
        self._several = self._several and bool(begun)

    def _answer(self, response: AgentResponse) -> None:
        terminal = self._terminal
        if terminal.json:
            terminal.write_json(agent_object(response))
            return
        if terminal.verbose and response.thinking and not self._calls:
            terminal.say(response.thinking)
        terminal.write(response.content)

    # --- the end -------------------------------------------------------------------------------

    def _close(self, response: AgentResponse) -> None:
        terminal = self._terminal
        terminal.end_line()
        warn_if_cut(terminal, response.finish_reason)
        if response.stopped_by is not None:
            terminal.warn(
                f"the model answered without further tools: {_STOPPED[response.stopped_by]}"
            )
        if not terminal.json:
            terminal.used(
                turn_line(
                    response.model or self._model,
                    len(response.calls),
                    len(response.tool_executions),
                    response.usage,
                    response.latency_s,
                    session=response.session if self._tells_session else None,
                )
            )

    def _ended_early(self, error: LoomError) -> None:
        if (missing := self._heard.missing(error)) is not None:
            self._note(missing)
            self._show(missing)
        if self._calls or self._heard.text or self._heard.thinking:
            self._so_far("ended early")

    def _so_far(self, how: str) -> Usage:
        terminal = self._terminal
        if not terminal.json and not self._live:
            terminal.write("".join(self._heard.text))
        terminal.end_line()
        usage = total_usage([*(call.usage for call in self._calls), *self._on_its_way()])
        if not terminal.json:
            line = turn_line(
                self._model,
                len(self._calls) + self._asking,
                len(self._results) + len(self._running),
                usage,
                self._clock.monotonic_s() - self._begun_s,
                session=self._session if self._tells_session else None,
            )
            terminal.say(f"{how} · {line}")
        return usage

    def _on_its_way(self) -> list[Usage]:
        """What the call that was broken off may have used."""
        if not self._asking:
            return [] if self._calls else [Heard().estimate(self._model, (), self._as_of)]
        if self._heard.usage is not None:
            return [self._heard.usage]
        told = [*self._told, *(result.message.text for result in self._results)]
        last = self._calls[-1].usage if self._calls else Usage()
        before = last.input_tokens + last.output_tokens
        return [self._heard.estimate(self._model, told, self._as_of, before=before)]

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting = self._terminal.waiting(self._model)
        self._waiting.__enter__()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None
