"""Cancelled anywhere, once or twice: slots, sockets and tasks come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.transport.hostile import (
    STREAM_HEAD,
    Peer,
    Script,
    authority,
    request,
    serve_in_thread,
    server_tls,
)

from loom.core.errors import TimedOut
from loom.testing import cancel_everywhere
from loom.transport.http import HttpTransport
from loom.transport.slots import Slots

pytestmark = pytest.mark.anyio


async def plain(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer()


async def three_events(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(STREAM_HEAD)
        for _ in range(3):
            await peer.chunk(b"data: {}\n\n")
        await peer.send(b"0\r\n\r\n")


async def no_end(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b"data: {}\n\n")
    await peer.gone()


async def read(transport: HttpTransport, url: str) -> None:
    async with transport.open(request(url)) as reply:
        await reply.read()


async def drain(transport: HttpTransport, url: str) -> None:
    async with transport.open(request(url, stream=True)):
        pass


async def first_event(transport: HttpTransport, url: str) -> None:
    async with transport.open(request(url, stream=True)) as reply:
        async for _ in reply.chunks():
            break


async def stall(transport: HttpTransport, url: str) -> None:
    try:
        async with transport.open(request(url, stream=True, idle_s=0.01)) as reply:
            async for _ in reply.chunks():
                pass
    except TimedOut:
        return


async def upload(transport: HttpTransport, url: str) -> None:
    async with transport.open(request(url, body=b"x" * (1 << 22))) as reply:
        await reply.read()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize(
    ("call", "script"),
    [
        (read, plain),
        (read, three_events),
        (drain, three_events),
        (first_event, three_events),
        (first_event, no_end),
        (stall, no_end),
        (upload, plain),
    ],
)
async def test_a_call(call: Callable[..., object], script: Script, kept: bool) -> None:  # noqa: FBT001 - parametrized
    """On a new connection and on a kept one, with one slot: it would be missed at once."""
    transport = HttpTransport(max_connections=1)
    with serve_in_thread(script) as server:
        # The loop's own generator and the library's import are there before the first round.
        await call(transport, server.url)  # type: ignore[misc] # a coroutine function

        async def once() -> None:
            if not kept:
                for wire in next(iter(transport._homes.values())).pool.wires:
                    wire.close()  # type: ignore[attr-defined] # of the library's
            await call(transport, server.url)  # type: ignore[misc] # a coroutine function

        survey = await cancel_everywhere(
            once,
            probes={
                "slots": lambda: transport.permits_in_use,
                "active": lambda: len(next(iter(transport._homes.values())).pool.active),
                "more than one socket": lambda: max(0, transport.open_sockets - 1),
            },
        )
        assert survey.suspensions
        await transport.aclose()
        assert 0 == transport.open_sockets
        server.wait_closed()


async def test_a_tls_call(tmp_path: object) -> None:
    """In the handshake too."""
    ca = f"{tmp_path}/ca.pem"
    authority().cert_pem.write_to_path(ca)
    transport = HttpTransport(max_connections=1, ca_file=ca)
    with serve_in_thread(plain, server_tls()) as server:
        await read(transport, server.url)

        async def once() -> None:
            for wire in next(iter(transport._homes.values())).pool.wires:
                wire.close()  # type: ignore[attr-defined] # of the library's
            await read(transport, server.url)

        await cancel_everywhere(once, probes={"slots": lambda: transport.permits_in_use})
        await transport.aclose()
        server.wait_closed()


async def test_waiting_for_a_slot() -> None:
    """A slot that comes together with a cancellation is given to the next."""
    slots = Slots(1)

    async def once() -> None:
        assert slots.try_take()
        asyncio.get_running_loop().call_soon(slots.give_back)
        if await slots.wait(10.0):
            slots.give_back()

    await cancel_everywhere(once, probes={"taken": lambda: slots.taken})
    assert slots.try_take()


async def test_the_order_of_waiting() -> None:
    """Slots go to whoever asked first; who gave up is passed over."""
    slots = Slots(1)
    assert slots.try_take()
    got: list[int] = []

    async def wait(number: int) -> None:
        if await slots.wait(10.0):
            got.append(number)

    tasks = [asyncio.ensure_future(wait(number)) for number in range(4)]
    await asyncio.wait(tasks, timeout=0)
    tasks[1].cancel()
    await asyncio.wait(tasks, timeout=0)
    for expected in ([0], [0, 2], [0, 2, 3]):
        slots.give_back()
        await asyncio.wait(tasks, timeout=0)
        await asyncio.wait(tasks, timeout=0)
        assert expected == got
    slots.give_back()
    assert 0 == slots.taken


async def test_nobody_waits_for_a_closed_pool() -> None:
    """Closing sends those who wait away."""
    slots = Slots(1)
    assert slots.try_take()
    waiting = asyncio.ensure_future(slots.wait(10.0))
    await asyncio.wait([waiting], timeout=0)
    slots.close()
    assert not await waiting
