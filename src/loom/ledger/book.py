"""
The sums that budgets are held against, kept beside the rows; for one thread at a time.

The law: an account that is here includes every row that it covers, open or over. So nothing is
summed per call: an account that is missing is loaded once, and each change of a row changes the
accounts that are here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from loom.core.ambient import Clock
from loom.ledger.budgets import (
    Budget,
    Crossing,
    Period,
    Scope,
    Standing,
    period_start,
    scope_value,
)
from loom.ledger.entry import Entry, Opening
from loom.ledger.ids import Ids, clean
from loom.ledger.money import ZERO, add, less, usd

__all__ = ["Account", "Book", "Settled", "carried_by"]

# An account is about 500 bytes, and one that went is loaded again.
_KEPT = 20_000


class Account:
    """
    Two sums over the rows of a scope.

    Attributes:
        spent: Counted by calls that are over.
        reserved: Counted by calls on their way.
    """

    __slots__ = ("reserved", "spent")

    def __init__(self, spent: Decimal = ZERO, reserved: Decimal = ZERO) -> None:
        self.spent = spent
        self.reserved = reserved


class Settled(NamedTuple):
    """
    What a settlement changed.

    Attributes:
        entry: The row as it stands now.
        crossings: Budgets to warn of.
        standings: The call's budgets, with this call in them; those whose sums are at hand.
    """

    entry: Entry
    crossings: tuple[Crossing, ...]
    standings: tuple[Standing, ...]


def carried_by(rows: Iterable[Entry]) -> dict[tuple[str, str], Decimal]:
    """
    What rows count in budgets over all time, for a store that forgets them.

    Args:
        rows: Calls that are over.

    Returns:
        A sum for each `per` and value, and one for `("all", "")`.
    """
    sums: dict[tuple[str, str], Decimal] = {}
    for entry in rows:
        pers = ["client", "session", "key", "tenant"]
        pers += [f"tag:{name}" for name, value in entry.tags.items() if value]
        for place in [("all", ""), *((per, scope_value(per, entry)) for per in pers)]:
            sums[place] = add(sums.get(place, ZERO), entry.counted_usd)
    return sums


class Book:
    """
    Open rows and accounts.

    Args:
        clock: Dates the rows.
        load: Sums an account over its rows; None: there are no rows that this book has not seen.
        writer: Which writer of its store it is.
    """

    def __init__(
        self, clock: Clock, load: Callable[[Scope], Account] | None = None, writer: int = 0
    ) -> None:
        self.accounts: OrderedDict[Scope, Account] = OrderedDict()
        self.open: dict[str, Entry] = {}
        self._budgets: dict[str, tuple[Budget, ...]] = {}
        self._kinds: set[tuple[str, Period | None]] = set()
        self._untold: list[Crossing] = []
        self._clock = clock
        self._ids = Ids(writer)
        self._load = load

    def reserve(self, opening: Opening, budgets: Sequence[Budget]) -> Entry:
        """
        Keep a call's worst case free in every budget.

        Args:
            opening: The call.
            budgets: What it must fit into.

        Returns:
            The open row.

        Raises:
            BudgetExceeded: If it does not fit; nothing is changed.
        """
        now = self._clock.now()
        entry = self._opened(opening, now)
        self._judge(entry, budgets, entry.reserved_usd, entry.reserved_usd, now)
        self._move(None, entry)
        self.open[entry.id] = entry
        self._budgets[entry.id] = tuple(budgets)
        return entry

    def top_up(self, entry_id: str, worst_usd: Decimal | None) -> tuple[Entry, Entry]:
        """
        Keep more free for an open call.

        Args:
            entry_id: Whose.
            worst_usd: The most that the whole call may cost now; None when unknown.

        Returns:
            The row before and now; the same twice when nothing changed.

        Raises:
            BudgetExceeded: If it does not fit; nothing is changed.
            KeyError: If the call is not open.
        """
        before = self.open[entry_id]
        had = before.reserved_usd
        if worst_usd is not None and had is not None and worst_usd <= had:
            return before, before
        more = worst_usd if worst_usd is None or had is None else less(worst_usd, had)
        now = self._clock.now()
        self._judge(before, self._budgets[entry_id], more, worst_usd, now)
        if worst_usd is None:
            return before, before
        after = msgspec.structs.replace(before, reserved_usd=usd(worst_usd))
        self.restore(after)
        return before, after

    def settle(self, entry_id: str, final: Entry) -> Settled:
        """
        Put the truth in the place of a reservation.

        Args:
            entry_id: Whose.
            final: The row's last form.

        Returns:
            The row as it stands now, budgets to warn of, and where the call's budgets stand.

        Raises:
            KeyError: If the call is not open.
        """
        before = self.open[entry_id]
        after = _merged(before, final)
        del self.open[entry_id]
        # Nothing is loaded here: a settlement does not fail because a sum cannot be read.
        held = [
            (budget, scope, account, account.spent)
            for budget in self._budgets.pop(entry_id)
            for scope in (budget.scope(after),)
            if (account := self.accounts.get(scope)) is not None
        ]
        self._move(before, after)
        standings: list[Standing] = []
        for budget, scope, account, had in held:
            standing = budget.standing(scope, account.spent, account.reserved)
            standings.append(standing)
            if budget.warning is not None and had < budget.warning <= account.spent:
                self._untold.append(Crossing(standing=standing))
        return Settled(after, tuple(self._untold), tuple(standings))

    def told(self) -> None:
        """Take note that the crossings of the last settlement reached somebody."""
        self._untold.clear()

    def forget(self, entry_id: str) -> None:
        """
        Undo a reservation whose row could not be written.

        Args:
            entry_id: Whose.
        """
        entry = self.open.pop(entry_id, None)
        if entry is not None:
            del self._budgets[entry_id]
            self._move(entry, None)

    def restore(self, entry: Entry) -> None:
        """
        Put another form of an open row in its place.

        Args:
            entry: The row.
        """
        self._move(self.open[entry.id], entry)
        self.open[entry.id] = entry

    def resume(self, row: Entry | None, entry: Entry, budgets: Sequence[Budget]) -> None:
        """
        Take up a call that began with another book.

        Args:
            row: How it stands; None: nowhere.
            entry: Its open row.
            budgets: What it was fitted into.
        """
        for budget in budgets:
            self.account(budget.scope(entry))
        reserved_usd = entry.reserved_usd if row is None else row.reserved_usd
        entry = msgspec.structs.replace(entry, state="open", reserved_usd=reserved_usd)
        self._move(row, entry)
        self.open[entry.id] = entry
        self._budgets[entry.id] = tuple(budgets)

    def standings(self, opening: Opening, budgets: Sequence[Budget]) -> tuple[Standing, ...]:
        """
        Where the budgets of a call stand.

        Args:
            opening: The call.
            budgets: Which ones.

        Returns:
            One for each budget.
        """
        entry = self._opened(opening, self._clock.now())
        return tuple(self._standing(budget, entry) for budget in budgets)

    def account(self, scope: Scope) -> Account:
        """
        The sums of a scope, loaded if they are not here.

        Args:
            scope: Which rows.

        Returns:
            The account; it changes as rows do.
        """
        found = self.accounts.get(scope)
        if found is None:
            found = Account() if self._load is None else self._load(scope)
            self.accounts[scope] = found
            self._kinds.add((scope.per, scope.period))
            self._tidy()
        elif self._load is not None:
            self.accounts.move_to_end(scope)
        return found

    def _judge(
        self,
        entry: Entry,
        budgets: Sequence[Budget],
        more_usd: Decimal | None,
        worst_usd: Decimal | None,
        now: datetime,
    ) -> None:
        for budget in budgets:
            # `more` decides, `worst` says whether anybody knows a price.
            asked = None if worst_usd is None else more_usd
            refusal = budget.refusal(self._standing(budget, entry), asked, now)
            if refusal is not None:
                raise refusal

    def _standing(self, budget: Budget, entry: Entry) -> Standing:
        scope = budget.scope(entry)
        account = self.account(scope)
        return budget.standing(scope, account.spent, account.reserved)

    def _opened(self, opening: Opening, now: datetime) -> Entry:
        worst_usd = opening.worst_usd
        return Entry(
            id=self._ids.new(now),
            at=now,
            provider=clean(opening.provider),
            asked_model=clean(opening.asked_model),
            kind=clean(opening.kind),
            stream=opening.stream,
            key=clean(opening.key),
            client=clean(opening.client),
            session=clean(opening.session) if opening.session else None,
            tenant=clean(opening.tenant),
            tags={clean(name): clean(value) for name, value in opening.tags.items()},
            reserved_usd=None if worst_usd is None else usd(worst_usd, "worst_usd"),
        )

    def _move(self, before: Entry | None, after: Entry | None) -> None:
        entry = after or before
        if entry is None:
            return
        for per, period in self._kinds:
            start = None if period is None else period_start(period, entry.at)
            account = self.accounts.get(Scope(per, scope_value(per, entry), period, start))
            if account is not None:
                _count(account, before, less)
                _count(account, after, add)

    def _tidy(self) -> None:
        if self._load is not None and len(self.accounts) > _KEPT:
            self.accounts.popitem(last=False)


def _count(
    account: Account, entry: Entry | None, change: Callable[[Decimal, Decimal], Decimal]
) -> None:
    if entry is None:
        return
    if entry.state == "open":
        account.reserved = change(account.reserved, entry.counted_usd)
    else:
        account.spent = change(account.spent, entry.counted_usd)


def _merged(opened: Entry, final: Entry) -> Entry:
    """Give the last form, with what was settled when the call was accepted."""
    if final.cost_usd is not None:
        usd(final.cost_usd, "cost_usd")
    return msgspec.structs.replace(
        final,
        id=opened.id,
        at=opened.at,
        asked_model=opened.asked_model,
        kind=opened.kind,
        stream=opened.stream,
        key=opened.key,
        client=opened.client,
        session=opened.session,
        tenant=opened.tenant,
        tags=opened.tags,
        reserved_usd=opened.reserved_usd,
        state="uncertain" if final.state == "open" else final.state,
    )
