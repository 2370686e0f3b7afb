"""
Spans and metrics of an agent: one span for each turn, and one inside it for each tool that runs.

Law 3 of a layer holds here too: the turn's span is never the current one, for the reader of a
stream would run inside it. Calls of the model are told their parent in the request, and a tool
begins with its own span as the current one, so that what it does appears inside it.

Source: open-telemetry/semantic-conventions-genai as the project's `ux.md` section 6 lists it
(November 2026): `invoke_agent`, `execute_tool`, their attributes and durations. Which arguments a
tool had, and what it gave back, is opt-in there, and here.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec
from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from loom.core.errors import LoomError
from loom.core.messages import ToolCall
from loom.core.response import Usage
from loom.layers.trace_names import cost_attributes, provider_name, usage_attributes
from loom.layers.trace_otel import Instruments

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AgentRecorder"]


class AgentRecorder:
    """
    One turn of an agent: its span, and those of its tools.

    Args:
        instruments: What it is recorded with.
        agent: The agent's name.
        provider: Our name of who answers.
        model: The model when a call names none.
        session: The conversation's id; None: none.
        now_s: When the turn begins, in seconds of the clock's monotonic time.
        content: Whether spans get what tools were given, and gave back.
    """

    def __init__(
        self,
        instruments: Instruments,
        *,
        agent: str,
        provider: str,
        model: str,
        session: str | None,
        now_s: float,
        content: bool,
    ) -> None:
        self._instruments = instruments
        self._began_s = now_s
        self._content = content
        self._open = True
        self._agent = agent
        self._known: dict[str, Any] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.provider.name": provider_name(provider),
            "gen_ai.agent.name": agent,
            "gen_ai.request.model": model,
        }
        conversation = {} if session is None else {"gen_ai.conversation.id": session}
        # The parent is the span that is current now: when the first event is asked for.
        self._span = instruments.tracer.start_span(
            f"invoke_agent {agent}",
            kind=SpanKind.INTERNAL,
            attributes={**self._known, **conversation},
        )
        self.parent = trace.set_span_in_context(self._span)
        self._tools: dict[int, tuple[Span, float]] = {}

    def tool_began(self, call: ToolCall, description: str | None, now_s: float) -> None:
        """
        Begin the span of a tool.

        Args:
            call: What the model asked for.
            description: What the tool does.
            now_s: Seconds of the clock's monotonic time.
        """
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call.id,
        }
        if description:
            attributes["gen_ai.tool.description"] = description
        if self._content:
            attributes["gen_ai.tool.call.arguments"] = call.arguments
        span = self._instruments.tracer.start_span(
            f"execute_tool {call.name}",
            context=self.parent,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
        )
        self._tools[id(call)] = (span, now_s)

    def within(self, call: ToolCall | None) -> AbstractContextManager[None]:
        """
        Make a tool's span the current one, for as long as it takes to start it.

        Args:
            call: Which tool's; None: nothing is changed.

        Returns:
            A context manager.
        """
        found = None if call is None else self._tools.get(id(call))
        return nullcontext() if found is None else _current(found[0])

    def tool_ended(
        self, call: ToolCall, error: LoomError | None, content: Any, now_s: float
    ) -> None:
        """
        End the span of a tool; one that never began has none.

        Args:
            call: What the model asked for.
            error: What went wrong; None: nothing.
            content: What the model reads.
            now_s: Seconds of the clock's monotonic time.
        """
        found = self._tools.pop(id(call), None)
        if found is None:
            return
        span, began_s = found
        split_by: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": call.name,
        }
        if error is not None:
            split_by["error.type"] = error.code
            span.set_attribute("error.type", error.code)
            span.set_status(Status(StatusCode.ERROR, error.code))
        if self._content:
            text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
            span.set_attribute("gen_ai.tool.call.result", text)
        span.end()
        self._instruments.tool_duration.record(now_s - began_s, split_by)

    def answered(self, usage: Usage, facts: Mapping[str, Any], now_s: float) -> None:
        """
        End with an answer.

        Args:
            usage: The sum over all calls.
            facts: How many calls and tools there were, what stopped it.
            now_s: Seconds of the clock's monotonic time.
        """
        if not self._open:
            return
        self._span.set_attributes(
            {**usage_attributes(usage), **cost_attributes(usage), **dict(facts)}
        )
        self._end({}, now_s)

    def ended(self, code: str, usage: Usage | None, now_s: float) -> None:
        """
        End without an answer, unless it is over.

        Args:
            code: The error's code, `cancelled`, `abandoned`, or the class of a foreign error.
            usage: What was used; None when it is unknown.
            now_s: Seconds of the clock's monotonic time.
        """
        if not self._open:
            return
        if usage is not None:
            self._span.set_attributes({**usage_attributes(usage), **cost_attributes(usage)})
        self._span.set_attribute("error.type", code)
        self._span.set_status(Status(StatusCode.ERROR, code))
        self._end({"error.type": code}, now_s)

    def _end(self, more: Mapping[str, Any], now_s: float) -> None:
        self._open = False
        for span, _ in self._tools.values():
            # Its tool was broken off with the turn.
            span.set_attribute("error.type", "cancelled")
            span.set_status(Status(StatusCode.ERROR, "cancelled"))
            span.end()
        self._tools.clear()
        self._span.end()
        self._instruments.agent_duration.record(now_s - self._began_s, {**self._known, **more})


@contextmanager
def _current(span: Span) -> Iterator[None]:
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)
