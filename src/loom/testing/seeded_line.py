"""
A connection in memory: two ends, and between them what a kernel and a wire do.

`Line` is an `asyncio.Transport` with asyncio's own rules: when callbacks come, what `close`
flushes, what `abort` drops. Bytes wait for the peer's window, travel for a while, arrive in any
cut; a socket that is gone answers with a reset.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    from loom.testing.chance import Chance

__all__ = ["Line", "Link", "Weather"]

# asyncio's own: pause the writer above it, resume it below a quarter.
_HIGH_BYTES = 64 * 1024
# What a read of asyncio's takes at once.
_READ_BYTES = 256 * 1024
# A cut finer than this shows nothing new, and takes long.
_MOST_CUTS = 10
# Between two pieces: read as one, read one by one, or with time for something else between.
_GAPS_S = (0.0, 1e-5, 0.003)


class Weather(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a network is like.

    Attributes:
        latency_s: Shortest and longest way of a piece, in seconds.
        shredded: How many connections of all cut their bytes at random, 0 to 1.
        windows_bytes: What may be under way in one direction; each connection draws one.
    """

    latency_s: tuple[float, float] = (0.0005, 0.02)
    shredded: float = 0.3
    windows_bytes: tuple[int, ...] = (64 * 1024,)


class Link:
    """
    The chance of one connection.

    Args:
        chance: Draws.
        weather: Of the network.
    """

    def __init__(self, chance: Chance, weather: Weather) -> None:
        self.window = chance.pick(weather.windows_bytes)
        self._chance = chance
        self._latency = weather.latency_s
        self._shredded = chance.happens(weather.shredded)

    def delay_s(self) -> float:
        """Draw how long a piece is under way."""
        return self._chance.between(*self._latency)

    def gap_s(self) -> float:
        """Draw how long after the piece before it a piece comes."""
        return self._chance.pick(_GAPS_S) if self._shredded else 0.0

    def cut(self, data: bytes) -> Iterable[bytes]:
        """
        Cut bytes as the network does.

        Args:
            data: At least one byte.
        """
        if not self._shredded or len(data) == 1:
            return (data,)
        cuts = self._chance.whole(1, min(len(data) - 1, _MOST_CUTS))
        places = sorted({self._chance.whole(1, len(data) - 1) for _ in range(cuts)})
        return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]

    def drops(self) -> bool:
        """Draw whether a reset overtakes what is under way."""
        return self._chance.happens(0.5)


class _End:
    """What arrives when the other side has ended."""

    __slots__ = ("reset",)

    def __init__(self, *, reset: bool) -> None:
        self.reset = reset


_Item: TypeAlias = bytes | _End


class Line(asyncio.Transport):
    """
    One end of a connection.

    Args:
        loop: The loop.
        link: The connection's chance.
        name: For the trace.
        socket: The socket that stands for it, or None.
        gone: Called once it is closed, with what broke it.

    Attributes:
        peer: The other end.
        lost: Whether its protocol was told that it is over.
    """

    peer: Line

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        name: str,
        *,
        socket: Any = None,
        gone: Callable[[Exception | None], object] = id,
    ) -> None:
        address = ("127.0.0.1", 0)
        super().__init__({"peername": address, "sockname": address, "socket": socket})
        self.lost = False
        self.name = name
        self._loop = loop
        self._link = link
        self._socket = socket
        self._gone = gone
        self._protocol: Any = None
        # Outgoing: what waits for the window, what is under way.
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._room = link.window
        self._flight: deque[tuple[float, _Item]] = deque()
        self._landing: asyncio.TimerHandle | None = None
        self._limits = (_HIGH_BYTES // 4, _HIGH_BYTES)
        self._writer_paused = False
        self._half_closed = False
        # Incoming.
        self._inbox: deque[_Item] = deque()
        self._reading: asyncio.Handle | None = None
        self._paused = False
        self._started = False
        self._closing = False

    def start(self, protocol: asyncio.BaseProtocol, waiter: asyncio.Future[None] | None) -> None:
        """
        Tell the protocol, then read: in the order of asyncio's own transport.

        Args:
            protocol: Whose connection it is.
            waiter: Who waits for it.
        """
        self._protocol = protocol
        self._loop.call_soon(protocol.connection_made, self)
        self._loop.call_soon(self._begin)
        if waiter is not None:
            self._loop.call_soon(_tell, waiter)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; what the window does not take waits here."""
        if self._half_closed:
            raise RuntimeError("Cannot call write() after write_eof()")
        if not data or self.lost or self._gone_soon():
            return
        self._buffer.append(bytes(data))
        self._size += len(data)
        self._flush()
        if self._size > self._limits[1] and not self._writer_paused:
            self._writer_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send them as one."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """End this direction once everything is sent."""
        if not self._half_closed and not self._closing:
            self._half_closed = True
            self._flush()

    def can_write_eof(self) -> bool:
        """Yes."""
        return True

    def get_write_buffer_size(self) -> int:
        """Give the bytes that wait for the window."""
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Give the low and the high mark."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, with asyncio's defaults."""
        if high is None:
            high = _HIGH_BYTES if low is None else 4 * low
        self._limits = (high // 4 if low is None else low, high)

    def is_reading(self) -> bool:
        """Whether what arrives is handed on."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Let what arrives lie, until the window is full."""
        if not self._closing:
            self._paused = True

    def resume_reading(self) -> None:
        """Hand on again what arrives."""
        if not self._closing and self._paused:
            self._paused = False
            self._read_soon()

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Give the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Change the protocol."""
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._closing

    def close(self) -> None:
        """Close, once what was written has left."""
        if self._closing:
            return
        self._closing = True
        if not self._buffer:
            self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        """Close at once; what waits for the window is dropped."""
        self._force(None)

    def reset(self) -> None:
        """Close with a reset (RST), as a process that dies or a router that forgets."""
        if self.lost:
            return
        if self._link.drops():
            self._flight.clear()
        self._launch(_End(reset=True))
        self._force(None)

    def __repr__(self) -> str:
        """Name and state."""
        state = "closed" if self.lost else "closing" if self._closing else "open"
        return f"<Line {self.name} {state}>"

    def _begin(self) -> None:
        self._started = True
        self._read_soon()

    def _gone_soon(self) -> bool:
        return self._closing and not self._buffer

    def _flush(self) -> None:
        while self._buffer and self._room > 0:
            data = self._buffer.popleft()
            if len(data) > self._room:
                self._buffer.appendleft(data[self._room :])
                data = data[: self._room]
            self._room -= len(data)
            self._size -= len(data)
            for piece in self._link.cut(data):
                self._launch(piece)
        if self._writer_paused and self._size <= self._limits[0]:
            self._writer_paused = False
            self._protocol.resume_writing()
        if self._buffer:
            return
        if self._closing:
            self._end(None)
        elif self._half_closed:
            self._launch(_End(reset=False))

    def _launch(self, item: _Item) -> None:
        at_s = self._loop.time() + self._link.delay_s()
        if self._flight:
            # Nothing overtakes on one connection.
            at_s = max(at_s, self._flight[-1][0] + self._link.gap_s())
        self._flight.append((at_s, item))
        if self._landing is None:
            self._landing = self._loop.call_at(self._flight[0][0], self._land)

    def _land(self) -> None:
        self._landing = None
        now_s = self._loop.time()
        while self._flight and self._flight[0][0] <= now_s:
            self.peer._receive(self._flight.popleft()[1])  # noqa: SLF001 - an end of the same kind
        if self._flight:
            self._landing = self._loop.call_at(self._flight[0][0], self._land)

    def _receive(self, item: _Item) -> None:
        if isinstance(item, _End) and item.reset:
            self._inbox.clear()
            if not self.lost:
                self._force(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        elif not self.lost:
            self._inbox.append(item)
            self._read_soon()
        elif not isinstance(item, _End):
            # Nobody is there any more: the kernel says so.
            self._launch(_End(reset=True))

    def _read_soon(self) -> None:
        if self._inbox and self._reading is None and self._started:
            self._reading = self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._reading = None
        if not self.is_reading() or not self._inbox:
            return
        item = self._inbox.popleft()
        try:
            if isinstance(item, _End):
                if not self._protocol.eof_received():
                    self.close()
            else:
                self._read_bytes(item)
        except Exception as error:  # noqa: BLE001 - as asyncio: told, and the connection closed
            self._loop.call_exception_handler(
                {"message": "a protocol failed", "exception": error, "transport": self}
            )
            self._force(error)
        self._read_soon()

    def _read_bytes(self, data: bytes) -> None:
        pieces = [data]
        weight = len(data)
        while self._inbox and weight < _READ_BYTES:
            following = self._inbox[0]
            if isinstance(following, _End):
                break
            pieces.append(following)
            weight += len(following)
            self._inbox.popleft()
        self.peer._consumed(weight)  # noqa: SLF001 - an end of the same kind
        self._protocol.data_received(b"".join(pieces))

    def _consumed(self, weight: int) -> None:
        self._room += weight
        if self._buffer and not self.lost:
            self._flush()

    def _force(self, error: Exception | None) -> None:
        if self.lost:
            return
        self._buffer.clear()
        self._size = 0
        if not self._closing or error is not None:
            self._closing = True
        self._loop.call_soon(self._end, error)

    def _end(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        unread = any(not isinstance(item, _End) for item in self._inbox)
        self._inbox.clear()
        try:
            self._protocol.connection_lost(error)
        finally:
            if self._socket is not None:
                self._socket.close()
            if not isinstance(error, ConnectionResetError):
                self._launch(_End(reset=unread))
            self._gone(error)


def _tell(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
