"""What a turn of an agent took, on one line and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.agent.events import AgentEvent, CallCompleted, Done, ToolFinished
from loom.agent.response import AgentResponse
from loom.cli.listen import event_name, event_object, response_object, usage_object
from loom.cli.terminal import cost_line
from loom.core.messages import Part
from loom.core.response import Usage
from loom.shuttle.result import ToolResult

__all__ = ["agent_event_object", "agent_object", "counted", "tool_object", "turn_line"]


def counted(count: int, word: str) -> str:
    """
    A number of things.

    Args:
        count: How many.
        word: What one of them is called.

    Returns:
        For example `1 tool`, `3 tools`.
    """
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def turn_line(
    model: str, calls: int, tools: int, usage: Usage, latency_s: float, *, session: str | None
) -> str:
    """
    What a turn used, on one line.

    Args:
        model: The model that answered.
        calls: How often a model was asked.
        tools: How many tools it asked for.
        usage: Tokens and money of all calls.
        latency_s: Seconds from the question to the answer.
        session: Where it is kept; None: nowhere.

    Returns:
        For example `mistral-large-2512 · 3 calls, 2 tools · 812 in, 96 out · $0.002800 · 2.1 s`.
    """
    did = f" · {counted(calls, 'call')}, {counted(tools, 'tool')}" if calls > 1 or tools else ""
    kept = "" if session is None else f" · session {session}"
    return f"{cost_line(f'{model}{did}', usage, latency_s)}{kept}"


def agent_object(response: AgentResponse) -> dict[str, Any]:
    """
    The answer of an agent as `--json` prints it.

    Args:
        response: The answer.

    Returns:
        Its fields; money as a decimal string.
    """
    return {
        "content": response.content,
        "thinking": response.thinking,
        "finish_reason": response.finish_reason,
        "model": response.model,
        "session": response.session,
        "stopped_by": response.stopped_by,
        "usage": usage_object(response.usage),
        "session_cost_usd": f"{response.session_cost_usd:f}",
        "latency_s": round(response.latency_s, 6),
        "calls": [response_object(call) for call in response.calls],
        "tool_executions": [tool_object(result) for result in response.tool_executions],
    }


def tool_object(result: ToolResult) -> dict[str, Any]:
    """
    What came of a tool call as `--json` prints it.

    Args:
        result: The result.

    Returns:
        Its fields; `content` is what the model reads.
    """
    error = result.error
    return {
        "id": result.call.id,
        "name": result.call.name,
        "input": result.call.input,
        "ok": result.ok,
        "error": None if error is None else {"code": error.code, "message": error.message},
        "content": _content(result.content),
        "duration_s": round(result.duration_s, 6),
        "cut": result.cut,
        "repeated": result.repeated,
    }


def agent_event_object(event: AgentEvent) -> Mapping[str, Any]:
    """
    An event of an agent's turn as `--json --stream` prints it.

    Args:
        event: The event.

    Returns:
        Its name and fields.
    """
    fields: dict[str, Any]
    match event:
        case ToolFinished(result=result):
            fields = {"result": tool_object(result)}
        case CallCompleted(response=call, usage=usage):
            fields = {"response": response_object(call), "usage": usage_object(usage)}
        case Done(response=response):
            fields = {"response": agent_object(response)}
        case _:
            return event_object(event)
    return {"event": event_name(event), **fields}


def _content(content: str | tuple[Part, ...]) -> Any:
    return content if isinstance(content, str) else msgspec.to_builtins(content)
