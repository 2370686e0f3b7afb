"""One exchange on the wire, as ASGI messages; and the watch over a caller that hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    MutableMapping,
)
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
        self.status = 0

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """
        Send status and headers.

        Args:
            status: The HTTP status.
            headers: Names in lower case.
        """
        raw = [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items()]
        self.started = True
        self.status = status
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
    task = asyncio.current_task()
    watching: asyncio.Task[None] | None = None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if task is not None:
            task.cancel()

    def waits() -> None:
        nonlocal watching
        watching = asyncio.ensure_future(watch())

    try:
        try:
            await _Stepped(work, waits)
        finally:
            # It does not outlive the request.
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
    except asyncio.CancelledError:
        # Ours, unless somebody else wants the task to end as well.
        if not gone or task is None or task.uncancel():
            raise


class _Stepped:
    """
    Runs a coroutine in the running task, and tells when it has to wait for the first time.

    Most plain answers never wait: for those nobody need be watched, and no task is made.
    """

    def __init__(self, work: Coroutine[Any, Any, None], waits: Callable[[], None]) -> None:
        self._work = work
        self._waits = waits

    def __await__(self) -> Generator[Any, Any, None]:
        work = self._work
        # As `yield from`, but for the call in between (PEP 380, "Formal Semantics").
        try:
            waited = work.send(None)
            self._waits()
            while True:
                try:
                    yield waited
                except BaseException as error:  # noqa: BLE001 - the coroutine decides
                    waited = work.throw(error)
                else:
                    waited = work.send(None)
        except StopIteration:
            return
