"""One exchange on the wire, as ASGI messages; and the watch over a caller that hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, TypeAlias

from loom.core.errors import RequestTooLarge

__all__ = ["CallerGone", "Line", "Receive", "Scope", "Send", "read_body", "until_gone"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class CallerGone(Exception):
    """The caller hung up before the request was read; nobody waits for an answer."""


class Line:
    """
    Sends one answer.

    Args:
        send: ASGI's.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """
        Send status and headers.

        Args:
            status: The HTTP status.
            headers: Names in lower case.
        """
        self.started = True
        raw = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def piece(self, data: bytes) -> None:
        """Send the next piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send an answer in one piece."""
        await self.start(status, {**headers, "content-length": str(len(body))})
        await self.end(body)


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """
    Read a request's body.

    Args:
        receive: ASGI's.
        limit_bytes: What it may weigh.

    Returns:
        The body.

    Raises:
        CallerGone: If the caller hung up.
        RequestTooLarge: If it weighs more.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit_bytes:
            raise RequestTooLarge(f"the request's body has more than {limit_bytes} bytes")
        if not message.get("more_body", False):
            return b"".join(pieces)


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """
    Do the work, or drop it the moment the caller hangs up.

    Args:
        receive: ASGI's, after the body was read.
        work: What answers the caller.
    """
    answering = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({answering, watching}, return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            answering.result()
    finally:
        # Neither outlives the request; the provider's stream is closed by the cancellation.
        answering.cancel()
        watching.cancel()
        await asyncio.gather(answering, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
