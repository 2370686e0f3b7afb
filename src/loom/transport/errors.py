"""
The one table from what the HTTP library raises to our errors.

Everything that decides what a broken connection means stands here. Classes are named, not
imported, so that reading the table does not load the library; a row holds for subclasses too,
and the first row that fits is taken.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from loom.core.errors import (
    LoomError,
    MalformedReply,
    Phase,
    PoolTimeout,
    TimedOut,
    TLSFailed,
    Unreachable,
)

__all__ = ["FAULTS", "Fault", "Scene", "too_late", "translate"]


class Fault(NamedTuple):
    """
    One row.

    Attributes:
        raised: The class that is raised, by name.
        error: What it means.
        phase: Where on the way it happened; None: whichever phase is running.
        says: The message; empty for a limit that has passed.
        cause: The class of `__cause__`, by name, if the row needs one.
    """

    raised: str
    error: type[LoomError]
    phase: Phase | None
    says: str
    cause: str = ""


class Scene(NamedTuple):
    """
    What is known of an exchange when it fails.

    Attributes:
        where: Host and port.
        proxy: The proxy's host and port; empty when there is none on the way.
        phase: Which phase is running.
        sent: Whether bytes of the request were written: the vendor may have received it.
        provider: Who was asked.
    """

    where: str
    proxy: str
    phase: Phase
    sent: bool
    provider: str | None


_BROKE = "The connection to {where} broke {when} ({inner})."
_NOT_HTTP = "What {where} sent is not HTTP ({inner})."
_NO_TLS = "TLS with {where} failed: {detail}."

# The order matters: a certificate error of aiohttp is a connector error too, and that an OSError.
FAULTS = (
    Fault(
        "ClientHttpProxyError",
        Unreachable,
        "proxy",
        "The proxy {proxy} refused the way to {where}: status {detail}.",
    ),
    Fault("ClientConnectorCertificateError", TLSFailed, "tls", _NO_TLS),
    Fault("ClientSSLError", TLSFailed, "tls", _NO_TLS),
    # The running phase is "connect", or "total" when the deadline is nearer.
    Fault("ConnectionTimeoutError", TimedOut, None, ""),
    Fault(
        "ClientConnectorDNSError",
        Unreachable,
        "dns",
        "No address was found for {nearest}: {detail}.",
    ),
    Fault(
        "ClientProxyConnectionError",
        Unreachable,
        "proxy",
        "Cannot connect to the proxy {proxy}: {detail}.",
    ),
    Fault("ClientConnectorError", Unreachable, "connect", "Cannot connect to {where}: {detail}."),
    # SocketTimeoutError is one: "first_byte" while waiting for headers, "idle" in the body.
    Fault("TimeoutError", TimedOut, None, ""),
    Fault(
        "ClientPayloadError",
        MalformedReply,
        None,
        "The compressed body from {where} is broken.",
        "ContentEncodingError",
    ),
    Fault("ClientPayloadError", Unreachable, "reset", _BROKE),
    Fault("ServerDisconnectedError", Unreachable, "reset", _BROKE),
    Fault("ClientConnectionResetError", Unreachable, "reset", _BROKE),
    Fault("ClientOSError", Unreachable, "reset", _BROKE),
    Fault("ClientResponseError", MalformedReply, None, _NOT_HTTP),
    Fault("HttpProcessingError", MalformedReply, None, _NOT_HTTP),
    Fault("InvalidURL", MalformedReply, None, "{where} is not an address."),
    # What is left of ClientError, and a bare OSError.
    Fault("Exception", Unreachable, "reset", _BROKE),
)

_WAITING: dict[Phase, str] = {
    "pool": "waiting for a free connection",
    "connect": "connecting",
    "write": "sending the request",
    "first_byte": "waiting for first byte",
    "idle": "waiting for the next event",
    "total": "total",
}

# What the library's parser raises at a head that is none, or too large.
_NO_HEAD = ("BadStatusLine", "LineTooLong")

_BEFORE_SENDING = ("pool", "dns", "proxy", "connect", "tls")

# A vendor's text is shown cut, and without anything that a terminal would obey.
_SHOWN_CHARS = 200
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def too_late(phase: Phase, limit_s: float, scene: Scene) -> LoomError:
    """
    Make the error for a limit that has passed.

    Args:
        phase: Whose limit; "total" for the deadline.
        limit_s: The limit in seconds.
        scene: What is known.

    Returns:
        The error; it is not raised.
    """
    kind = PoolTimeout if phase == "pool" else TimedOut
    return kind(
        f"HTTP request failed: deadline exceeded after {limit_s:.1f} s ({_WAITING[phase]})",
        phase=phase,
        provider=scene.provider,
        uncertain=scene.sent,
    )


def translate(raised: Exception, limit_s: float, scene: Scene) -> LoomError:
    """
    Make our error from what the library raised.

    Nothing of the foreign exception is kept but facts in words: its repr may hold the request's
    headers, and so the key.

    Args:
        raised: What it raised.
        limit_s: The running phase's limit in seconds.
        scene: What is known.

    Returns:
        The error; raise it outside the `except`, so that it has no context.
    """
    fault = _row(raised)
    phase = fault.phase
    if fault.error is TimedOut:
        return too_late(phase or scene.phase, limit_s, scene)
    return fault.error(
        _message(fault, raised, scene),
        phase=phase,
        provider=scene.provider,
        retryable=_retryable(fault, raised),
        uncertain=scene.sent and phase not in _BEFORE_SENDING and not _no_answer(fault, raised),
    )


def _row(raised: Exception) -> Fault:
    names = {kind.__name__ for kind in type(raised).__mro__}
    causes = {kind.__name__ for kind in type(raised.__cause__).__mro__}
    return next(f for f in FAULTS if f.raised in names and (not f.cause or f.cause in causes))


def _retryable(fault: Fault, raised: Exception) -> bool | None:
    status = getattr(raised, "status", 0)
    # A proxy that wants a password wants it the next time too.
    if fault.raised == "ClientHttpProxyError" and 400 <= status < 500:
        return False
    # Fault matrix, rows 11, 27 and 41: who does not speak HTTP will not the next time.
    return False if fault.says == _NOT_HTTP or fault.raised == "InvalidURL" else None


def _no_answer(fault: Fault, raised: Exception) -> bool:
    """Whether no answer can have been made: what came was not even the head of a reply."""
    if fault.says != _NOT_HTTP:
        return False
    # Fault matrix, row 27. What breaks later (row 11) came behind the head of an answer.
    cause = _root(raised)
    many = str(getattr(cause, "message", "")).strip().startswith("Too many headers")
    return many or type(cause).__name__ in _NO_HEAD


def _message(fault: Fault, raised: Exception, scene: Scene) -> str:
    return fault.says.format(
        where=scene.where,
        proxy=scene.proxy,
        nearest=scene.proxy or scene.where,
        when="in the middle of the body" if scene.phase == "idle" else "before an answer came",
        detail=_detail(raised),
        inner=_innermost(raised),
    )


def _detail(raised: Exception) -> str:
    status = getattr(raised, "status", None)
    inner = getattr(raised, "certificate_error", None) or getattr(raised, "os_error", None)
    text = str(status) if status else (getattr(inner, "strerror", None) or str(inner or ""))
    return _CONTROLS.sub(" ", text)[:_SHOWN_CHARS].strip(" .") or type(raised).__name__


def _innermost(raised: BaseException) -> str:
    # Only the class: a parser's words quote what the server sent, and a server that echoes
    # requests sends the key.
    return type(_root(raised)).__name__


def _root(raised: BaseException) -> BaseException:
    while raised.__cause__ is not None:
        raised = raised.__cause__
    return raised
