"""Laws of a ledger that speak of rows and callers: load, cancellation, queries, sums, closing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from loom.core.errors import BudgetExceeded
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger, Query, Ticket, all_entries
from loom.ledger.entry import Entry, State
from loom.ledger.money import total
from loom.testing.cancel import cancel_everywhere
from loom.testing.clock import FakeClock
from loom.testing.ledger_kit import (
    LedgerMaker,
    a_call,
    a_ledger,
    refused,
    same,
    settled,
    stands,
)
from loom.testing.turns import turn

__all__ = [
    "a_budget_holds_under_load",
    "a_cancelled_reservation_keeps_nothing",
    "closing_leaves_open_calls_uncertain",
    "every_loop_and_thread_is_served",
    "pruning_forgets_rows_and_no_money",
    "rows_are_found",
    "sums_are_those_of_the_rows",
]

_DAY_S = 86_400.0


async def a_budget_holds_under_load(make: LedgerMaker) -> None:
    """Of 200 calls at once exactly those pass that fit."""
    async with a_ledger(make) as (ledger, _):
        budget = Budget(limit_usd="0.50")
        results = await asyncio.gather(
            *(ledger.reserve(a_call("0.01"), [budget]) for _ in range(200)), return_exceptions=True
        )
        tickets = [result for result in results if isinstance(result, Ticket)]
        same(50, len(tickets), "calls that passed")
        await asyncio.gather(*(settled(ledger, ticket, "0.01") for ticket in tickets))
        await stands(ledger, budget, spent="0.50", reserved="0")
        await refused(ledger, a_call("0.0001"), [budget])


async def a_cancelled_reservation_keeps_nothing(make: LedgerMaker) -> None:
    """A caller that is cancelled while it reserves, once or twice, leaves nothing reserved."""
    budget = Budget(limit_usd="0.50")
    async with a_ledger(make) as (ledger, _):

        async def call() -> None:
            ticket = await ledger.reserve(a_call("0.01"), [budget])
            try:
                await turn()
            finally:
                ledger.book(ticket, closed(ticket.entry, "released"))

        await cancel_everywhere(call, probes={})
        await stands(ledger, budget, spent="0", reserved="0")
        await ledger.reserve(a_call("0.50"), [budget])


async def rows_are_found(make: LedgerMaker) -> None:
    """Rows are found by time, state and whose they are, in order, page by page."""
    async with a_ledger(make) as (ledger, clock):
        began = clock.now()
        names = ["ann", "bob", "ann", "cid", "ann"]
        for number, name in enumerate(names):
            opening = a_call("0.10", session=name, tags={"number": str(number), "name": name})
            ticket = await ledger.reserve(opening)
            if number != 3:
                await settled(ledger, ticket, "0.10", model=f"model-{number % 2}")
            clock.advance(60)
        rows = [row async for row in all_entries(ledger, Query(limit=2))]
        same(names, [row.session for row in rows], "all rows, two a page")
        newest = [row async for row in all_entries(ledger, Query(limit=2, newest_first=True))]
        same(rows[::-1], newest, "the newest first")
        minute = timedelta(seconds=60)
        for query, expected in (
            (Query(since=began + minute, until=began + 3 * minute), [1, 2]),
            (Query(states=("open",)), [3]),
            (Query(states=()), []),
            (Query(session="ann", model="model-0"), [0, 2, 4]),
            (Query(tag=("name", "bob")), [1]),
            (Query(tag=("nothing", ""), session="bob"), [1]),
            (Query(tenant="nobody"), []),
            (Query(key="12345678", client="", provider="mistral", limit=1), [0]),
        ):
            found = [int(row.tags["number"]) for row in await ledger.entries(query)]
            same(expected, found, f"rows of {query}")


async def sums_are_those_of_the_rows(make: LedgerMaker) -> None:
    """Totals by anything add up to the rows, and so do the sums that budgets are held against."""
    async with a_ledger(make) as (ledger, clock):
        budgets = [
            Budget(limit_usd=100, per=per, period=period)
            for per in ("client", "session", "key", "tenant", "tag:project")
            for period in (None, "day")
        ]
        states: tuple[State, ...] = ("settled", "estimated", "released", "uncertain", "open")
        for number in range(30):
            opening = a_call("0.03", session=f"s{number % 3}", tags={"project": f"p{number % 4}"})
            ticket = await ledger.reserve(opening, budgets)
            state = states[number % 5]
            if state != "open":
                cost = f"0.00{number}" if state in ("settled", "estimated") else None
                await settled(ledger, ticket, cost, state=state, code="timeout" * (number % 2))
            clock.advance(3600)
        rows = await ledger.entries()
        for by in (
            "all",
            "day",
            "week",
            "month",
            "model",
            "session",
            "state",
            "code",
            "tag:project",
        ):
            sums = await ledger.totals(by=by)
            same(sorted({part.group for part in sums}), [part.group for part in sums], by)
            same(30, sum(part.calls for part in sums), f"calls by {by}")
            costs = total(row.cost_usd or Decimal(0) for row in rows if row.state != "open")
            same(costs, total(part.cost_usd for part in sums), f"cost by {by}")
            same(Decimal("0.18"), total(part.reserved_usd for part in sums), f"reserved by {by}")
            same(Decimal("0.18"), total(part.uncertain_usd for part in sums), f"uncertain by {by}")
        await _stand_as_rows(ledger, rows, budgets)
        same((), await ledger.check(), "what the check finds")


async def pruning_forgets_rows_and_no_money(make: LedgerMaker) -> None:
    """Old rows go; open ones, this month's, and the sums of budgets stay."""
    async with a_ledger(make) as (ledger, clock):
        budgets = [Budget(limit_usd=1, per=per) for per in ("client", "session", "tag:project")]
        untagged = a_call("0.10", tags={})
        for opening in (a_call("0.10"), untagged, a_call("0.10")):
            await settled(ledger, await ledger.reserve(opening, budgets), "0.10")
        await ledger.reserve(a_call("0.10"), budgets)
        clock.advance(40 * _DAY_S)
        await settled(ledger, await ledger.reserve(a_call("0.10"), budgets), "0.10")
        same(3, await ledger.prune(clock.now() + timedelta(days=1)), "rows that went")
        same(2, len(await ledger.entries()), "rows that stayed")
        for budget, spent in zip(budgets, ("0.40", "0.40", "0.30"), strict=True):
            await stands(ledger, budget, spent=spent, reserved="0.10")
        (standing,) = await ledger.standings(untagged, [budgets[2]])
        same(Decimal("0.10"), standing.spent_usd, "spent without a tag")
        same((), await ledger.check(), "what the check finds")


async def every_loop_and_thread_is_served(make: LedgerMaker) -> None:
    """One ledger serves several event loops in several threads, and the budget holds."""
    async with a_ledger(make) as (ledger, _):
        budget = Budget(limit_usd="0.30")

        async def some() -> int:
            passed = 0
            for _ in range(20):
                try:
                    ticket = await ledger.reserve(a_call("0.01"), [budget])
                except BudgetExceeded:
                    continue
                await settled(ledger, ticket, "0.01")
                passed += 1
            return passed

        passed = await asyncio.gather(*(asyncio.to_thread(asyncio.run, some()) for _ in range(3)))
        same(30, sum(passed), "calls that passed")
        await stands(ledger, budget, spent="0.30", reserved="0")


async def closing_leaves_open_calls_uncertain(make: LedgerMaker) -> None:
    """After closing, rows can be read, open ones are uncertain, and nothing new begins."""
    ledger = make(FakeClock())
    ticket = await ledger.reserve(a_call("0.10"))
    await ledger.aclose()
    await ledger.aclose()
    await settled(ledger, ticket, "0.05")
    ledger.book(ticket, closed(ticket.entry, "released"))
    (row,) = await ledger.entries()
    same(("uncertain", Decimal("0.10")), (row.state, row.counted_usd), "a call that was open")
    try:
        await ledger.reserve(a_call("0.10"))
    except RuntimeError:
        return
    raise AssertionError("a closed ledger accepted a call")


async def _stand_as_rows(ledger: Ledger, rows: Sequence[Entry], budgets: Sequence[Budget]) -> None:
    for row in rows:
        opening = a_call(None, session=row.session, tags=row.tags)
        for standing in await ledger.standings(opening, budgets):
            if standing.budget.period is not None:
                continue  # of the clock's period, and the row is of an earlier one
            scope = standing.budget.scope(row)
            mine = [other for other in rows if scope.covers(other)]
            over = total(other.counted_usd for other in mine if other.state != "open")
            kept = total(other.counted_usd for other in mine if other.state == "open")
            same((over, kept), (standing.spent_usd, standing.reserved_usd), f"sums of {scope}")
