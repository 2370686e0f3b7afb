"""
A ledger for programs that make a call and end: many of them share one file.

A file has one writer at a time. This ledger is the writer for the moments in which a row is
written, and not while the answer is waited for: a call's row is uncertain meanwhile, with its worst
case, so that budgets of all processes count it and a killed one leaves it behind. When the file
cannot be had, the row goes into an emergency file of its own; budgets then let nothing pass.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from loom.core.ambient import Clock, SystemClock
from loom.core.errors import LedgerUnavailable
from loom.ledger.book import Book
from loom.ledger.budgets import Budget, Standing
from loom.ledger.closing import closed
from loom.ledger.contract import EVERY_ROW, By, Ledger, Query, Receipt, Ticket, Total
from loom.ledger.entry import Entry, Opening
from loom.ledger.sqlite.desk import Desk, Terms
from loom.ledger.sqlite.file import plain_connect
from loom.ledger.sqlite.orders import Answer, Ask, Order, Prune, Reserve, Resume, Settle, TopUp
from loom.ledger.sqlite.rows import encode
from loom.ledger.sqlite.spill import Spill
from loom.ledger.sqlite.trouble import trouble_of, unavailable

if TYPE_CHECKING:
    from loom.ledger.sqlite.store import SqliteLedger

__all__ = ["BriefLedger"]

T = TypeVar("T")

# Writers of the file count from 1: whoever is none has numbers that they never reach.
_OUTSIDE = 0x800000

_AGAIN_S = 0.5

_LOG = logging.getLogger("loom.ledger")


class BriefLedger(Ledger):
    """
    Durable rows in a file that is held for moments only.

    What a method takes, gives and raises stands in `Ledger`. Where the file cannot be used,
    `settle`, `book` and `check` say so in their own way; all others raise `LedgerUnavailable`.

    Args:
        path: The file; it is made for its owner's eyes only.
        clock: Dates the rows.
        patience_s: How long to wait for another process that writes the file, in seconds.
        needed: Whether a call without a durable row is refused; else that is warned of.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        clock: Clock | None = None,
        patience_s: float = 10.0,
        needed: bool = True,
    ) -> None:
        self._terms = Terms(
            path=Path(path),
            clock=clock or SystemClock(),
            busy_s=min(5.0, patience_s),
            patience_s=patience_s,
            lock_s=patience_s,
            connect=plain_connect,
        )
        self._needed = needed
        self._lock_s = patience_s
        self._budgets: dict[str, tuple[Budget, ...]] = {}
        # One thread: a settlement goes on when its caller is cancelled, and is over at the end.
        self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix="loom-ledger")

    @property
    def path(self) -> Path:
        """The file."""
        return self._terms.path

    async def reserve(self, opening: Opening, budgets: Sequence[Budget] = ()) -> Ticket:
        """
        Keep the worst case free in every budget, or in none, and write the row.

        Without budgets, a row that cannot be written waits in an emergency file.
        """
        future = self._pool.submit(self._reserved, opening, tuple(budgets))
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # It goes on in its thread, and what nobody will use is given back there.
            future.add_done_callback(self._give_back)
            raise

    async def top_up(self, ticket: Ticket, worst_usd: Decimal | None) -> Ticket:
        """Keep more free; without budgets, a row that cannot be written stays as it was."""
        return await self._answer(lambda: self._topped_up(ticket, worst_usd))

    async def settle(self, ticket: Ticket, entry: Entry) -> Receipt:
        """Put the truth in the place of the reservation."""
        return await self._answer(lambda: self._settled(ticket, entry))

    def book(self, ticket: Ticket, entry: Entry) -> None:
        """Settle without waiting; `aclose` waits for it."""
        with suppress(RuntimeError):  # closed: the row stays uncertain
            self._pool.submit(self._settled, ticket, entry)

    async def standings(self, opening: Opening, budgets: Sequence[Budget]) -> tuple[Standing, ...]:
        """Where budgets stand now; what other processes keep free counts as spent."""
        ask = Ask(lambda desk: desk.book.standings(opening, budgets))
        standings: tuple[Standing, ...] = await self._answer(lambda: self._do(ask))
        return standings

    async def entries(self, query: Query = EVERY_ROW) -> tuple[Entry, ...]:
        """Rows, in the order of their ids."""
        return await self._reader.entries(query)

    async def totals(self, query: Query = EVERY_ROW, by: By = "all") -> tuple[Total, ...]:
        """Exact sums."""
        return await self._reader.totals(query, by)

    async def prune(self, before: datetime) -> int:
        """Forget old rows; sums of budgets stay."""
        gone: int = await self._answer(lambda: self._do(Prune(before)))
        return gone

    async def take_in(self) -> None:
        """
        Bring in rows that wait beside the file.

        Raises:
            LedgerUnavailable: If the file cannot be written.
        """
        await self._answer(lambda: self._do(Ask(lambda _: None)))

    async def check(self) -> tuple[str, ...]:
        """Look for damage in the file."""
        return await self._reader.check()

    async def aclose(self) -> None:
        """Wait until everything is written."""
        await asyncio.to_thread(self._pool.shutdown)

    @property
    def _reader(self) -> SqliteLedger:
        from loom.ledger.sqlite.store import SqliteLedger  # noqa: PLC0415 - a call never reads

        return SqliteLedger(self.path, terms=self._terms)

    async def _answer(self, work: Callable[[], T]) -> T:
        # Shielded: what is queued is done, also when its caller is cancelled.
        return await asyncio.shield(asyncio.wrap_future(self._pool.submit(work)))

    def _reserved(self, opening: Opening, budgets: tuple[Budget, ...]) -> Ticket:
        try:
            ticket: Ticket = self._do(Reserve(opening, budgets))
        except LedgerUnavailable as error:
            if budgets:
                raise
            entry = Book(self._terms.clock, writer=_OUTSIDE | os.getpid()).reserve(opening, ())
            lost = msgspec.structs.replace(entry, state="uncertain")
            self._leave(lost, error, final=False)
            ticket = Ticket(entry=entry)
        self._budgets[ticket.entry.id] = budgets
        return ticket

    def _topped_up(self, ticket: Ticket, worst_usd: Decimal | None) -> Ticket:
        budgets = self._budgets.get(ticket.entry.id, ())
        try:
            more: Ticket = self._do(Resume(ticket, budgets), TopUp(ticket, worst_usd))
        except LedgerUnavailable:
            if budgets:
                raise
            return ticket
        return more

    def _settled(self, ticket: Ticket, entry: Entry) -> Receipt:
        budgets = self._budgets.pop(ticket.entry.id, ())
        try:
            receipt: Receipt = self._do(Resume(ticket, budgets), Settle(ticket, entry))
        except LedgerUnavailable as error:
            kept = self._leave(entry, error, final=True)
            return Receipt(entry=entry, kept="spilled" if kept else "held")
        return receipt

    def _give_back(self, future: futures.Future[Ticket]) -> None:
        if not future.cancelled() and future.exception() is None:
            ticket = future.result()
            self._settled(ticket, closed(ticket.entry, "released"))

    def _do(self, *orders: Order) -> Answer:
        """Be the writer for a moment, and give the answer of the last order."""
        try:
            desk = Desk(self._terms)
            try:
                desk.work(orders)
                while desk.stalled:
                    desk.work(())
            finally:
                desk.close()
        except LedgerUnavailable:
            # Who waited once in vain does not wait as long again for the same call.
            self._terms = msgspec.structs.replace(self._terms, lock_s=min(_AGAIN_S, self._lock_s))
            raise
        except (sqlite3.Error, OSError) as error:
            raise unavailable(self.path, trouble_of(error), error) from error
        answers: dict[int, Any] = {id(order): answer for order, answer in desk.answers}
        answer = answers[id(orders[-1])]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _leave(self, entry: Entry, why: LedgerUnavailable, *, final: bool) -> bool:
        """Keep a row in a file of its own; whether that went well."""
        try:
            # Both forms have a name: a writer that takes in the first does not remove the second.
            path = Spill(self.path).leave(f"{entry.id}{final:d}", encode(entry))
        except OSError as error:
            if self._needed and not final:
                raise why from error
            _LOG.warning("%s; this call has no row: %s", why.message, error)
            return False
        if not final:
            _LOG.warning("%s; the row of this call waits in %s", why.message, path)
        return True
