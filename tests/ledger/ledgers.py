"""Ledgers, calls and clocks for the tests of this folder."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from loom.core.ambient import Clock
from loom.core.response import Usage
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger, Receipt, Ticket
from loom.ledger.entry import Opening, State
from loom.ledger.sqlite.desk import Terms
from loom.ledger.sqlite.store import SqliteLedger
from loom.testing import FakeClock


class JumpingClock(Clock):
    """A wall clock that a test sets, back too."""

    def __init__(self) -> None:
        self.at = datetime(2024, 11, 29, 22, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("a ledger does not sleep")

    def jump(self, hours: float) -> None:
        self.at += timedelta(hours=hours)


class Disk:
    """A disk that a test fills, write-protects or breaks."""

    def __init__(self) -> None:
        self.connection: sqlite3.Connection | None = None

    def connect(self, path: Path, busy_s: float) -> sqlite3.Connection:
        # Another thread turns its switches.
        self.connection = sqlite3.connect(
            path, timeout=busy_s, isolation_level=None, check_same_thread=False
        )
        return self.connection

    def set(self, pragma: str) -> None:
        assert self.connection is not None
        self.connection.execute(f"PRAGMA {pragma}").fetchall()

    def fill(self) -> None:
        assert self.connection is not None
        (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
        self.set(f"max_page_count = {pages}")


def sqlite_ledger(path: Path, clock: Clock | None = None, **terms: Any) -> SqliteLedger:
    """Give a ledger with the terms of a test."""
    given = Terms(path=path, clock=clock or FakeClock(), **terms)
    return SqliteLedger(path, terms=given)


def call(worst: str | None = "0.10", **fields: Any) -> Opening:
    """Give a call."""
    worst_usd = None if worst is None else Decimal(worst)
    return Opening(provider="mistral", asked_model="model-1", worst_usd=worst_usd, **fields)


async def pay(
    ledger: Ledger,
    ticket: Ticket,
    cost: str | None = "0.05",
    state: State = "settled",
    **fields: Any,
) -> Receipt:
    """Settle a call."""
    usage = Usage(input_tokens=7, cost_usd=None if cost is None else Decimal(cost))
    final = msgspec.structs.replace(closed(ticket.entry, state, usage=usage), **fields)
    return await ledger.settle(ticket, final)
