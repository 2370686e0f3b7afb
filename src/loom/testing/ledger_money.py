"""Laws of a ledger that speak of money: reservations, budgets, periods, warnings."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from loom.core.errors import BudgetExceeded
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ticket
from loom.ledger.entry import State
from loom.testing.ledger_kit import (
    LedgerMaker,
    a_call,
    a_ledger,
    must,
    refused,
    same,
    settled,
    stands,
)

__all__ = [
    "a_dearer_attempt_is_topped_up",
    "a_refusal_names_its_budget_and_leaves_nothing",
    "a_reservation_becomes_the_truth",
    "a_ticket_is_settled_once",
    "a_warning_is_told_once_a_period",
    "amounts_are_exact",
    "other_people_have_other_budgets",
    "periods_follow_the_calendar",
    "unknown_prices_are_seen",
    "what_may_be_billed_counts",
    "without_a_budget_nothing_is_refused",
]

_DAY_S = 86_400.0


async def a_reservation_becomes_the_truth(make: LedgerMaker) -> None:
    """A call is one row: open and reserved first, settled with its cost then."""
    async with a_ledger(make) as (ledger, clock):
        budget = Budget(limit_usd=1)
        ticket = await ledger.reserve(a_call("0.30"), [budget])
        (row,) = await ledger.entries()
        same("open", row.state, "the state of a call on its way")
        same((clock.now(), Decimal("0.30")), (row.at, row.reserved_usd), "time and reservation")
        await stands(ledger, budget, spent="0", reserved="0.30")
        receipt = await settled(ledger, ticket, "0.05")
        (row,) = await ledger.entries()
        same(receipt.entry, row, "the receipt and the row")
        same(("settled", Decimal("0.05"), 7), (row.state, row.cost_usd, row.input_tokens), "row")
        await stands(ledger, budget, spent="0.05", reserved="0")
        now = await ledger.standings(a_call("0"), [budget])
        same(now, receipt.standings, "where the budgets of a settled call stand")
        again = await settled(ledger, ticket, "0.05")
        same((), again.standings, "what a second settlement says of budgets")


async def a_refusal_names_its_budget_and_leaves_nothing(make: LedgerMaker) -> None:
    """What does not fit into every budget is refused, and changes none of them."""
    async with a_ledger(make) as (ledger, _):
        wide, tight = Budget(limit_usd=5), Budget(limit_usd="0.50", per="session", period="day")
        await settled(ledger, await ledger.reserve(a_call("0.20"), [wide, tight]), "0.20")
        await ledger.reserve(a_call("0.25"), [wide, tight])
        error = await refused(ledger, a_call("0.06"), [wide, tight])
        for word in ("session", "'abc'", "0.50", "0.20", "0.25", "0.06", "2024-11-16"):
            must(word in str(error), f"the refusal does not say {word}: {error}")
        same(12 * 3600.0, error.retry_after_s, "seconds until the budget begins anew")
        same(2, len(await ledger.entries()), "rows after a refusal")
        await stands(ledger, wide, spent="0.20", reserved="0.25")
        # To the last digit it fits.
        await ledger.reserve(a_call("0.05"), [wide, tight])


async def without_a_budget_nothing_is_refused(make: LedgerMaker) -> None:
    """No budget is no check, whatever a call may cost; its row is written all the same."""
    async with a_ledger(make) as (ledger, _):
        await ledger.reserve(a_call("1000000"))
        await ledger.reserve(a_call(None))
        same(2, len(await ledger.entries()), "rows")


async def a_ticket_is_settled_once(make: LedgerMaker) -> None:
    """The first settlement of a ticket counts, and it cannot change whose call it was."""
    async with a_ledger(make) as (ledger, _):
        budget = Budget(limit_usd=1)
        ticket = await ledger.reserve(a_call("0.30"), [budget])
        changed = msgspec.structs.replace(ticket.entry, session="other", id="0", tags={})
        first = await settled(ledger, Ticket(entry=ticket.entry), "0.10", of=changed)
        again = await settled(ledger, ticket, "0.90")
        ledger.book(ticket, closed(ticket.entry, "released"))
        await stands(ledger, budget, spent="0.10", reserved="0")
        (row,) = await ledger.entries()
        same((first.entry, first.entry), (again.entry, row), "the row after a second settlement")
        same(("abc", ticket.entry.id), (row.session, row.id), "whose call it was")


async def a_dearer_attempt_is_topped_up(make: LedgerMaker) -> None:
    """A dearer attempt keeps more free or is refused; a cheaper one changes nothing."""
    async with a_ledger(make) as (ledger, _):
        budget = Budget(limit_usd="0.50")
        ticket = await ledger.reserve(a_call("0.20"), [budget])
        ticket = await ledger.top_up(ticket, Decimal("0.40"))
        same(Decimal("0.40"), ticket.entry.reserved_usd, "the ticket's reservation")
        await stands(ledger, budget, spent="0", reserved="0.40")
        ticket = await ledger.top_up(ticket, Decimal("0.10"))
        await stands(ledger, budget, spent="0", reserved="0.40")
        try:
            await ledger.top_up(ticket, Decimal("0.51"))
        except BudgetExceeded:
            pass
        else:
            raise AssertionError("a dearer attempt passed its budget")
        await stands(ledger, budget, spent="0", reserved="0.40")
        await settled(ledger, ticket, "0.35")
        await stands(ledger, budget, spent="0.35", reserved="0")
        same(Decimal("0.40"), (await ledger.entries())[0].reserved_usd, "reserved in the row")


async def what_may_be_billed_counts(make: LedgerMaker) -> None:
    """Released counts nothing, estimated its estimate, uncertain and unpriced the worst case."""
    async with a_ledger(make) as (ledger, _):
        budget = Budget(limit_usd=10)
        cases: list[tuple[State, str | None, str]] = [
            ("released", None, "0"),
            ("estimated", "0.02", "0.02"),
            ("uncertain", None, "0.30"),
            ("settled", None, "0.30"),
            ("settled", "0.70", "0.70"),  # the truth, though it is more than was reserved
        ]
        spent = Decimal(0)
        for state, cost, counted in cases:
            ticket = await ledger.reserve(a_call("0.30"), [budget])
            await settled(ledger, ticket, cost, state=state)
            spent += Decimal(counted)
            await stands(ledger, budget, spent=str(spent), reserved="0")
        (sums,) = await ledger.totals()
        same(
            (5, Decimal("0.72"), Decimal("0.30"), 1),
            (sums.calls, sums.cost_usd, sums.uncertain_usd, sums.unpriced),
            "calls, cost, uncertain, unpriced",
        )


async def unknown_prices_are_seen(make: LedgerMaker) -> None:
    """A call without a price is refused by a budget, or passes it and stays visible."""
    async with a_ledger(make) as (ledger, _):
        strict = Budget(limit_usd=1)
        loose = Budget(limit_usd=1, on_unknown_price="allow")
        error = await refused(ledger, a_call(None), [strict])
        must("price" in str(error), f"the refusal does not say why: {error}")
        ticket = await ledger.reserve(a_call(None), [loose])
        await settled(ledger, ticket, None)
        await stands(ledger, loose, spent="0", reserved="0")
        (row,) = await ledger.entries()
        same((None, True), (row.cost_usd, row.unpriced), "the cost of an unpriced row")


async def other_people_have_other_budgets(make: LedgerMaker) -> None:
    """Each client, session, key, tenant and value of a tag has sums of its own."""
    async with a_ledger(make) as (ledger, _):
        mine = a_call("0.60")
        for per, other in (
            ("client", msgspec.structs.replace(mine, client="other")),
            ("session", msgspec.structs.replace(mine, session="other")),
            ("session", msgspec.structs.replace(mine, session=None)),
            ("key", msgspec.structs.replace(mine, key="other")),
            ("tenant", msgspec.structs.replace(mine, tenant="other")),
            ("tag:project", msgspec.structs.replace(mine, tags={"project": "other"})),
            ("tag:project", msgspec.structs.replace(mine, tags={})),
        ):
            budget = Budget(limit_usd=1, per=per)
            ticket = await ledger.reserve(mine, [budget])
            await refused(ledger, mine, [budget])
            stranger = await ledger.reserve(other, [budget])
            # Calls without a session or a tag share one sum: none of them is without a limit.
            await refused(ledger, other, [budget])
            for held in (ticket, stranger):
                await settled(ledger, held, None, state="released")


async def periods_follow_the_calendar(make: LedgerMaker) -> None:
    """A budget begins anew with its UTC day, week or month; a call counts where it began."""
    async with a_ledger(make) as (ledger, clock):
        day, month = Budget(limit_usd=1, period="day"), Budget(limit_usd=2, period="month")
        week, ever = Budget(limit_usd="1.5", period="week"), Budget(limit_usd=9)
        late = await ledger.reserve(a_call("0.90"), [day, month, week, ever])
        await refused(ledger, a_call("0.20"), [day])
        clock.advance(_DAY_S)  # Saturday
        await ledger.reserve(a_call("0.50"), [day, month, week, ever])
        await refused(ledger, a_call("0.20"), [week])
        await settled(ledger, late, "0.80")
        await stands(ledger, day, spent="0", reserved="0.50")
        await stands(ledger, week, spent="0.80", reserved="0.50")
        clock.advance(2 * _DAY_S)  # Monday
        await stands(ledger, week, spent="0", reserved="0")
        await stands(ledger, month, spent="0.80", reserved="0.50")
        clock.advance(15 * _DAY_S)  # December
        await stands(ledger, month, spent="0", reserved="0")
        await stands(ledger, ever, spent="0.80", reserved="0.50")


async def a_warning_is_told_once_a_period(make: LedgerMaker) -> None:
    """The settlement that passes a threshold says so, and no other one in its period."""
    async with a_ledger(make) as (ledger, clock):
        budget = Budget(limit_usd=1, warn_usd="0.10", per="session", period="day")
        told = []
        for _ in range(4):
            ticket = await ledger.reserve(a_call("0.05"), [budget])
            told.append(len((await settled(ledger, ticket, "0.05")).crossings))
        same([0, 1, 0, 0], told, "warnings told")
        clock.advance(_DAY_S)
        ticket = await ledger.reserve(a_call("0.30"), [budget])
        (crossing,) = (await settled(ledger, ticket, "0.30")).crossings
        same((Decimal("0.30"), "abc"), (crossing.standing.spent_usd, crossing.standing.value), "it")


async def amounts_are_exact(make: LedgerMaker) -> None:
    """Sums do not round, however small and however large their parts."""
    async with a_ledger(make) as (ledger, _):
        budget = Budget(limit_usd="1000000000.000000000000000000001")
        for cost in ("1000000000", "0.000000000000000000001"):
            await settled(ledger, await ledger.reserve(a_call(cost), [budget]), cost)
        await stands(ledger, budget, spent="1000000000.000000000000000000001", reserved="0")
        await refused(ledger, a_call("0.000000000000000000001"), [budget])
        (sums,) = await ledger.totals()
        same(Decimal("1000000000.000000000000000000001"), sums.cost_usd, "the sum of the rows")
