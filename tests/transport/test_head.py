"""Requests as they stand on the socket, and what is told of them while they are sent."""

from __future__ import annotations

import asyncio

import pytest
from tests.transport.hostile import BODY, Peer, Server, request, serve

from loom.core.secret import Secret
from loom.transport.backend import AiohttpBackend
from loom.transport.contract import HttpRequest
from loom.transport.http import HttpTransport
from loom.transport.pool import Listener, Wire

pytestmark = pytest.mark.anyio


async def answering(peer: Peer) -> None:
    while True:
        await peer.request()
        await peer.answer()


async def sent(server: Server, *requests: HttpRequest) -> list[list[str]]:
    """Send requests, and give the lines of each as the server saw them."""
    transport = HttpTransport()
    for each in requests:
        async with transport.open(each) as reply:
            await reply.read()
    await transport.aclose()
    return [seen.decode().split("\r\n") for seen in server.requests]


async def test_a_request_has_these_headers_and_no_others() -> None:
    """Where it goes, what it carries, how long it is; nothing that was not asked for."""
    async with serve(answering) as server:
        headers = {"accept": "application/json", "x-label": "größe"}
        (lines,) = await sent(server, request(server.url, headers=headers))
    assert [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: {server.where}",
        "authorization: Bearer canary-key-that-must-not-be-shown",
        "accept: application/json",
        "x-label: größe",
        "accept-encoding: gzip, deflate",
        f"content-length: {len(BODY)}",
        "",
        BODY.decode(),
    ] == lines


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", b"", None),
        ("DELETE", b"", None),
        ("DELETE", b"{}", "2"),
        ("POST", b"", "0"),
        ("PUT", b"", "0"),
        ("PATCH", b"", "0"),
    ],
)
async def test_a_length_is_said_where_a_body_is_due(
    method: str, body: bytes, length: str | None
) -> None:
    """RFC 9110, section 8.6: an empty body has a length where one would be expected."""
    async with serve(answering) as server:
        (lines,) = await sent(server, request(server.url, method=method, body=body))
    found = [line.partition(": ")[2] for line in lines if line.startswith("content-length")]
    assert ([] if length is None else [length]) == found


async def test_what_a_caller_says_of_the_length_does_not_count() -> None:
    """Two lengths would be two requests to somebody on the way."""
    async with serve(answering) as server:
        (lines,) = await sent(server, request(server.url, headers={"content-length": "999"}))
    assert [f"content-length: {len(BODY)}"] == [x for x in lines if x.startswith("content-length")]


async def test_a_user_in_the_address_is_sent_as_such() -> None:
    """RFC 7617: `user:password@` in front of a host is basic authentication, the query stays."""
    async with serve(answering) as server:
        url = f"http://user:pass@{server.where}/v1/models?limit=2&after=a%20b"
        bare = HttpRequest(url=url, method="GET", headers={}, timeouts=request(url).timeouts)
        (lines,) = await sent(server, bare)
    assert "GET /v1/models?limit=2&after=a%20b HTTP/1.1" == lines[0]
    assert f"host: {server.where}" in lines
    assert "authorization: Basic dXNlcjpwYXNz" in lines


async def test_addresses_without_number_are_asked() -> None:
    """What is remembered of an address goes when there are too many, and is made again."""
    async with serve(answering) as server:
        urls = [f"http://{server.where}/v1/files/{number}" for number in range(300)]
        seen = await sent(server, *(request(url) for url in [*urls, urls[0]]))
    assert 301 == len(seen)
    assert seen[0] == seen[-1]
    assert 1 == server.accepted


class Told(Listener):
    """Counts how often it hears that everything was handed over."""

    def __init__(self) -> None:
        self.times = 0
        self.first = asyncio.Event()
        self.line: asyncio.Transport | None = None

    def connected(self, wire: Wire, line: asyncio.Transport) -> None:
        self.line = line

    def written(self) -> None:
        self.times += 1
        self.first.set()

    def cut_off(self) -> None:
        raise AssertionError("nobody closes the pool")


async def test_the_end_of_a_large_upload_is_told() -> None:
    """The wait for the first byte begins when the socket has taken the rest."""

    async def script(peer: Peer) -> None:
        await peer.server.released.wait()
        await peer.request()
        await peer.answer()

    backend, told = AiohttpBackend(None, None), Told()
    async with serve(script) as server:
        lines = backend.connector(asyncio.get_running_loop(), fresh=False)
        body = b"x" * (1 << 23)
        asking = asyncio.ensure_future(
            backend.send(lines, request(server.url, body=body), told, 5.0)
        )
        await told.first.wait()
        assert told.line is not None
        assert told.line.get_write_buffer_size()
        assert 1 == told.times
        server.released.set()
        reply = await asking
        assert not isinstance(reply, Exception)
        assert 200 == reply.status
        assert 2 == told.times
        reply.close()
        await lines.close()
        assert server.requests[0].endswith(body)


async def test_a_proxy_is_asked_for_the_whole_address() -> None:
    """RFC 9112, section 3.2.2: without a tunnel the proxy must know the host, and who asks."""
    async with serve(answering) as proxy:
        transport = HttpTransport(proxy=f"http://user:pass@{proxy.where}")
        url = "http://vendor.example/v1/models?a=b"
        headers = {"authorization": Secret("Bearer k")}
        asked = HttpRequest(url=url, method="GET", headers=headers, timeouts=request(url).timeouts)
        for _ in range(2):
            async with transport.open(asked) as reply:
                await reply.read()
        await transport.aclose()
    for seen in proxy.requests:
        lines = seen.decode().split("\r\n")
        assert f"GET {url} HTTP/1.1" == lines[0]
        assert "host: vendor.example" in lines
        assert "authorization: Bearer k" in lines
        assert "proxy-authorization: Basic dXNlcjpwYXNz" in lines
    assert 1 == proxy.accepted
