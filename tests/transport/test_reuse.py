"""When a socket is used again, when it is closed, and that slots come back whatever happens."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from tests.transport.hostile import STREAM_HEAD, Peer, request, serve

from loom.core.errors import LoomError, Unreachable
from loom.transport.contract import HttpReply
from loom.transport.http import HttpTransport

pytestmark = pytest.mark.anyio


async def plain(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer()


async def stream(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"data: {}\n\n")
        await peer.chunk(b"data: [DONE]\n\n")
        await peer.send(b"0\r\n\r\n")


async def endless(peer: Peer) -> None:
    await peer.request()
    await peer.send(STREAM_HEAD)
    await peer.chunk(b"data: {}\n\n")
    await peer.gone()


async def test_plain_calls_use_one_socket() -> None:
    """A hundred calls in sequence make one connection; unread bodies are drained."""
    transport = HttpTransport()
    async with serve(plain) as server:
        for number in range(100):
            async with transport.open(request(server.url)) as reply:
                if number % 2:
                    await reply.read()
        assert (1, 1, 0) == (server.accepted, transport.open_sockets, transport.permits_in_use)
        await transport.aclose()
        assert 0 == transport.open_sockets
        await server.closed()


async def test_streams_use_one_socket() -> None:
    """A hundred streams, each left after its last event, make one connection."""
    transport = HttpTransport()
    async with serve(stream) as server:
        for _ in range(100):
            async with transport.open(request(server.url, stream=True)) as reply:
                async for piece in reply.chunks():
                    assert piece.startswith(b"data: {}")
                    break
        assert 1 == server.accepted
        await transport.aclose()


async def test_a_stream_whose_end_comes_a_little_later() -> None:
    """What is left of a stream is waited for, for a moment."""
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(STREAM_HEAD)
            await peer.chunk(b"data: {}\n\n")
            await left.wait()
            left.clear()
            await peer.chunk(b"data: [DONE]\n\n")
            await peer.send(b"0\r\n\r\n")

    transport = HttpTransport()
    async with serve(script) as server:
        for _ in range(3):
            async with transport.open(request(server.url, stream=True)) as reply:
                async for _piece in reply.chunks():
                    break
                asyncio.get_running_loop().call_later(0.005, left.set)
        assert 1 == server.accepted
        await transport.aclose()


async def test_a_stream_that_is_left_open_by_the_server() -> None:
    """A stream that does not end within a moment is closed."""
    transport = HttpTransport()
    async with serve(endless) as server:
        async with transport.open(request(server.url, stream=True)) as reply:
            async for _ in reply.chunks():
                break
        assert (0, 0) == (transport.open_sockets, transport.permits_in_use)
        await server.closed()
        await transport.aclose()


async def test_a_long_rest_is_not_drained() -> None:
    """More than the drain limit is not read for the sake of a socket."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"x" * (1 << 22))
        await peer.gone()

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)):
            pass
        assert 0 == transport.open_sockets
        await server.closed()
        await transport.aclose()


async def test_leaving_on_an_exception_closes_at_once() -> None:
    """Nothing is waited for on the way out of an exception."""
    transport = HttpTransport()
    async with serve(endless) as server:
        with pytest.raises(KeyError):
            async with transport.open(request(server.url, stream=True)):
                raise KeyError
        assert (0, 0) == (transport.open_sockets, transport.permits_in_use)
        await server.closed()
        await transport.aclose()


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("reset", [True, False])
async def test_a_stale_socket(method: str, reset: bool) -> None:  # noqa: FBT001 - parametrized
    """A kept socket that the server closes before any byte of the reply: sent once more."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if server.accepted == 1:
            await peer.answer(b"first")
            await peer.request()
            if reset:
                peer.reset()
        else:
            await peer.answer(b"second")

    transport = HttpTransport()
    async with serve(script) as server:
        for expected in (b"first", b"second"):
            async with transport.open(request(server.url, method=method)) as reply:
                assert expected == await reply.read()
        assert (2, 3) == (server.accepted, len(server.requests))
        assert 2 == reply.attempts
        assert 0 == transport.permits_in_use
        await transport.aclose()


async def test_a_stale_socket_is_answered_by_one_more_only() -> None:
    """When the second socket breaks too, the call fails, and says that it was sent twice."""

    async def script(peer: Peer) -> None:
        await peer.request()
        if server.accepted == 1:
            await peer.answer()
            await peer.request()

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            await reply.read()
        with pytest.raises(Unreachable) as caught:
            async with transport.open(request(server.url)):
                pass
        assert 3 == len(server.requests)
        assert (2, "reset", True) == (
            caught.value.attempts, caught.value.phase, caught.value.uncertain
        )  # fmt: skip
        await transport.aclose()


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_a_socket_that_answered_something_is_not_stale(first: bytes) -> None:
    """Once a byte of a reply came, the request is not sent again."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()
        await peer.request()
        await peer.send(first)

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            await reply.read()
        with pytest.raises(LoomError) as caught:
            async with transport.open(request(server.url)):
                pass
        assert (1, 2) == (caught.value.attempts, len(server.requests))
        await transport.aclose()


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_new_socket_is_not_stale(method: str) -> None:
    """On a new socket a request is sent once, whatever its method."""

    async def script(peer: Peer) -> None:
        await peer.request()

    transport = HttpTransport()
    async with serve(script) as server:
        with pytest.raises(Unreachable):
            async with transport.open(request(server.url, method=method)):
                pass
        assert 1 == len(server.requests)
        await transport.aclose()


async def test_a_server_that_closes_after_each_reply() -> None:
    """`connection: close` is obeyed."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"{}", b"connection: close")

    transport = HttpTransport()
    async with serve(script) as server:
        for _ in range(3):
            async with transport.open(request(server.url)) as reply:
                await reply.read()
            assert 0 == transport.open_sockets
        assert 3 == server.accepted
        await transport.aclose()


async def every_way(peer: Peer) -> None:
    while True:
        head = await peer.request()
        if b"x-way: status" in head:
            await peer.answer(b"slow down", status=b"429 Too Many")
            continue
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"data: {}\n\n")
        if b"x-way: cut" in head:
            return
        await peer.gone()


async def end(way: str, reply: HttpReply) -> None:
    """End a call in one of many ways."""
    if way == "status":
        assert 429 == reply.status
        return
    if way == "unread":
        raise KeyError
    async for _ in reply.chunks():
        match way:
            case "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            case "exception":
                raise KeyError
            case "break":
                # As a generator is left that nobody reads any more.
                raise GeneratorExit


WAYS = ("status", "break", "cancel", "exception", "cut", "unread")


async def test_a_small_pool_and_a_thousand_streams() -> None:
    """Five slots, a thousand calls that end in every way: none waits in vain, nothing is left."""
    transport = HttpTransport(max_connections=5)

    async def call(way: str) -> None:
        sent = request(server.url, stream=True, headers={"x-way": way}, pool_s=60.0)
        with suppress(GeneratorExit):
            async with transport.open(sent) as reply:
                await end(way, reply)

    async with serve(every_way) as server:
        tasks = [asyncio.ensure_future(call(WAYS[n % len(WAYS)])) for n in range(1000)]
        for n in range(0, 1000, 50):
            asyncio.get_running_loop().call_later(0.001 * n, tasks[n].cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        kinds = {type(result) for result in results if result is not None}
        assert kinds == {asyncio.CancelledError, KeyError, Unreachable}
        assert 0 == transport.permits_in_use
        await transport.aclose()
        assert 0 == transport.open_sockets
        await server.closed()
