"""Any history of calls, crashes and jumps of the clock agrees with a plain model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.ledger.ledgers import JumpingClock

from loom.core.errors import BudgetExceeded
from loom.core.response import Usage
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger, Ticket
from loom.ledger.entry import Entry, Opening
from loom.ledger.memory import MemoryLedger
from loom.ledger.sqlite.store import SqliteLedger

BUDGETS = (
    Budget(limit_usd="0.50"),
    Budget(limit_usd="0.20", per="session", period="day"),
    Budget(limit_usd="0.40", per="tag:project", period="week"),
    Budget(limit_usd="0.30", per="tenant", period="month"),
)
CENTS = st.integers(min_value=0, max_value=20).map(lambda cents: Decimal(cents) / 100)


class LedgerMachine(RuleBasedStateMachine):
    """Calls against a ledger, beside a list of rows that is summed anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = JumpingClock()
        self.ledger = self.opened()
        self.tickets: dict[str, Ticket] = {}
        self.rows: dict[str, Entry] = {}

    def opened(self) -> Ledger:
        return MemoryLedger(clock=self.clock)

    def run(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    def fits(self, row: Entry, had: Decimal) -> bool:
        """Sum all rows of each budget, as nobody would who has many."""
        return all(
            sum(r.counted_usd for r in self.rows.values() if budget.scope(row).covers(r))
            - had
            + (row.reserved_usd or 0)
            <= budget.limit
            for budget in BUDGETS
        )

    @rule(worst=CENTS, session=st.sampled_from([None, "a", "b"]), project=st.sampled_from("xy"))
    def reserve(self, worst: Decimal, session: str | None, project: str) -> None:
        opening = Opening(
            provider="mistral",
            asked_model="model-1",
            session=session,
            tenant=project,
            tags={"project": project},
            worst_usd=worst,
        )
        row = Entry(
            id="",
            at=self.clock.at,
            provider="mistral",
            asked_model="model-1",
            session=session,
            tenant=project,
            tags={"project": project},
            reserved_usd=worst,
        )
        fits = self.fits(row, Decimal(0))
        try:
            ticket = self.run(self.ledger.reserve(opening, BUDGETS))
        except BudgetExceeded:
            assert not fits
        else:
            assert fits
            self.tickets[ticket.entry.id] = ticket
            self.rows[ticket.entry.id] = msgspec.structs.replace(row, id=ticket.entry.id)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), worst=CENTS)
    def top_up(self, data: st.DataObject, worst: Decimal) -> None:
        entry_id = data.draw(st.sampled_from(sorted(self.tickets)))
        row = self.rows[entry_id]
        had = row.reserved_usd or Decimal(0)
        dearer = msgspec.structs.replace(row, reserved_usd=worst)
        # The budgets of the call's own period are asked, whatever the clock says now.
        fits = worst <= had or self.fits(dearer, had)
        try:
            self.tickets[entry_id] = self.run(self.ledger.top_up(self.tickets[entry_id], worst))
        except BudgetExceeded:
            assert not fits
        else:
            assert fits
            self.rows[entry_id] = dearer if worst > had else row

    @precondition(lambda self: self.tickets)
    @rule(
        data=st.data(),
        state=st.sampled_from(["settled", "estimated", "released", "uncertain"]),
        part=st.integers(min_value=0, max_value=4),
        waits=st.booleans(),
    )
    def settle(self, data: st.DataObject, state: Any, part: int, *, waits: bool) -> None:
        entry_id = data.draw(st.sampled_from(sorted(self.tickets)))
        ticket = self.tickets.pop(entry_id)
        known = state in ("settled", "estimated") and part > 0
        cost = (ticket.entry.reserved_usd or Decimal(0)) * part / 4 if known else None
        final = closed(ticket.entry, state, usage=Usage(cost_usd=cost))
        if waits:
            self.run(self.ledger.settle(ticket, final))
        else:
            self.ledger.book(ticket, final)
        self.rows[entry_id] = final

    @rule(hours=st.sampled_from([-200, -25, -1, 1, 3, 30, 200]))
    def jump(self, hours: int) -> None:
        self.clock.jump(hours)

    @invariant()
    def no_budget_is_passed(self) -> None:
        for row in self.rows.values():
            for budget in BUDGETS:
                scope = budget.scope(row)
                sums = sum(r.counted_usd for r in self.rows.values() if scope.covers(r))
                assert sums <= budget.limit

    def teardown(self) -> None:
        try:
            # `standings` queues behind what was booked.
            call = Opening(provider="", asked_model="")
            self.run(self.ledger.standings(call, BUDGETS))
            rows = {row.id: row for row in self.run(self.ledger.entries())}
            assert self.rows == rows
            assert () == self.run(self.ledger.check())
        finally:
            self.run(self.ledger.aclose())
            self.runner.close()


class SqliteMachine(LedgerMachine):
    """The same with a file, and with crashes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.starts = 0
        super().__init__()

    def opened(self) -> Ledger:
        return SqliteLedger(self.path(), clock=self.clock)

    def path(self) -> Path:
        return self.folder / f"{self.starts}.db"

    @rule()
    def crash(self) -> None:
        """Go on with a copy of the files as they lie on the disk at this moment."""
        call = Opening(provider="", asked_model="")
        self.run(self.ledger.standings(call, BUDGETS))
        crashed, old = self.ledger, self.path()
        self.starts += 1
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{old}{suffix}", f"{self.path()}{suffix}")
        self.run(crashed.aclose())
        self.ledger = self.opened()
        for entry_id in self.tickets:
            self.rows[entry_id] = msgspec.structs.replace(self.rows[entry_id], state="uncertain")
        self.tickets.clear()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


_FEW = settings(max_examples=25, stateful_step_count=40, suppress_health_check=list(HealthCheck))

TestMemory = LedgerMachine.TestCase
TestMemory.settings = settings(_FEW, max_examples=60)
TestSqlite = SqliteMachine.TestCase
TestSqlite.settings = _FEW
