"""Callers that leave, read slowly or come in numbers: nothing of them stays behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import resource
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.server.gateway.kit import Keys, Served, chat, request
from tests.server.gateway.test_app import key
from tests.server.gateway.vendor import (
    USAGE,
    RawVendor,
    breaks,
    chunk,
    cut,
    event,
    head,
    says,
    stream,
)

from loom.ledger.budgets import Budget, Standing
from loom.ledger.entry import Opening
from loom.server.gateway import relay
from loom.server.simulator import Simulator

SPEAKS = pytest.mark.parametrize("speaks", ["openai", "mistral"])
BUDGET = Budget(limit_usd="1000", period="month")
GOOD = key(budget=BUDGET, concurrency=500, rpm=100_000)


@contextmanager
def before(act: Callable[[socket.socket], None], **more: Any) -> Iterator[tuple[Served, RawVendor]]:
    """Give a gateway with a budget and limits before a vendor that does this."""
    ring = Keys(good=GOOD)
    with RawVendor(act) as vendor:
        client = {"base_url": vendor.base_url, "api_key": "vendor-key"}
        with Served(Simulator(), ring=ring, client=client, **more) as served:
            yield served, vendor


def raw(speaks: str, **more: Any) -> bytes:
    return request(chat(stream=True, **more), authorization="Bearer good", x_loom_dialect=speaks)


def connect(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), 20)


def reset(connection: socket.socket) -> None:
    """Close with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def read_until(connection: socket.socket, text: bytes) -> bytes:
    data = b""
    while text not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    return data


def held() -> tuple[int, int]:
    """Count this process's tasks that run, and its open files."""
    gc.collect()
    tasks = [
        each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done()
    ]
    return len(tasks), len(list(Path("/proc/self/fd").iterdir()))


def clean(served: Served, vendor: RawVendor, before: tuple[int, int]) -> None:
    """See that nothing is left: streams, drains, rows, tasks, permits, money, sockets."""
    relayed = served.gateway.relay
    served.wait(lambda: all(row.state != "open" for row in served.rows()))
    served.wait(lambda: relayed.streams == relayed.draining == 0)
    served.wait(lambda: vendor.open == 0)
    served.wait(lambda: all(a <= b for a, b in zip(held(), before, strict=True)))
    counter = served.gateway.counters.counter(GOOD)
    assert counter.limiter is not None
    assert 0 == counter.limiter.held == counter.limiter.queued
    opening = Opening(provider="mistral", asked_model="x", tenant=GOOD.id)
    (standing,) = asyncio.run(_standings(served, opening, counter.budgets))
    assert 0 == standing.reserved_usd
    assert sum(row.cost_usd or Decimal(0) for row in served.rows()) == standing.spent_usd


async def _standings(
    served: Served, opening: Opening, budgets: tuple[Budget, ...]
) -> tuple[Standing, ...]:
    return await served.ledger.standings(opening, budgets)


class Many:
    """A vendor that ends each stream in another way, and callers that do."""

    ENDS = ("429", "500", "hang-up", "cut", "reset", "event", "caller's reset", "whole")

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def act(self, connection: socket.socket) -> None:
        """Answer by the next number."""
        error = {"object": "error", "message": "no", "type": "x", "code": "1"}
        acts = {
            "429": says(b"{}", status="429 Too Many Requests", kind="application/json"),
            "500": says(b"{}", status="500 Broken", kind="application/json"),
            "cut": cut(*stream()[:3]),
            "reset": breaks(cut(*stream()[:3])),
            "event": says(*stream()[:2], event(error)),
        }
        end = self.ENDS[next(self._numbers) % len(self.ENDS)]
        acts.get(end, says(*stream()))(connection)

    @staticmethod
    def call(served: Served, number: int) -> None:
        """Ask, and leave in one way or the other."""
        speaks = ("openai", "mistral")[number % 2]
        with connect(served) as connection:
            connection.sendall(raw(speaks))
            match number % 5:
                case 0:
                    read_until(connection, b"data: ")
                case 1:
                    reset(connection)
                case 2:
                    read_until(connection, b"data: ")
                    reset(connection)
                case _:
                    read_until(connection, b"never")


def test_a_thousand_streams_leave_nothing() -> None:
    """Ended by errors, hang-ups, cuts and resets on both sides: no socket, task, permit, money."""
    many = Many()
    with before(many.act) as (served, vendor):
        Many.call(served, 3)
        clean(served, vendor, (10_000, 10_000))
        at_rest = held()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: Many.call(served, number), range(1000)))
        clean(served, vendor, at_rest)
        # A caller that resets at once may not have been read.
        assert 800 <= len(served.rows()) <= 1001


def endless(connection: socket.socket) -> None:
    """Begin a stream, and wait until the caller is gone."""
    connection.sendall(head())
    begun = b"".join(stream()[:2])
    connection.sendall(b"%x\r\n%s\r\n" % (len(begun), begun))
    while connection.recv(65536):
        pass


def headed(connection: socket.socket) -> None:
    """Send the head alone, and wait until the caller is gone."""
    connection.sendall(head())
    while connection.recv(65536):
        pass


@SPEAKS
def test_a_hang_up_between_head_and_first_event(speaks: str) -> None:
    """G1: the vendor is left at once, and the row says that nobody knows the bill."""
    with before(headed) as (served, vendor):
        at_rest = held()
        with connect(served) as connection:
            connection.sendall(raw(speaks))
            served.wait(lambda: vendor.open == 1)
        clean(served, vendor, at_rest)
        (row,) = served.rows()
        assert ("uncertain", "cancelled") == (row.state, row.code)


@SPEAKS
def test_two_hang_ups_at_once(speaks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one place to be read on, one of two is; neither stays."""
    monkeypatch.setattr(relay, "DRAINS_AT_ONCE", 1)
    monkeypatch.setattr(relay, "DRAIN_S", 0.2)
    with before(endless) as (served, vendor):
        at_rest = held()
        first, second = connect(served), connect(served)
        for each in (first, second):
            each.sendall(raw(speaks))
        for each in (first, second):
            read_until(each, b"data: ")
        reset(first)
        reset(second)
        clean(served, vendor, at_rest)
        assert ["estimated", "estimated"] == [row.state for row in served.rows()]


@SPEAKS
def test_a_half_closed_caller_is_one_that_left(
    speaks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says that it will send nothing more, as callers do that were killed."""
    monkeypatch.setattr(relay, "DRAIN_S", 0.1)
    with before(endless) as (served, vendor):
        at_rest = held()
        with connect(served) as connection:
            connection.sendall(raw(speaks))
            read_until(connection, b"data: ")
            connection.shutdown(socket.SHUT_WR)
            read_until(connection, b"never")
        clean(served, vendor, at_rest)


class Firehose:
    """A vendor that sends what there is room for."""

    PIECES = 4000
    PIECE = event(chunk("x" * 16_000))

    def __init__(self) -> None:
        self.sent = 0
        self.stalled = threading.Event()

    def act(self, connection: socket.socket) -> None:
        """Send 64 MB, and tell when nobody takes them for a second."""
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        last = [event(chunk("", finish="stop", usage=USAGE)), event(b"[DONE]")]
        connection.sendall(head())
        connection.settimeout(1.0)
        for piece in (*itertools.repeat(self.PIECE, self.PIECES), *last):
            left = b"%x\r\n%s\r\n" % (len(piece), piece)
            while left:
                try:
                    count = connection.send(left)
                except TimeoutError:
                    self.stalled.set()
                    continue
                self.sent += count
                left = left[count:]
        connection.sendall(b"0\r\n\r\n")


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@SPEAKS
def test_a_slow_reader_holds_the_vendor_back(speaks: str) -> None:
    """G3: what waits for a reader is bounded; when it reads on, it gets everything."""
    hose = Firehose()
    with before(hose.act) as (served, _), connect(served) as connection:
        connection.sendall(raw(speaks))
        data = connection.recv(4096)
        before_bytes = resident_bytes()
        assert hose.stalled.wait(30)
        # The kernel's buffers on the way, of two connections; ours are 256 KiB.
        assert hose.sent < 24 * 1024 * 1024
        assert resident_bytes() - before_bytes < 16 * 1024 * 1024
        size = len(data)
        while piece := connection.recv(1 << 20):
            size += len(piece)
            data = (data + piece)[-64:]
        assert b"data: [DONE]" in data
        assert size > Firehose.PIECES * 16_000
        (row,) = served.rows()
        assert "settled" == row.state


@SPEAKS
def test_a_reader_that_stops_and_leaves(speaks: str) -> None:
    """A caller that hangs up behind a full buffer leaves nothing either."""
    hose = Firehose()
    with before(hose.act) as (served, vendor):
        at_rest = held()
        with connect(served) as connection:
            connection.sendall(raw(speaks))
            connection.recv(4096)
            assert hose.stalled.wait(30)
            reset(connection)
        clean(served, vendor, at_rest)


def test_a_pipelined_request_waits_for_a_stream() -> None:
    """The second is answered behind the first; when the caller leaves, neither stays."""
    with before(says(*stream())) as (served, vendor):
        at_rest = held()
        with connect(served) as connection:
            first = raw("mistral").replace(b"connection: close\r\n", b"")
            connection.sendall(first + first + raw("openai"))
            said = read_until(connection, b"never")
        assert 3 == said.count(b"HTTP/1.1 200 OK") == said.count(b"data: [DONE]")
        with connect(served) as connection:
            connection.sendall(first * 3)
            read_until(connection, b"data: ")
        clean(served, vendor, at_rest)
        assert all(row.state == "settled" or row.code for row in served.rows())
