"""What the laws of a ledger are made of: calls, settlements, comparisons."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeAlias

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import BudgetExceeded
from loom.core.response import Usage
from loom.ledger.budgets import Budget
from loom.ledger.closing import closed
from loom.ledger.contract import Ledger, Receipt, Ticket
from loom.ledger.entry import Entry, Opening, State
from loom.testing.clock import FakeClock

__all__ = ["LedgerMaker", "a_call", "a_ledger", "must", "refused", "same", "settled", "stands"]

LedgerMaker: TypeAlias = Callable[[Clock], Ledger]
"""Makes a ledger that is empty and has never been used; the clock dates its rows."""


def a_call(worst: str | None, **fields: Any) -> Opening:
    """
    A call of session "abc" and project "weaving".

    Args:
        worst: The most that it may cost, in US dollars; None when unknown.
        fields: Other fields of `Opening`.

    Returns:
        The call.
    """
    given = {"session": "abc", "key": "12345678", "tags": {"project": "weaving"}, **fields}
    worst_usd = None if worst is None else Decimal(worst)
    return Opening(provider="mistral", asked_model="model-1", worst_usd=worst_usd, **given)


async def settled(
    ledger: Ledger,
    ticket: Ticket,
    cost: str | None,
    *,
    state: State = "settled",
    of: Entry | None = None,
    **fields: Any,
) -> Receipt:
    """
    Settle a call of 7 and 3 tokens.

    Args:
        ledger: Where.
        ticket: Its reservation.
        cost: US dollars; None when unknown.
        state: What is known of the cost.
        of: Another row than the ticket's.
        fields: Other fields of the row.

    Returns:
        The receipt.
    """
    usage = Usage(input_tokens=7, output_tokens=3, cost_usd=None if cost is None else Decimal(cost))
    final = closed(of or ticket.entry, state, usage=usage)
    return await ledger.settle(ticket, msgspec.structs.replace(final, **fields))


async def refused(ledger: Ledger, call: Opening, budgets: Sequence[Budget]) -> BudgetExceeded:
    """
    Let a call be refused.

    Args:
        ledger: Where.
        call: The call.
        budgets: What it does not fit into.

    Returns:
        The refusal.

    Raises:
        AssertionError: If it passes.
    """
    try:
        await ledger.reserve(call, budgets)
    except BudgetExceeded as error:
        return error
    raise AssertionError(f"a call of {call.worst_usd} USD passed {budgets}")


async def stands(ledger: Ledger, budget: Budget, *, spent: str, reserved: str) -> None:
    """
    Compare where a budget stands.

    Args:
        ledger: Where.
        budget: Which one; that of `a_call`.
        spent: US dollars.
        reserved: US dollars.

    Raises:
        AssertionError: If it stands elsewhere.
    """
    (standing,) = await ledger.standings(a_call(None), [budget])
    same(
        (Decimal(spent), Decimal(reserved)),
        (standing.spent_usd, standing.reserved_usd),
        f"spent and reserved of {budget}",
    )


@asynccontextmanager
async def a_ledger(make: LedgerMaker) -> AsyncGenerator[tuple[Ledger, FakeClock], None]:
    """
    Make an empty ledger with a clock that stands still, and close it.

    Args:
        make: Makes it.

    Yields:
        The ledger and its clock.
    """
    clock = FakeClock()
    ledger = make(clock)
    try:
        yield ledger, clock
    finally:
        await ledger.aclose()


def same(expected: object, found: object, what: str) -> None:
    """
    Compare two things.

    Args:
        expected: What the law says.
        found: What there is.
        what: What it is.

    Raises:
        AssertionError: If they differ.
    """
    must(expected == found, f"{what}: {found!r}, expected {expected!r}")


def must(kept: bool, broken: str) -> None:  # noqa: FBT001  # reads like the assert it stands for
    """
    Hold somebody to a law.

    Args:
        kept: Whether it is kept.
        broken: What happened otherwise.

    Raises:
        AssertionError: If it is not kept.
    """
    if not kept:
        raise AssertionError(broken)
