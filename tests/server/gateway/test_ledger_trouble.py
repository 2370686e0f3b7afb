"""What callers of a gateway see when its ledger, or its clock, is in trouble."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.ledger.ledgers import Disk, JumpingClock, sqlite_ledger
from tests.server.gateway.front import Answer, Running, closed, post, whole

from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock, SystemClock
from loom.core.events import StreamEvent
from loom.core.provider import Layer, LLMProvider
from loom.core.request import ChatRequest
from loom.layers.cost import Costing
from loom.ledger.budgets import Budget
from loom.ledger.entry import Entry
from loom.ledger.sqlite.store import SqliteLedger
from loom.providers.scripted import ScriptedProvider
from loom.server.gateway.app import Gateway
from loom.server.gateway.readiness import OK, Readiness

MODEL = "mistral-small-latest"


class Counting(Layer):
    """Counts what is sent."""

    def __init__(self, inner: LLMProvider) -> None:
        super().__init__(inner)
        self.sent = 0

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.sent += 1
        async with aclosing(self.inner.stream(request)) as events:
            async for event in events:
                yield event


# The scripted provider counts its own tokens, and says so.
WRITTEN = {"settled", "estimated"}


def chat(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 100, **fields}
    return post(json.dumps(body).encode())


@contextmanager
def gateway(
    ledger: SqliteLedger,
    clock: Clock | None = None,
    budgets: tuple[Budget, ...] = (),
    provider: LLMProvider | None = None,
) -> Iterator[Running]:
    """Serve a script over a ledger, and close the ledger at the end."""
    catalog, clock = Catalog.builtin(), clock or SystemClock()
    readiness = Readiness()
    trouble = lambda: OK if ledger.trouble is None else f"unavailable: {ledger.trouble}"  # noqa: E731 - one expression
    readiness.watch("ledger", trouble)
    numbers = iter(range(1000))
    app = Gateway(
        provider=Costing(provider or ScriptedProvider(), catalog=catalog, clock=clock),
        ledger=ledger,
        ring=None,
        catalog=catalog,
        clock=clock,
        new_id=lambda: f"{next(numbers):032x}",
        budgets=budgets,
        readiness=readiness,
    )
    with Running(app, closing=ledger.aclose, readiness=readiness, drain_s=20.0) as front:
        yield front


def rows(path: Path) -> list[Entry]:
    async def read() -> list[Entry]:
        ledger = SqliteLedger(path)
        try:
            return list(await ledger.entries())
        finally:
            await ledger.aclose()

    return asyncio.run(read())


def ready(front: Running) -> Answer:
    return front.ask(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\n\r\n")


def until(condition: Any) -> None:
    waiting = threading.Event()
    for _ in range(2000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen")


def test_calls_wait_for_a_lock_and_are_shed_behind_a_full_queue(tmp_path: Path) -> None:
    """G17: the writer tries again; beyond the queue 503 before upstream, never after."""
    path, provider = tmp_path / "calls.db", Counting(ScriptedProvider())
    ledger = sqlite_ledger(path, SystemClock(), busy_s=0.02, patience_s=20.0, most_queued=2)
    with gateway(ledger, provider=provider) as front:
        assert 200 == front.ask(chat()).status
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with front.connect() as first, front.connect() as second:
            first.sendall(chat())
            second.sendall(chat())
            until(lambda: ledger.waiting == 2)
            shed = front.ask(chat())
            sent = provider.sent
            other.execute("ROLLBACK")
            other.close()
            answers = [Answer(whole(sock)).status for sock in (first, second)]
        assert (503, 1) == (shed.status, sent)
        assert [200, 200] == answers
        assert 3 == provider.sent
    states = [row.state for row in rows(path)]
    assert 3 == len(states)
    assert WRITTEN.issuperset(states)


def test_a_full_disk_stops_admission_and_comes_back(tmp_path: Path) -> None:
    """G18: 503 for new calls, a running stream goes on and keeps its row, then all is well."""
    path, disk = tmp_path / "calls.db", Disk()
    provider = ScriptedProvider(words_per_second=50)
    ledger = sqlite_ledger(path, SystemClock(), connect=disk.connect, probe_s=0.05)
    with gateway(ledger, provider=provider) as front:
        with front.connect() as sock:
            sock.sendall(chat(stream=True))
            first = sock.recv(10)
            disk.set("query_only = ON")
            until(lambda: front.ask(chat()).status == 503)
            answer = ready(front)
            assert (503, "unavailable: readonly") == (
                answer.status,
                json.loads(answer.body)["ledger"],
            )
            stream = first + _to_end(sock)
        assert b"[DONE]" in stream
        disk.set("query_only = OFF")
        until(lambda: front.ask(chat()).status == 200)
        assert 200 == ready(front).status
    assert WRITTEN.issuperset(row.state for row in rows(path))


def _to_end(sock: Any) -> bytes:
    data = b""
    while b"0\r\n\r\n" not in data:
        more = sock.recv(65536)
        assert more
        data += more
    return data


def test_a_clock_that_jumps_moves_no_money(tmp_path: Path) -> None:
    """G24: a budget's period is that of the ledger's time, forwards and back."""
    clock = JumpingClock()
    limit = Decimal("0.001")
    day = Budget(limit_usd=limit, period="day")
    with gateway(sqlite_ledger(tmp_path / "calls.db", clock), clock, (day,)) as front:
        assert 200 == front.ask(chat()).status
        until(lambda: front.ask(chat()).status == 402)
        clock.jump(24)
        assert 200 == front.ask(chat()).status
        clock.jump(-24)
        assert 402 == front.ask(chat()).status


def test_an_answer_that_was_paid_is_not_refused_afterwards(tmp_path: Path) -> None:
    """G17: when the ledger fails while the vendor answers, the caller gets the answer."""
    path, disk = tmp_path / "calls.db", Disk()
    provider = Counting(ScriptedProvider(words_per_second=20))
    ledger = sqlite_ledger(path, SystemClock(), connect=disk.connect, probe_s=0.05)
    with gateway(ledger, provider=provider) as front, front.connect() as sock:
        sock.sendall(post_close(chat()))
        until(lambda: provider.sent == 1)
        disk.set("query_only = ON")
        assert 200 == Answer(closed(sock)).status
        disk.set("query_only = OFF")
    (row,) = rows(path)
    assert row.state in WRITTEN


def post_close(request: bytes) -> bytes:
    """Ask for the end of the connection behind the answer."""
    return request.replace(b"host: localhost", b"host: localhost\r\nconnection: close", 1)
