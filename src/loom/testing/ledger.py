"""
The contract of a ledger: its laws as functions that any store can be put to.

    @pytest.mark.parametrize("law", LEDGER_LAWS)
    @pytest.mark.anyio
    async def test_my_ledger_keeps_the_law(law, tmp_path):
        names = itertools.count()
        await law(lambda clock: MyLedger(tmp_path / f"{next(names)}.db", clock=clock))
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from loom.testing.ledger_kit import LedgerMaker
from loom.testing.ledger_money import (
    a_dearer_attempt_is_topped_up,
    a_refusal_names_its_budget_and_leaves_nothing,
    a_reservation_becomes_the_truth,
    a_ticket_is_settled_once,
    a_warning_is_told_once_a_period,
    amounts_are_exact,
    other_people_have_other_budgets,
    periods_follow_the_calendar,
    unknown_prices_are_seen,
    what_may_be_billed_counts,
    without_a_budget_nothing_is_refused,
)
from loom.testing.ledger_rows import (
    a_budget_holds_under_load,
    a_cancelled_reservation_keeps_nothing,
    closing_leaves_open_calls_uncertain,
    every_loop_and_thread_is_served,
    pruning_forgets_rows_and_no_money,
    rows_are_found,
    sums_are_those_of_the_rows,
)

__all__ = ["LEDGER_LAWS", "LedgerLaw", "LedgerMaker", "ledger_contract"]

LedgerLaw: TypeAlias = Callable[[LedgerMaker], Coroutine[Any, Any, None]]


async def ledger_contract(make: LedgerMaker) -> None:
    """
    Put a store to every law.

    Args:
        make: Makes an empty ledger.

    Raises:
        AssertionError: If a law is broken; the message says how.
    """
    for law in LEDGER_LAWS:
        await law(make)


LEDGER_LAWS: tuple[LedgerLaw, ...] = (
    a_reservation_becomes_the_truth,
    a_refusal_names_its_budget_and_leaves_nothing,
    without_a_budget_nothing_is_refused,
    a_ticket_is_settled_once,
    a_dearer_attempt_is_topped_up,
    what_may_be_billed_counts,
    unknown_prices_are_seen,
    other_people_have_other_budgets,
    periods_follow_the_calendar,
    a_warning_is_told_once_a_period,
    amounts_are_exact,
    a_budget_holds_under_load,
    a_cancelled_reservation_keeps_nothing,
    rows_are_found,
    sums_are_those_of_the_rows,
    pruning_forgets_rows_and_no_money,
    every_loop_and_thread_is_served,
    closing_leaves_open_calls_uncertain,
)
"""Every law, for `pytest.mark.parametrize`."""
