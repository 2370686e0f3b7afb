"""A vendor in raw bytes: it says whatever a test wants said, in the cuts that the test wants."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeAlias

Act: TypeAlias = Callable[[socket.socket], None]
"""Answers one request; the connection is closed behind it."""

USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


class RawVendor:
    """
    Listens at `base_url`.

    Args:
        act: What it does once a request is whole.
        choose: Gives what it does with a body, in its place.
    """

    def __init__(
        self, act: Act | None = None, *, choose: Callable[[bytes], Act] | None = None
    ) -> None:
        self._choose = choose or (lambda _: act or says(b""))
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.base_url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.asked: list[bytes] = []
        self.open = 0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopped.set()
        # Closing alone does not wake whoever waits in `accept`.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.open += 1
        try:
            with connection, contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                body = _read(connection)
                self.asked.append(body)
                self._choose(body)(connection)
        finally:
            with self._lock:
                self.open -= 1


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536) or _gone()
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    size = next(int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length:"))
    while len(body) < size:
        body += connection.recv(65536) or _gone()
    return body


def _gone() -> bytes:
    raise OSError("the caller is gone")


def says(
    *pieces: bytes, status: str = "200 OK", kind: str = "text/event-stream", more: str = ""
) -> Act:
    """Answer with these pieces, each a chunk of its own, and end the body."""

    def act(connection: socket.socket) -> None:
        connection.sendall(head(status, kind, more))
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")

    return act


def head(status: str = "200 OK", kind: str = "text/event-stream", more: str = "") -> bytes:
    """Begin an answer in chunks."""
    lines = f"content-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
    return f"HTTP/1.1 {status}\r\n{lines}{more}\r\n".encode("latin-1")


def breaks(act: Act) -> Act:
    """Do it, and close with a reset."""

    def reset(connection: socket.socket) -> None:
        act(connection)
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return reset


def cut(*pieces: bytes) -> Act:
    """Begin a stream, and close in the middle of it."""

    def act(connection: socket.socket) -> None:
        connection.sendall(head())
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

    return act


def event(value: Any, end: bytes = b"\n\n") -> bytes:
    """Write an event of a stream."""
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + end


def chunk(delta: Any, *, choice: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Make a chunk of an answer."""
    said = delta if isinstance(delta, dict) else {"content": delta}
    return {
        "id": "answer-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "mistral-small-latest",
        "choices": [{"index": choice, "delta": said, "finish_reason": finish}],
        **more,
    }


def stream(
    words: Iterable[str] = ("The ", "sky ", "is blue."), *, usage: bool = True, end: bytes = b"\n\n"
) -> list[bytes]:
    """Make the events of a whole stream."""
    told: dict[str, Any] = {"usage": USAGE} if usage else {}
    last = chunk("", finish="stop", **told)
    events = [chunk({"role": "assistant", "content": ""}), *(chunk(word) for word in words), last]
    return [*(event(each, end) for each in events), event(b"[DONE]", end)]


def plain(text: str = "The sky is blue.", **more: Any) -> bytes:
    """Make a plain answer."""
    message = {"role": "assistant", "content": text, "tool_calls": None}
    return json.dumps(
        {
            "id": "answer-1",
            "created": 1,
            "model": "mistral-small-latest",
            "usage": USAGE,
            "object": "chat.completion",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            **more,
        }
    ).encode()
