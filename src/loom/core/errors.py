"""
The error tree, and the one table that says what each error means.

    LoomError
    +-- CallerError        yours: the request, the key, the settings
    |   +-- InvalidAPIKey, InsufficientCredits, PermissionDenied, ModelNotFound
    |   +-- InvalidRequest, RequestTooLarge, ContextTooLong, ConfigInvalid, TLSFailed
    +-- VendorError        theirs: the service, or the way to it
    |   +-- RateLimited -- CapacityExceeded
    |   +-- ServiceUnavailable, Conflict, TimedOut, Unreachable, ContentBlocked
    |   +-- StreamTruncated, StreamStalled, MalformedReply, ReplyTooLarge
    |   +-- UnexpectedRedirect, UpstreamAuth, ToolCallMissing, OutputInvalid
    +-- Refusal            ours: a limit that you set
    |   +-- PoolTimeout, CircuitOpen, LimitExceeded, BudgetExceeded, LedgerUnavailable
    |   +-- SessionUnavailable, KeysUnavailable
    +-- ToolError          a tool's
        +-- ToolNotFound, ToolArgumentsInvalid, ToolFailed, ToolTimedOut, ToolDenied

Everything that decides what an error means stands in `core/error_table.py`. Misuse of the library
(a call after `close()`) is a plain `RuntimeError` or `TypeError` outside the tree, because it is
a bug and not an event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from loom.core.error_table import ERROR_TABLE, ErrorRow

if TYPE_CHECKING:
    from loom.core.response import Partial, RateLimitState
    from loom.core.timeline import Timeline

__all__ = [
    "ERROR_TABLE", "BudgetExceeded", "CallerError", "CapacityExceeded", "CircuitOpen",
    "ConfigInvalid", "Conflict", "ContentBlocked", "ContextTooLong", "ErrorRow",
    "InsufficientCredits", "InvalidAPIKey", "InvalidRequest", "KeysUnavailable",
    "LedgerUnavailable", "LimitExceeded", "LoomError", "MalformedReply", "ModelNotFound",
    "OutputInvalid", "PermissionDenied", "Phase", "PoolTimeout", "RateLimited", "Refusal",
    "ReplyTooLarge", "RequestTooLarge", "ServiceUnavailable", "SessionUnavailable", "StreamStalled",
    "StreamTruncated", "TLSFailed", "TimedOut", "ToolArgumentsInvalid", "ToolCallMissing",
    "ToolDenied", "ToolError", "ToolFailed", "ToolNotFound", "ToolTimedOut", "UnexpectedRedirect",
    "Unreachable", "UpstreamAuth", "VendorError",
]  # fmt: skip

Phase: TypeAlias = Literal[
    "pool", "dns", "proxy", "connect", "tls", "write", "first_byte", "idle", "reset", "total"
]


class LoomError(Exception):
    """
    Anything that went wrong, with everything that is known of it.

    No field holds a key or a prompt: messages of vendors are cut and cleaned before they come
    here (`wire/error_bodies.py`).

    Args:
        message: What happened, to which thing, what to do next.
        http_status: What the wire said; None takes the table's.
        retryable: Whether the same request may succeed later; None takes the table's.
        retry_after_s: Seconds that the vendor (or our own limit) asks to wait.
        request_id: The vendor's id of the request.
        provider: Who was asked, for example "mistral".
        model: Which model was asked.
        attempts: Requests that were sent.
        partial: Text and usage so far.
        hint: What to do next; None takes the table's.
        rate_limit: What the headers said of the limits.
        vendor_code: The vendor's own code, for example "1500".
        vendor_type: The vendor's own type, for example "invalid_model".
        phase: Where on the way it happened, for errors of the connection.
        uncertain: Whether the vendor may have received, and billed, the request.
        timeline: Each attempt with its times, status and charge; None if nobody kept one.
        curl: A shell command that repeats the call, with neither key nor prompt in it.
        detail: For a server: what is wrong with each field, as the wire writes it. It may quote
            the request, so nothing that a client receives is put here.
    """

    code: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        attempts: int = 1,
        partial: Partial | None = None,
        hint: str | None = None,
        rate_limit: RateLimitState | None = None,
        vendor_code: str | None = None,
        vendor_type: str | None = None,
        phase: Phase | None = None,
        uncertain: bool = False,
        timeline: Timeline | None = None,
        curl: str | None = None,
        detail: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(message)
        row = self.row()
        self.message = message
        self.http_status = row.http if http_status is None else http_status
        self.retryable = row.retryable if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.provider = provider
        self.model = model
        self.attempts = attempts
        self.partial = partial
        self.hint = row.hint if hint is None else hint
        self.rate_limit = rate_limit
        self.vendor_code = vendor_code
        self.vendor_type = vendor_type
        self.phase = phase
        self.uncertain = uncertain
        self.timeline = timeline
        self.curl = curl
        self.detail = detail

    @classmethod
    def row(cls) -> ErrorRow:
        """The table's row for this class."""
        return ERROR_TABLE[cls.code]

    @property
    def grpc_status(self) -> str:
        """The gRPC status name, for example "RESOURCE_EXHAUSTED"."""
        return self.row().grpc

    @property
    def exit_code(self) -> int:
        """The command line's exit code."""
        return self.row().exit

    @property
    def counts_for_breaker(self) -> bool:
        """Whether it is a failure of the provider, and not of the way to it or of your limit."""
        # A 408 is a 4xx: the server waited for the request, and is well (fault matrix, row 35).
        passing = self.http_status == 408 or self.phase in ("proxy", "total")
        return self.row().breaker and not passing

    @property
    def may_fall_back(self) -> bool:
        """Whether another route may do better; not when the time is over."""
        return self.row().fallback and self.phase != "total"

    @property
    def printed_name(self) -> str:
        """The name for people, for example "ERR_RATE_LIMIT"."""
        return self.row().printed or f"ERR_{self.code.upper()}"

    def explain(self, *, curl: bool = False) -> str:
        """
        Tell the whole story, without key and prompt: when what happened, what may be charged.

        Args:
            curl: Whether a command that repeats the call is added.
        """
        from loom.core.explain import explanation  # noqa: PLC0415 - only when asked for

        return explanation(self, curl=curl)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by message and fields; keyword-only arguments do not travel by themselves."""
        return (_rebuilt, (type(self), self.message, self.__dict__))


def _rebuilt(kind: type[LoomError], message: str, fields: dict[str, Any]) -> LoomError:
    error = kind.__new__(kind, message)
    error.__dict__.update(fields)
    return error


class CallerError(LoomError):
    """Yours: the request, the key or the settings; the same again fails again."""

    code = "invalid_request"


class VendorError(LoomError):
    """Theirs: the service, or the way to it."""

    code = "service_unavailable"


class Refusal(LoomError):
    """Ours: a limit that you set; nothing was sent."""

    code = "limit_exceeded"


class InvalidAPIKey(CallerError):
    """The key is missing, malformed, wrong or expired."""

    code = "invalid_api_key"


class InsufficientCredits(CallerError):
    """The account has no credit left."""

    code = "insufficient_credits"


class PermissionDenied(CallerError):
    """The key may not do this."""

    code = "permission_denied"


class ModelNotFound(CallerError):
    """There is no such model, or no access to it."""

    code = "model_not_found"


class InvalidRequest(CallerError):
    """A parameter, a message or a tool is not as it must be."""

    code = "invalid_request"


class RequestTooLarge(CallerError):
    """The request has too many bytes."""

    code = "request_too_large"


class ContextTooLong(CallerError):
    """
    Prompt and answer together do not fit into the model's window.

    Attributes:
        tokens: Tokens of the prompt, when known.
        limit: The window in tokens, when known.
    """

    code = "context_length_exceeded"
    tokens: int | None = None
    limit: int | None = None


class ConfigInvalid(CallerError):
    """A setting is not as it must be."""

    code = "config_invalid"


class TLSFailed(CallerError):
    """The server's certificate was refused."""

    code = "tls_failed"


class ContentBlocked(VendorError):
    """The vendor's moderation refused the content."""

    code = "content_blocked"


class RateLimited(VendorError):
    """Too many requests or tokens; wait `retry_after_s`."""

    code = "rate_limit_exceeded"


class CapacityExceeded(RateLimited):
    """The model is overloaded; the quota is not used up."""

    code = "capacity_exceeded"


class ServiceUnavailable(VendorError):
    """The vendor answered with a server error."""

    code = "service_unavailable"


class Conflict(VendorError):
    """Another request holds the resource."""

    code = "conflict"


class TimedOut(VendorError):
    """A phase took longer than its limit; `.phase` names it."""

    code = "timeout"


class Unreachable(VendorError):
    """No connection, or it broke before an answer; `.phase` says where."""

    code = "unreachable"


class StreamTruncated(VendorError):
    """The answer's end never came; `.partial` holds what did."""

    code = "stream_truncated"


class StreamStalled(VendorError):
    """Nothing came for too long in the middle of an answer; `.partial` holds what did."""

    code = "stream_stalled"


class MalformedReply(VendorError):
    """The reply is not what the API promises."""

    code = "malformed_reply"


class ReplyTooLarge(VendorError):
    """The reply passed a size limit."""

    code = "reply_too_large"


class UnexpectedRedirect(VendorError):
    """The vendor sent us elsewhere; the key does not go there."""

    code = "unexpected_redirect"


class UpstreamAuth(VendorError):
    """A gateway's own key was refused by the vendor."""

    code = "upstream_auth"


class ToolCallMissing(VendorError):
    """The model was to call a tool and called none."""

    code = "tool_call_missing"


class OutputInvalid(VendorError):
    """
    The answer does not fit the type that was asked for.

    Attributes:
        text: The answer as it came.
    """

    code = "output_invalid"
    text: str = ""


class PoolTimeout(Refusal):
    """No connection came free in time."""

    code = "pool_timeout"


class CircuitOpen(Refusal):
    """The breaker is open; it is tried again after `retry_after_s`."""

    code = "circuit_open"


class LimitExceeded(Refusal):
    """The client-side rate limit has no room before the deadline."""

    code = "limit_exceeded"


class BudgetExceeded(Refusal):
    """The budget has no room for this call's worst case."""

    code = "budget_exceeded"


class LedgerUnavailable(Refusal):
    """The ledger cannot be written."""

    code = "ledger_unavailable"


class SessionUnavailable(Refusal):
    """The store of sessions cannot be read or written now."""

    code = "session_unavailable"


class KeysUnavailable(Refusal):
    """The store of a gateway's keys cannot be read or written now."""

    code = "keys_unavailable"


class ToolError(LoomError):
    """A tool's."""

    code = "tool_failed"


class ToolNotFound(ToolError):
    """No such tool was offered."""

    code = "tool_not_found"


class ToolArgumentsInvalid(ToolError):
    """The arguments do not fit the tool's schema."""

    code = "tool_arguments_invalid"


class ToolFailed(ToolError):
    """The tool raised."""

    code = "tool_failed"


class ToolTimedOut(ToolError):
    """The tool took longer than its limit."""

    code = "tool_timed_out"


class ToolDenied(ToolError):
    """The call was not approved."""

    code = "tool_denied"
