"""
What is asked of an MCP server: its tools, and to run one; by one session after another.

A request is sent again, once, only if nobody can have received it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from mcp import Client, MCPError, types
from mcp.client import InputRequiredRoundsExceededError

from loom.core.errors import LoomError, ToolFailed, ToolTimedOut
from loom.core.messages import Part
from loom.shuttle.mcp_answer import answer_of, words_of
from loom.shuttle.mcp_door import TRIP, Trip
from loom.shuttle.mcp_link import LONGEST_WORDS, Link, is_end, reason
from loom.shuttle.mcp_place import Place

__all__ = ["Connection", "Offer"]

# Where a server that lists without end is left.
_MOST_PAGES = 1_000
_MOST_TOOLS = 10_000
_LISTING = "the listing of its tools"

T = TypeVar("T")


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the server lists it."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class Connection:
    """
    What `McpServer` speaks to.

    Args:
        place: Where the server is.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._link: Link | None = None
        self._listed: tuple[Link, int, tuple[Offer, ...]] | None = None

    async def offers(self) -> tuple[Offer, ...]:
        """
        The server's tools; listed anew only when they may have changed.

        Returns:
            In the server's order.

        Raises:
            LoomError: If the server cannot be reached, or its listing is none.
        """
        link = self._current()
        if self._listed is not None and self._listed[:2] == (link, link.generation):
            return self._listed[2]
        link, generation, offers = await self._exchange(self._list, timed_out=_LISTING)
        client = await link.client()
        self._listed = (link, generation, offers) if link.keeps(client) else None
        return offers

    async def call(self, name: str, arguments: dict[str, Any]) -> str | tuple[Part, ...]:
        """
        Have the server run a tool.

        Args:
            name: The server's own name of it.
            arguments: What the model wrote.

        Returns:
            The answer, as the model reads it.

        Raises:
            ToolFailed: If the tool says that it failed, or the server fails.
            ToolTimedOut: After `timeout_s`.
            LoomError: If the server cannot be reached.
        """

        async def ask(_link: Link, client: Client) -> types.CallToolResult:
            async with asyncio.timeout(self._place.timeout_s):
                return await client.call_tool(name, arguments)

        result = await self._exchange(ask, timed_out=f"the tool {name!r}")
        if result.is_error:
            raise ToolFailed(self._place.hide(words_of(result)))
        return answer_of(result)

    async def close(self) -> None:
        """End the session and the server; a later use begins a new one."""
        link, self._link, self._listed = self._link, None, None
        if link is not None:
            link.leave()
            await link.ended()

    def _current(self) -> Link:
        if self._link is None or self._link.over:
            self._link = Link(self._place)
        return self._link

    async def _exchange(self, ask: Callable[[Link, Client], Awaitable[T]], *, timed_out: str) -> T:
        """Do something with the session; once more if it was gone before anything was sent."""
        for last in (False, True):
            link = self._current()
            client = await link.client()
            trip = Trip()
            token = TRIP.set(trip)
            try:
                return await ask(link, client)
            except (TimeoutError, LoomError) as error:
                raise self._trouble(error, trip, link, timed_out) from None
            except Exception as error:  # noqa: BLE001 - the SDK raises anything, groups too
                lost = is_end(error) or link.over or trip.status == 404
                gone = lost and not trip.sent and not trip.failure
                if lost:
                    link.leave()
                    await link.ended()
                if gone and not last:
                    continue
                raise self._trouble(error, trip, link, timed_out) from None
            finally:
                TRIP.reset(token)
        raise AssertionError  # pragma: no cover - the second round returns or raises

    async def _list(self, link: Link, client: Client) -> tuple[Link, int, tuple[Offer, ...]]:
        generation = link.generation
        offers: list[Offer] = []
        cursor: str | None = None
        seen: set[str] = set()
        if client.server_capabilities.tools is None:
            return link, generation, ()
        async with asyncio.timeout(self._place.connect_timeout_s):
            while True:
                page = await client.list_tools(cursor=cursor)
                offers += [_offer(tool) for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None:
                    return link, generation, tuple(offers)
                if cursor in seen or len(seen) >= _MOST_PAGES or len(offers) > _MOST_TOOLS:
                    raise ToolFailed(
                        f"the MCP server {self._place.name!r} lists its tools without end"
                        f" ({len(offers)} on {len(seen) + 1} pages)"
                    )
                seen.add(cursor)

    def _trouble(self, error: Exception, trip: Trip, link: Link, what: str) -> LoomError:
        who = f"the MCP server {self._place.name!r}"
        if isinstance(error, LoomError):
            return error
        if isinstance(error, TimeoutError):
            listing = what == _LISTING
            limit_s = self._place.connect_timeout_s if listing else self._place.timeout_s
            return ToolTimedOut(f"{what} timed out after {limit_s or 0.0:g} s ({who})")
        why = reason(trip)
        if why:
            why = f"was not reached: {why}" if not trip.sent else f"failed: {why}"
        elif is_end(error):
            why = f"ended before it answered{link.last_words()}"
        elif isinstance(error, MCPError):
            why = f"answered with an error: {error.message}"
        elif isinstance(error, InputRequiredRoundsExceededError | RuntimeError):
            why = f"gave an answer that cannot be used: {error}"
        else:
            why = f"gave an answer that is not as MCP has it: {type(error).__name__}"
        words = self._place.hide(f"{who} {why}")[:LONGEST_WORDS]
        return ToolFailed(words, uncertain=trip.sent)


def _offer(tool: types.Tool) -> Offer:
    return Offer(
        name=tool.name,
        description=tool.description or tool.title or "",
        parameters=tool.input_schema,
    )
