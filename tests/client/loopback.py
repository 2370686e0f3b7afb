"""A vendor on a loopback socket: answers, streams, and sees whether its callers hang up."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ("Hel", "lo ", "there")
USAGE = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def answer(text: str = "".join(WORDS)) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return json.dumps(_body("chat.completion", [choice], usage=USAGE)).encode()


def chunk(text: str, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": more.pop("finish", None)}
    return (
        b"data: " + json.dumps(_body("chat.completion.chunk", [choice], **more)).encode() + b"\n\n"
    )


def chunks() -> list[bytes]:
    return [
        *(chunk(word) for word in WORDS),
        chunk("", finish="stop", usage=USAGE),
        b"data: [DONE]\n\n",
    ]


def _body(kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    named = {"id": "answer-1", "object": kind, "created": 1, "model": "mistral-small-latest"}
    return {**named, "choices": choices, **more}


class Vendor(ThreadingHTTPServer):
    """
    Answers at `base_url`; a prompt with "forever" is never answered to its end.

    Attributes:
        asked: One item for each request that has arrived.
        hung_up: One item for each endless answer whose caller closed its socket.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.hung_up: queue.SimpleQueue[bool] = queue.SimpleQueue()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Vendor

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        forever = "forever" in json.dumps(body["messages"])
        self.server.asked.put(body)
        if body.get("stream"):
            self._stream([chunk(WORDS[0])] if forever else chunks(), ends=not forever)
        elif not forever:
            self._head("application/json", ("content-length", str(len(answer()))))
            self.wfile.write(answer())
        if forever:
            try:
                left = self.rfile.read(1)
            except ConnectionError:
                left = b""
            self.server.hung_up.put(left == b"")
            self.close_connection = True

    def _stream(self, pieces: list[bytes], *, ends: bool) -> None:
        self._head("text/event-stream", ("transfer-encoding", "chunked"))
        for piece in [*pieces, b""] if ends else pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def _head(self, kind: str, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def vendor() -> Iterator[Vendor]:
    with Vendor() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
