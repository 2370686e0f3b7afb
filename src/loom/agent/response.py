"""What an agent answered, with everything that it took."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec

from loom.core.messages import Message
from loom.core.response import FinishReason, LLMResponse, Usage
from loom.ledger.money import total
from loom.shuttle.result import ToolResult

__all__ = ["AgentResponse", "StopReason", "total_usage"]

StopReason: TypeAlias = Literal[
    "max_turns", "max_tool_executions", "max_argument_errors", "deadline", "budget"
]
"""Which limit ended the use of tools; the answer after it was asked for without them."""

# Every field of usage that is a number of something.
_COUNTS = tuple(field.name for field in msgspec.structs.fields(Usage) if field.type is int)


class AgentResponse(msgspec.Struct, frozen=True, kw_only=True):
    """
    The answer to one turn of a conversation, with every call and every tool that it took.

    Attributes:
        message: The assistant's last turn, whole.
        usage: The sum over all `calls`. `cost_usd` is None when the price of one is unknown.
        calls: Each answer of a model, in order; the last one is the answer.
        tool_executions: Each tool that the model asked for, with its result, in order.
        messages: What this turn added to the conversation, the user's message first.
        session: The conversation's id; None when it is not kept.
        stopped_by: Which limit ended the use of tools; None: the model was done.
        latency_s: Seconds for the whole turn: models, tools, waits, approvals.
        parsed: The validated value of a structured answer (`output=`); None otherwise.
        session_cost_usd: What the session has cost so far, this turn included, as far as
            prices are known.
    """

    message: Message
    usage: Usage
    calls: tuple[LLMResponse, ...]
    tool_executions: tuple[ToolResult, ...] = ()
    messages: tuple[Message, ...] = ()
    session: str | None = None
    stopped_by: StopReason | None = None
    latency_s: float = 0.0
    parsed: Any = None
    session_cost_usd: Decimal = Decimal(0)

    @property
    def content(self) -> str:
        """The answer's text."""
        return self.message.text

    @property
    def thinking(self) -> str:
        """What the model thought before the answer."""
        return self.message.thinking

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the last answer ended."""
        return self.calls[-1].finish_reason if self.calls else None

    @property
    def model(self) -> str | None:
        """The model that gave the answer; None when nobody was asked."""
        return self.calls[-1].model if self.calls else None

    def __repr__(self) -> str:
        """Sizes and costs; never what was said."""
        return (
            f"AgentResponse(calls={len(self.calls)}, tool_executions={len(self.tool_executions)},"
            f" cost_usd={self.usage.cost_usd}, session={self.session!r},"
            f" stopped_by={self.stopped_by!r})"
        )

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """The same for rich, whose tracebacks show locals."""
        return [
            ("calls", len(self.calls)),
            ("tool_executions", len(self.tool_executions)),
            ("cost_usd", self.usage.cost_usd),
            ("session", self.session),
        ]


def total_usage(usages: Iterable[Usage]) -> Usage:
    """
    The sum of several calls.

    Args:
        usages: One of each call.

    Returns:
        Tokens added up. `cost_usd` is None when one is unknown, `price` is the calls' own when
        they have the same one, and `estimated` is True when one was.
    """
    each = list(usages)
    if len(each) == 1:
        return msgspec.structs.replace(each[0], service_tier=None)
    costs = [usage.cost_usd for usage in each]
    known = [cost for cost in costs if cost is not None]
    prices = [usage.price for usage in each]
    same = bool(prices) and all(price == prices[0] for price in prices)
    counts: dict[str, Any] = {name: sum(getattr(usage, name) for usage in each) for name in _COUNTS}
    return Usage(
        **counts,
        cost_usd=total(known) if len(known) == len(costs) else None,
        price=prices[0] if same else None,
        estimated=any(usage.estimated for usage in each),
    )
