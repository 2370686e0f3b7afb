"""Servers that break the rules, where the fault matrix does not look."""

from __future__ import annotations

import asyncio
import ssl
import sys

import pytest

from loom.server.hostile import HostilePeer, HostileServer, refuse_tls, talk, untrusted_tls

pytestmark = pytest.mark.anyio

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"


async def test_a_request_is_kept_to_the_byte() -> None:
    """Head and body, however they are cut; the connection serves the next one too."""
    async with HostileServer(talk) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in (REQUEST[:30], REQUEST[30:] + REQUEST):
            writer.write(piece)
            await writer.drain()
        assert await server.until(lambda: len(server.requests) == 2)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert await server.until(lambda: server.open == 0)

    assert [REQUEST, REQUEST] == server.requests
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_does_not_come_is_not_waited_for() -> None:
    """`until` gives up, and says so."""
    async with HostileServer(talk) as server:
        assert not await server.until(lambda: False, limit_s=0.0)


async def test_who_is_still_there_is_dropped() -> None:
    """Leaving the block ends a script that waits, and its connection."""

    async def wait(peer: HostilePeer) -> None:
        await peer.server.released.wait()

    async with HostileServer(wait) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await server.until(lambda: server.accepted == 1, limit_s=0.1)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()


async def test_without_trustme_tls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no certificate then, and TLS fails all the same."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert untrusted_tls() is None
    async with HostileServer(refuse_tls) as server:
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE"):
            await asyncio.open_connection(
                "127.0.0.1", server.port, ssl=ssl.create_default_context()
            )
