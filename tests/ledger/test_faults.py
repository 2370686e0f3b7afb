"""A file in trouble: what was sent is kept, what was not is refused, and it comes back."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.ledger.ledgers import Disk, call, pay, sqlite_ledger

from loom.core.errors import LedgerUnavailable
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger, Ticket
from loom.ledger.sqlite.store import SqliteLedger
from loom.testing import FakeClock, turn

pytestmark = pytest.mark.anyio

BUDGET = Budget(limit_usd=1)


async def accepted(ledger: Ledger) -> Ticket:
    """Ask until the ledger accepts a call again."""
    while True:
        try:
            return await ledger.reserve(call("0.10"), [BUDGET])
        except LedgerUnavailable:
            await turn()


@asynccontextmanager
async def on_disk(
    path: Path, disk: Disk | None = None, **terms: Any
) -> AsyncGenerator[SqliteLedger, None]:
    given: dict[str, Any] = {"busy_s": 0.0, "probe_s": 0.001, **terms}
    if disk is not None:
        given["connect"] = disk.connect
    ledger = sqlite_ledger(path, **given)
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def sums(ledger: Ledger) -> tuple[str, str]:
    """Give what the budget counts as spent and as reserved."""
    (standing,) = await ledger.standings(call(), [BUDGET])
    return f"{standing.spent_usd:.2f}", f"{standing.reserved_usd:.2f}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calls.db"


def contents(path: Path) -> bytes:
    """Give what lies in a file."""
    return path.read_bytes()


def spoilt(path: Path, at: int) -> bytes:
    """Overwrite a page of a file, and give what it holds now."""
    body = path.read_bytes()
    path.write_bytes(body[:at] + b"\xff" * 4096 + body[at + 4096 :])
    return path.read_bytes()


def lock(path: Path) -> sqlite3.Connection:
    """Hold the lock for writing, as another program may."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_calls_wait_while_another_program_holds_the_lock(path: Path) -> None:
    """What begins waits, what ends is kept beside the file; then all is in it (G17)."""
    async with on_disk(path, patience_s=1e9) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        other = lock(path)
        waiting = asyncio.ensure_future(ledger.reserve(call("0.20"), [BUDGET]))
        await turn()
        receipt = await pay(ledger, ticket)  # the writer has tried, and failed

        assert "spilled" == receipt.kept
        assert not waiting.done()

        other.close()
        await waiting
        assert ("settled", "open") == tuple(row.state for row in await ledger.entries())
        assert not ledger.path.with_name("calls.db.emergency").exists()
        assert ("0.05", "0.20") == await sums(ledger)


async def test_a_lock_that_stays_refuses_calls(path: Path) -> None:
    """After its patience the ledger refuses what was not sent, and says why (G17)."""
    async with on_disk(path, patience_s=0.0) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        other = lock(path)

        with pytest.raises(LedgerUnavailable, match="locked by another program"):
            await ledger.reserve(call("0.20"), [BUDGET])
        with pytest.raises(LedgerUnavailable, match="locked"):
            await ledger.top_up(ticket, call("0.30").worst_usd)
        assert "spilled" == (await pay(ledger, ticket)).kept

        other.close()
        await accepted(ledger)
        assert ("0.05", "0.10") == await sums(ledger)
        assert () == await ledger.check()


async def test_a_top_up_that_is_not_written_is_taken_back(path: Path) -> None:
    """A dearer attempt that meets the lock keeps what it had free."""
    async with on_disk(path, patience_s=0.0) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        other = lock(path)
        with pytest.raises(LedgerUnavailable, match="locked"):
            await ledger.top_up(ticket, call("0.30").worst_usd)
        other.close()

        assert ("0.00", "0.10") == await sums(ledger)


async def test_no_more_calls_wait_than_may(path: Path) -> None:
    """A full queue refuses at once; what ends still gets in (G17)."""
    async with on_disk(path, patience_s=1e9, most_queued=2) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        other = lock(path)
        waiting = [asyncio.ensure_future(ledger.reserve(call("0.01"))) for _ in range(2)]
        await turn()

        with pytest.raises(LedgerUnavailable, match="2 calls wait to be written"):
            await ledger.reserve(call("0.01"))
        assert "spilled" == (await pay(ledger, ticket)).kept

        other.close()
        await asyncio.gather(*waiting)
        await ledger.reserve(call("0.01"))


async def test_a_full_disk_refuses_and_comes_back(path: Path) -> None:
    """Nothing is sent that cannot be written; with room again it goes on by itself (G18)."""
    disk = Disk()
    async with on_disk(path, disk) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        disk.fill()
        receipt = await pay(ledger, ticket, request_id="x" * 100_000)
        with pytest.raises(LedgerUnavailable, match="the disk is full"):
            await ledger.reserve(call("0.20"), [BUDGET])

        assert "spilled" == receipt.kept
        assert ("0.05", "0.00") == await sums(ledger)

        disk.set("max_page_count = 1000000")
        await accepted(ledger)
        assert "settled" == (await ledger.entries())[0].state
        assert not ledger.path.with_name("calls.db.emergency").exists()


async def test_a_read_only_file_refuses_and_comes_back(path: Path) -> None:
    """The same for a file that may not be written (G18)."""
    disk = Disk()
    async with on_disk(path, disk) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        disk.set("query_only = ON")
        with pytest.raises(LedgerUnavailable, match="read-only") as refused:
            await ledger.reserve(call("0.20"), [BUDGET])
        ledger.book(ticket, closed(ticket.entry, "released"))

        assert 75 == refused.value.exit_code
        assert 0 == refused.value.attempts
        assert ("0.00", "0.00") == await sums(ledger)

        disk.set("query_only = OFF")
        await accepted(ledger)
        assert "released" == (await ledger.entries())[0].state


async def test_what_neither_takes_is_held_in_memory(path: Path) -> None:
    """When the emergency file cannot be written either, rows wait in memory (G18)."""
    disk = Disk()
    async with on_disk(path, disk) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        path.with_name("calls.db.emergency").mkdir()
        disk.set("query_only = ON")

        assert "held" == (await pay(ledger, ticket)).kept

        path.with_name("calls.db.emergency").rmdir()
        disk.set("query_only = OFF")
        await accepted(ledger)
        assert "settled" == (await ledger.entries())[0].state


async def test_spilled_rows_come_in_at_the_next_start(path: Path, tmp_path: Path) -> None:
    """A crash after the spill loses nothing; a line that it cut off is left out."""
    disk = Disk()
    async with on_disk(path, disk) as ledger:
        ticket = await ledger.reserve(call("0.10"), [BUDGET])
        disk.set("query_only = ON")
        await pay(ledger, ticket)
        left = tmp_path / "left.db"
        for suffix in ("", "-wal", ".emergency"):
            shutil.copyfile(f"{path}{suffix}", f"{left}{suffix}")
        disk.set("query_only = OFF")
    with left.with_name("left.db.emergency").open("ab") as file:
        file.write(b'\n["0661')

    async with on_disk(left) as ledger:
        assert ["rows wait" in line for line in await ledger.check()] == [True]
        assert ("0.05", "0.00") == await sums(ledger)
        assert () == await ledger.check()
    assert not left.with_name("left.db.emergency").exists()


@pytest.mark.parametrize("damage", ["header", "page"])
async def test_a_damaged_file_is_refused_and_left_alone(path: Path, damage: str) -> None:
    """It names the command that checks it, and nothing is made in its place (G19)."""
    async with on_disk(path) as ledger:
        for _ in range(50):
            await ledger.reserve(call("0.01"))
    before = spoilt(path, 0 if damage == "header" else 4096 * 3)

    async with on_disk(path) as ledger:
        with pytest.raises(LedgerUnavailable, match="is damaged and is left") as refused:
            await ledger.reserve(call("0.01"))
        assert f"looms cost check {path}" in refused.value.hint
        assert await ledger.check()

    assert before == contents(path)


class BrokenClock(FakeClock):
    """A clock that fails once when it is told to."""

    broken = False

    def now(self) -> datetime:
        if self.broken:
            self.broken = False
            raise RuntimeError("the clock has a bug")
        return super().now()


async def test_a_bug_leaves_nobody_waiting(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the writer's thread fails its callers are told, and the next call starts another."""
    clock = BrokenClock()
    async with on_disk(path, clock=clock) as ledger:
        await ledger.reserve(call("0.10"), [BUDGET])
        clock.broken = True
        with pytest.raises(LedgerUnavailable, match="the clock has a bug"):
            await ledger.reserve(call("0.10"), [BUDGET])
        await ledger.reserve(call("0.20"), [BUDGET])

        assert "The writer of the ledger" in caplog.text
        assert ("0.10", "0.20") == await sums(ledger)  # the first one is uncertain now
