"""
What the writer's thread is asked to do, and how its answers find their way back.

An order waits on the event loop that gave it, or on a thread (`loop` is None).
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent import futures
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

from loom.ledger.book import Book
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Receipt, Ticket
from loom.ledger.entry import Entry, Opening

__all__ = ["Answer", "Ask", "Order", "Prune", "Reserve", "Resume", "Settle", "TopUp", "Workplace"]

Answer: TypeAlias = Any
"""What an order gives: a value, or an exception to raise."""


class Workplace(Protocol):
    """
    Where orders are done (`desk.Desk`).

    Attributes:
        book: The sums.
    """

    book: Book

    @abstractmethod
    def write_later(self, entry: Entry) -> None:
        """Take a row that the next commit writes."""

    @abstractmethod
    def never_write(self, entry_id: str) -> None:
        """Drop a row whose order is undone."""

    @abstractmethod
    def row(self, entry_id: str) -> Entry | None:
        """Give a row as it stands now; None if there is none."""

    @abstractmethod
    def prune(self, before: datetime) -> int:
        """Take old rows out of the file, and say how many went."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Compare each sum that is held in memory with its rows; give those that differ."""


class Order:
    """
    Something to do in the writer's thread.

    Attributes:
        before_sending: Whether nothing has been sent yet, so that it may be refused.
        loop: Whose future it is; None: a thread's.
        future: Gets the answer.
        answered: Whether it has one.
    """

    before_sending = False

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[Answer] | futures.Future[Answer] | None = None
        self.answered = False

    @abstractmethod
    def do(self, desk: Workplace) -> Answer:
        """
        Do it.

        Args:
            desk: Has the sums and the rows.

        Returns:
            The answer, good once the rows are on the disk.
        """

    def undo(self, desk: Workplace) -> None:
        """
        Take it back: its row could not be written.

        Args:
            desk: Has the sums and the rows.
        """

    def missed(self, answer: Answer) -> Order | None:
        """
        What is to be done when nobody waits for the answer any more.

        Args:
            answer: What nobody took.

        Returns:
            Another order; None if nothing is to be done.
        """


class Reserve(Order):
    """
    Keep a worst case free.

    Args:
        opening: The call.
        budgets: What it must fit into.
    """

    before_sending = True

    def __init__(self, opening: Opening, budgets: Sequence[Budget]) -> None:
        super().__init__()
        self._opening = opening
        self._budgets = budgets
        self._entry: Entry | None = None

    def do(self, desk: Workplace) -> Ticket:
        """Reserve in the book, and give the row to be written."""
        self._entry = desk.book.reserve(self._opening, self._budgets)
        desk.write_later(self._entry)
        return Ticket(entry=self._entry)

    def undo(self, desk: Workplace) -> None:
        """Forget the call."""
        if self._entry is not None:
            desk.book.forget(self._entry.id)
            desk.never_write(self._entry.id)

    def missed(self, answer: Answer) -> Order | None:
        """Release what nobody will use."""
        return _released(answer) if isinstance(answer, Ticket) else None


class TopUp(Order):
    """
    Keep more free.

    Args:
        entry_id: Whose.
        worst_usd: The most that the call may cost now.
    """

    before_sending = True

    def __init__(self, ticket: Ticket, worst_usd: Decimal | None) -> None:
        super().__init__()
        self._ticket = ticket
        self._worst_usd = worst_usd
        self._before: Entry | None = None

    def do(self, desk: Workplace) -> Ticket:
        """Reserve more in the book, and give the row to be written."""
        entry_id = self._ticket.entry.id
        if entry_id not in desk.book.open:
            return self._ticket
        before, after = desk.book.top_up(entry_id, self._worst_usd)
        if before is not after:
            self._before = before
            desk.write_later(after)
        return Ticket(entry=after)

    def undo(self, desk: Workplace) -> None:
        """Put the row back as it was, unless the call is over by now."""
        if self._before is not None and self._before.id in desk.book.open:
            desk.book.restore(self._before)
            desk.never_write(self._before.id)


class Resume(Order):
    """
    Take up a call whose row an earlier writer left uncertain; one that is over stays over.

    Args:
        ticket: The reservation.
        budgets: What it was fitted into.
    """

    def __init__(self, ticket: Ticket, budgets: Sequence[Budget]) -> None:
        super().__init__()
        self._entry = ticket.entry
        self._budgets = budgets

    def do(self, desk: Workplace) -> None:
        """Open it in the book; nothing is written until it is settled."""
        row = desk.row(self._entry.id)
        if self._entry.id not in desk.book.open and (row is None or row.state == "uncertain"):
            desk.book.resume(row, self._entry, self._budgets)


class Settle(Order):
    """
    Put the truth in the place of a reservation.

    Args:
        ticket: The reservation.
        entry: The row's last form.
        heard: Whether somebody waits for the receipt.
    """

    def __init__(self, ticket: Ticket, entry: Entry, *, heard: bool = True) -> None:
        super().__init__()
        self._ticket = ticket
        self._entry = entry
        self._heard = heard

    def do(self, desk: Workplace) -> Receipt:
        """Settle in the book, and give the row to be written."""
        entry_id = self._ticket.entry.id
        if entry_id not in desk.book.open:
            return Receipt(entry=desk.row(entry_id) or self._ticket.entry)
        settled = desk.book.settle(entry_id, self._entry)
        if self._heard:
            desk.book.told()
        desk.write_later(settled.entry)
        return Receipt(
            entry=settled.entry, crossings=settled.crossings, standings=settled.standings
        )


class Prune(Order):
    """
    Forget old rows.

    Args:
        before: Rows of earlier times go.
    """

    def __init__(self, before: datetime) -> None:
        super().__init__()
        self._before = before

    def do(self, desk: Workplace) -> int:
        """Take them out of the file."""
        return desk.prune(self._before)


class Ask(Order):
    """
    Ask something of the sums.

    Args:
        question: What; it is asked in the writer's thread.
    """

    def __init__(self, question: Callable[[Workplace], Answer]) -> None:
        super().__init__()
        self._question = question

    def do(self, desk: Workplace) -> Answer:
        """Ask."""
        return self._question(desk)


def _released(ticket: Ticket) -> Settle:
    """
    Give back what a ticket keeps free.

    Args:
        ticket: One that nobody will use.

    Returns:
        The order.
    """
    return Settle(ticket, closed(ticket.entry, "released"), heard=False)
