"""
What a ledger is: the protocol that every store keeps, and the values that go through it.

    ticket = await ledger.reserve(opening, budgets)   # refuses, or the open row is durable
    ticket = await ledger.top_up(ticket, worst_usd)   # before a dearer attempt
    receipt = await ledger.settle(ticket, closed(ticket.entry, "settled", response=answer))

`loom.testing.ledger_contract` puts a store to the laws.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol, TypeAlias

import msgspec

from loom.ledger.budgets import Budget, Crossing, Standing
from loom.ledger.entry import Entry, Opening, State

__all__ = [
    "EVERY_ROW",
    "By",
    "Kept",
    "Ledger",
    "Query",
    "Receipt",
    "Ticket",
    "Total",
    "all_entries",
]

Kept: TypeAlias = Literal["committed", "spilled", "held"]
"""
How a settled row is kept.

`committed`: in the store, for good. `spilled`: in the emergency file beside it, because the store
could not be written; it comes in by itself. `held`: in memory only, because neither could be.
"""

By: TypeAlias = str
"""
What totals are grouped by: "all", "day", "week", "month", "provider", "model", "asked_model",
"key", "client", "session", "tenant", "state", "code", "price_id", "kind" or "tag:NAME".
"""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """
    A reservation, good for one settlement.

    Attributes:
        entry: The open row.
    """

    entry: Entry


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of a settlement.

    Attributes:
        entry: The row as it stands in the ledger.
        kept: How it is kept.
        crossings: Budgets to warn of.
        standings: Where the call's budgets stand, with this call in them; those whose sums are
            at hand, and none for a call that was over before.
    """

    entry: Entry
    kept: Kept = "committed"
    crossings: tuple[Crossing, ...] = ()
    standings: tuple[Standing, ...] = ()


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which rows are wanted; None does not ask.

    Attributes:
        since: At or after this time; must have a time zone.
        until: Before this time; must have a time zone.
        states: One of these.
        provider: Who answered.
        model: The model that the answer names.
        key: The key's fingerprint.
        client: The client's name.
        session: The session.
        tenant: The tenant.
        tag: A tag and its value.
        after: Rows that come after the one with this id, in the order asked for.
        newest_first: Whether the newest come first.
        limit: How many rows `entries` gives at most.
    """

    since: datetime | None = None
    until: datetime | None = None
    states: tuple[State, ...] | None = None
    provider: str | None = None
    model: str | None = None
    key: str | None = None
    client: str | None = None
    session: str | None = None
    tenant: str | None = None
    tag: tuple[str, str] | None = None
    after: str | None = None
    newest_first: bool = False
    limit: int = 1000


EVERY_ROW = Query()
"""Asks for nothing in particular."""


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """
    Sums over rows, exact.

    Attributes:
        group: What the rows have in common; empty for those without it.
        calls: Rows, those that were released among them.
        failed: Rows with an error.
        input_tokens: Of all rows.
        output_tokens: Of all rows.
        cached_tokens: Of all rows.
        cost_usd: Known costs.
        reserved_usd: Kept free for calls on their way.
        uncertain_usd: Worst cases of calls that may have been billed.
        unpriced: Calls that were made at a price that nobody knows: the cost is more than it says.
    """

    group: str
    calls: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    reserved_usd: Decimal = Decimal(0)
    uncertain_usd: Decimal = Decimal(0)
    unpriced: int = 0


class Ledger(Protocol):
    """Rows, budgets and sums. Every method may be called from any thread and event loop."""

    @abstractmethod
    async def reserve(self, opening: Opening, budgets: Sequence[Budget] = ()) -> Ticket:
        """
        Keep the worst case free in every budget, or in none, and write the open row.

        A caller that is cancelled meanwhile keeps nothing.

        Args:
            opening: The call.
            budgets: What it must fit into; without any, it always fits.

        Returns:
            A ticket; the row is durable.

        Raises:
            BudgetExceeded: If it does not fit; it names the budget, its sums and its next period.
            LedgerUnavailable: If the row cannot be written.
        """

    @abstractmethod
    async def top_up(self, ticket: Ticket, worst_usd: Decimal | None) -> Ticket:
        """
        Keep more free, before an attempt that makes the call dearer; never less.

        Args:
            ticket: The reservation.
            worst_usd: The most that the whole call may cost now; None when unknown.

        Returns:
            The ticket with its new row; durable.

        Raises:
            BudgetExceeded: If that does not fit; what was kept free stays so.
            LedgerUnavailable: If it cannot be written.
        """

    @abstractmethod
    async def settle(self, ticket: Ticket, entry: Entry) -> Receipt:
        """
        Put the truth in the place of the reservation; the first settlement of a ticket counts.

        It goes on when the caller is cancelled. Whose call it was and what was reserved stays as
        the ticket has it.

        Args:
            ticket: The reservation.
            entry: The row's last form (`closed`).

        Returns:
            How the row is kept, and budgets to warn of.
        """

    @abstractmethod
    def book(self, ticket: Ticket, entry: Entry) -> None:
        """
        Settle without waiting: for a `finally`, where nothing may be awaited.

        Args:
            ticket: The reservation.
            entry: The row's last form.
        """

    @abstractmethod
    async def standings(self, opening: Opening, budgets: Sequence[Budget]) -> tuple[Standing, ...]:
        """
        Where the budgets of a call stand now.

        Args:
            opening: The call.
            budgets: Which ones.

        Returns:
            One for each budget.
        """

    @abstractmethod
    async def entries(self, query: Query = EVERY_ROW) -> tuple[Entry, ...]:
        """
        Rows, in the order of their ids.

        Args:
            query: Which ones; `all_entries` goes through all pages.

        Returns:
            At most `query.limit` rows.
        """

    @abstractmethod
    async def totals(self, query: Query = EVERY_ROW, by: By = "all") -> tuple[Total, ...]:
        """
        Exact sums.

        Args:
            query: Over which rows; `after` and `limit` do not count.
            by: What to group by.

        Returns:
            One for each group, in the order of the groups.
        """

    @abstractmethod
    async def prune(self, before: datetime) -> int:
        """
        Forget old rows; sums of budgets stay.

        Rows of this month and of this week stay, because budgets count them, and so do open rows.

        Args:
            before: Rows of earlier times go; must have a time zone.

        Returns:
            How many went.
        """

    @abstractmethod
    async def check(self) -> tuple[str, ...]:
        """
        Look for damage: of the file, of rows, of sums that differ from their rows.

        Returns:
            What is wrong, a line each; empty when nothing is.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Write what is left and close; calls that are still open become uncertain."""


async def all_entries(ledger: Ledger, query: Query = EVERY_ROW) -> AsyncGenerator[Entry, None]:
    """
    Go through all rows, a page at a time.

    Args:
        ledger: Whose rows.
        query: Which ones; `limit` is the size of a page.

    Yields:
        Each row.
    """
    while page := await ledger.entries(query):
        for entry in page:
            yield entry
        if len(page) < query.limit:
            return
        query = msgspec.structs.replace(query, after=page[-1].id)
