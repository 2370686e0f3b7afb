"""One request of a caller, as the gateway's parts hand it on."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from loom.core.response import Usage
from loom.server.gateway.dialects import DialectName
from loom.server.gateway.hangup import Listeners
from loom.server.gateway.keys import VirtualKey
from loom.server.line import Line, Receive
from loom.wire.dialect import Dialect

__all__ = ["Call"]


class Call(msgspec.Struct, kw_only=True):
    """
    One request.

    Attributes:
        path: The URL's path.
        headers: Names in lower case.
        receive: ASGI's.
        line: Where the answer goes.
        dialect: The caller's, in the server's role.
        speaks: Its name.
        request_id: The caller's own, if it was well-formed, or ours.
        address: The caller's; empty when it is not known.
        began_s: Seconds of the clock's monotonic time.
        key: Whose request it is; None: without a key.
        model: As the caller named it; empty until it is read.
        dropped: Fields that the asked vendor does not know, and that were left out.
        local: Whether it comes from this machine, and was passed on by nobody.
        usage: What the answer used; None while nobody knows.
        first_s: When the first piece of a stream left; None: there was none.
        listeners: Those of its connection; None: it is none of ours.
    """

    path: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    line: Line
    dialect: Dialect
    speaks: DialectName
    request_id: str
    address: str = ""
    began_s: float
    key: VirtualKey | None = None
    model: str = ""
    dropped: tuple[str, ...] = ()
    local: bool = False
    usage: Usage | None = None
    first_s: float | None = None
    listeners: Listeners | None = None
