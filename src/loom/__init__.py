"""
Loom: a Mistral-first LLM library, exact about money and tokens.

    from loom import Mistral

    with Mistral() as m:
        print(m.chat("Why is the sky blue?").content)

The names load on first use (PEP 562), so that importing them costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from loom.core.version import VERSION

if TYPE_CHECKING:
    from loom.client.aio import AsyncMistral
    from loom.client.blocking import Mistral, Stream
    from loom.client.facts import cost, models, recommend
    from loom.client.stream import AsyncStream
    from loom.core.errors import (
        BudgetExceeded,
        CallerError,
        CapacityExceeded,
        CircuitOpen,
        ConfigInvalid,
        Conflict,
        ContentBlocked,
        ContextTooLong,
        InsufficientCredits,
        InvalidAPIKey,
        InvalidRequest,
        LedgerUnavailable,
        LimitExceeded,
        LoomError,
        MalformedReply,
        ModelNotFound,
        OutputInvalid,
        PermissionDenied,
        PoolTimeout,
        RateLimited,
        Refusal,
        ReplyTooLarge,
        RequestTooLarge,
        ServiceUnavailable,
        SessionUnavailable,
        StreamStalled,
        StreamTruncated,
        TimedOut,
        TLSFailed,
        ToolArgumentsInvalid,
        ToolCallMissing,
        ToolDenied,
        ToolError,
        ToolFailed,
        ToolNotFound,
        ToolTimedOut,
        UnexpectedRedirect,
        Unreachable,
        UpstreamAuth,
        VendorError,
    )
    from loom.core.events import (
        Completed,
        Finished,
        PartReceived,
        Rerouted,
        Restarted,
        Retried,
        Sending,
        StreamEvent,
        TextDelta,
        ThinkingDelta,
        Throttled,
        ToolCallDelta,
        UsageReported,
    )
    from loom.core.messages import (
        AudioPart,
        DocumentPart,
        FilePart,
        ImagePart,
        Message,
        RawPart,
        ReferencePart,
        TextPart,
        ThinkingPart,
        ToolCall,
    )
    from loom.core.model import ModelCard, Price
    from loom.core.plan import Plan, Quote, TokenCount
    from loom.core.provider import Layer, LLMProvider
    from loom.core.request import ChatRequest, NamedTool, ResponseFormat, Timeouts, ToolSpec
    from loom.core.response import Choice, LLMResponse, Partial, RateLimitState, Usage
    from loom.core.route import Fallback, Route
    from loom.core.secret import Secret
    from loom.core.timeline import Attempt, Timeline
    from loom.layers.breaker import Breaker
    from loom.layers.limit_rate import RateLimit
    from loom.layers.limiter import Limiter
    from loom.layers.retry_policy import RetryPolicy, RetryQuota
    from loom.layers.trace import Telemetry
    from loom.ledger.budgets import Budget
    from loom.ledger.contract import Ledger
    from loom.shuttle.function import tool
    from loom.shuttle.permission import Permissions
    from loom.shuttle.result import ToolResult, tool_result_message
    from loom.shuttle.tool import Tool

__all__ = [
    "AsyncMistral",
    "AsyncStream",
    "Attempt",
    "AudioPart",
    "Breaker",
    "Budget",
    "BudgetExceeded",
    "CallerError",
    "CapacityExceeded",
    "ChatRequest",
    "Choice",
    "CircuitOpen",
    "Completed",
    "ConfigInvalid",
    "Conflict",
    "ContentBlocked",
    "ContextTooLong",
    "DocumentPart",
    "Fallback",
    "FilePart",
    "Finished",
    "ImagePart",
    "InsufficientCredits",
    "InvalidAPIKey",
    "InvalidRequest",
    "LLMProvider",
    "LLMResponse",
    "Layer",
    "Ledger",
    "LedgerUnavailable",
    "LimitExceeded",
    "Limiter",
    "LoomError",
    "MalformedReply",
    "Message",
    "Mistral",
    "ModelCard",
    "ModelNotFound",
    "NamedTool",
    "OutputInvalid",
    "PartReceived",
    "Partial",
    "PermissionDenied",
    "Permissions",
    "Plan",
    "PoolTimeout",
    "Price",
    "Quote",
    "RateLimit",
    "RateLimitState",
    "RateLimited",
    "RawPart",
    "ReferencePart",
    "Refusal",
    "ReplyTooLarge",
    "RequestTooLarge",
    "Rerouted",
    "ResponseFormat",
    "Restarted",
    "Retried",
    "RetryPolicy",
    "RetryQuota",
    "Route",
    "Secret",
    "Sending",
    "ServiceUnavailable",
    "SessionUnavailable",
    "Stream",
    "StreamEvent",
    "StreamStalled",
    "StreamTruncated",
    "TLSFailed",
    "Telemetry",
    "TextDelta",
    "TextPart",
    "ThinkingDelta",
    "ThinkingPart",
    "Throttled",
    "TimedOut",
    "Timeline",
    "Timeouts",
    "TokenCount",
    "Tool",
    "ToolArgumentsInvalid",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallMissing",
    "ToolDenied",
    "ToolError",
    "ToolFailed",
    "ToolNotFound",
    "ToolResult",
    "ToolSpec",
    "ToolTimedOut",
    "UnexpectedRedirect",
    "Unreachable",
    "UpstreamAuth",
    "Usage",
    "UsageReported",
    "VendorError",
    "__version__",
    "cost",
    "models",
    "recommend",
    "tool",
    "tool_result_message",
]

__version__ = VERSION

# Which module holds each name; the block above says the same to type checkers, and a test
# (tests/test_exported_members.py) compares the two.
_HOMES = {
    "loom.client.aio": ("AsyncMistral",),
    "loom.client.stream": ("AsyncStream",),
    "loom.client.blocking": ("Mistral", "Stream"),
    "loom.client.facts": ("cost", "models", "recommend"),
    "loom.core.errors": (
        "BudgetExceeded",
        "CallerError",
        "CapacityExceeded",
        "CircuitOpen",
        "ConfigInvalid",
        "Conflict",
        "ContentBlocked",
        "ContextTooLong",
        "InsufficientCredits",
        "InvalidAPIKey",
        "InvalidRequest",
        "LedgerUnavailable",
        "LimitExceeded",
        "LoomError",
        "MalformedReply",
        "ModelNotFound",
        "OutputInvalid",
        "PermissionDenied",
        "PoolTimeout",
        "RateLimited",
        "Refusal",
        "ReplyTooLarge",
        "RequestTooLarge",
        "ServiceUnavailable",
        "SessionUnavailable",
        "StreamStalled",
        "StreamTruncated",
        "TLSFailed",
        "TimedOut",
        "ToolArgumentsInvalid",
        "ToolCallMissing",
        "ToolDenied",
        "ToolError",
        "ToolFailed",
        "ToolNotFound",
        "ToolTimedOut",
        "UnexpectedRedirect",
        "Unreachable",
        "UpstreamAuth",
        "VendorError",
    ),
    "loom.core.events": (
        "Completed",
        "Finished",
        "PartReceived",
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
    ),
    "loom.core.messages": (
        "AudioPart",
        "DocumentPart",
        "FilePart",
        "ImagePart",
        "Message",
        "RawPart",
        "ReferencePart",
        "TextPart",
        "ThinkingPart",
        "ToolCall",
    ),
    "loom.core.model": ("ModelCard", "Price"),
    "loom.core.plan": ("Plan", "Quote", "TokenCount"),
    "loom.core.provider": ("LLMProvider", "Layer"),
    "loom.core.request": ("ChatRequest", "NamedTool", "ResponseFormat", "Timeouts", "ToolSpec"),
    "loom.core.response": ("Choice", "LLMResponse", "Partial", "RateLimitState", "Usage"),
    "loom.core.route": ("Fallback", "Route"),
    "loom.core.secret": ("Secret",),
    "loom.core.timeline": ("Attempt", "Timeline"),
    "loom.layers.breaker": ("Breaker",),
    "loom.layers.limit_rate": ("RateLimit",),
    "loom.layers.limiter": ("Limiter",),
    "loom.ledger.budgets": ("Budget",),
    "loom.ledger.contract": ("Ledger",),
    "loom.layers.retry_policy": ("RetryPolicy", "RetryQuota"),
    "loom.layers.trace": ("Telemetry",),
    "loom.shuttle.function": ("tool",),
    "loom.shuttle.permission": ("Permissions",),
    "loom.shuttle.result": ("ToolResult", "tool_result_message"),
    "loom.shuttle.tool": ("Tool",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


# Type checkers read the imports above: with this before them, every misspelling would be a name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name on first use."""
        try:
            home = _HOME_OF[name]
        except KeyError:
            raise AttributeError(f"module 'loom' has no attribute {name!r}") from None
        value = getattr(import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
