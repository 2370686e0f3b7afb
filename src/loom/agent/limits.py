"""How far an agent may go in one turn of a conversation."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from loom.core.errors import ConfigInvalid

__all__ = ["AgentLimits", "ContextPolicy"]

ContextPolicy: TypeAlias = Literal["slide", "summarise", "error"]
"""What happens to a conversation that outgrows the model's window."""

_COUNTS = ("max_turns", "max_calls_per_answer", "max_parallel", "max_output_bytes")


class AgentLimits(msgspec.Struct, frozen=True, kw_only=True):
    """
    How far an agent may go in one turn of a conversation.

    No limit ends in an error: calls that may not run get a result that says so, and the model is
    asked for its answer without tools. `AgentResponse.stopped_by` names the limit.

    Attributes:
        max_turns: Requests to the model, at least 1; the last of them goes out without tools.
        max_tool_executions: Tools that are run, at least 0.
        max_calls_per_answer: Tools that are run of one answer of the model, at least 1; it may
            call the others again.
        max_argument_errors: Answers in a row with calls that cannot be understood (arguments that
            do not fit, a tool that there is not), of which the model is told, at least 0.
        deadline_s: Seconds for the whole turn, above 0. Tools are ended before it, so that a
            fifth of the time, and at most 30 s, is left for the answer.
        tool_timeout_s: Seconds for one tool that does not say otherwise, above 0.
        max_output_bytes: What the model is shown of one result, in bytes of UTF-8, at least 1.
        max_parallel: Tools that run at once, at least 1.
        warn_usd: A session's cost at which to warn in the log, once; None: never.

    Raises:
        ConfigInvalid: If a number is out of its range.

    Source: the project's specification, 24 and 30.
    """

    max_turns: int = 25
    max_tool_executions: int = 50
    max_calls_per_answer: int = 10
    max_argument_errors: int = 2
    deadline_s: float = 600.0
    tool_timeout_s: float = 30.0
    max_output_bytes: int = 65_536
    max_parallel: int = 10
    warn_usd: Decimal | None = Decimal("0.10")

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for name in (*_COUNTS, "max_tool_executions", "max_argument_errors"):
            value, least = getattr(self, name), 1 if name in _COUNTS else 0
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigInvalid(f"'{name}' must be a whole number, at least {least}")
        for name in ("deadline_s", "tool_timeout_s"):
            value = getattr(self, name)
            # A NaN is not above 0 either.
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigInvalid(f"'{name}' must be a number of seconds above 0")

    @property
    def answer_reserve_s(self) -> float:
        """Seconds that are kept for the answer after the last tool."""
        return min(30.0, self.deadline_s / 5)
