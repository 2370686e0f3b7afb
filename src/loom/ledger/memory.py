"""A ledger in memory: what budgets stand on when no file is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from loom.core.ambient import Clock, SystemClock
from loom.ledger.book import Book
from loom.ledger.budgets import Budget, Scope, Standing, period_start
from loom.ledger.contract import EVERY_ROW, By, Ledger, Query, Receipt, Ticket, Total
from loom.ledger.entry import Entry, Opening
from loom.ledger.money import total
from loom.ledger.totals import Tally, fact, group_by, matches, require_zone

__all__ = ["MemoryLedger"]


class MemoryLedger(Ledger):
    """
    Budgets that hold as long as the process runs, and its last rows.

    What a method takes, gives and raises stands in `Ledger`; nothing here is unavailable, and
    `reserve` of a closed ledger raises `RuntimeError`.

    Args:
        clock: Dates the rows.
        keep: Rows that are kept; older ones go, their sums in budgets stay.
    """

    def __init__(self, *, clock: Clock | None = None, keep: int = 10_000) -> None:
        self._clock = clock or SystemClock()
        self._book = Book(self._clock)
        self._over: dict[str, Entry] = {}
        self._keep = keep
        self._lock = threading.Lock()
        self._closed = False

    async def reserve(self, opening: Opening, budgets: Sequence[Budget] = ()) -> Ticket:
        """Keep the worst case free in every budget, or in none."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the ledger is closed")
            return Ticket(entry=self._book.reserve(opening, budgets))

    async def top_up(self, ticket: Ticket, worst_usd: Decimal | None) -> Ticket:
        """Keep more free; a ticket that was settled stays as it is."""
        with self._lock:
            if ticket.entry.id not in self._book.open:
                return ticket
            return Ticket(entry=self._book.top_up(ticket.entry.id, worst_usd)[1])

    async def settle(self, ticket: Ticket, entry: Entry) -> Receipt:
        """Put the truth in the place of the reservation."""
        with self._lock:
            receipt = self._settled(ticket, entry)
            self._book.told()
            return receipt

    def book(self, ticket: Ticket, entry: Entry) -> None:
        """Settle without waiting."""
        with self._lock:
            self._settled(ticket, entry)

    async def standings(self, opening: Opening, budgets: Sequence[Budget]) -> tuple[Standing, ...]:
        """Where the budgets of a call stand now."""
        with self._lock:
            return self._book.standings(opening, budgets)

    async def entries(self, query: Query = EVERY_ROW) -> tuple[Entry, ...]:
        """Rows, in the order of their ids."""
        found = sorted(self._matching(query), key=_by_id, reverse=query.newest_first)
        after = query.after
        if after is not None:
            found = [
                one for one in found if (one.id < after if query.newest_first else one.id > after)
            ]
        return tuple(found[: query.limit])

    async def totals(self, query: Query = EVERY_ROW, by: By = "all") -> tuple[Total, ...]:
        """Exact sums over the rows that are kept."""
        group, tally = group_by(by), Tally()
        for entry in self._matching(query):
            tally.add(fact(entry, group))
        return tally.totals()

    async def prune(self, before: datetime) -> int:
        """Forget old rows."""
        require_zone(before)
        now = self._clock.now()
        before = min(before, period_start("month", now), period_start("week", now))
        with self._lock:
            old = [key for key, entry in self._over.items() if entry.at < before]
            for key in old:
                del self._over[key]
        return len(old)

    async def check(self) -> tuple[str, ...]:
        """Look for sums that differ from their open rows."""
        with self._lock:
            return tuple(
                f"{account.reserved:f} USD are kept free for {scope.per} {scope.value!r},"
                f" and its open rows say {kept:f}"
                for scope, account in self._book.accounts.items()
                if (kept := self._reserved(scope)) != account.reserved
            )

    async def aclose(self) -> None:
        """Close; calls that are still open become uncertain."""
        with self._lock:
            self._closed = True
            for entry in tuple(self._book.open.values()):
                lost = msgspec.structs.replace(entry, state="uncertain")
                self._settled(Ticket(entry=entry), lost)

    def _settled(self, ticket: Ticket, entry: Entry) -> Receipt:
        known = self._over.get(ticket.entry.id)
        if known is not None or ticket.entry.id not in self._book.open:
            return Receipt(entry=known or ticket.entry)
        settled = self._book.settle(ticket.entry.id, entry)
        self._over[settled.entry.id] = settled.entry
        if len(self._over) > self._keep:
            del self._over[next(iter(self._over))]
        return Receipt(
            entry=settled.entry, crossings=settled.crossings, standings=settled.standings
        )

    def _matching(self, query: Query) -> list[Entry]:
        require_zone(query.since, query.until)
        with self._lock:
            return [entry for entry in self._rows() if matches(entry, query)]

    def _rows(self) -> Iterator[Entry]:
        yield from self._over.values()
        yield from self._book.open.values()

    def _reserved(self, scope: Scope) -> Decimal:
        return total(entry.counted_usd for entry in self._book.open.values() if scope.covers(entry))


def _by_id(entry: Entry) -> str:
    return entry.id
