"""A network in memory: names, listeners, connections, and what becomes of an attempt to connect."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec

from loom.testing.chance import Chance
from loom.testing.seeded_line import Line, Link, Weather

__all__ = ["Fate", "Host", "Network"]

Fate: TypeAlias = Literal["accept", "refuse", "hang"]
"""What becomes of an attempt to connect."""

# AF_INET, SOCK_STREAM, IPPROTO_TCP: on every system that Python runs on.
_IPV4, _STREAM, _TCP = 2, 1, 6


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """
    What listens at an address.

    Attributes:
        accept: Makes the protocol for a connection.
        fate: Asked for each attempt to connect.
    """

    accept: Callable[[], asyncio.BaseProtocol]
    fate: Callable[[], Fate]


class Network:
    """
    Everything that a loop can reach.

    Args:
        loop: Whose.
        chance: Draws.
        weather: What connections are like.

    Attributes:
        hosts: By address, for example "127.0.0.1".
        names: What a name is looked up as; nothing means that the look-up fails.
        note: Told what happens, for a trace.
        connections: Connections so far.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: Chance, weather: Weather) -> None:
        self.hosts: dict[str, Host] = {}
        self.names: dict[str, Callable[[], list[str]]] = {}
        self.note: Callable[[str], object] = len
        self.connections = 0
        self._loop = loop
        self._chance = chance
        self._weather = weather
        self._links: dict[Any, tuple[Host, Link]] = {}
        self._sockets: list[Any] = []
        self._lines: list[Line] = []

    @property
    def open_lines(self) -> list[str]:
        """The ends of connections that are not closed, by name."""
        return [repr(line) for line in self._lines if not line.lost]

    @property
    def open_sockets(self) -> int:
        """Sockets of the machine that were given to `connect` and are not closed."""
        return sum(sock.fileno() >= 0 for sock in self._sockets)

    def shut(self) -> None:
        """Close what is left of the machine's sockets: nothing travels any more."""
        for sock in self._sockets:
            sock.close()

    async def look_up(self, name: str, port: int) -> list[tuple[Any, ...]]:
        """
        Find the addresses of a name.

        Args:
            name: A name, or an address.
            port: Goes into the answer.

        Returns:
            As `socket.getaddrinfo` has it.

        Raises:
            OSError: If there are none.
        """
        found = [name]
        if name not in self.hosts:
            await self._delay()
            found = self.names.get(name, list)()
            self.note(f"{name} is {' and '.join(found) or 'not found'}")
        if not found:
            raise OSError(errno.ENOENT, "Name or service not known")
        return [(_IPV4, _STREAM, _TCP, "", (address, port)) for address in found]

    async def connect(self, sock: Any, address: tuple[str, int]) -> None:
        """
        Connect a socket.

        Args:
            sock: Any object that can be a key, with `fileno` and `close`.
            address: Where to.

        Raises:
            ConnectionRefusedError: If nobody listens, or refuses.
        """
        self._sockets.append(sock)
        host = self.hosts.get(address[0])
        fate: Fate = "refuse" if host is None else host.fate()
        if fate == "hang":
            self.note(f"connecting to {address[0]} hangs")
            await self._loop.create_future()
        await self._delay()
        if host is None or fate == "refuse":
            self.note(f"{address[0]} refuses")
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        self._links[sock] = (host, Link(self._chance.fork(), self._weather))

    def open(
        self, sock: Any, protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None] | None
    ) -> Line:
        """
        Make both ends of a connection.

        Args:
            sock: A connected socket; it is closed with its end.
            protocol: The client's.
            waiter: Told once the connection stands.

        Returns:
            The client's end.
        """
        host, link = self._links.pop(sock)
        self.connections += 1
        number = self.connections
        near = self._line(link, f"{number} (client)", sock)
        far = self._line(link, f"{number} (vendor)", None)
        near.peer, far.peer = far, near
        far.start(host.accept(), None)
        near.start(protocol, waiter)
        self.note(f"connection {number} stands")
        return near

    def _line(self, link: Link, name: str, sock: Any) -> Line:
        def gone(error: Exception | None) -> None:
            self.note(f"connection {name} closed{f' by {error!r}' if error else ''}")

        line = Line(self._loop, link, name, socket=sock, gone=gone)
        self._lines.append(line)
        return line

    async def _delay(self) -> None:
        done = self._loop.create_future()
        delay_s = self._chance.between(*self._weather.latency_s)
        timer = self._loop.call_later(delay_s, _finish, done)
        try:
            await done
        finally:
            timer.cancel()


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
