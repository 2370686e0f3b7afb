"""What one turn of an agent has come to so far."""

from __future__ import annotations

import msgspec

from loom.agent.limits import AgentLimits
from loom.agent.response import StopReason, total_usage
from loom.core.errors import LoomError, ToolArgumentsInvalid, ToolNotFound
from loom.core.response import LLMResponse, Partial, Usage
from loom.shuttle.result import ToolResult

__all__ = ["Tally"]

# What a model gets wrong itself. Fault matrix, row 43: it is told so twice.
_MISTAKES = (ToolArgumentsInvalid, ToolNotFound)


class Tally:
    """
    Counts calls, tools and mistakes of one turn, and says when a limit is reached.

    Args:
        limits: How far the turn may go.
        began_s: When it began, in seconds of the clock's monotonic time.
    """

    def __init__(self, limits: AgentLimits, began_s: float) -> None:
        self._limits = limits
        self._argument_errors = 0
        self._run = 0
        self._summed = 0
        self._usage: Usage | None = None
        self.began_s = began_s
        self.responses: list[LLMResponse] = []
        self.results: list[ToolResult] = []
        self.stopped_by: StopReason | None = None

    @property
    def usage(self) -> Usage:
        """The sum over all calls so far."""
        # Asked for after each answer: what was added up before is not added up again.
        new = [response.usage for response in self.responses[self._summed :]]
        if new or self._usage is None:
            self._usage = total_usage(new if self._usage is None else (self._usage, *new))
            self._summed = len(self.responses)
        return self._usage

    @property
    def tools_left(self) -> int:
        """How many tools may still be run."""
        return self._limits.max_tool_executions - self._run

    @property
    def may_ask(self) -> bool:
        """Whether the model may be asked once more."""
        return self._turns_left > 0

    @property
    def _turns_left(self) -> int:
        return self._limits.max_turns - len(self.responses)

    @property
    def ends_s(self) -> float:
        """When the turn must be over, in seconds of the clock's monotonic time."""
        return self.began_s + self._limits.deadline_s

    @property
    def tools_end_s(self) -> float:
        """When tools must be over, so that there is time for an answer."""
        return self.ends_s - self._limits.answer_reserve_s

    def stop(self, reason: StopReason) -> None:
        """
        End the use of tools; the first reason stands.

        Args:
            reason: The limit.
        """
        self.stopped_by = self.stopped_by or reason

    def asking(self, now_s: float, *, offers_tools: bool) -> None:
        """
        Look at the limits before the model is asked.

        Args:
            now_s: Seconds of the clock's monotonic time.
            offers_tools: Whether there are tools that it may call.
        """
        if offers_tools and self._turns_left <= 1:
            self.stop("max_turns")
        if now_s >= self.tools_end_s:
            self.stop("deadline")

    def ran(self, results: list[ToolResult], begun: int) -> None:
        """
        Take note of the results of one answer's calls.

        Args:
            results: One of each call, in their order.
            begun: How many tools really ran.
        """
        self.results += results
        self._run += begun
        if any(isinstance(result.error, _MISTAKES) for result in results):
            self._argument_errors += 1
        else:
            self._argument_errors = 0
        if self._argument_errors > self._limits.max_argument_errors:
            self.stop("max_argument_errors")

    def told(self, error: LoomError) -> None:
        """
        Put on an error what the turn has used before it.

        Args:
            error: How the turn fails.
        """
        if not self.responses:
            return
        partial = error.partial or Partial()
        used = [self.usage] if partial.usage is None else [self.usage, partial.usage]
        error.partial = msgspec.structs.replace(partial, usage=total_usage(used))
