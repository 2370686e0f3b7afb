"""
The door of the gateway: every request comes in here, and every one can be ended from here.

It gives a request its id, refuses what no application need see, and knows who is inside, so that
the house can be closed: `cut` ends what still runs with an error in the caller's dialect, in the
middle of a stream too. What concerns bytes and time stands in `connection.py`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Callable, Mapping, MutableMapping
from itertools import count
from typing import Any

from loom.core.ambient import secret_bytes
from loom.core.errors import InvalidRequest, LoomError, PermissionDenied, ServiceUnavailable
from loom.server.gateway.readiness import Readiness
from loom.server.gateway.refusals import MakeReply, reply_in_dialect
from loom.server.line import Receive, Scope, Send

__all__ = ["Door", "is_local", "request_id_of"]

_log = logging.getLogger("loom.server")

_REQUEST_ID = "loom.request_id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# Who watches the gateway hears until the end how it is.
_ALWAYS = frozenset({"/health", "/health/ready", "/metrics"})
# How long the last words of an answer may wait for their reader.
_LAST_WORDS_S = 1.0
# What a proxy in front of us says: then the caller is not on this machine, whoever connects.
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


def request_id_of(scope: Scope) -> str:
    """
    A request's id: the caller's `x-request-id`, or one that was made.

    Args:
        scope: ASGI's, from inside the door.

    Returns:
        At most 128 letters, digits, or `.`, `_`, `-`; empty outside of the door.
    """
    found: str = scope.get(_REQUEST_ID, "")
    return found


def is_local(scope: Scope) -> bool:
    """
    Whether a request comes from this machine, and was passed on by nobody.

    Args:
        scope: ASGI's.

    Returns:
        True for the loopback device, without a header of a proxy.
    """
    client = scope.get("client")
    if client is None or not _loops_back(client[0]):
        return False
    return not any(name in _FORWARDED for name, _ in scope["headers"])


class Door:
    """
    An ASGI application around the gateway's.

    Args:
        app: What answers; another may take its place while requests run.
        readiness: What is refused depends on it.
        reply: Makes an error's reply.
        needs_no_key: Tells whether anybody on this machine may call. Then a web page could, in
            the browser of whoever sits there: such requests are refused.
        dropped: Hears of each request that was refused, by a word for the reason.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        *,
        readiness: Readiness | None = None,
        reply: MakeReply = reply_in_dialect,
        needs_no_key: Callable[[], bool] = lambda: False,
        dropped: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.app = app
        self._readiness = readiness or Readiness()
        self._reply = reply
        self._needs_no_key = needs_no_key
        self._dropped = dropped
        self._inside: set[_Visit] = set()
        self._empty: asyncio.Event | None = None
        self._prefix = f"req_{secret_bytes(6).hex()}".encode()
        self._numbers = count(1)

    @property
    def running(self) -> int:
        """How many requests are inside."""
        return len(self._inside)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request in."""
        visit = _Visit(scope, send)
        self._inside.add(visit)
        try:
            refusal = self._looked_at(scope, visit)
            if refusal is not None:
                await self._tell(visit, refusal)
                return
            await self.app(scope, receive, visit.send)
        except asyncio.CancelledError:
            error = visit.cut
            if error is None or visit.task is None:
                raise
            visit.task.uncancel()
            await self._end(visit, error)
        except Exception:  # noqa: BLE001 - the outermost border
            # The border: whoever calls gets an answer, and the log what nobody foresaw.
            _log.exception("an unexpected error in the gateway, request %s", request_id_of(scope))
            await self._end(visit, ServiceUnavailable("Service unavailable.", http_status=500))
        finally:
            self._inside.discard(visit)
            if self._empty is not None and not self._inside:
                self._empty.set()

    async def empty(self) -> None:
        """Wait until nobody is inside."""
        if self._inside:
            self._empty = asyncio.Event()
            await self._empty.wait()

    def cut(self, error: LoomError) -> None:
        """
        End every request that runs, each with an error for its caller.

        Args:
            error: Why.
        """
        for visit in tuple(self._inside):
            if visit.cut is None and visit.task is not None:
                visit.cut, visit.hushed = error, True
                visit.task.cancel()

    def _looked_at(self, scope: Scope, visit: _Visit) -> LoomError | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        if given is None or _WELL_FORMED.fullmatch(given) is None:
            # Inside, everybody reads the header: there is one id, whoever gave it.
            fields = scope["headers"]
            if given is not None:
                fields = [field for field in fields if field[0] != b"x-request-id"]
            given = b"%b%x" % (self._prefix, next(self._numbers))
            scope["headers"] = [*fields, (b"x-request-id", given)]
        scope[_REQUEST_ID] = given.decode()
        if self._readiness.state == "draining":
            visit.last = True
            if scope["path"] not in _ALWAYS:
                self._dropped("draining")
                return ServiceUnavailable("the gateway is being stopped", retry_after_s=1.0)
        if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
            self._dropped("encoding")
            return InvalidRequest("a body must not be compressed", http_status=415)
        if self._needs_no_key() and _is_foreign(headers):
            self._dropped("foreign")
            return PermissionDenied(
                "a gateway without keys answers to programs on this machine alone, and to no web"
                " page: make a key with `looms keys create`"
            )
        return None

    async def _end(self, visit: _Visit, error: LoomError) -> None:
        """Say it and end, but wait for no reader."""
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._tell(visit, error)
        except TimeoutError:
            _log.debug("nobody read the end of request %s", request_id_of(visit.scope))

    async def _tell(self, visit: _Visit, error: LoomError) -> None:
        visit.hushed = False
        if visit.ended or (visit.started and not visit.streamed):
            # A plain answer whose beginning was sent: cut off, it is not taken for whole.
            return
        scope = visit.scope
        reply = self._reply(error, scope["path"], dict(scope["headers"]))
        if visit.started:
            # As the encoders of the dialects write it; no `[DONE]` follows.
            event = b"data: " + reply.body + b"\n\n"
            await visit.send({"type": "http.response.body", "body": event, "more_body": False})
            return
        fields = {"content-type": "application/json", **reply.headers}
        if error.retry_after_s is not None:
            fields.setdefault("retry-after", f"{error.retry_after_s:.0f}")
        fields["content-length"] = str(len(reply.body))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in fields.items()]
        start = {"type": "http.response.start", "status": reply.status, "headers": headers}
        await visit.send(start)
        await visit.send({"type": "http.response.body", "body": reply.body, "more_body": False})


class _Visit:
    """
    A request that is inside.

    Args:
        scope: ASGI's.
        send: ASGI's.
    """

    __slots__ = ("_send", "cut", "ended", "hushed", "last", "scope", "started", "streamed", "task")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self._send = send
        self.task = asyncio.current_task()
        self.cut: LoomError | None = None
        self.last = self.started = self.streamed = self.ended = self.hushed = False

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Pass on what the application says, as long as it is heard."""
        if self.hushed:
            return
        if self.started:
            self.ended = not message.get("more_body", False)
        else:
            self._begin(message)
        await self._send(message)

    def _begin(self, message: MutableMapping[str, Any]) -> None:
        """Add the headers of the door."""
        self.started = True
        headers = list(message["headers"])
        names = dict(headers)
        if b"x-request-id" not in names:
            headers.append((b"x-request-id", self.scope[_REQUEST_ID].encode()))
        if self.last:
            headers.append((b"connection", b"close"))
        kind: bytes = names.get(b"content-type", b"")
        self.streamed = kind.startswith(b"text/event-stream")
        message["headers"] = headers


def _is_foreign(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request comes from a web page, or was sent to a name that leads here by chance."""
    origin = headers.get(b"origin")
    if origin is not None and not _on_this_machine(origin.partition(b"://")[2]):
        return True
    return not _on_this_machine(headers.get(b"host", b"localhost"))


def _on_this_machine(host: bytes) -> bool:
    """Whether a `Host`, or an `Origin` without its scheme, names the loopback device."""
    text = host.decode("latin-1").lower()
    name = text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _loops_back(name)


def _loops_back(address: str) -> bool:
    if address in ("127.0.0.1", "::1"):
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped: Any = getattr(found, "ipv4_mapped", None) or found
    return bool(mapped.is_loopback)
