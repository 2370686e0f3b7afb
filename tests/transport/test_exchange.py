"""What no real server brings about on demand: bytes that lie in the socket's own buffer."""

from __future__ import annotations

import asyncio

import pytest
from tests.transport.hostile import request

from loom.core.errors import TimedOut
from loom.transport.contract import HttpRequest, SizeLimits
from loom.transport.exchange import Exchange, Terms
from loom.transport.pool import Backend, Connector, Content, Listener, Pool, Response

pytestmark = pytest.mark.anyio


class Line(asyncio.Transport):
    """A transport whose buffer holds the request's end until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 1000

    def get_write_buffer_size(self) -> int:
        return self.held

    def abort(self) -> None:
        self.held = 0


class Wire:
    """A connection whose reply never comes."""

    def __init__(self, line: Line) -> None:
        self.transport: asyncio.Transport | None = line
        self.heard = False
        self.uses = 0
        self.reply: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def is_connected(self) -> bool:
        return True

    def set_exception(self, exc: BaseException) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


class Sockets:
    async def close(self) -> None:
        """Hold nothing."""


class Library(Backend):
    """Hands the whole request to the line at once, and lets go of it a little later, or never."""

    failures = (OSError,)

    def __init__(self, drained_after_s: float | None) -> None:
        self._drained_after_s = drained_after_s

    def connector(self, loop: asyncio.AbstractEventLoop, *, fresh: bool) -> Connector:
        return Sockets()

    async def send(
        self, connector: Connector, request: HttpRequest, listener: Listener, connect_s: float
    ) -> Response | Exception:
        line = Line()
        wire = Wire(line)
        listener.connected(wire, line)
        listener.written()
        if self._drained_after_s is not None:
            asyncio.get_running_loop().call_later(self._drained_after_s, line.abort)
        try:
            await wire.reply
        except OSError as error:
            return error
        raise AssertionError("no reply ever comes")

    def leftover(self, content: Content) -> bytes:
        return b""

    def forget(self, connector: Connector) -> None:
        """Hold nothing."""


@pytest.mark.parametrize(
    ("drained_after_s", "phase"), [(None, "write"), (0.01, "first_byte")], ids=["never", "soon"]
)
async def test_a_request_that_was_handed_over_but_not_sent(
    drained_after_s: float | None, phase: str
) -> None:
    """While the buffer holds some of it, the request is being written; then its reply is due."""
    pool = Pool(asyncio.get_running_loop(), Library(drained_after_s), 1)

    async def find_pool() -> Pool:
        return pool

    sent = request("http://127.0.0.1:1/", write_s=0.05, first_byte_s=0.1)
    with pytest.raises(TimedOut) as caught:
        async with Exchange(sent, Terms(SizeLimits(), None, ""), find_pool):
            pass
    assert phase == caught.value.phase
    assert 0 == pool.slots.taken
    assert not pool.active
