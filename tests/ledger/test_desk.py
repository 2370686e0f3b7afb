"""The writer's desk alone, without its thread: orders in, rows and answers out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.ledger.ledgers import Disk, JumpingClock, call, pay

from loom.core.errors import LedgerUnavailable, LoomError
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Receipt, Ticket
from loom.ledger.entry import Opening
from loom.ledger.memory import MemoryLedger
from loom.ledger.sqlite.desk import Desk, Terms
from loom.ledger.sqlite.orders import Ask, Order, Prune, Reserve, Settle, TopUp
from loom.ledger.sqlite.rows import ROWS_AT_ONCE, encode, values
from loom.ledger.sqlite.spill import Spill
from loom.ledger.sqlite.store import SqliteLedger

BUDGET = Budget(limit_usd=1)
OTHER = Budget(limit_usd=1, per="session")


class Office:
    """A desk, its disk and its clock."""

    def __init__(self, path: Path) -> None:
        self.disk = Disk()
        self.clock = JumpingClock()
        self.terms = Terms(path=path, clock=self.clock, connect=self.disk.connect, busy_s=0.0)
        self.desk = Desk(self.terms)

    def do(self, *orders: Order) -> list[Any]:
        """Give the answers of orders that come together."""
        self.desk.work(orders)
        answers = {id(order): answer for order, answer in self.desk.answers}
        self.desk.answers = []
        return [answers.get(id(order), "no answer yet") for order in orders]

    def reserve(self, worst: str = "0.10", **fields: Any) -> Ticket:
        (ticket,) = self.do(Reserve(call(worst, **fields), [BUDGET]))
        assert isinstance(ticket, Ticket)
        return ticket


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    office = Office(tmp_path / "calls.db")
    yield office
    with suppress(sqlite3.Error):
        office.desk.abandon()


def released(ticket: Ticket) -> Settle:
    return Settle(ticket, closed(ticket.entry, "released"))


def standing(budget: Budget) -> Ask:
    return Ask(lambda desk: desk.book.standings(call(session="s"), [budget])[0])


def test_a_sum_is_loaded_with_rows_that_are_not_written_yet(office: Office) -> None:
    """An account that is asked for in trouble includes what only memory has."""
    ticket = office.reserve(session="s")
    assert office.disk.connection is not None
    office.disk.set("query_only = ON")
    (receipt,) = office.do(Settle(ticket, closed(ticket.entry, "uncertain")))

    (found,) = office.do(standing(OTHER))

    assert "spilled" == receipt.kept
    assert (Decimal("0.10"), Decimal(0)) == (found.spent_usd, found.reserved_usd)
    assert [] == office.desk.verify()


def test_orders_of_one_batch_see_each_other(office: Office) -> None:
    """A batch that reserves twice, asks and settles is one commit, in order."""
    first = office.reserve(session="s")
    second, found, receipt = office.do(
        Reserve(call("0.30", session="s"), [OTHER]), standing(OTHER), released(first)
    )

    assert isinstance(second, Ticket)
    assert Decimal("0.40") == found.reserved_usd
    assert "released" == receipt.entry.state


def test_a_top_up_of_a_call_that_is_over_changes_nothing(office: Office) -> None:
    """Its ticket comes back as it was, also when both come together in trouble."""
    ticket = office.reserve()
    office.disk.set("query_only = ON")
    refused, receipt = office.do(TopUp(ticket, Decimal("0.20")), released(ticket))
    office.disk.set("query_only = OFF")
    office.desk.commit()

    assert isinstance(refused, LedgerUnavailable)
    assert isinstance(receipt, Receipt)
    assert [ticket] == office.do(TopUp(ticket, Decimal("0.50")))
    row = office.desk.row(ticket.entry.id)
    assert row is not None
    assert "released" == row.state


def test_a_sum_that_differs_from_its_rows_is_found(office: Office) -> None:
    """The check names the sum, and what its rows say."""
    office.reserve()
    next(iter(office.desk.book.accounts.values())).spent = Decimal(7)

    (found,) = office.desk.verify()

    assert "client '': 7 spent and 0.10 reserved, but its rows say 0 and 0.10" == found


def test_closing_in_trouble_spills_what_is_open(office: Office) -> None:
    """Rows that the database does not take at the end lie beside it, as uncertain."""
    office.reserve()
    office.disk.set("query_only = ON")
    office.desk.close()

    (row,) = Spill(office.terms.path).rows()
    assert "uncertain" == row[2]


def test_a_pruning_that_fails_takes_nothing(office: Office) -> None:
    """Rows and carried sums stay as they were, and the caller is told."""
    office.do(released(office.reserve()))
    old = office.clock.now()
    office.clock.jump(24 * 70)
    office.disk.set("query_only = ON")

    (refused,) = office.do(Prune(old + timedelta(days=1)))

    assert isinstance(refused, LoomError)
    office.disk.set("query_only = OFF")
    assert [1] == office.do(Prune(old + timedelta(days=1)))


def test_a_pruning_comes_after_what_is_on_its_way(office: Office) -> None:
    """What was settled before it in the same batch is written first, and then it may go."""
    ticket = office.reserve()
    office.clock.jump(24 * 70)

    receipt, gone = office.do(released(ticket), Prune(office.clock.now()))

    assert "released" == receipt.entry.state
    assert 1 == gone


def test_a_file_that_cannot_be_opened_lets_its_lock_go(tmp_path: Path) -> None:
    """Whatever fails on the way, the next one may try."""
    path = tmp_path / "calls.db"
    clock = JumpingClock()

    def fail(path: Path, busy_s: float) -> sqlite3.Connection:
        raise PermissionError(path)

    with pytest.raises(PermissionError):
        Desk(Terms(path=path, clock=clock, connect=fail))
    Desk(Terms(path=path, clock=clock)).close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A full disk in the middle leaves the file as it was; it is brought up when there is room."""
    path = tmp_path / "calls.db"

    def tiny(path: Path, busy_s: float) -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None)
        connection.execute("PRAGMA max_page_count = 3")
        return connection

    with pytest.raises(sqlite3.OperationalError, match="full"):
        Desk(Terms(path=path, clock=JumpingClock(), connect=tiny))
    with closing(sqlite3.connect(path)) as connection:
        assert (0,) == connection.execute("PRAGMA user_version").fetchone()
    Desk(Terms(path=path, clock=JumpingClock())).close()


def test_a_line_that_was_cut_off_takes_no_other_with_it(tmp_path: Path, office: Office) -> None:
    """A row that is appended after half a line is whole."""
    entry = office.reserve().entry
    row = encode(entry)
    spill = Spill(tmp_path / "spilled.db")
    spill.append([row])
    with spill.path.open("ab") as file:
        file.write(b'\n["0661')
    spill.append([row, row])

    assert [values(entry)] * 3 == spill.rows()


@pytest.mark.parametrize("value", [[1], {"a": 1}, 2**63, -(2**63) - 1], ids=str)
def test_a_line_that_is_no_row_is_left_out(value: Any, tmp_path: Path, office: Office) -> None:
    """What no column can hold stops nobody from opening the ledger."""
    entry = office.reserve().entry
    row = [*values(entry)[:-1], value]
    spill = Spill(tmp_path / "spilled.db")
    spill.append([msgspec.json.encode(row), encode(entry)])

    assert [values(entry)] == spill.rows()


@pytest.mark.parametrize("count", [1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE], ids=str)
def test_any_number_of_rows_goes_in_with_its_tags(count: int, office: Office) -> None:
    """A batch is saved whole, however many statements that takes."""
    tags = {"team": "a", "stage": "test"}
    orders = [Reserve(Opening(provider="x", asked_model="m", tags=tags), ()) for _ in range(count)]
    office.desk.work(orders)
    office.desk.close()

    with closing(sqlite3.connect(office.terms.path)) as file:
        (rows,) = file.execute("SELECT count(*) FROM calls").fetchone()
        (saved,) = file.execute("SELECT count(*) FROM tags").fetchone()
    assert (count, 2 * count) == (rows, saved)


def test_a_spilled_row_changes_none_that_is_over(office: Office) -> None:
    """One that the database took after all stays as the database has it."""
    ticket = office.reserve()
    office.do(released(ticket))
    Spill(office.terms.path).append([encode(closed(ticket.entry, "uncertain"))])
    office.desk.close()

    desk = Desk(office.terms)
    row = desk.row(ticket.entry.id)
    desk.close()

    assert row is not None
    assert "released" == row.state


@pytest.mark.anyio
async def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The error names the file; a caller gets it before anything is sent."""
    (tmp_path / "file").touch()
    ledger = SqliteLedger(tmp_path / "file" / "calls.db")

    with pytest.raises(LedgerUnavailable, match=r"calls\.db cannot be read or written"):
        await ledger.reserve(call())
    await ledger.aclose()


@pytest.mark.anyio
async def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    """One that another process is about to fill is read as empty, and not taken over."""
    (tmp_path / "calls.db").touch()
    ledger = SqliteLedger(tmp_path / "calls.db")

    assert () == await ledger.entries()
    assert 0 == (tmp_path / "calls.db").stat().st_size
    await ledger.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_warning_that_nobody_heard_comes_with_the_next_receipt(
    store: str, tmp_path: Path
) -> None:
    """A threshold that is passed by `book` is told when somebody listens."""
    ledger = MemoryLedger() if store == "memory" else SqliteLedger(tmp_path / "calls.db")
    budget = Budget(limit_usd=1, warn_usd="0.05")
    ticket = await ledger.reserve(call(), [budget])
    ledger.book(ticket, closed(ticket.entry, "uncertain"))
    receipt = await pay(ledger, await ledger.reserve(call("0.01"), [budget]), "0.01")

    assert ["0.10"] == [f"{one.standing.spent_usd:f}" for one in receipt.crossings]
    await ledger.aclose()
