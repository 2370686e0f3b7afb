"""What a body may be: framed in every way, compressed, too large, cut, kept to the last byte."""

from __future__ import annotations

import asyncio
import gzip
import resource
import sys
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.transport.hostile import STREAM_HEAD, Peer, Script, request, serve

from loom.core.errors import LoomError, MalformedReply, ReplyTooLarge, Unreachable
from loom.testing import turn
from loom.transport.contract import SizeLimits
from loom.transport.http import HttpTransport
from loom.transport.inflate import Inflater

pytestmark = pytest.mark.anyio

TEXT = b'{"content":"' + b"a long and monotonous answer " * 2000 + b'"}'


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


async def fetch(script: Script, *, stream: bool = False, limits: SizeLimits | None = None) -> bytes:
    transport = HttpTransport(limits=limits or SizeLimits())
    async with serve(script) as server:
        try:
            async with transport.open(request(server.url, stream=stream)) as reply:
                if stream:
                    return b"".join([piece async for piece in reply.chunks()])
                return await reply.read()
        finally:
            assert 0 == transport.permits_in_use
            await transport.aclose()
            assert 0 == transport.open_sockets
            await server.closed()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("encoding", "squeeze"),
    [
        (b"", bytes),
        (b"identity", bytes),
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"GZIP", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", raw_deflate),
    ],
)
async def test_a_compressed_body_is_inflated(encoding: bytes, squeeze, stream: bool) -> None:  # type: ignore[no-untyped-def] # noqa: FBT001 - parametrized
    """Streams too, although they are asked for without compression."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(squeeze(TEXT), b"content-encoding: " + encoding)

    assert TEXT == await fetch(script, stream=stream)


async def test_a_body_in_chunks() -> None:
    """Chunks, with extensions and trailers, are one body."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.send(b"3;name=value\r\none\r\n")
        await peer.send(b"3\r\ntwo\r\n0\r\nx-trailer: 1\r\n\r\n")

    assert b"onetwo" == await fetch(script)


async def test_a_body_that_the_end_of_the_connection_ends() -> None:
    """Without a length the end of the connection is the end of the body."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\nwhole")

    assert b"whole" == await fetch(script)


async def test_more_bytes_than_the_length() -> None:
    """What goes beyond the length is no part of the body, and the socket is not used again."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await released.wait()
        await peer.send(b"surplus")
        await peer.gone()

    released = asyncio.Event()
    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            assert b"{}" == await reply.read()
        assert 1 == transport.open_sockets
        released.set()
        await server.closed()
        assert 0 == transport.open_sockets
        await transport.aclose()


async def test_a_reply_that_nobody_asked_for() -> None:
    """A second reply on an idle socket is not taken for the answer to the next request."""
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"mine")
        if server.accepted == 1:
            await read.wait()
            await peer.answer(b"smuggled")
        await peer.gone()

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            assert b"mine" == await reply.read()
        (wire,) = next(iter(transport._homes.values())).pool.wires
        wire.heard = False
        read.set()
        while not wire.heard:
            await turn()
        assert 1 == transport.open_sockets
        async with transport.open(request(server.url)) as reply:
            assert b"mine" == await reply.read()
        assert 2 == server.accepted
        await transport.aclose()


async def test_a_body_above_the_limit() -> None:
    """By its length before it is read, and without a length as it comes."""
    limits = SizeLimits(body_bytes=1000)

    async def framed(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n")
        await peer.gone()

    async def unframed(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        while True:
            await peer.chunk(b"x" * 1000)

    for script in (framed, unframed):
        with pytest.raises(ReplyTooLarge, match="1000 bytes"):
            await fetch(script, limits=limits)


async def test_a_body_at_the_limit() -> None:
    """The limit itself is allowed; a stream has none."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"x" * 1000)

    assert 1000 == len(await fetch(script, limits=SizeLimits(body_bytes=1000)))
    assert 1000 == len(await fetch(script, limits=SizeLimits(body_bytes=10), stream=True))


@pytest.mark.parametrize("stream", [True, False])
async def test_a_gzip_bomb(stream: bool) -> None:  # noqa: FBT001 - parametrized
    """A gigabyte in a megabyte is refused while it is small."""
    squeeze = zlib.compressobj(9, wbits=-15)
    # After a full flush a block stands for itself, and may be sent a thousand times.
    megabyte = squeeze.compress(bytes(1 << 20)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    bomb = gzip.compress(b"", mtime=0)[:10] + megabyte * 1024
    assert len(bomb) < 2 << 20

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer(bomb, b"content-encoding: gzip")

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    with pytest.raises(ReplyTooLarge, match="100 times"):
        await fetch(script, stream=stream)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 70 << 20


async def test_what_came_before_the_end_is_delivered() -> None:
    """A connection that breaks while the consumer holds loses nothing that had arrived."""
    more = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"first")
        await more.wait()
        await peer.chunk(b"last")

    transport = HttpTransport()
    pieces = []
    async with serve(script) as server:
        with pytest.raises(Unreachable) as caught:
            async with transport.open(request(server.url, stream=True)) as reply:
                async for piece in reply.chunks():
                    pieces.append(piece)
                    more.set()
                    while transport.open_sockets:
                        await turn()
        await transport.aclose()
    assert [b"first", b"last"] == pieces
    assert "reset" == caught.value.phase


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    "bad", [b"this is no chunk\r\n", b"5\r\nabcdefgh\r\n", b"F" * 30 + b"\r\n"]
)
async def test_framing_that_breaks_in_the_middle(bad: bytes, held: bool) -> None:  # noqa: FBT001 - parametrized
    """Whoever waits for the body, or will, hears of it at once."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(STREAM_HEAD)
        await peer.chunk(b"first")
        await peer.server.released.wait()
        await peer.send(bad)
        await peer.gone()

    transport = HttpTransport()
    pieces = []
    async with serve(script) as server:
        with pytest.raises(MalformedReply):
            async with transport.open(request(server.url, stream=True)) as reply:
                async for piece in reply.chunks():
                    pieces.append(piece)
                    server.released.set()
                    while held and transport.open_sockets:
                        await turn()
        await server.closed()
        await transport.aclose()
    assert b"first" == pieces[0]


async def test_a_reset_in_a_body_without_a_length() -> None:
    """A reset is no end: only an orderly one ends such a body."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.0 200 OK\r\n\r\npart")
        await peer.server.released.wait()
        peer.reset()

    transport = HttpTransport()
    pieces = []
    async with serve(script) as server:
        with pytest.raises(Unreachable) as caught:
            async with transport.open(request(server.url, stream=True)) as reply:
                async for piece in reply.chunks():
                    pieces.append(piece)
                    server.released.set()
        await transport.aclose()
    assert ([b"part"], "reset") == (pieces, caught.value.phase)


async def test_a_reply_is_not_read_after_it_was_left() -> None:
    """A reply belongs to its context."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.answer()

    transport = HttpTransport()
    async with serve(script) as server:
        async with transport.open(request(server.url)) as reply:
            pass
        with pytest.raises(RuntimeError, match="left"):
            await reply.read()
        await transport.aclose()


def inflate(encoding: str, cuts: list[bytes]) -> bytes:
    inflater = Inflater(encoding, 100, "h:1", None)
    whole = b"".join(piece for cut in cuts for piece in inflater.feed(cut))
    inflater.finish()
    return whole


@given(
    st.binary(max_size=3000) | st.builds(lambda n: b"\0" * n, st.integers(0, 300_000)),
    st.sampled_from(["gzip", "deflate", "raw", "members"]),
    st.lists(st.integers(0, 3000), max_size=6),
)
def test_any_cut_of_the_bytes_inflates_to_the_same(data: bytes, how: str, at: list[int]) -> None:
    """Wherever the network cuts the compressed bytes, the body is the same."""
    squeezed = {
        "gzip": gzip.compress(data),
        "deflate": zlib.compress(data),
        "raw": raw_deflate(data),
        "members": gzip.compress(data[:10]) + gzip.compress(data[10:]),
    }[how]
    places = [0, *sorted(min(place, len(squeezed)) for place in at), len(squeezed)]
    cuts = [squeezed[start:end] for start, end in pairwise(places)]
    assert data == inflate("gzip" if how in {"gzip", "members"} else "deflate", cuts)


@given(st.binary(max_size=500), st.integers(min_value=1), st.sampled_from(["gzip", "deflate"]))
def test_a_cut_body_is_never_whole(data: bytes, cut: int, encoding: str) -> None:
    """A compressed body without its last bytes is an error, not a shorter body."""
    squeezed = gzip.compress(data) if encoding == "gzip" else zlib.compress(data)
    cut = 1 + cut % (len(squeezed) - 1)
    with pytest.raises(Unreachable) as caught:
        inflate(encoding, [squeezed[:-cut]])
    assert "reset" == caught.value.phase


@given(st.binary(min_size=2, max_size=300), st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_give_a_body_or_an_error(data: bytes, encoding: str) -> None:
    """Nothing but our own errors comes out of bytes that are no compressed body."""
    try:
        inflate(encoding, [data])
    except LoomError as error:
        assert isinstance(error, MalformedReply | Unreachable | ReplyTooLarge)


def test_an_empty_body_needs_no_end() -> None:
    """No bytes at all are an empty body, whatever the encoding says."""
    assert b"" == inflate("gzip", [])
