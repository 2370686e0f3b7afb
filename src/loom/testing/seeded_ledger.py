"""A ledger that is watched: after every change its sums are made again, by plain addition."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from loom.core.errors import BudgetExceeded
from loom.ledger.budgets import Budget
from loom.ledger.contract import Receipt, Ticket
from loom.ledger.entry import Entry, Opening
from loom.ledger.memory import MemoryLedger

__all__ = ["WatchedLedger"]


class WatchedLedger(MemoryLedger):
    """
    A ledger in memory that finds its own mistakes.

    Attributes:
        limit: The limit of the only budget; None: there is none.
        findings: What did not hold, at any moment.
        refusals: How often the budget refused something.
        rows: The rows as its users put them there, by id.
    """

    limit: Decimal | None
    findings: list[str]
    refusals: int
    rows: dict[str, Entry]

    def watch(self, limit: Decimal | None) -> None:
        """
        Begin to watch.

        Args:
            limit: The limit of the only budget; None: there is none.
        """
        self.limit, self.findings, self.refusals, self.rows = limit, [], 0, {}

    async def reserve(self, opening: Opening, budgets: Sequence[Budget] = ()) -> Ticket:
        """Keep the worst case free, and see that it was right to."""
        fits = self._fits(opening.worst_usd)
        try:
            ticket = await super().reserve(opening, budgets)
        except BudgetExceeded:
            self._refused(fits=fits)
            raise
        return self._granted(ticket, fits=fits)

    async def top_up(self, ticket: Ticket, worst_usd: Decimal | None) -> Ticket:
        """Keep more free, and see that it was right to."""
        had = self.rows[ticket.entry.id].reserved_usd
        more = None if worst_usd is None or had is None else max(Decimal(0), worst_usd - had)
        fits = self._fits(more)
        try:
            topped = await super().top_up(ticket, worst_usd)
        except BudgetExceeded:
            self._refused(fits=fits)
            raise
        return self._granted(topped, fits=fits)

    async def settle(self, ticket: Ticket, entry: Entry) -> Receipt:
        """Settle, and see that it is the first time."""
        self._first(ticket)
        receipt = await super().settle(ticket, entry)
        self._over_now(receipt.entry)
        return receipt

    def book(self, ticket: Ticket, entry: Entry) -> None:
        """Settle without waiting, and see that it is the first time."""
        self._first(ticket)
        super().book(ticket, entry)
        self._over_now(self._over.get(ticket.entry.id, ticket.entry))

    def used(self) -> Decimal:
        """Give what is spent and kept free, by addition."""
        return sum((row.counted_usd for row in self.rows.values()), Decimal(0))

    def _fits(self, more_usd: Decimal | None) -> bool:
        if self.limit is None:
            return True
        return more_usd is not None and self.used() + more_usd <= self.limit

    def _granted(self, ticket: Ticket, *, fits: bool) -> Ticket:
        if not fits:
            self.findings.append(f"the budget let pass what does not fit: {ticket.entry.tags}")
        self.rows[ticket.entry.id] = ticket.entry
        self._look()
        return ticket

    def _refused(self, *, fits: bool) -> None:
        self.refusals += 1
        if fits:
            self.findings.append(f"the budget refused what fits: {self.used()} of {self.limit}")

    def _first(self, ticket: Ticket) -> None:
        if self.rows[ticket.entry.id].state != "open":
            self.findings.append(f"{ticket.entry.tags} was settled twice")

    def _over_now(self, entry: Entry) -> None:
        self.rows[entry.id] = entry
        self._look()

    def _look(self) -> None:
        if self.limit is not None and self.used() > self.limit:
            self.findings.append(f"{self.used()} USD of {self.limit} are spent or kept free")
        for scope, account in self._book.accounts.items():
            sums = account.spent + account.reserved
            if sums != self.used():
                self.findings.append(f"the sums of {scope.per} are {sums}, not {self.used()}")
