"""
What happens during one turn of an agent, as one stream of values.

The events of each call of the model pass as they are (`loom.core.events`), except `Completed`:
`CallCompleted` stands for it, with what the turn has cost so far. A stream ends with `Done`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from loom.core.events import (
    Finished,
    Notice,
    PartReceived,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import ToolCall
from loom.core.response import LLMResponse, Usage

if TYPE_CHECKING:
    from loom.agent.response import AgentResponse
    from loom.shuttle.result import ToolResult

__all__ = [
    "AgentEvent",
    "CallCompleted",
    "Done",
    "Summarised",
    "ToolFinished",
    "ToolStarted",
]


class ToolStarted(msgspec.Struct, frozen=True):
    """A tool begins to run; it was approved, and its arguments fit."""

    call: ToolCall


class ToolFinished(msgspec.Struct, frozen=True):
    """A call of a tool has its result, good or bad; calls that were not run have one too."""

    result: ToolResult


class CallCompleted(msgspec.Struct, frozen=True):
    """
    The model answered: with text, or with calls of tools.

    Attributes:
        response: Its answer.
        usage: The sum over all calls of this turn so far, with its cost.
    """

    response: LLMResponse
    usage: Usage


class Summarised(msgspec.Struct, frozen=True):
    """
    The beginning of the conversation was told in few words, to make room in the window.

    Attributes:
        messages: How many messages the summary stands for.
    """

    messages: int


class Done(msgspec.Struct, frozen=True):
    """The turn is over and this is its answer."""

    response: AgentResponse


AgentEvent: TypeAlias = (
    Notice
    | TextDelta
    | ThinkingDelta
    | ToolCallDelta
    | PartReceived
    | Finished
    | UsageReported
    | ToolStarted
    | ToolFinished
    | CallCompleted
    | Summarised
    | Done
)
