"""
What happens during a call, as one stream of values.

*Notices* say what happened on the way and commit to nothing.
*Model events* are the answer; once one was handed on, nothing is sent again.
A stream ends with `Completed`.
"""

from __future__ import annotations

from typing import TypeAlias, get_args

import msgspec

from loom.core.errors import LoomError, RateLimited
from loom.core.messages import Part
from loom.core.response import FinishReason, LLMResponse, Usage

__all__ = [
    "NOTICES",
    "Completed",
    "Finished",
    "ModelEvent",
    "Notice",
    "PartReceived",
    "Relayed",
    "Rerouted",
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
    """
    An attempt failed; another follows after `wait_s` seconds.

    Attributes:
        attempt: How many were made so far, from 1.
        wait_s: Seconds until the next one.
        error: Why it failed.
        limit: How many are made at most for such an error.
    """

    attempt: int
    wait_s: float
    error: LoomError
    limit: int = 0

    @property
    def text(self) -> str:
        """
        What happens now, in the words of the reference page.

        For example `Rate limit hit, retrying in 2.0s (attempt 1/5)`.
        """
        count = f"(attempt {self.attempt}/{self.limit})"
        if isinstance(self.error, RateLimited):
            return f"Rate limit hit, retrying in {self.wait_s:.1f}s {count}"
        return f"Request failed {count}, retrying in {self.wait_s:.1f}s: {self.error.message}"


class Rerouted(msgspec.Struct, frozen=True):
    """A route failed before any of its answer came; the next one is asked (`fallback=`)."""

    error: LoomError
    provider: str
    model: str


class Throttled(msgspec.Struct, frozen=True):
    """The call waits `wait_s` seconds for a permit of our own limiter."""

    wait_s: float


class Restarted(msgspec.Struct, frozen=True):
    """
    The answer begins anew elsewhere: forget what came before (`rescue` mode).

    `error` is why, with the attempts so far; None where nobody told.
    """

    reason: str
    provider: str
    model: str
    error: LoomError | None = None


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


class Relayed(msgspec.Struct, frozen=True):
    """
    The next part of a stream in the vendor's own bytes, to be handed on unchanged.

    It comes in place of the other model events where a request went out in its caller's words
    (`ChatRequest.verbatim`).

    Attributes:
        data: Whole events, without the sentinel that ends a stream.
        said: How many characters of an answer they hold.
    """

    data: bytes
    said: int = 0


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


Notice: TypeAlias = Sending | Retried | Rerouted | Throttled | Restarted
ModelEvent: TypeAlias = (
    TextDelta
    | ThinkingDelta
    | ToolCallDelta
    | PartReceived
    | Relayed
    | Finished
    | UsageReported
    | Completed
)
StreamEvent: TypeAlias = Notice | ModelEvent

NOTICES: frozenset[type] = frozenset(get_args(Notice))
"""The kinds of notices: `type(event) in NOTICES` is the fastest question there is."""
