"""Each limit alone; the message names the phase and the limit."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator

import pytest
from tests.transport.hostile import STREAM_HEAD, Peer, request, serve

from loom.core.errors import LoomError, PoolTimeout, TimedOut
from loom.testing import turn
from loom.transport.exchange import Exchange
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio

# Long enough for a busy machine to get there, short enough to wait for.
SHORT_S = 0.05


async def nothing(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


async def one_event(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b"data: {}\n\n")
    await peer.gone()


def expect(error: LoomError, phase: str, words: str, limit_s: float = SHORT_S) -> None:
    assert phase == error.phase
    shown = f"HTTP request failed: deadline exceeded after {limit_s:.1f} s ({words})"
    assert re.fullmatch(re.escape(shown), str(error))


async def test_first_byte() -> None:
    """A server that takes the request and says nothing."""
    transport = HttpTransport()
    async with serve(nothing) as server:
        with pytest.raises(TimedOut) as caught:
            async with transport.open(request(server.url, first_byte_s=SHORT_S)):
                pass
        assert 0 == transport.open_sockets
        await server.closed()
        await transport.aclose()
    expect(caught.value, "first_byte", "waiting for first byte")
    assert caught.value.uncertain


async def test_idle() -> None:
    """A stream that stops; what came before is delivered."""
    transport = HttpTransport()
    pieces = []
    async with serve(one_event) as server:
        with pytest.raises(TimedOut) as caught:
            async with transport.open(request(server.url, stream=True, idle_s=SHORT_S)) as reply:
                async for piece in reply.chunks():
                    pieces.append(piece)  # noqa: PERF401 - kept when it ends in an error
        await server.closed()
        await transport.aclose()
    expect(caught.value, "idle", "waiting for the next event")
    assert [b"data: {}\n\n"] == pieces


async def test_idle_does_not_run_while_the_consumer_holds() -> None:
    """Only waiting counts: a consumer may think longer than the limit."""
    gate = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"one")
        await gate.wait()
        await peer.chunk(b"two")
        await peer.chunk(b"")

    transport = HttpTransport()
    pieces = []
    async with serve(script) as server:
        async with transport.open(request(server.url, stream=True, idle_s=SHORT_S)) as reply:
            async for piece in reply.chunks():
                pieces.append(piece)
                if len(pieces) == 1:
                    await asyncio.wait([asyncio.ensure_future(gate.wait())], timeout=3 * SHORT_S)
                    gate.set()
        await transport.aclose()
    assert [b"one", b"two"] == pieces


async def silent(peer: Peer) -> None:
    await peer.server.released.wait()


def client_socket(transport: HttpTransport) -> socket.socket:
    """Give the one socket that is in use."""
    (exchange,) = next(iter(transport._homes.values())).pool.active
    assert isinstance(exchange, Exchange)
    assert exchange._line is not None
    sock: socket.socket = exchange._line.get_extra_info("socket")
    return sock


# More than the buffers of two kernels' ends may grow to: 4 and 32 MiB.
@pytest.mark.parametrize("size", [1 << 26, 1000])
async def test_write(size: int) -> None:
    """A server that reads nothing: a large upload stalls, a small one waits for its reply."""
    transport = HttpTransport()

    async def upload() -> None:
        limits = {"write_s": SHORT_S, "first_byte_s": 2 * SHORT_S}
        async with transport.open(request(server.url, body=b"x" * size, **limits)):
            pass

    async with serve(silent) as server:
        task = asyncio.ensure_future(upload())
        while not transport.open_sockets:
            await asyncio.wait([task], timeout=0)
        sock = client_socket(transport)
        with pytest.raises(TimedOut) as caught:
            await task
        assert 0 == transport.open_sockets
        # Closed for good, although the server has still not read what was sent.
        await turn(2)
        assert -1 == sock.fileno()
        server.released.set()
        await server.closed()
        await transport.aclose()
    if size > 1000:
        expect(caught.value, "write", "sending the request")
    else:
        expect(caught.value, "first_byte", "waiting for first byte", 2 * SHORT_S)


async def test_a_cancelled_upload() -> None:
    """A stalled upload that is cancelled is closed at once too."""
    transport = HttpTransport()

    async def upload() -> None:
        async with transport.open(request(server.url, body=b"x" * (1 << 23))):
            pass

    async with serve(silent) as server:
        task = asyncio.ensure_future(upload())
        while not transport.open_sockets:
            await asyncio.wait([task], timeout=0)
        sock = client_socket(transport)
        await turn(10)
        task.cancel()
        await asyncio.wait([task])
        await turn(2)
        assert -1 == sock.fileno()
        server.released.set()
        await server.closed()
        await transport.aclose()


async def test_an_answer_may_come_before_the_upload_ends() -> None:
    """A server that refuses a large body without reading it is heard."""

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.answer(b"too large", status=b"413 Too Large")
        await peer.gone()

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url, body=b"x" * (1 << 23))) as reply:
            assert 413 == reply.status
            assert b"too large" == await reply.read()
        assert 0 == transport.open_sockets
        await server.closed()
        await transport.aclose()


async def test_a_large_upload_arrives() -> None:
    """Many megabytes go through whole, and with no warning."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    transport = HttpTransport()
    body = bytes(range(256)) * (1 << 14)
    async with serve(script) as server:
        async with transport.open(request(server.url, body=body)) as reply:
            assert 200 == reply.status
        await transport.aclose()
        assert server.requests[0].endswith(body)


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """Give a port whose queue of connections is full, so that a new one is not accepted."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        held = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)  # noqa: FBT003 - of the standard library
            sock.connect_ex(("127.0.0.1", port))
            held.append(sock)
        yield port
        for sock in held:
            sock.close()


async def test_connect(full_backlog: int) -> None:
    """A connection that is not accepted."""
    transport = HttpTransport()
    with pytest.raises(TimedOut) as caught:
        async with transport.open(request(f"http://127.0.0.1:{full_backlog}/", connect_s=SHORT_S)):
            pass
    expect(caught.value, "connect", "connecting")
    assert not caught.value.uncertain
    assert 0 == transport.permits_in_use
    await transport.aclose()


async def test_a_handshake_that_is_not_answered() -> None:
    """TLS counts as connecting."""
    transport = HttpTransport()

    async def script(peer: Peer) -> None:
        await peer.gone()

    async with serve(script) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(TimedOut) as caught:
            async with transport.open(request(url, connect_s=SHORT_S)):
                pass
        await server.closed()
        await transport.aclose()
    expect(caught.value, "connect", "connecting")


async def test_pool() -> None:
    """No slot comes free; whoever holds it is not disturbed."""
    transport = HttpTransport(max_connections=1)
    async with serve(one_event) as server:
        async with transport.open(request(server.url, stream=True)):
            with pytest.raises(PoolTimeout) as caught:
                async with transport.open(request(server.url, pool_s=SHORT_S)):
                    pass
            assert 1 == transport.permits_in_use
        assert 0 == transport.permits_in_use
        assert 1 == server.accepted
        await transport.aclose()
    expect(caught.value, "pool", "waiting for a free connection")


async def test_a_slot_that_comes_free_is_taken() -> None:
    """Whoever waits for a slot goes on as soon as one is given back."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.answer()

    transport = HttpTransport(max_connections=2)

    async def call() -> int:
        async with transport.open(request(server.url, pool_s=30.0)) as reply:
            assert transport.permits_in_use <= 2
            await reply.read()
            return reply.status

    async with serve(script) as server:
        assert [200] * 20 == await asyncio.gather(*(call() for _ in range(20)))
        assert server.accepted <= 2
        await transport.aclose()


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("script", [nothing, one_event])
async def test_the_deadline_cuts_any_phase(script: object, given: bool) -> None:  # noqa: FBT001 - parametrized
    """The deadline, given or counted from `open`, is reported as the total."""
    transport = HttpTransport()
    limits = {"total_s": SHORT_S}
    if given:
        limits = {"total_s": 60.0, "deadline_s": asyncio.get_running_loop().time() + SHORT_S}
    async with serve(script) as server:  # type: ignore[arg-type] # one of the scripts above
        with pytest.raises(TimedOut) as caught:
            async with transport.open(request(server.url, stream=True, **limits)) as reply:
                async for _ in reply.chunks():
                    pass
        assert 0 == transport.permits_in_use
        await server.closed()
        await transport.aclose()
    expect(caught.value, "total", "total", limits["total_s"])


async def test_the_deadline_while_connecting(full_backlog: int) -> None:
    """When the deadline is nearer than the connect limit, it is the deadline that is named."""
    transport = HttpTransport()
    with pytest.raises(TimedOut) as caught:
        async with transport.open(request(f"http://127.0.0.1:{full_backlog}/", total_s=SHORT_S)):
            pass
    expect(caught.value, "total", "total")
    assert not caught.value.uncertain
    await transport.aclose()


async def test_the_deadline_in_the_queue() -> None:
    """The same while waiting for a slot."""
    transport = HttpTransport(max_connections=1)
    async with serve(one_event) as server:
        async with transport.open(request(server.url, stream=True)):
            with pytest.raises(TimedOut) as caught:
                async with transport.open(request(server.url, total_s=SHORT_S)):
                    pass
        await transport.aclose()
    expect(caught.value, "total", "total")


async def test_a_deadline_that_has_passed() -> None:
    """Nothing is connected to."""
    transport = HttpTransport()
    async with serve(nothing) as server:
        with pytest.raises(TimedOut) as caught:
            async with transport.open(request(server.url, deadline_s=0.0)):
                pass
        assert 0 == server.accepted
        await transport.aclose()
    assert ("total", False) == (caught.value.phase, caught.value.uncertain)


@pytest.mark.parametrize("ended", [True, False])
async def test_the_deadline_while_the_consumer_holds(ended: bool) -> None:  # noqa: FBT001 - parametrized
    """It is noticed at the next piece, unless the whole body has arrived."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"one")
        if ended:
            await peer.chunk(b"")
        await peer.gone()

    transport = HttpTransport()
    pieces = []
    late = False
    async with serve(script) as server:
        try:
            async with transport.open(request(server.url, stream=True, total_s=0.2)) as reply:
                async for piece in reply.chunks():
                    pieces.append(piece)
                    never = asyncio.get_running_loop().create_future()
                    await asyncio.wait([never], timeout=0.3)
        except TimedOut:
            late = True
        await transport.aclose()
    assert ([b"one"], not ended) == (pieces, late)
