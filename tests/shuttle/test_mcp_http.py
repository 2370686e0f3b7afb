"""Streamable HTTP servers with a fault each, on real sockets."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from loom.core.errors import ToolFailed, ToolTimedOut
from loom.shuttle.mcp import McpServer, mcp

pytestmark = pytest.mark.anyio

KEY = "canary-" + "k" * 24
BEARER = {"Authorization": f"Bearer {KEY}"}


class Fake(ThreadingHTTPServer):
    """A server of 2025 with sessions; `fault` says what it does wrong."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = ""
        self.target = ""
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.sessions = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/mcp"

    def methods(self) -> list[str]:
        return [method for verb, method, _ in self.seen if verb == "POST"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Fake

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name
        """Print nothing."""

    def do_GET(self) -> None:
        self.give(405)

    def do_DELETE(self) -> None:
        self.server.seen.append(("DELETE", "", dict(self.headers)))
        self.give(200)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        method = message["method"]
        self.server.seen.append(("POST", method, dict(self.headers)))
        fault = self.server.fault
        if fault == "redirects":
            self.give(307, headers={"Location": self.server.target})
        elif fault == "401":
            self.give(401, b"who are you?")
        elif fault == "hangs":
            self.server.released.wait(20)
        elif method == "initialize":
            self.server.sessions += 1
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "fake", "version": "1"},
            }
            self.say(message, result, {"mcp-session-id": f"session-{self.server.sessions}"})
        elif self.headers["mcp-session-id"] not in (None, f"session-{self.server.sessions}"):
            self.give(404)
        elif method == "tools/list":
            self.say(message, {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]})
        elif method == "tools/call":
            self.call(message, fault)
        else:
            self.give(202 if "id" not in message else 404)

    def call(self, message: dict[str, Any], fault: str) -> None:
        if fault == "breaks":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"jsonrpc"')
            self.close_connection = True
        elif fault == "endless":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.close_connection = True
            piece = b" " * 1024 * 1024
            while not self.server.released.is_set():
                try:
                    self.wfile.write(piece)
                except OSError:
                    break
        elif fault == "page":
            self.give(200, b"<html>", {"Content-Type": "text/html"})
        elif fault == "500":
            self.give(500, KEY.encode())
        else:
            self.say(message, {"content": [{"type": "text", "text": "hello"}]})

    def say(
        self, message: dict[str, Any], result: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}).encode()
        self.give(200, body, {"Content-Type": "application/json", **(headers or {})})

    def give(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.server.fault == "closes":
            self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def fake() -> Iterator[Fake]:
    yield from running()


@pytest.fixture
def elsewhere() -> Iterator[Fake]:
    yield from running()


def running() -> Iterator[Fake]:
    with Fake() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


async def say_hello(server: McpServer) -> Any:
    (tool,) = await server.tools()
    return await tool.execute({})


async def test_a_session_is_begun_and_ended(fake: Fake) -> None:
    """The headers are sent with everything, and the end of the session is told."""
    server = mcp(fake.url, headers=BEARER)

    assert "hello" == await say_hello(server)
    await server.aclose()

    assert ["initialize", "tools/list", "tools/call"] == [
        method for method in fake.methods() if method.partition("/")[0] in ("initialize", "tools")
    ]
    assert ("DELETE", "session-1") == (fake.seen[-1][0], fake.seen[-1][2]["mcp-session-id"])
    assert {f"Bearer {KEY}"} == {
        value
        for _, _, headers in fake.seen
        for name, value in headers.items()
        if name.lower() == "authorization"
    }


async def test_a_session_that_the_server_lost_is_begun_anew(fake: Fake) -> None:
    """Status 404 says that nothing was done: the call is made in a new session, once."""
    server = mcp(fake.url)
    assert "hello" == await say_hello(server)
    fake.sessions = 7

    assert "hello" == await say_hello(server)

    await server.aclose()
    assert 8 == fake.sessions
    assert 3 == fake.methods().count("tools/call")  # the second one was refused with 404


async def test_a_redirect_to_another_place_is_not_followed(fake: Fake, elsewhere: Fake) -> None:
    """No header, no argument reaches another origin."""
    fake.fault, fake.target = "redirects", elsewhere.url
    server = mcp(fake.url, headers=BEARER)

    with pytest.raises(ToolFailed, match="not followed"):
        await server.tools()

    await server.aclose()
    assert [] == elsewhere.seen


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("401", "could not be connected: HTTP 401"),
        ("500", "failed: HTTP 500"),
        ("page", "Unexpected content type: text/html"),
        ("breaks", "failed: RemoteProtocolError"),
        ("endless", "failed: the answer is longer than 33554432 bytes"),
    ],
)
async def test_what_the_server_did_is_in_the_error(fake: Fake, fault: str, words: str) -> None:
    """Each fault is told in words, without the key; other calls of the session go on."""
    fake.fault = fault
    server = mcp(fake.url, headers=BEARER)

    with pytest.raises(ToolFailed, match=words) as caught:
        await say_hello(server)

    assert KEY not in str(caught.value)
    fake.fault = ""
    assert "hello" == await say_hello(server)
    await server.aclose()
    assert (2 if fault == "401" else 1) >= fake.sessions


async def test_a_server_that_is_silent_is_left(fake: Fake) -> None:
    """`connect_timeout_s` holds for the whole handshake."""
    fake.fault = "hangs"
    server = mcp(fake.url, connect_timeout_s=0.5)

    with pytest.raises(ToolTimedOut, match=r"was not ready after 0\.5 s"):
        await server.tools()

    await server.aclose()


async def test_a_call_that_is_not_answered_is_left(fake: Fake) -> None:
    """`timeout_s` holds for the call."""
    server = mcp(fake.url, timeout_s=0.3)
    await server.tools()
    fake.fault = "hangs"

    with pytest.raises(ToolTimedOut, match=r"'echo' timed out after 0\.3 s"):
        await say_hello(server)

    fake.released.set()
    await server.aclose()


async def test_a_server_that_is_not_there_was_not_reached(fake: Fake) -> None:
    """Before the session and in it, a refused connection is told as one, and is certain."""
    fake.fault = "closes"
    server = mcp(fake.url)
    (tool,) = await server.tools()
    fake.shutdown()
    fake.server_close()

    with pytest.raises(ToolFailed, match="was not reached: ConnectError") as caught:
        await tool.execute({})
    with pytest.raises(ToolFailed, match="could not be connected: ConnectError"):
        await mcp(fake.url).tools()

    assert not caught.value.uncertain
    await server.aclose()
