"""A gateway's door on a real socket, with a small application behind it, and a raw caller."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from types import TracebackType
from typing import Any, NamedTuple, Self

from loom.server.gateway.limits import DoorLimits
from loom.server.gateway.run import GatewayServer
from loom.server.line import CallerGone, Receive, Scope, Send, read_body

PATIENCE_S = 20.0
PATH = "/v1/chat/completions"


class Answer(NamedTuple):
    """What came over a connection until it ended, or until an answer was whole."""

    data: bytes

    @property
    def status(self) -> int:
        """The status of the first answer."""
        return int(self.data.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the first answer."""
        lines = self.data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}

    @property
    def body(self) -> bytes:
        """What stands behind the head."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def error(self) -> dict[str, Any]:
        """The error as OpenAI's dialect has it."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


class Echo:
    """
    Answers with what it saw of a request.

    Attributes:
        seen: The scopes and bodies that came in.
        gone: How many callers hung up before they had said everything.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[Scope, bytes]] = []
        self.gone = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            body = await read_body(receive, 1 << 30)
        except CallerGone:
            self.gone += 1
            return
        self.seen.append((scope, body))
        text = json.dumps({"path": scope["path"], "bytes": len(body)}).encode()
        length = (b"content-length", b"%d" % len(text))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": text, "more_body": False})


class Running:
    """
    A gateway in a thread of its own.

    Args:
        app: What stands behind the door.
        options: Those of `GatewayServer`.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        self.dropped: list[str] = []
        self._ready = threading.Event()
        self.port = 0
        self.code: int | None = None
        options.setdefault("drain_s", 0.0)
        options.setdefault("dropped", self.dropped.append)
        self.server = GatewayServer(app, on_ready=self._listening, **options)
        self.thread = threading.Thread(target=self._run)

    def _listening(self, port: int) -> None:
        self.port = port
        self._ready.set()

    def _run(self) -> None:
        try:
            self.code = self.server.run()
        finally:
            self._ready.set()

    def __enter__(self) -> Self:
        """Start."""
        self.thread.start()
        assert self._ready.wait(PATIENCE_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop."""
        self.server.stop()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """Open a connection."""
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(PATIENCE_S)
        try:
            sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def ask(self, data: bytes) -> Answer:
        """Send something and read until the connection ends, or one answer is whole."""
        with self.connect() as sock:
            sock.sendall(data)
            return Answer(whole(sock))


def whole(sock: socket.socket, data: bytes = b"") -> bytes:
    """Read one answer that names its length, or until the connection ends."""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            for line in head.lower().split(b"\r\n"):
                name, _, value = line.partition(b": ")
                if name == b"content-length" and len(body) >= int(value):
                    return data
        try:
            more = sock.recv(65536)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more


def closed(sock: socket.socket) -> bytes:
    """Read until the other side closes, and give what came."""
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


def post(body: bytes = b"{}", *headers: str, path: str = PATH, length: int | None = None) -> bytes:
    """Write a request."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", *headers]
    lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def brief(**changes: Any) -> DoorLimits:
    """Limits whose times are short enough for a test."""
    return DoorLimits(**changes)


class Streaming:
    """
    An endless stream; `asked` is set when the first piece was sent.

    Args:
        piece: What is sent again and again.
    """

    def __init__(self, piece: bytes = b"data: {}\n\n", *, paced: bool = True) -> None:
        self.piece = piece
        self.paced = paced
        self.asked = threading.Event()
        self.ended = threading.Event()
        self.sent = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until it is ended from outside."""
        kind = (b"content-type", b"text/event-stream")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        gone = asyncio.ensure_future(self._gone(receive))
        try:
            while not gone.done():
                await send({"type": "http.response.body", "body": self.piece, "more_body": True})
                self.sent += 1
                self.asked.set()
                if self.paced:
                    await asyncio.wait({gone}, timeout=0.01)
                else:
                    await asyncio.sleep(0)
        finally:
            gone.cancel()
            self.ended.set()

    async def _gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
