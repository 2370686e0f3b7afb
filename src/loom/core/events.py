"""
What happens during a call, as one stream of values.

*Notices* say what happened on the way and commit to nothing.
*Model events* are the answer; once one was handed on, nothing is sent again.
A stream ends with `Completed`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from loom.core.errors import LoomError
from loom.core.messages import Part
from loom.core.response import FinishReason, LLMResponse, Usage

__all__ = [
    "Completed",
    "Finished",
    "ModelEvent",
    "Notice",
    "PartReceived",
    "Restarted",
    "Retried",
    "Sending",
    "StreamEvent",
    "TextDelta",
    "ThinkingDelta",
    "Throttled",
    "ToolCallDelta",
    "UsageReported",
]


class Sending(msgspec.Struct, frozen=True):
    """An attempt leaves for the vendor; latencies are counted from here."""

    attempt: int = 1


class Retried(msgspec.Struct, frozen=True):
    """An attempt failed; another follows after `wait_s` seconds."""

    attempt: int
    wait_s: float
    error: LoomError


class Throttled(msgspec.Struct, frozen=True):
    """The call waits `wait_s` seconds for a permit of our own limiter."""

    wait_s: float


class Restarted(msgspec.Struct, frozen=True):
    """The answer begins anew elsewhere: forget what came before (`rescue` mode)."""

    reason: str
    provider: str
    model: str


class TextDelta(msgspec.Struct, frozen=True):
    """The next piece of the answer's text; `choice` counts from 0."""

    text: str
    choice: int = 0


class ThinkingDelta(msgspec.Struct, frozen=True):
    """The next piece of what the model thinks."""

    text: str
    choice: int = 0


class ToolCallDelta(msgspec.Struct, frozen=True):
    """
    A tool call, whole or in fragments.

    Attributes:
        index: Which call of the answer, from 0; fragments of one call share it.
        id: The call's id; empty on later fragments.
        name: The tool; empty on later fragments.
        arguments: The next piece of the arguments' JSON text.
        choice: Which answer, from 0.
    """

    index: int
    id: str
    name: str
    arguments: str
    choice: int = 0


class PartReceived(msgspec.Struct, frozen=True):
    """A piece of the answer that is neither text nor thinking: a reference, an image, ..."""

    part: Part
    choice: int = 0


class Finished(msgspec.Struct, frozen=True):
    """One answer ended; others of the same request may go on."""

    reason: FinishReason
    choice: int = 0


class UsageReported(msgspec.Struct, frozen=True):
    """The vendor reported tokens."""

    usage: Usage


class Completed(msgspec.Struct, frozen=True):
    """The call is over and this is its answer."""

    response: LLMResponse


Notice: TypeAlias = Sending | Retried | Throttled | Restarted
ModelEvent: TypeAlias = (
    TextDelta | ThinkingDelta | ToolCallDelta | PartReceived | Finished | UsageReported | Completed
)
StreamEvent: TypeAlias = Notice | ModelEvent
