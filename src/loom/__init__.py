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
    from loom.agent.backend import Backend
    from loom.agent.backend_files import FilesBackend
    from loom.agent.backend_sqlite import SQLiteBackend
    from loom.agent.events import CallCompleted, Done, Summarised, ToolFinished, ToolStarted
    from loom.agent.limits import AgentLimits
    from loom.agent.response import AgentResponse
    from loom.agent.session import SessionInfo, SessionStore
    from loom.agent.session_memory import MemorySessions
    from loom.agent.session_sqlite import SQLiteSessions
    from loom.client.agent import AsyncAgent, AsyncAgentStream
    from loom.client.agent_blocking import Agent, AgentStream
    from loom.client.aio import AsyncMistral, AsyncOpenAI
    from loom.client.blocking import Mistral, OpenAI, Stream
    from loom.client.builder import AgentBuilder
    from loom.client.facts import cost, models, provider, recommend
    from loom.client.stream import AsyncStream
    from loom.core.embeddings import EmbeddingsResponse
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
        KeysUnavailable,
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
    from loom.shuttle.mcp import McpServer, mcp
    from loom.shuttle.permission import Permissions
    from loom.shuttle.result import ToolResult, tool_result_message
    from loom.shuttle.source import ToolSource
    from loom.shuttle.tool import Tool

__all__ = [
    "Agent",
    "AgentBuilder",
    "AgentLimits",
    "AgentResponse",
    "AgentStream",
    "AsyncAgent",
    "AsyncAgentStream",
    "AsyncMistral",
    "AsyncOpenAI",
    "AsyncStream",
    "Attempt",
    "AudioPart",
    "Backend",
    "Breaker",
    "Budget",
    "BudgetExceeded",
    "CallCompleted",
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
    "Done",
    "EmbeddingsResponse",
    "Fallback",
    "FilePart",
    "FilesBackend",
    "Finished",
    "ImagePart",
    "InsufficientCredits",
    "InvalidAPIKey",
    "InvalidRequest",
    "KeysUnavailable",
    "LLMProvider",
    "LLMResponse",
    "Layer",
    "Ledger",
    "LedgerUnavailable",
    "LimitExceeded",
    "Limiter",
    "LoomError",
    "MalformedReply",
    "McpServer",
    "MemorySessions",
    "Message",
    "Mistral",
    "ModelCard",
    "ModelNotFound",
    "NamedTool",
    "OpenAI",
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
    "SQLiteBackend",
    "SQLiteSessions",
    "Secret",
    "Sending",
    "ServiceUnavailable",
    "SessionInfo",
    "SessionStore",
    "SessionUnavailable",
    "Stream",
    "StreamEvent",
    "StreamStalled",
    "StreamTruncated",
    "Summarised",
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
    "ToolFinished",
    "ToolNotFound",
    "ToolResult",
    "ToolSource",
    "ToolSpec",
    "ToolStarted",
    "ToolTimedOut",
    "UnexpectedRedirect",
    "Unreachable",
    "UpstreamAuth",
    "Usage",
    "UsageReported",
    "VendorError",
    "__version__",
    "cost",
    "mcp",
    "models",
    "provider",
    "recommend",
    "tool",
    "tool_result_message",
]

__version__ = VERSION

# Which module holds each name; the block above says the same to type checkers, and a test
# (tests/test_exported_members.py) compares the two.
_HOMES = {
    "loom.shuttle.source": ("ToolSource",),
    "loom.client.builder": ("AgentBuilder",),
    "loom.client.agent_blocking": (
        "Agent",
        "AgentStream",
    ),
    "loom.client.agent": (
        "AsyncAgent",
        "AsyncAgentStream",
    ),
    "loom.agent.backend": ("Backend",),
    "loom.agent.backend_files": ("FilesBackend",),
    "loom.agent.backend_sqlite": ("SQLiteBackend",),
    "loom.agent.session_sqlite": ("SQLiteSessions",),
    "loom.agent.session_memory": ("MemorySessions",),
    "loom.agent.session": (
        "SessionInfo",
        "SessionStore",
    ),
    "loom.agent.response": ("AgentResponse",),
    "loom.agent.limits": ("AgentLimits",),
    "loom.agent.events": (
        "CallCompleted",
        "Done",
        "Summarised",
        "ToolFinished",
        "ToolStarted",
    ),
    "loom.client.aio": ("AsyncMistral", "AsyncOpenAI"),
    "loom.client.stream": ("AsyncStream",),
    "loom.client.blocking": ("Mistral", "OpenAI", "Stream"),
    "loom.client.facts": ("cost", "models", "provider", "recommend"),
    "loom.core.embeddings": ("EmbeddingsResponse",),
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
        "KeysUnavailable",
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
    "loom.shuttle.mcp": ("McpServer", "mcp"),
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
