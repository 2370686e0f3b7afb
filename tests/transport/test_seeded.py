"""What only happens at one moment of many: found by seeds, and kept here as small worlds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from loom.core.errors import PoolTimeout, UnexpectedRedirect
from loom.core.request import Timeouts
from loom.testing import Host, Line, LoopClock, SeededLoop, turn
from loom.transport.contract import HttpRequest
from loom.transport.http import HttpTransport

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REDIRECT = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.9/\r\ncontent-length: 0\r\n\r\n"


class Vendor(asyncio.Protocol):
    """Answers; a connection that is `stale` is closed at its second request."""

    replies: list[bytes]

    def __init__(self, replies: list[bytes]) -> None:
        self.replies = replies
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Line)
        self.line = transport

    def data_received(self, data: bytes) -> None:
        self.asked += data.count(b"\r\n\r\n")
        if self.asked > 1:
            self.line.reset()
        elif self.asked:
            self.line.write(self.replies.pop(0))


Main = Callable[[SeededLoop, HttpTransport], Coroutine[Any, Any, None]]


def run(main: Main, *, addresses: int = 1, replies: tuple[bytes, ...] = ()) -> None:
    """Run in a world with one vendor at one or two addresses, and look what is left of it."""
    loop = SeededLoop(3)
    network = loop.network
    given = list(replies)
    found = ["127.0.0.2", "127.0.0.3"][:addresses]
    for address in found:
        network.hosts[address] = Host(accept=lambda: Vendor(given), fate=lambda: "accept")
    # The first address is slow to answer: a second attempt is made beside it.
    if addresses > 1:
        network.hosts["127.0.0.2"] = Host(accept=lambda: Vendor(given), fate=lambda: "hang")
    network.names["v.localhost"] = lambda: found

    async def all_of_it() -> None:
        transport = HttpTransport(max_connections=1)
        await main(loop, transport)
        await transport.aclose()
        await LoopClock(loop).sleep(30)
        assert 0 == transport.permits_in_use
        assert 0 == network.open_sockets
        assert [] == network.open_lines

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(all_of_it())


async def ask(transport: HttpTransport, **timeouts: float) -> bytes:
    request = HttpRequest(method="GET", url="http://v.localhost/", timeouts=Timeouts(**timeouts))
    async with transport.open(request) as reply:
        return await reply.read()


# More than a call to two addresses takes.
@pytest.mark.parametrize("turns", range(40))
def test_no_cancellation_is_lost_between_two_addresses(turns: int) -> None:
    """Cancelled at any turn of a race between two addresses, a call ends cancelled."""

    async def main(loop: SeededLoop, transport: HttpTransport) -> None:
        task = asyncio.create_task(ask(transport))
        cancelled: list[bool] = []
        loop.at_turn(loop.turns + 1 + turns, lambda: cancelled.append(task.cancel()))
        await asyncio.wait([task])
        # The turn may come when the call is over.
        assert task.cancelled() is (cancelled == [True])

    run(main, addresses=2, replies=(GOOD,))


def test_closing_while_a_name_is_looked_up_is_no_cancellation() -> None:
    """Who waits for a name when the transport is closed is told so, and not that he cancelled."""

    async def main(_loop: SeededLoop, transport: HttpTransport) -> None:
        tasks = [asyncio.create_task(ask(transport, pool_s=0.001))]
        await turn(4)
        await transport.aclose()
        await asyncio.wait(tasks)
        assert not tasks[0].cancelled()
        assert isinstance(tasks[0].exception(), RuntimeError)

    run(main)


def test_closing_breaks_off_who_connects() -> None:
    """Who waits for a connection when the transport is closed does not wait on."""

    async def main(loop: SeededLoop, transport: HttpTransport) -> None:
        loop.network.hosts["127.0.0.2"] = Host(accept=asyncio.Protocol, fate=lambda: "hang")
        task = asyncio.create_task(ask(transport))
        await LoopClock(loop).sleep(1)
        begin_s = loop.time()
        await transport.aclose()
        await asyncio.wait([task])
        assert isinstance(task.exception(), RuntimeError)
        assert 0 == task.cancelling()
        assert begin_s == loop.time()

    run(main)


def test_a_cancellation_while_closing_is_one() -> None:
    """Cancelled by its caller too, the same call ends cancelled."""

    async def main(_loop: SeededLoop, transport: HttpTransport) -> None:
        task = asyncio.create_task(ask(transport))
        await turn(4)
        task.cancel()
        await transport.aclose()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main)


def test_a_redirect_after_a_resend_counts_both() -> None:
    """A request that was sent twice and then answered with 302 was sent twice."""

    async def main(_loop: SeededLoop, transport: HttpTransport) -> None:
        assert b"ok" == await ask(transport)
        with pytest.raises(UnexpectedRedirect) as raised:
            await ask(transport)
        assert 2 == raised.value.attempts

    run(main, replies=(GOOD, REDIRECT))


def test_who_waits_for_a_slot_has_sent_nothing() -> None:
    """A call that never got a slot of the pool reports no request."""

    async def main(loop: SeededLoop, transport: HttpTransport) -> None:
        loop.network.hosts["127.0.0.2"] = Host(accept=asyncio.Protocol, fate=lambda: "accept")
        first = asyncio.create_task(ask(transport))
        await turn(20)
        with pytest.raises(PoolTimeout) as raised:
            await ask(transport, pool_s=0.5)
        assert 0 == raised.value.attempts
        first.cancel()
        await asyncio.wait([first])

    run(main)
