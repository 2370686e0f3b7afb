"""A loopback server that answers with recorded bytes, whole or cut."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.recorded import Exchange


class Replay:
    """
    Answers every request of a connection with the reply set by `answer` or `cut`.

    Bodies go out chunked, as the vendor sends them. A cut ends them in one of two ways: the
    connection breaks, or the body ends as if it were whole.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self._status = 200
        self._headers: dict[str, str] = {}
        self._body = b""
        self._clean = True
        self._kind = ""
        self._next: list[Exchange] = []

    def answer(self, exchange: Exchange) -> None:
        """From now on, answer with this exchange."""
        self._status, self._headers = exchange.status, exchange.headers
        self._body, self._clean = exchange.body, True
        # Some recorders kept the body only.
        self._kind = "text/event-stream" if exchange.stream else "application/json"

    def answers(self, *exchanges: Exchange) -> None:
        """Answer the next requests with these, one after the other."""
        self._next = list(exchanges)

    def cut(self, exchange: Exchange, size: int, *, clean: bool) -> None:
        """From now on, answer with the first `size` bytes of this exchange."""
        self.answer(exchange)
        self._body, self._clean = exchange.body[:size], clean

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client or a cut ends it."""
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode("latin-1").lower().split("\r\n")
                size = next(
                    int(line.split(":")[1]) for line in lines if line.startswith("content-length")
                )
                self.requests.append(json.loads(await reader.readexactly(size)))
                if self._next:
                    self.answer(self._next.pop(0))
                writer.write(self._reply())
                await writer.drain()
                if not self._clean:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _reply(self) -> bytes:
        kept = {name: value for name, value in self._headers.items() if name != "content-type"}
        kind = self._headers.get("content-type", self._kind)
        head = [f"HTTP/1.1 {self._status} X", f"content-type: {kind}"]
        head += [f"{name}: {value}" for name, value in kept.items() if value.isascii()]
        head.append("transfer-encoding: chunked")
        body = b"%x\r\n%b\r\n" % (len(self._body), self._body) if self._body else b""
        end = b"0\r\n\r\n" if self._clean else b""
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body + end


@asynccontextmanager
async def replaying() -> AsyncIterator[Replay]:
    """A running server on a port that the kernel chose."""
    replay = Replay()
    server = await asyncio.start_server(replay.serve, "127.0.0.1", 0, limit=2**26)
    async with server:
        replay.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield replay
        server.close()
