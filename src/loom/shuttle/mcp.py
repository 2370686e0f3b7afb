"""
Tools of an MCP server, as tools here.

    files = loom.mcp("uvx mcp-server-fetch")
    agent = Agent(llm=..., tools=[files])

The `mcp` package takes more than a second to import, so nothing of it is touched before the first
use.
"""

from __future__ import annotations

import json
import re
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loom.core.errors import ConfigInvalid, ToolArgumentsInvalid, ToolFailed
from loom.core.messages import Part
from loom.core.secret import Secret
from loom.shuttle.mcp_names import model_names
from loom.shuttle.mcp_place import Place, place_of
from loom.shuttle.mcp_thread import Ended, LoopThread
from loom.shuttle.source import ToolSource
from loom.shuttle.tool import Tool

if TYPE_CHECKING:
    from loom.shuttle.mcp_connection import Connection, Offer

__all__ = ["McpServer", "McpTool", "mcp"]

T = TypeVar("T")

_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,32}")


def mcp(
    server: str | Sequence[str],
    *,
    name: str | None = None,
    prefix: str | None = None,
    tools: Collection[str] | None = None,
    env: Mapping[str, str | Secret] | None = None,
    cwd: str | Path | None = None,
    headers: Mapping[str, str | Secret] | None = None,
    timeout_s: float | None = 60.0,
    connect_timeout_s: float = 30.0,
) -> McpServer:
    """
    Tools of an MCP server: `mcp("uvx some-server")`, `mcp("https://host/mcp")`.

    Nothing is started or sent before the first use. The extra `mcp` must be installed by then.

    Args:
        server: A command as a shell splits it, or its words; no shell runs it. Or the address of a
            streamable HTTP server: https, or http on loopback.
        name: What errors and logs call the server; None: by its program or host.
        prefix: Put before the name of each tool, with `_` between; 1 to 32 of `A-Z a-z 0-9 _ -`.
        tools: The server's tools that are offered, by its own names; None: all.
        env: Variables of the server's environment. It gets no others of ours but PATH, HOME, USER,
            LOGNAME, SHELL and TERM, so no key of this program leaks.
        cwd: The folder that the server is started in; None: the current one.
        headers: Sent with each request; values are never shown.
        timeout_s: Seconds for one call of a tool, above 0; None: as long as it takes.
        connect_timeout_s: Seconds for the server's start, and for the listing of its tools.

    Returns:
        The server, a source of tools.

    Raises:
        ConfigInvalid: If an argument is not as it must be.
    """
    if prefix is not None and _PREFIX.fullmatch(prefix) is None:
        raise ConfigInvalid(f"mcp: prefix {prefix!r} must be 1 to 32 of A-Z a-z 0-9 _ -")
    if isinstance(tools, str):
        raise ConfigInvalid("mcp: tools is one text; give a list of names")
    place = place_of(
        server,
        name=name,
        env=env,
        cwd=cwd,
        headers=headers,
        timeout_s=timeout_s,
        connect_timeout_s=connect_timeout_s,
    )
    return McpServer(place, prefix=prefix, allowed=None if tools is None else frozenset(tools))


class McpTool(Tool):
    """
    A tool of an MCP server.

    Attributes:
        server_name: The tool's name on the server.
        timeout_s: Seconds for one call; None: no limit of its own.
    """

    def __init__(self, desk: _Desk, name: str, offer: Offer) -> None:
        self._desk = desk
        self._name = name
        self._offer = offer
        self.server_name = offer.name
        self.timeout_s = desk.place.timeout_s

    def __eq__(self, other: object) -> bool:
        """Whether it is the same tool of the same server, described in the same words."""
        if not isinstance(other, McpTool):
            return NotImplemented
        mine = (self._name, self._offer)
        return self._desk is other._desk and mine == (other._name, other._offer)

    def __hash__(self) -> int:
        """By server and name."""
        return hash((id(self._desk), self._name))

    @property
    def name(self) -> str:
        """As the model calls it: 1 to 64 of `A-Z a-z 0-9 _ -`."""
        return self._name

    @property
    def description(self) -> str:
        """As the server describes it."""
        return self._offer.description

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The server's input schema, whole."""
        return self._offer.parameters

    async def execute(self, input: dict[str, Any]) -> str | tuple[Part, ...]:  # noqa: A002 - spec's name
        """
        Have the server run it, from any task and event loop; cancelling the task tells the server.

        Args:
            input: The arguments that the model wrote.

        Returns:
            One text, or parts: texts, images, sounds, documents.

        Raises:
            ToolArgumentsInvalid: If the arguments cannot be written as JSON.
            ToolFailed: If the tool says that it failed, or the server fails.
            ToolTimedOut: After `timeout_s`.
            ConfigInvalid: If the server cannot be started.
        """
        try:
            json.dumps(input, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            # The SDK would find it where the session ends by it.
            raise ToolArgumentsInvalid(f"the arguments are not JSON: {error}") from None
        return await self._desk.call(self.server_name, input)

    def __repr__(self) -> str:
        """Name and server."""
        return f"McpTool({self._name!r} of {self._desk.place.name!r})"


class McpServer(ToolSource):
    """
    The tools of one MCP server; made by `loom.mcp`.

    It may be used from several tasks, event loops and threads at once: the session lives on a
    thread of its own, from the first use to `aclose()`. A use after `aclose()` begins a new one.
    """

    def __init__(self, place: Place, *, prefix: str | None, allowed: frozenset[str] | None) -> None:
        self._prefix = prefix
        self._allowed = allowed
        self._seen = False
        self._desk = _Desk(place)

    @property
    def name(self) -> str:
        """What errors and logs call it."""
        return self._desk.place.name

    async def tools(self) -> tuple[McpTool, ...]:
        """
        The server's tools; connects at first use, and lists anew when they changed.

        Returns:
            In the server's order.

        Raises:
            ConfigInvalid: If the server cannot be started, the extra `mcp` is not installed, or
                `tools=` names what the server does not have.
            ToolFailed: If the server fails.
            ToolTimedOut: If it is not ready in time.
        """
        offers = {offer.name: offer for offer in reversed(await self._desk.offers())}
        ordered = list(reversed(offers.values()))
        if self._allowed is not None:
            self._check_allowed(offers)
            ordered = [offer for offer in ordered if offer.name in self._allowed]
        names = model_names([offer.name for offer in ordered], self._prefix)
        return tuple(McpTool(self._desk, given, offers[own]) for given, own in names.items())

    async def aclose(self) -> None:
        """End the session and, if it was started here, the server; a second time does nothing."""
        await self._desk.aclose()

    def __repr__(self) -> str:
        """Name and place; no argument, header or variable."""
        return f"McpServer({self.name!r}, {self._desk.place.shown})"

    def _check_allowed(self, offers: Mapping[str, Offer]) -> None:
        missing = sorted((self._allowed or frozenset()) - set(offers))
        # Later a server may withdraw a tool; that is no reason to stop.
        if not missing or self._seen:
            self._seen = True
            return
        from difflib import get_close_matches  # noqa: PLC0415 - only on the way to an error

        near = get_close_matches(missing[0], offers, n=1)
        wish = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(offers)[:20])}"
        raise ConfigInvalid(f"the MCP server {self.name!r} has no tool {missing[0]!r}: {wish}")


class _Desk:
    """Where calls from everywhere are handed over to the server's thread."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._gate = threading.Lock()
        self._room: _Room | None = None

    async def offers(self) -> tuple[Offer, ...]:
        return await self._run(lambda connection: connection.offers())

    async def call(self, name: str, arguments: dict[str, Any]) -> str | tuple[Part, ...]:
        return await self._run(lambda connection: connection.call(name, arguments))

    async def aclose(self) -> None:
        room = self._room
        if room is not None and room.thread.usable:
            await room.thread.stop()

    async def _run(self, ask: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        with self._gate:
            if self._room is None or not self._room.thread.usable:
                self._room = _Room(self.place)
                # When the server and its tools are forgotten, no process is left behind.
                weakref.finalize(self, self._room.thread.stop_soon).atexit = False
            room = self._room

        async def there() -> T:
            return await ask(room.connection())

        try:
            return await room.thread.run(there)
        except Ended:
            raise ToolFailed(
                f"the MCP server {self.place.name!r} was closed before it answered", uncertain=True
            ) from None


class _Room:
    """A thread, and the connection that lives on it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._connection: Connection | None = None
        self.thread = LoopThread(f"loom-mcp {place.name}", self._wind_up)

    def connection(self) -> Connection:
        """Only on the thread."""
        if self._connection is None:
            try:
                from loom.shuttle.mcp_connection import Connection  # noqa: PLC0415 - an extra, 1.3 s
            except ImportError:
                raise ConfigInvalid(
                    "MCP servers need the package mcp, 2.3 or newer: pip install 'looms[mcp]'"
                ) from None
            self._connection = Connection(self._place)
        return self._connection

    async def _wind_up(self) -> None:
        if self._connection is not None:
            await self._connection.close()
