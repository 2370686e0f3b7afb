"""
One session with an MCP server, entered and left in one task.

It runs on the loop of `mcp_thread.LoopThread`; `mcp_connection.Connection` has one after another.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress

from mcp import Client, MCPError, types

from loom.core.errors import ConfigInvalid, LoomError, ToolFailed, ToolTimedOut
from loom.core.version import VERSION
from loom.shuttle.mcp_door import TRIP, Stderr, Trip, http_way, stdio_way
from loom.shuttle.mcp_place import Place

__all__ = ["LONGEST_WORDS", "Link", "is_end", "reason"]

_log = logging.getLogger(__name__)

LONGEST_WORDS = 2_048
"""Characters of a server's words in an error: the same as for what vendors say (S10)."""

# Leaving takes 0.5 + 2 + 2 + 2 seconds at most (mcp.client.stdio), or one DELETE.
_LEAVE_S = 8.0
_LAST_WORDS_S = 0.5


class Link:
    """
    A session, from the server's start to its end, in a task of its own.

    Args:
        place: Where the server is.

    Attributes:
        generation: Grows with each change of the server's tools.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Client] = loop.create_future()
        self._opened.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._leave = asyncio.Event()
        self._silent = asyncio.Event()
        self._stderr = Stderr(place, loop, self._silent) if place.command else None
        self._patience: asyncio.Timeout | None = None
        self._trip = Trip()
        self._waiting = 0
        self._dismissed = False
        self._garbage = ""
        self._follower: asyncio.Task[None] | None = None
        self._followed = False
        self.generation = 0
        self._holder = asyncio.create_task(self._hold(), name=f"loom-mcp {place.name}")

    @property
    def over(self) -> bool:
        """Whether it is ended, or will be soon."""
        return self._holder.done() or self._leave.is_set()

    async def client(self) -> Client:
        """
        The client, as soon as the server is ready.

        Raises:
            LoomError: If it does not become so.
        """
        self._waiting += 1
        try:
            return await asyncio.shield(self._opened)
        except asyncio.CancelledError:
            if self._waiting == 1 and not self._opened.done():
                self.leave()  # nobody waits any more: the child is not left behind
            raise
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        """Have the session end, its start included; waits for nothing."""
        self._leave.set()
        if self._patience is not None and not self._opened.done():
            self._dismissed = True
            with suppress(RuntimeError):  # it is failing already
                self._patience.reschedule(0.0)

    async def ended(self) -> None:
        """Wait until the session is left and the server's last words are read."""
        await asyncio.wait([self._holder], timeout=_LEAVE_S)
        await self._hear_last_words()

    def keeps(self, client: Client) -> bool:
        """Whether a listing stays true until `generation` grows: the server tells of changes."""
        tools = client.server_capabilities.tools
        if tools is None or not tools.list_changed:
            return True
        return self._followed or client.session.initialize_result is not None

    def last_words(self) -> str:
        """What the server wrote besides answers, to be put behind an error."""
        words = f"; it wrote what is no message: {self._garbage}" if self._garbage else ""
        if self._stderr is not None and self._trip.failure:
            words += f"; {self._trip.failure}"
        lines = list(self._stderr.lines) if self._stderr is not None else []
        return f"{words}; its last words: {' | '.join(lines)}" if lines else words

    async def _hold(self) -> None:
        """Enter the session, wait, leave it: the only task that touches its cancel scopes."""
        trip = self._trip
        trip.end = self.leave
        TRIP.set(trip)  # of this task, and those that the SDK begins in it
        failure: Exception | None = None
        try:
            if not self._leave.is_set():
                await self._enter_and_wait()
        except Exception as error:  # noqa: BLE001 - the SDK raises anything, groups too
            failure = error
            _log.debug("%s: the session ended: %s", self._place.name, type(error).__name__)
        finally:
            self._leave.set()
            if self._follower is not None:
                self._follower.cancel()
        if not self._opened.done():
            await self._hear_last_words()
            self._opened.set_exception(self._not_opened(failure, trip))

    async def _enter_and_wait(self) -> None:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(self._place.connect_timeout_s) as self._patience:
                client = await stack.enter_async_context(self._new_client())
            self._follower = asyncio.create_task(self._follow(client))
            self._opened.set_result(client)
            await self._leave.wait()

    def _new_client(self) -> Client:
        way = (
            http_way(self._place) if self._stderr is None else stdio_way(self._place, self._stderr)
        )
        return Client(
            way,
            cache=None,
            message_handler=self._notice,
            client_info=types.Implementation(name="loom", version=VERSION),
        )

    async def _hear_last_words(self) -> None:
        if self._stderr is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._silent.wait()

    def _not_opened(self, failure: Exception | None, trip: Trip) -> LoomError:
        who = f"the MCP server {self._place.name!r} ({self._place.shown})"
        cause = failure
        while isinstance(cause, ExceptionGroup):
            cause = cause.exceptions[0]
        if isinstance(cause, OSError) and cause.filename is not None:
            return ConfigInvalid(f"{who} cannot be started: {cause.strerror}: {cause.filename}")
        if self._opened_too_late(failure) and not self._dismissed:
            patience_s = self._place.connect_timeout_s
            return ToolTimedOut(f"{who} was not ready after {patience_s:g} s{self.last_words()}")
        closed = "it was closed" if self._dismissed or cause is None else ""
        why = trip.failure or closed or reason(trip)
        if not why and (is_end(cause) or (self._stderr is not None and _is_broken(cause))):
            why = "it ended"
        elif not why and isinstance(cause, MCPError):
            why = f"it answered: {cause.message}"
        why = why or f"{type(cause).__name__}: {cause}"
        words = self._place.hide(f"{who} could not be connected: {why}")[:LONGEST_WORDS]
        return ToolFailed(f"{words}{self.last_words()}")

    def _opened_too_late(self, failure: Exception | None) -> bool:
        return isinstance(failure, TimeoutError) or (
            self._patience is not None and self._patience.expired()
        )

    async def _follow(self, client: Client) -> None:
        """Hear of changed tools where the protocol has a stream for it (2026-07-28)."""
        tools = client.server_capabilities.tools
        if client.session.discover_result is None or tools is None or not tools.list_changed:
            return
        try:
            async with client.listen(tools_list_changed=True) as changes:
                self._followed = True
                self.generation += 1
                async for _ in changes:
                    self.generation += 1
        except Exception as error:  # noqa: BLE001 - then each use lists anew: nothing is lost
            _log.debug("%s: no notice of changes: %s", self._place.name, type(error).__name__)
        finally:
            self._followed = False
            self.generation += 1

    async def _notice(self, message: object) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.generation += 1
        elif isinstance(message, Exception) and not self._garbage:
            self._garbage = self._place.hide(str(message).replace("\n", " "))[:200]


def is_end(error: object) -> bool:
    """
    Whether an error of the SDK says that the session is over.

    Args:
        error: What was raised.

    Returns:
        True if so. A server may use the same number for other things, so the words count too.
    """
    return (
        isinstance(error, MCPError)
        and error.code == types.CONNECTION_CLOSED
        and error.message == "Connection closed"
    )


def _is_broken(error: object) -> bool:
    """Whether a pipe broke: the names are anyio's, and Python's."""
    return isinstance(error, ConnectionError) or type(error).__name__ in {
        "BrokenResourceError",
        "ClosedResourceError",
    }


def reason(trip: Trip) -> str:
    """
    Why a way ended, as far as HTTP says it.

    Args:
        trip: What was noted of the request.

    Returns:
        A few words; empty if HTTP has nothing to say.
    """
    if trip.failure:
        return trip.failure
    return "" if trip.status is None or trip.status < 400 else f"HTTP {trip.status}"
