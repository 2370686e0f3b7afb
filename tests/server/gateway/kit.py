"""A gateway on a socket, before a Mistral on another one."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from tests.server.gateway.front import Running

from loom import AsyncMistral
from loom.catalog.lookup import Catalog
from loom.core.ambient import SystemClock
from loom.core.errors import InvalidAPIKey
from loom.ledger.contract import all_entries
from loom.ledger.entry import Entry
from loom.ledger.memory import MemoryLedger
from loom.server.gateway.app import Gateway, Ring
from loom.server.gateway.keys import VirtualKey
from loom.server.simulator import Simulator

MODEL = "mistral-small-latest"
QUESTION: Any = [{"role": "user", "content": "Why is the sky blue?"}]


class Keys(Ring):
    """Keys in a dict: what the gateway asks of a ring, and no more."""

    def __init__(self, **keys: VirtualKey) -> None:
        self.keys = keys

    def admit(self, authorization: str | None, address: str = "") -> VirtualKey | None:
        del address
        name = (authorization or "").removeprefix("Bearer ")
        if name not in self.keys:
            raise InvalidAPIKey("Invalid API key")
        return self.keys[name]


class Served:
    """
    A running gateway.

    Args:
        sim: The Mistral behind it; None: one that answers from the prompt.
        ring: Who may call; None: everybody.
        client: Arguments of the client that stands behind it.
        more: Further parts of the gateway.
    """

    def __init__(
        self,
        sim: Simulator | None = None,
        *,
        ring: Ring | None = None,
        client: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> None:
        self.sim = sim or Simulator()
        self._ring = ring
        self._client = {"retry": None, **(client or {})}
        self._more = more
        self.ledger = MemoryLedger()
        self.gateway: Gateway
        self._ids = itertools.count(1)

    def __enter__(self) -> Self:
        self.sim.__enter__()  # starts it, if it does not run
        self.client = self.make_client()
        self.gateway = Gateway(
            provider=self.client.provider,
            ledger=self.ledger,
            ring=self._ring,
            catalog=Catalog.builtin(),
            clock=SystemClock(),
            new_id=lambda: f"{next(self._ids):032x}",
            **self._more,
        )
        self._front = Running(self.gateway)
        self._front.__enter__()
        self.port = self._front.port
        self.address = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._front.__exit__(kind, error, traceback)
        self.sim.stop()

    def make_client(self) -> Any:
        """Make the client whose provider is shared."""
        own = {"api_key": self.sim.api_key, "base_url": self.sim.base_url, "model": MODEL}
        return AsyncMistral(**{**own, **self._client})

    def rows(self) -> list[Entry]:
        """Give the rows of the ledger, the oldest first."""
        return list(asyncio.run(_rows(self.ledger)))

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait for what another thread does, at most a minute: looking may itself take long."""
        waiting = threading.Event()
        end_s = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end_s, "it did not happen"
            waiting.wait(0.01)

    def ask(
        self,
        body: Any,
        *,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        **headers: str,
    ) -> Answer:
        """Send a request on a connection of its own, and read the answer to its end."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
            connection.sendall(request(body, path=path, method=method, **headers))
            data = b""
            while piece := connection.recv(65536):
                data += piece
        return Answer(data)


async def _rows(ledger: MemoryLedger) -> tuple[Entry, ...]:
    return tuple([row async for row in all_entries(ledger)])


def request(
    body: Any, *, path: str = "/v1/chat/completions", method: str = "POST", **headers: str
) -> bytes:
    """Give a request as bytes; names of headers with `_` for `-`."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: gateway",
        "connection: close",
        f"content-length: {len(data)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + data


class Answer:
    """An answer taken apart with nothing but `split`."""

    def __init__(self, data: bytes) -> None:
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        self.whole = True
        if self.headers.get("transfer-encoding") == "chunked":
            self.body, self.whole = _unchunked(body)
        else:
            self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """The data of each event of a stream."""
        blocks = self.body.decode().split("\n\n")
        return [block.removeprefix("data: ") for block in blocks if block.startswith("data: ")]

    @property
    def note(self) -> dict[str, str]:
        """What the last event of a stream says of its cost."""
        (line,) = [x for x in self.body.decode().split("\n\n") if x.startswith(": loom ")]
        found: dict[str, str] = json.loads(line.removeprefix(": loom "))
        return found

    @property
    def text(self) -> str:
        """The text of a streamed answer."""
        chunks = [json.loads(event) for event in self.events if event.startswith("{")]
        return "".join(
            choice["delta"].get("content") or "" for c in chunks for choice in c.get("choices", ())
        )


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, True
        body, data = body + data[:length], data[length + 2 :]
    return body, False


def chat(**more: Any) -> dict[str, Any]:
    """Give the body of a chat."""
    return {"model": MODEL, "messages": QUESTION, **more}
