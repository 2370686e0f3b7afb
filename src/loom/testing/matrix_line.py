"""Scenes of the connection: what no server of HTTP can cause."""

from __future__ import annotations

from collections.abc import Mapping

from loom.core.ambient import SystemClock
from loom.server.hostile import (
    ANSWER,
    EVENT,
    STREAM_HEAD,
    HostilePeer,
    HostileServer,
    full_backlog,
    refuse_tls,
    refused_port,
    reset_kept,
    talk,
    untrusted_tls,
)
from loom.testing.matrix_bench import Bench, Scene
from loom.testing.matrix_sight import HELD, Sight, nothing

__all__ = ["LINE"]

# More than the two ends of a connection hold in the kernel: up to 32 and 4 MiB (`tcp_rmem`,
# `tcp_wmem` of Linux 6).
_PROMPT_BYTES = 48 << 20


async def _refused(bench: Bench, *, stream: bool) -> Sight:
    async with bench.line(base_url=f"http://127.0.0.1:{refused_port()}") as line:
        return await bench.sight(line, stream=stream, wire=nothing)


async def _unknown_name(bench: Bench, *, stream: bool) -> Sight:
    # RFC 6761, section 6.4: no resolver knows a name that ends so.
    async with bench.line(base_url="https://nowhere.invalid") as line:
        seen = await bench.sight(line, stream=stream, wire=nothing)
        first_s = line.clock.slept[0]
        return seen.but(first_s > 0.05 and f"the first wait is {first_s} s")


async def _untrusted(bench: Bench, *, stream: bool) -> Sight:
    tls = untrusted_tls()
    script = refuse_tls if tls is None else talk
    async with bench.against(script, tls=tls, secure=True) as (server, line):
        return await bench.sight(line, stream=stream, wire=lambda: len(server.requests))


async def _no_tls(bench: Bench, *, stream: bool) -> Sight:
    async def greet(peer: HostilePeer) -> None:
        await peer.reader.read(100)
        await peer.answer()
        await peer.gone()

    async with bench.against(greet, secure=True) as (server, line):
        return await bench.sight(line, stream=stream, wire=lambda: len(server.requests))


async def _handshake_reset(bench: Bench, *, stream: bool) -> Sight:
    async def cut(peer: HostilePeer) -> None:
        await peer.reader.read(100)
        peer.reset()

    async with bench.against(cut, secure=True) as (server, line):
        seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests))
        return seen.but(server.accepted != 3 and f"{server.accepted} connections")


async def _full_backlog(bench: Bench, *, stream: bool) -> Sight:
    with full_backlog() as port:
        async with bench.line(base_url=f"http://127.0.0.1:{port}", short="connect") as line:
            return await bench.sight(line, stream=stream, wire=nothing)


async def _proxy_down(bench: Bench, *, stream: bool) -> Sight:
    proxy = f"http://127.0.0.1:{refused_port()}"
    async with bench.line(base_url="https://nowhere.invalid", proxy=proxy) as line:
        return await bench.sight(line, stream=stream, wire=nothing)


async def _proxy_password(bench: Bench, *, stream: bool) -> Sight:
    async def refuse(peer: HostilePeer) -> None:
        await peer.request()
        await peer.answer(
            b"", b"proxy-authenticate: Basic", status=b"407 Proxy Authentication Required"
        )

    async with HostileServer(refuse) as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        async with bench.line(base_url="https://nowhere.invalid", proxy=address) as line:
            seen = await bench.sight(line, stream=stream, wire=nothing)
            return seen.but(len(proxy.requests) != 1 and f"{len(proxy.requests)} at the proxy")


async def _pool_full(bench: Bench, *, stream: bool) -> Sight:
    async with bench.line(short="pool", max_connections=1, fault="14-stall") as line:
        async with line.client.stream("hold the only slot") as held:
            await anext(held)
            await anext(held)
            before = bench.wire(line)
            # The slot and the socket of the stream are taken, and nothing else.
            seen = await bench.sight(
                line, stream=stream, wire=lambda: bench.wire(line) - before, kept=1
            )
        left = await line.left_over("left")
    return seen.without(*HELD).but(*left)


async def _unread_body(bench: Bench, *, stream: bool) -> Sight:
    async def deaf(peer: HostilePeer) -> None:
        await peer.server.released.wait()

    async with bench.against(deaf, short="write", fit="error") as (server, line):
        seen = await bench.sight(
            line,
            stream=stream,
            wire=lambda: len(server.requests),
            prompt="x",
            extra={"metadata": {"filling": "x" * _PROMPT_BYTES}},
        )
        return seen.but(server.accepted != 3 and f"{server.accepted} connections")


async def _bad_chunk(bench: Bench, *, stream: bool) -> Sight:
    """The answer has begun, and was read, before its framing breaks."""

    async def break_off(peer: HostilePeer) -> None:
        request = await peer.request()
        if b'"stream":true' in request:
            await peer.send(STREAM_HEAD)
            await peer.chunk(b"data: " + EVENT.replace(b'"stop"', b"null") + b"\n\n")
        else:
            await peer.send(STREAM_HEAD.replace(b"text/event-stream", b"application/json"))
            await peer.chunk(ANSWER[:20])
        await SystemClock().sleep(0.1)
        await peer.send(b"zz\r\nnot a chunk\r\n")
        await peer.gone()

    async with bench.against(break_off) as (server, line):
        seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests))
        if not stream:
            return seen
        partial = None if seen.error is None else seen.error.partial
        return seen.but((partial is None or partial.text != "hello") and "what came is lost")


async def _stale_socket(bench: Bench, *, stream: bool) -> Sight:
    """The server closes a kept connection at the very moment when it is used again."""
    async with bench.against(reset_kept) as (server, line):
        await line.ask(stream=stream)
        asked = len(server.requests)
        seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests) - asked)
        return seen.but(
            bool(line.clock.slept) and "it waited before it was sent again",
            server.accepted != 2 and f"{server.accepted} connections",
        )


async def _redirect_elsewhere(bench: Bench, *, stream: bool) -> Sight:
    async with HostileServer(talk) as elsewhere:

        async def point(peer: HostilePeer) -> None:
            await peer.request()
            where = b"location: " + elsewhere.base_url.encode()
            await peer.answer(b"", where, status=b"307 Temporary Redirect")

        async with bench.against(point) as (server, line):
            seen = await bench.sight(line, stream=stream, wire=lambda: len(server.requests))
            return seen.but(bool(elsewhere.accepted) and "the redirect was followed")


LINE: Mapping[str, Scene] = {
    "bad-chunk": Scene(_bad_chunk),
    "full-backlog": Scene(_full_backlog),
    "handshake-reset": Scene(_handshake_reset),
    "no-tls": Scene(_no_tls),
    "pool-full": Scene(_pool_full),
    "proxy-down": Scene(_proxy_down),
    "proxy-password": Scene(_proxy_password),
    "redirect-elsewhere": Scene(_redirect_elsewhere),
    "refused": Scene(_refused),
    "stale-socket": Scene(_stale_socket),
    "unknown-name": Scene(_unknown_name),
    "unread-body": Scene(_unread_body),
    "untrusted": Scene(_untrusted),
}
"""Rows 1 to 9, 11 and 28."""
