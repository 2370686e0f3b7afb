"""Errors as a gateway's callers may see them: whose fault it is, and nothing of the other side."""

from __future__ import annotations

import logging
import traceback

from loom.core.errors import (
    CapacityExceeded,
    InsufficientCredits,
    InvalidAPIKey,
    LimitExceeded,
    LoomError,
    MalformedReply,
    PermissionDenied,
    RateLimited,
    ReplyTooLarge,
    ServiceUnavailable,
    UnexpectedRedirect,
    Unreachable,
    UpstreamAuth,
)

__all__ = ["limit_of", "log_unexpected", "outward", "unexpected"]

_log = logging.getLogger("loom.gateway")

# What these say of themselves names hosts, ports and proxies; the log has it.
_SAID: dict[type[LoomError], str] = {
    Unreachable: "the vendor cannot be reached",
    MalformedReply: "the vendor's answer cannot be read",
    ReplyTooLarge: "the vendor's answer is too large",
    UnexpectedRedirect: "the vendor's answer was a redirect",
}
# "Errors from upstream are cut to 2 KB and cleaned before being relayed": rule S10.
_LONGEST = 2048


def outward(error: LoomError) -> LoomError:
    """
    An error of the shared provider as its caller may see it.

    A vendor that refuses the gateway's own key, or its empty purse, is the operator's trouble: a
    caller that read 401 would blame its own key. Where the vendor is concerns nobody.

    Args:
        error: How the call failed.

    Returns:
        The error to answer with; the same one where nothing is hidden.

    Source: the project's fault list, G9 and G10; reliability rule S10.
    """
    if isinstance(error, InvalidAPIKey | InsufficientCredits | PermissionDenied):
        told = UpstreamAuth(
            "the gateway's own access to the vendor was refused: tell its operator",
            request_id=error.request_id,
            provider=error.provider,
            model=error.model,
            attempts=error.attempts,
            timeline=error.timeline,
        )
        told.__cause__ = error
        return told
    hidden = _SAID.get(type(error))
    if hidden is not None:
        error.message = hidden
        error.args = (hidden,)
    elif len(error.message) > _LONGEST:
        error.message = error.message[: _LONGEST - 4] + " ..."
        error.args = (error.message,)
    return error


def limit_of(error: LoomError) -> str | None:
    """
    Whose limit a 429 is.

    Args:
        error: As it is answered.

    Returns:
        "key" for the caller's own, "upstream" for the vendor's, "capacity" when the vendor is
        overloaded; None for everything else.
    """
    if isinstance(error, LimitExceeded):
        return "key"
    if isinstance(error, CapacityExceeded):
        return "capacity"
    return "upstream" if isinstance(error, RateLimited) else None


def unexpected() -> LoomError:
    """What a caller is told of an error that nobody foresaw; the log has the rest."""
    return ServiceUnavailable("the gateway failed: its log says why", http_status=500)


def log_unexpected(error: Exception, request_id: str) -> None:
    """
    Write an error that nobody foresaw into the log: where it happened, and not what it says.

    Args:
        error: Its words may quote a prompt or a key; they are left out.
        request_id: Whose request it was.
    """
    frames = traceback.format_tb(error.__traceback__)
    name = type(error).__name__
    _log.error("an unexpected %s, request %s\n%s", name, request_id, "".join(frames))
