"""What the door of a gateway lets through: sizes, times and numbers, as one value."""

from __future__ import annotations

import msgspec

__all__ = ["DoorLimits"]


class DoorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much, how long and how many; each is the last value that passes.

    Attributes:
        line_bytes: A request's target (path and query).
        head_bytes: A request's head: its first line and its headers, with their line ends.
        head_fields: Headers of a request.
        head_s: Seconds from the connection, or from a request's first byte, to the whole head.
        body_bytes: A request's body.
        body_s: Seconds from the head to the whole body.
        body_bytes_per_s: The least pace of a body, on average, after `body_grace_s`.
        body_grace_s: Seconds in which a body may be slower.
        idle_s: Seconds that a connection may rest between two requests. Longer than clients keep
            one, so that the client closes first.
        write_s: Seconds in which a reader must take something of what waits for it.
        write_bytes: What waits for a reader, before the answer waits too.
        connections: Connections at once; the vendor's sockets need as many files again.
        connections_per_address: Connections at once from one address.
        depth: Objects and lists within each other in a body.
        values: Values in a body, those in lists and objects counted one by one.
        messages: Messages of a request.
        tools: Tools of a request.
        schema_bytes: The JSON schema of one tool, or of the answer.

    Source: reliability G3-G5, S6 and S7 of the specification; Apache's `LimitRequestFields` and
    `LimitRequestLine` for `head_fields` and `line_bytes`; Kestrel's `MinRequestBodyDataRate`
    for the pace.
    """

    line_bytes: int = 8 * 1024
    head_bytes: int = 64 * 1024
    head_fields: int = 100
    head_s: float = 10.0
    body_bytes: int = 8 * 1024 * 1024
    body_s: float = 30.0
    body_bytes_per_s: float = 1024.0
    body_grace_s: float = 5.0
    idle_s: float = 75.0
    write_s: float = 60.0
    write_bytes: int = 256 * 1024
    connections: int = 32_640
    connections_per_address: int = 1024
    depth: int = 64
    values: int = 250_000
    messages: int = 4096
    tools: int = 512
    schema_bytes: int = 64 * 1024
