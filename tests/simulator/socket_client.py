"""A client that shows what came over the socket, to the byte."""

from __future__ import annotations

import json
import socket
import threading
from types import TracebackType
from typing import Any, NamedTuple, Self

from loom.server.simulator import SIMULATOR_KEY, Simulator
from loom.testing.clock import FakeClock

MODEL = "mistral-small-latest"
WORDS = "Explain looms in thirty words"
_PATIENCE_S = 20.0


class Seen(NamedTuple):
    """What came, and whether the connection was reset at the end."""

    data: bytes
    reset: bool

    @property
    def head(self) -> bytes:
        """Status line and headers."""
        return self.data.partition(b"\r\n\r\n")[0]

    @property
    def status(self) -> int:
        """The status."""
        return int(self.head.split()[1])

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers, in order."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value) for name, _, value in (x.partition(": ") for x in lines)]

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for each, value in self.headers if each == name]

    @property
    def rest(self) -> bytes:
        """What came behind the headers, framing and all."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def chunked(self) -> bool:
        """Whether the body came in chunks."""
        return self.header("transfer-encoding") == ["chunked"]

    @property
    def ended(self) -> bool:
        """Whether the body of a chunked reply was ended."""
        return self.rest.endswith(b"0\r\n\r\n")

    @property
    def body(self) -> bytes:
        """The body without its framing, as far as it came."""
        if not self.chunked:
            return self.rest
        body, left = b"", self.rest
        while left:
            size, _, left = left.partition(b"\r\n")
            if not (length := int(size, 16)):
                break
            body, left = body + left[:length], left[length + 2 :]
        return body

    @property
    def events(self) -> list[bytes]:
        """The events of a stream."""
        return [event for event in self.body.split(b"\n\n") if event]


class Caller:
    """One connection to a simulator, with one request on its way."""

    def __init__(
        self,
        simulator: Simulator,
        fault: str | None = None,
        *,
        method: str = "POST",
        path: str = "/v1/chat/completions",
        **fields: Any,
    ) -> None:
        host, port = simulator.base_url.removeprefix("http://").removesuffix("/v1").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=_PATIENCE_S)
        if path.endswith("/chat/completions"):
            fields.setdefault("model", MODEL)
            fields.setdefault("messages", [{"role": "user", "content": WORDS}])
        body = json.dumps(fields).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: {host}:{port}",
            f"authorization: Bearer {SIMULATOR_KEY}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        if fault is not None:
            lines.append(f"x-loom-fault: {fault}")
        self.request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        self.data = b""

    def __enter__(self) -> Self:
        """Send the request."""
        self.socket.sendall(self.request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        self.socket.close()

    def until(self, mark: bytes) -> bytes:
        """Read until something came."""
        while mark not in self.data:
            more = self.socket.recv(65536)
            assert more, f"the connection ended before {mark!r}: {self.data!r}"
            self.data += more
        return self.data

    def all(self) -> Seen:
        """Read to the end."""
        try:
            while more := self.socket.recv(65536):
                self.data += more
        except ConnectionResetError:
            return Seen(self.data, reset=True)
        return Seen(self.data, reset=False)

    def quiet(self) -> bool:
        """Whether nothing has come, and the connection is open."""
        self.socket.settimeout(0)
        try:
            self.data += self.socket.recv(65536)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(_PATIENCE_S)
        return False


def seen(simulator: Simulator, fault: str | None = None, **fields: Any) -> Seen:
    """Ask, and read to the end."""
    with Caller(simulator, fault, **fields) as caller:
        return caller.all()


class SleepClock(FakeClock):
    """A clock that stands still and tells when somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._asleep = threading.Semaphore(0)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock is moved."""
        if seconds > 0:
            self._asleep.release()
        await super().sleep(seconds)

    def until_waiting(self) -> None:
        """Wait until the simulator waits for the clock."""
        assert self._asleep.acquire(timeout=_PATIENCE_S), "nobody waits for the clock"
