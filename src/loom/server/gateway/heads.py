"""
What a request's head may be, beyond what the parser refuses by itself.

Source: RFC 9112, sections 3.2 (Host) and 6.1 (Transfer-Encoding); httptools 0.9 refuses the other
ways of telling two servers two different lengths (tests/server/gateway/test_door_smuggling.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from loom.core.errors import InvalidRequest, LoomError, RequestTooLarge
from loom.server.gateway.limits import DoorLimits

__all__ = ["body_too_large", "check_head", "head_too_large"]

# Control characters, percent-encoded: they would be raw in the path that is routed and logged.
_CONTROL_IN_TARGET = re.compile(rb"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_HOST = re.compile(rb"[A-Za-z0-9._~:%\[\]-]*")
_LOOKED_AT = frozenset({b"host", b"transfer-encoding", b"content-length"})
# Two blanks, `HTTP/1.1`, and two line ends.
_FRAME_BYTES = 14


def check_head(
    version: str,
    method: bytes,
    target: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    limits: DoorLimits,
) -> None:
    """
    Refuse a head that says two things at once, or too much.

    Args:
        version: As `1.1`.
        method: As it came.
        target: Path and query, as they came.
        headers: Names in lower case.
        limits: How much.

    Raises:
        InvalidRequest: If it is no request for this server.
        RequestTooLarge: If it announces a body that is too large.
    """
    _check_line(version, method, target)
    size = len(method) + len(target) + _FRAME_BYTES + 4 * len(headers)
    hosts = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name in _LOOKED_AT:
            hosts += _check_field(name, value, version, limits)
    if hosts > 1 or (not hosts and version == "1.1"):
        raise InvalidRequest("a request has one header Host, with a host and nothing else")
    if size > limits.head_bytes:
        raise head_too_large(limits)


def _check_field(name: bytes, value: bytes, version: str, limits: DoorLimits) -> int:
    """Look at a header, and count hosts: one that is none counts as two."""
    if name == b"host":
        return 1 if _HOST.fullmatch(value) else 2
    if name == b"transfer-encoding":
        # The parser takes `gzip, chunked`, and chunks in HTTP/1.0.
        if value.lower() != b"chunked" or version == "1.0":
            raise InvalidRequest("only chunked is known as a transfer encoding")
    elif int(value) > limits.body_bytes:
        raise body_too_large(limits)
    return 0


def _check_line(version: str, method: bytes, target: bytes) -> None:
    if version not in ("1.1", "1.0"):
        raise InvalidRequest("only HTTP/1.1 is spoken here", http_status=505)
    if method == b"CONNECT":
        raise InvalidRequest("this is no proxy", http_status=405)
    if b"%" in target and _CONTROL_IN_TARGET.search(target):
        raise InvalidRequest("the target holds a control character")


def head_too_large(limits: DoorLimits) -> LoomError:
    """
    The error of a head that is too large.

    Args:
        limits: What was passed.

    Returns:
        It, with status 431.
    """
    return InvalidRequest(
        f"a request's head has at most {limits.head_bytes} bytes and {limits.head_fields} headers",
        http_status=431,
    )


def body_too_large(limits: DoorLimits) -> LoomError:
    """
    The error of a body that is too large.

    Args:
        limits: What was passed.

    Returns:
        It, with status 413.
    """
    return RequestTooLarge(f"a request's body has at most {limits.body_bytes} bytes")
