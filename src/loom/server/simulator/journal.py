"""
What came and how it ended: every request of a simulator, without its key.

The key is in no entry: the header that carried it holds its fingerprint instead. Bodies are kept
to the byte, whatever a caller wrote into them.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from loom.core.secret import Secret
from loom.server.simulator.exchange import Asked, Exchange
from loom.server.simulator.quota import cost_of

__all__ = ["Entry", "Journal"]

# Documents and images weigh megabytes: ten thousand of them must not fill the memory.
_MAX_BYTES = 256 * 1024 * 1024

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "x-api-key", "api-key", "x-goog-api-key"}
)
_SECRET_QUERY = re.compile(r"(?i)\b((?:api[-_]?)?key|token|secret|password)=[^&]*")
_EVENT = re.compile(rb"^data: ?(.*)$", re.MULTILINE)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """
    One request and its answer.

    Attributes:
        number: Since the start, from 1.
        at: When it came, UTC, by the simulator's clock.
        method: For example `POST`.
        path: With its query, for example `/v1/models?x=1`.
        headers: Of the request, names in lower case; the key's is its fingerprint.
        body: The request's body, to the byte.
        key: The key's fingerprint; empty without a key.
        model: The model that was asked for; empty if none.
        fault: The fault that befell it; None for none.
        status: The answer's; None while there is none, and if a fault let none through.
        answer_headers: Of the answer, names in lower case.
        answer: The answer's body, to the byte, as the API gave it.
        prompt_tokens: Of the answer's usage; None if it has none.
        completion_tokens: Likewise.
        cached_tokens: Likewise.
        cost_usd: What it costs; None if it used nothing, or the price is unknown.
        duration_s: From its arrival to its end; None while it goes on.
    """

    number: int
    at: datetime
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    key: str = ""
    model: str = ""
    fault: str | None = None
    status: int | None = None
    answer_headers: Mapping[str, str] = {}
    answer: bytes = b""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: Decimal | None = None
    duration_s: float | None = None

    @property
    def events(self) -> tuple[str, ...] | None:
        """The data of each event of a streamed answer; None for another."""
        if not self.answer_headers.get("content-type", "").startswith("text/event-stream"):
            return None
        return tuple(data.decode("utf-8", "replace") for data in _EVENT.findall(self.answer))

    def to_json(self) -> dict[str, Any]:
        """
        The entry as `GET /_sim/journal` gives it.

        Returns:
            JSON values; bodies as text, and the events of a streamed answer as a list.
        """
        plain = {name: getattr(self, name) for name in self.__struct_fields__}
        events = self.events
        return {
            **plain,
            "body": self.body.decode("utf-8", "replace"),
            "answer": self.answer.decode("utf-8", "replace"),
            "events": None if events is None else list(events),
        }


class Journal:
    """
    The last requests, the oldest first; the simulator writes it, everybody may read it.

    Args:
        size: How many it keeps; the oldest are forgotten first.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: deque[Exchange] = deque()
        self._bytes = 0
        # Written by the server's thread, read by others.
        self._lock = threading.Lock()

    def begin(self, exchange: Exchange) -> None:
        """
        Take a request down.

        Args:
            exchange: It.
        """
        exchange.weight = len(exchange.body)
        with self._lock:
            self._kept.append(exchange)
            self._bytes += exchange.weight
            self._shorten()

    def end(self, exchange: Exchange) -> None:
        """
        Take its end down.

        Args:
            exchange: It, with its answer.
        """
        # Nobody compares the key any more: it is not kept, not even out of sight.
        exchange.asked = _without_key(exchange.asked)
        # A tree of thousands of values each would keep the garbage collector busy.
        exchange.fields = {"model": exchange.model}
        with self._lock:
            if exchange.weight is not None:
                answer = sum(map(len, exchange.pieces))
                exchange.weight += answer
                self._bytes += answer
                self._shorten()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            while self._kept:
                self._forget()

    def entries(self, since: int = 0) -> tuple[Entry, ...]:
        """
        Read it.

        Args:
            since: Only entries with a higher number than this.

        Returns:
            The oldest first.
        """
        with self._lock:
            kept = tuple(exchange for exchange in self._kept if exchange.asked.number > since)
        return tuple(_entry(exchange) for exchange in kept)

    def __len__(self) -> int:
        """How many requests it holds."""
        return len(self._kept)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry, the oldest first."""
        return iter(self.entries())

    def __getitem__(self, index: int) -> Entry:
        """The entry at a place; -1 is the newest."""
        with self._lock:
            exchange = self._kept[index]
        return _entry(exchange)

    def _shorten(self) -> None:
        while self._kept and (len(self._kept) > self._size or self._bytes > _MAX_BYTES):
            self._forget()

    def _forget(self) -> None:
        oldest = self._kept.popleft()
        self._bytes -= oldest.weight or 0
        # Its end may come later, and is not counted then.
        oldest.weight = None


def _entry(exchange: Exchange) -> Entry:
    asked = _without_key(exchange.asked)
    usage, ended_s = exchange.usage, exchange.ended_s
    return Entry(
        number=asked.number,
        at=datetime.fromtimestamp(exchange.at_s, UTC),
        method=asked.method,
        path=f"{asked.path}?{asked.query}" if asked.query else asked.path,
        headers=asked.headers,
        body=asked.body,
        key=exchange.key,
        model=exchange.model,
        fault=exchange.fault,
        status=exchange.status,
        answer_headers={k.decode("latin-1"): v.decode("latin-1") for k, v in exchange.sent},
        answer=b"".join(exchange.pieces),
        prompt_tokens=None if usage is None else usage.input_tokens,
        completion_tokens=None if usage is None else usage.output_tokens,
        cached_tokens=None if usage is None else usage.cached_tokens,
        cost_usd=cost_of(exchange),
        duration_s=None if ended_s is None else ended_s - exchange.began_s,
    )


def _without_key(asked: Asked) -> Asked:
    if asked.clean:
        return asked
    key = asked.headers.get("authorization", "").partition(" ")[2].strip()
    headers = {name: _cleaned(name, value, key) for name, value in asked.headers.items()}
    query = _SECRET_QUERY.sub(r"\1=***", asked.query) if asked.query else ""
    path = asked.path
    if key:
        query, path = query.replace(key, "***"), path.replace(key, "***")
    return msgspec.structs.replace(asked, headers=headers, query=query, path=path, clean=True)


def _cleaned(name: str, value: str, key: str) -> str:
    if name not in _SECRET_HEADERS:
        return value.replace(key, "***") if key else value
    scheme, _, secret = value.partition(" ") if name.endswith("authorization") else ("", "", value)
    if name.endswith("authorization") and not secret:
        # A key without a scheme is a key all the same.
        scheme, secret = "", scheme
    shown = f"sha256:{Secret(secret.strip()).fingerprint}" if secret.strip() else ""
    return f"{scheme} {shown}".strip()
