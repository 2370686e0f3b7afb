"""
The writer's desk: its connection, its book, the rows that are not on the disk yet.

Everything here happens in the writer's thread, without another thread in sight: orders in, answers
out. Laws: an answer goes out after the commit of its row. What is refused was never sent. A row
that is over is never lost: what the database does not take goes to the emergency file, and stays
in memory until the database takes it.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import LedgerUnavailable, LoomError
from loom.ledger.book import Account, Book, carried_by
from loom.ledger.budgets import Scope, period_start
from loom.ledger.contract import Kept, Receipt
from loom.ledger.entry import Entry
from loom.ledger.ids import id_at
from loom.ledger.money import add
from loom.ledger.sqlite import reader
from loom.ledger.sqlite.file import Connect, lock_for_writing, open_for_writing, plain_connect
from loom.ledger.sqlite.orders import Answer, Order, Workplace
from loom.ledger.sqlite.rows import (
    ROWS_AT_ONCE,
    encode,
    save_rows,
    save_tags,
    tag_values,
    values,
)
from loom.ledger.sqlite.spill import Spill
from loom.ledger.sqlite.trouble import Trouble, trouble_of, unavailable

__all__ = ["Desk", "Terms"]

_LOG = logging.getLogger("loom.ledger")

# Rows that one transaction of a pruning takes out: the next batch waits for it.
_PRUNED_AT_ONCE = 2000


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a file is written.

    Attributes:
        path: The file.
        clock: Dates the rows.
        busy_s: How long a commit waits for another program's lock, in seconds.
        patience_s: How long calls wait in all for such a lock before they are refused.
        lock_s: How long to wait for another process that writes the file, in seconds.
        probe_s: How often a file in trouble is tried again, in seconds.
        most_queued: Calls that may wait to be written; more are refused.
        keep_days: Rows older than this go by themselves; None: none do.
        connect: How the file is opened.

    Source: the project's fault matrix, rows G17 and G18.
    """

    path: Path
    clock: Clock
    busy_s: float = 5.0
    patience_s: float = 30.0
    lock_s: float = 0.0
    probe_s: float = 1.0
    most_queued: int = 10_000
    keep_days: int | None = None
    connect: Connect = plain_connect


class Desk(Workplace):
    """
    Opens the file, does orders, commits, answers.

    Attributes:
        book: The sums.
        trouble: Why nothing new is accepted; None: all is well.
        answers: Orders with their answers, to be delivered.

    Args:
        terms: How the file is written.

    Raises:
        LoomError: If the file is not ours to write.
        sqlite3.Error: If it cannot be opened.
        OSError: If it cannot be made.
    """

    def __init__(self, terms: Terms) -> None:
        self.trouble: Trouble | None = None
        self.answers: list[tuple[Order, Answer]] = []
        self._terms = terms
        self._unsaved: dict[str, Entry] = {}
        self._safe: set[str] = set()
        self._pending: list[tuple[Order, Answer]] = []
        self._tries = 0
        self._pruned_on: date | None = None
        self._spill = Spill(terms.path)
        self._lock = lock_for_writing(terms.path, terms.lock_s)
        try:
            since = f"{terms.clock.now():%Y-%m-%d %H:%M:%S} UTC"
            self._connection, number = open_for_writing(
                terms.path, terms.connect, terms.busy_s, since
            )
            self._recover()
        except BaseException:
            self._lock.close()
            raise
        self.book = Book(terms.clock, self._load, number)

    @property
    def stalled(self) -> bool:
        """Whether a commit waits for a lock of another program."""
        return bool(self._tries)

    def write_later(self, entry: Entry) -> None:
        """
        Take a row that the next commit writes.

        Args:
            entry: The row.
        """
        self._unsaved[entry.id] = entry
        self._safe.discard(entry.id)

    def never_write(self, entry_id: str) -> None:
        """
        Drop a row whose order is undone.

        Args:
            entry_id: The row's.
        """
        self._unsaved.pop(entry_id, None)

    def row(self, entry_id: str) -> Entry | None:
        """
        A row as it stands now.

        Args:
            entry_id: The row's.

        Returns:
            The row; None if there is none.
        """
        return self._unsaved.get(entry_id) or reader.one(self._connection, entry_id)

    def work(self, orders: Iterable[Order]) -> None:
        """
        Do orders and commit their rows together.

        Args:
            orders: In the order in which they came.
        """
        for order in orders:
            self._do(order)
        if self.trouble is not None:
            self._save_elsewhere()
            return
        if not self._tries:
            self._tidy()
        self.commit()

    def commit(self) -> None:
        """Write what is not on the disk, and answer; in trouble, see whether it is over."""
        try:
            self._write()
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._fail(error)
            return
        self._unsaved.clear()
        self._safe.clear()
        self._tries = 0
        with suppress(OSError):
            self._spill.clear()
        for order, answer in self._pending:
            self._answer(order, answer)
        self._pending.clear()
        if self.trouble is not None:
            self.trouble = None
            _LOG.warning("The ledger %s is written again", self._terms.path)

    def unavailable(self) -> LedgerUnavailable:
        """The error for a call that cannot be written down."""
        return unavailable(self._terms.path, self.trouble or "io")

    def prune(self, before: datetime) -> int:
        """
        Take old rows out of the file; sums of budgets over all time carry theirs on.

        Args:
            before: Rows of earlier times go, but none of this month, this week, or open.

        Returns:
            How many went.
        """
        now = self._terms.clock.now()
        end = id_at(min(before, period_start("month", now), period_start("week", now)))
        if self._unsaved:
            self.commit()
        gone = 0
        while found := reader.old_rows(self._connection, end, _PRUNED_AT_ONCE):
            self._take_out(found)
            gone += len(found)
        return gone

    def verify(self) -> list[str]:
        """
        Compare each sum that is held in memory with its rows.

        Returns:
            Those that differ, a line each.
        """
        found = []
        for scope, account in self.book.accounts.items():
            rows = self._load(scope)
            if (rows.spent, rows.reserved) != (account.spent, account.reserved):
                found.append(
                    f"{scope.per} {scope.value!r}: {account.spent:f} spent and"
                    f" {account.reserved:f} reserved, but its rows say {rows.spent:f} and"
                    f" {rows.reserved:f}"
                )
        return found

    def close(self) -> None:
        """Write what is left; calls that are still open become uncertain."""
        for entry in tuple(self.book.open.values()):
            lost = msgspec.structs.replace(entry, state="uncertain")
            self.write_later(self.book.settle(entry.id, lost).entry)
        if self._unsaved:
            self.commit()
        if self._unsaved:
            self._save_elsewhere()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is; whoever waits is told."""
        for order, _ in self._pending:
            self._answer(order, self.unavailable())
        self._pending.clear()
        with suppress(sqlite3.Error):
            self._connection.close()
        self._lock.close()

    def _do(self, order: Order) -> None:
        if order.before_sending:
            if self.trouble is not None:
                self._answer(order, self.unavailable())
                return
            if order.future is not None and order.future.cancelled():
                self._answer(order, None)
                return
        try:
            self._pending.append((order, order.do(self)))
        except sqlite3.Error as error:
            # A look at the file failed; nothing was changed.
            self._answer(order, unavailable(self._terms.path, trouble_of(error), error))
        except (LoomError, TypeError, ValueError) as error:
            self._answer(order, error)

    def _write(self) -> None:
        # In trouble a row of ours is written even if no call waits: is it over?
        if not self._unsaved and self.trouble is None:
            return
        statements = _saving([values(entry) for entry in self._unsaved.values()])
        if self.trouble is not None:
            tried = "INSERT OR REPLACE INTO meta VALUES ('tried', ?)"
            statements.append((tried, [str(self._tries)]))
        execute = self._connection.execute
        if len(statements) == 1:
            # It is a transaction by itself. Each step waits for the interpreter's lock, up to 5 ms
            # beside a busy event loop: one wait instead of three.
            execute(*statements[0])
            return
        execute("BEGIN IMMEDIATE")
        for statement in statements:
            execute(*statement)
        execute("COMMIT")

    def _fail(self, error: sqlite3.Error) -> None:
        trouble = trouble_of(error)
        if trouble == "locked" and self.trouble is None:
            self._tries += 1
            if self._tries * self._terms.busy_s < self._terms.patience_s:
                # Calls wait on; what is over is kept safe and need not wait.
                self._save_elsewhere()
                return
        if self.trouble is None:
            _LOG.error("%s", unavailable(self._terms.path, trouble, error))
        self.trouble, self._tries = trouble, 0
        for order, _ in reversed(self._pending):
            if order.before_sending:
                order.undo(self)
                self._answer(order, unavailable(self._terms.path, trouble, error))
        self._save_elsewhere()

    def _save_elsewhere(self) -> None:
        """Keep rows that are over beside the database, and answer who waits for them."""
        over = [
            entry
            for entry in self._unsaved.values()
            if entry.state != "open" and entry.id not in self._safe
        ]
        kept: Kept = "spilled"
        if over:
            try:
                self._spill.append(encode(entry) for entry in over)
                self._safe.update(entry.id for entry in over)
            except OSError as error:
                kept = "held"
                _LOG.error("%d rows are in memory only: %s", len(over), error)
        waiting = []
        for order, answer in self._pending:
            if order.before_sending:
                waiting.append((order, answer))
            elif isinstance(answer, Receipt):
                self._answer(order, msgspec.structs.replace(answer, kept=kept))
            else:
                self._answer(order, answer)
        self._pending = waiting

    def _answer(self, order: Order, answer: Answer) -> None:
        self.answers.append((order, answer))

    def _load(self, scope: Scope) -> Account:
        found = reader.account(self._connection, scope, self._unsaved)
        for entry in self._unsaved.values():
            if scope.covers(entry):
                if entry.state == "open":
                    found.reserved = add(found.reserved, entry.counted_usd)
                else:
                    found.spent = add(found.spent, entry.counted_usd)
        return found

    def _recover(self) -> None:
        """Take in what an earlier writer left: its emergency file, its open calls."""
        execute = self._connection.execute
        left = self._spill.rows()
        execute("BEGIN IMMEDIATE")
        try:
            for statement in _saving(left):
                execute(*statement)
            # The lock is ours, so whoever had these calls on their way is gone.
            lost = execute("UPDATE calls SET state = 'uncertain' WHERE state = 'open'").rowcount
            execute("COMMIT")
        except BaseException:
            self._connection.close()
            raise
        with suppress(OSError):  # they would come in again, and change nothing
            self._spill.clear()
        if left:
            _LOG.warning("%d rows of the ledger came from %s", len(left), self._spill.path)
        if lost:
            _LOG.warning(
                "%d calls of the ledger %s are uncertain: their process ended before they did",
                lost,
                self._terms.path,
            )

    def _tidy(self) -> None:
        keep_days = self._terms.keep_days
        if keep_days is None:
            return
        now = self._terms.clock.now()
        if self._pruned_on != now.date():
            self._pruned_on = now.date()
            with suppress(sqlite3.Error):  # tomorrow is another day
                self.prune(now - timedelta(days=keep_days))

    def _take_out(self, rows: tuple[Entry, ...]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for (per, value), amount in carried_by(rows).items():
                had = reader.carried(self._connection, per, value)
                execute(
                    "INSERT OR REPLACE INTO carried VALUES (?, ?, ?)",
                    (per, value, str(add(had, amount))),
                )
            ids = msgspec.json.encode([entry.id for entry in rows]).decode()
            for table in ("tags", "calls"):
                execute(f"DELETE FROM {table} WHERE id IN (SELECT value FROM json_each(?))", (ids,))  # noqa: S608 - two tables of ours
            execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                execute("ROLLBACK")
            raise


def _saving(rows: list[tuple[Any, ...]]) -> list[tuple[str, list[Any]]]:
    """Statements that save rows and their tags, with their values."""
    tags = [tag for row in rows for tag in tag_values(row)]
    found: list[tuple[str, list[Any]]] = []
    for statement, each in ((save_rows, rows), (save_tags, tags)):
        for first in range(0, len(each), ROWS_AT_ONCE):
            some = each[first : first + ROWS_AT_ONCE]
            found.append((statement(len(some)), [value for row in some for value in row]))
    return found
