"""The ledger in one SQLite file, as its users see it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import msgspec

from loom.core.ambient import Clock, SystemClock
from loom.core.errors import LoomError
from loom.ledger.budgets import Budget, Standing
from loom.ledger.contract import EVERY_ROW, By, Ledger, Query, Receipt, Ticket, Total
from loom.ledger.entry import Entry, Opening
from loom.ledger.sqlite import reader
from loom.ledger.sqlite.desk import Terms
from loom.ledger.sqlite.file import VERSION, connect_read_only, version_of
from loom.ledger.sqlite.orders import Ask, Prune, Reserve, Settle, TopUp
from loom.ledger.sqlite.trouble import trouble_of, unavailable
from loom.ledger.sqlite.writer import Writer, leave, share
from loom.ledger.totals import group_by, require_zone

__all__ = ["SqliteLedger"]

T = TypeVar("T")


class SqliteLedger(Ledger):
    """
    Durable rows in a file: what was acknowledged is there after a crash, a kill or a power cut.

    Nothing is opened before the first call. One process writes a file; others may read it
    meanwhile (`entries`, `totals`, `check`), and so may this one without becoming its writer.

    What a method takes, gives and raises stands in `Ledger`. Where the file cannot be used,
    `settle`, `book` and `check` say so in their own way; all others raise `LedgerUnavailable`.
    A closed ledger still gives rows and sums, and raises `RuntimeError` for what is new.

    Args:
        path: The file; it is made for its owner's eyes only.
        clock: Dates the rows.
        keep_days: Rows older than this go by themselves; None: none do.
        terms: Everything, for a test; the other arguments then do not count.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        keep_days: int | None = None,
        terms: Terms | None = None,
    ) -> None:
        self._terms = terms or Terms(
            path=Path(path),
            clock=clock or SystemClock(),
            keep_days=keep_days,
        )
        self._writer: Writer | None = None
        self._closed = False

    @property
    def path(self) -> Path:
        """The file."""
        return self._terms.path

    @property
    def waiting(self) -> int:
        """How many calls wait for their row, as far as this process knows; it asks nobody."""
        return 0 if self._writer is None else self._writer.waiting

    @property
    def trouble(self) -> str | None:
        """Why nothing new is accepted now, in a word; None: all is well. It asks nobody."""
        return None if self._writer is None else self._writer.trouble

    async def reserve(self, opening: Opening, budgets: Sequence[Budget] = ()) -> Ticket:
        """Keep the worst case free in every budget, or in none; the open row is on the disk."""
        ticket: Ticket = await self._at_work().answer(Reserve(opening, budgets))
        return ticket

    async def top_up(self, ticket: Ticket, worst_usd: Decimal | None) -> Ticket:
        """Keep more free; the new row is on the disk."""
        had = ticket.entry.reserved_usd
        if worst_usd is not None and had is not None and worst_usd <= had:
            return ticket
        more: Ticket = await self._at_work().answer(TopUp(ticket, worst_usd))
        return more

    async def settle(self, ticket: Ticket, entry: Entry) -> Receipt:
        """Put the truth in its place; the row of a closed ledger stays uncertain."""
        if self._closed:
            return Receipt(entry=msgspec.structs.replace(ticket.entry, state="uncertain"))
        receipt: Receipt = await self._at_work().answer(Settle(ticket, entry))
        return receipt

    def book(self, ticket: Ticket, entry: Entry) -> None:
        """Settle without waiting; of a closed ledger, the row stays uncertain."""
        if not self._closed:
            self._at_work().send(Settle(ticket, entry, heard=False))

    async def standings(self, opening: Opening, budgets: Sequence[Budget]) -> tuple[Standing, ...]:
        """Where the budgets of a call stand now."""
        ask = Ask(lambda desk: desk.book.standings(opening, budgets))
        standings: tuple[Standing, ...] = await self._at_work().answer(ask)
        return standings

    async def entries(self, query: Query = EVERY_ROW) -> tuple[Entry, ...]:
        """Rows, in the order of their ids; none when there is no file."""
        require_zone(query.since, query.until)
        return await self._read(lambda connection: reader.entries(connection, query), ())

    async def totals(self, query: Query = EVERY_ROW, by: By = "all") -> tuple[Total, ...]:
        """Exact sums; none when there is no file."""
        require_zone(query.since, query.until)
        group_by(by)
        return await self._read(lambda connection: reader.totals(connection, query, by), ())

    async def prune(self, before: datetime) -> int:
        """Forget old rows; sums of budgets stay."""
        require_zone(before)
        gone: int = await self._at_work().answer(Prune(before))
        return gone

    async def check(self) -> tuple[str, ...]:
        """Look for damage, in the file and in the sums of this process."""
        try:
            nothing: list[str] = []
            found = await self._read(self._findings, nothing)
        except LoomError as error:
            return (str(error),)
        if self._writer is not None and not self._closed:
            found += await self._at_work().answer(Ask(lambda desk: desk.verify()))
        return tuple(found)

    async def aclose(self) -> None:
        """Write what is left and close; calls that are still open become uncertain."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None and leave(self._writer):
            await self._writer.ended()

    def _at_work(self) -> Writer:
        if self._closed:
            raise RuntimeError("the ledger is closed")
        # After a fork the child begins anew: the parent's thread and file are not its own.
        if self._writer is None or self._writer.pid != os.getpid():
            self._writer = share(self._terms)
        return self._writer

    async def _read(self, question: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        if not self.path.exists():
            return nothing
        version = await asyncio.to_thread(version_of, self.path)
        if not version:
            return nothing
        if version < VERSION:
            # Its first writer brings it up to this version.
            await self._at_work().answer(Ask(lambda _: None))
        return await asyncio.to_thread(self._asked, question)

    def _findings(self, connection: sqlite3.Connection) -> list[str]:
        return [*reader.findings(connection, self.path)]

    def _asked(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(connect_read_only(self.path)) as connection:
                return question(connection)
        except sqlite3.Error as error:
            raise unavailable(self.path, trouble_of(error), error) from error
