"""The ledger of programs that make a call and end: many share a file, and no row is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from tests.ledger.ledgers import call, pay

from loom.core.errors import BudgetExceeded, LedgerUnavailable
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Query
from loom.ledger.sqlite.brief import BriefLedger
from loom.ledger.sqlite.store import SqliteLedger
from loom.testing import FakeClock
from loom.testing.turns import turn_until

pytestmark = pytest.mark.anyio

ONE = Budget(limit_usd="0.15")


def beside(folder: Path) -> list[Path]:
    """Give the emergency files of a folder."""
    return list(folder.glob("*.emergency-*"))


@asynccontextmanager
async def brief(path: Path, *, needed: bool = True) -> AsyncGenerator[BriefLedger, None]:
    """Open a ledger that waits for nobody for long."""
    ledger = BriefLedger(path, clock=FakeClock(), patience_s=0.05, needed=needed)
    try:
        yield ledger
    finally:
        await ledger.aclose()


@asynccontextmanager
async def another(path: Path) -> AsyncGenerator[SqliteLedger, None]:
    """Let another writer have the file."""
    ledger = SqliteLedger(path, clock=FakeClock())
    await ledger.standings(call(), [ONE])
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def test_a_call_is_uncertain_until_it_is_settled(tmp_path: Path) -> None:
    """While an answer is waited for the file is free, and the worst case counts for everybody."""
    path = tmp_path / "calls.db"
    async with brief(path) as one, brief(path) as other:
        ticket = await one.reserve(call("0.10"), [ONE])
        (row,) = await other.entries()
        assert ("uncertain", Decimal("0.10")) == (row.state, row.counted_usd)
        with pytest.raises(BudgetExceeded):
            await other.reserve(call("0.10"), [ONE])
        receipt = await pay(one, ticket, "0.05")
        assert ("committed", "settled") == (receipt.kept, receipt.entry.state)
        assert ticket.entry.id == receipt.entry.id
        second = await other.reserve(call("0.10"), [ONE])
        await pay(other, second, "0.05", tags={})
        (total,) = await one.totals()
        assert (2, Decimal("0.10"), Decimal(0)) == (
            total.calls,
            total.cost_usd,
            total.uncertain_usd,
        )
        assert () == await one.check()


async def test_a_dearer_attempt_is_topped_up(tmp_path: Path) -> None:
    """More is kept free only where it fits, and the truth takes the place of all of it."""
    async with brief(tmp_path / "calls.db") as ledger:
        ticket = await ledger.reserve(call("0.10"), [ONE])
        ticket = await ledger.top_up(ticket, Decimal("0.15"))
        assert Decimal("0.15") == ticket.entry.reserved_usd
        with pytest.raises(BudgetExceeded):
            await ledger.top_up(ticket, Decimal("0.20"))
        await pay(ledger, ticket, "0.12")
        (standing,) = await ledger.standings(call(), [ONE])
        assert (Decimal("0.12"), Decimal(0)) == (standing.spent_usd, standing.reserved_usd)


async def test_a_warning_comes_with_the_settlement_that_passes_it(tmp_path: Path) -> None:
    """The threshold is told of once, though the file was closed in between."""
    warned = Budget(limit_usd=1, warn_usd="0.08")
    async with brief(tmp_path / "calls.db") as ledger:
        told = []
        for _ in range(3):
            receipt = await pay(ledger, await ledger.reserve(call("0.10"), [warned]), "0.05")
            told.append(len(receipt.crossings))
    assert [0, 1, 0] == told


async def test_without_the_file_the_row_waits_beside_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another writer keeps the file: the row lies in emergency files, and comes in afterwards."""
    path = tmp_path / "calls.db"
    caplog.set_level(logging.WARNING, "loom.ledger")
    async with another(path), brief(path) as ledger:
        ticket = await ledger.reserve(call("0.10", tags={"project": "shop"}))
        assert "the row of this call waits in" in caplog.text
        assert "is written by process" in caplog.text
        more = await ledger.top_up(ticket, Decimal("0.20"))
        receipt = await pay(ledger, more, "0.05")
        assert "spilled" == receipt.kept
        assert 2 == len(beside(tmp_path))
        assert () == await ledger.entries()
    async with another(path) as ledger:
        (row,) = await ledger.entries(Query(tag=("project", "shop")))
        assert ("settled", Decimal("0.05")) == (row.state, row.cost_usd)
        assert [] == beside(tmp_path)


async def test_a_row_that_came_in_uncertain_is_settled_still(tmp_path: Path) -> None:
    """The first form was taken in while the answer was waited for: the truth replaces it."""
    path = tmp_path / "calls.db"
    async with brief(path) as ledger:
        async with another(path):
            ticket = await ledger.reserve(call("0.10"))
        async with another(path) as other:
            (row,) = await other.entries()
            assert "uncertain" == row.state
        assert "committed" == (await pay(ledger, ticket, "0.05")).kept
        (row,) = await ledger.entries()
        assert ("settled", Decimal("0.05")) == (row.state, row.cost_usd)


async def test_budgets_let_nothing_pass_without_the_file(tmp_path: Path) -> None:
    """A call that must fit into a budget is refused, and leaves nothing."""
    path = tmp_path / "calls.db"
    async with another(path), brief(path) as ledger:
        with pytest.raises(LedgerUnavailable, match="is written by process"):
            await ledger.reserve(call("0.10"), [ONE])
    assert [] == beside(tmp_path)


async def test_a_settlement_is_kept_though_the_file_is_gone_by_then(tmp_path: Path) -> None:
    """The file could be had at the beginning only: the truth waits beside it."""
    path = tmp_path / "calls.db"
    async with brief(path) as ledger:
        ticket = await ledger.reserve(call("0.10"), [ONE])
        async with another(path):
            with pytest.raises(LedgerUnavailable):
                await ledger.top_up(ticket, Decimal("0.11"))
            assert "spilled" == (await pay(ledger, ticket, "0.05")).kept
    async with another(path) as other:
        (row,) = await other.entries()
        assert Decimal("0.05") == row.cost_usd


@pytest.mark.parametrize("needed", [True, False])
async def test_where_nothing_can_be_written(
    needed: bool,  # noqa: FBT001 - pytest passes it by name
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A ledger that was asked for refuses the call; one that was not warns."""
    (tmp_path / "folder").write_text("in the way")
    caplog.set_level(logging.WARNING, "loom.ledger")
    async with brief(tmp_path / "folder" / "calls.db", needed=needed) as ledger:
        if needed:
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(call())
            return
        ticket = await ledger.reserve(call())
        assert "this call has no row" in caplog.text
        assert "held" == (await pay(ledger, ticket)).kept


async def test_a_damaged_file_is_left_alone(tmp_path: Path) -> None:
    """Rows wait beside it, and nothing is made anew."""
    path = tmp_path / "calls.db"
    path.write_bytes(b"no database at all" * 100)
    async with brief(path) as ledger:
        await pay(ledger, await ledger.reserve(call()))
        assert 2 == len(beside(tmp_path))
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(call(), [ONE])
    assert path.read_bytes().startswith(b"no database at all")


async def test_leaving_early_settles_without_waiting(tmp_path: Path) -> None:
    """`book` is over when the ledger is closed; after that the row stays uncertain."""
    path = tmp_path / "calls.db"
    async with brief(path) as ledger:
        first, second = await ledger.reserve(call()), await ledger.reserve(call())
        ledger.book(first, closed(first.entry, "released"))
    ledger.book(second, closed(second.entry, "released"))
    async with another(path) as other:
        rows = await other.entries()
    assert ["released", "uncertain"] == [row.state for row in rows]


async def test_a_cancelled_reservation_keeps_nothing(tmp_path: Path) -> None:
    """Cancelled while the file is waited for: what is reserved all the same is given back."""
    path = tmp_path / "calls.db"
    ledger = BriefLedger(path, clock=FakeClock(), patience_s=10)
    async with another(path):
        task = asyncio.ensure_future(ledger.reserve(call("0.10"), [ONE]))
        lock = path.with_name("calls.db.writer")
        await turn_until(lock.exists)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (standing,) = await ledger.standings(call(), [ONE])
    assert Decimal(0) == standing.spent_usd
    await ledger.aclose()
    assert {"released"} >= {row.state for row in await ledger.entries()}


async def test_pruning_needs_the_file(tmp_path: Path) -> None:
    """Old rows go as they do with any ledger."""
    clock = FakeClock()
    ledger = BriefLedger(tmp_path / "calls.db", clock=clock, patience_s=0.05)
    await pay(ledger, await ledger.reserve(call()))
    clock.advance(60 * 86_400)
    assert 1 == await ledger.prune(clock.now())
    assert tmp_path / "calls.db" == ledger.path
    await ledger.aclose()
