"""
The books of a seed, the part of limits and money: what must hold, whatever happened.

As in `seeded_books.py`, each rule yields what it finds broken.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from loom.core.errors import BudgetExceeded, LimitExceeded, LoomError
from loom.ledger.entry import Entry
from loom.testing.seeded_gate import Trip
from loom.testing.seeded_world import Outcome, World

__all__ = ["ACCOUNTS", "unsound"]

_SLACK_S = 0.050
_ROUNDING_S = 1e-6


def unsound(world: World) -> list[str]:
    """
    Check everything of limits and money.

    Args:
        world: After its run.

    Returns:
        What does not hold; nothing when the books balance.
    """
    findings = dict.fromkeys(world.ledger.findings)
    return [*findings, *(fault for rule in ACCOUNTS for fault in rule(world))]


def _a_limiter_holds_nothing(world: World) -> Iterator[str]:
    limiter = world.limiter
    if limiter is not None and limiter.held:
        yield f"{limiter.held} permits of the limiter held"
    if limiter is not None and limiter.queued:
        yield f"{limiter.queued} calls are in line, and nobody waits"


def _a_limit_is_kept(world: World) -> Iterator[str]:
    """In any interval at most as many as the limit says, by what passed the door."""
    limits = world.plan.settings.limits
    # Who waited in the old key's line leaves with the new key.
    if limits is None or world.plan.settings.rotated:
        return
    # A slow reader lets time pass between his permit and his request.
    dawdlers = {outcome.plan.name for outcome in world.outcomes if outcome.plan.dawdle_s}
    for (_, model, _), trips in _by_route(world).items():
        begins = sorted(trip.opened_s for trip in trips)
        if {trip.call for trip in trips} & dawdlers:
            begins = []
        minute, second = limits.requests_per_minute, limits.requests_per_second
        if minute is not None and begins:
            most, span_s = limits.per_interval(minute), limits.refill_interval_s
            count = max(_within(begins, begin_s, begin_s + span_s) for begin_s in begins)
            if count > most:
                yield f"{count} requests for {model} in {span_s} s, {most} may be"
        if second is not None and len(begins) > 1:
            gap_s = min(later_s - one_s for one_s, later_s in pairwise(begins))
            if gap_s < 1 / second - _ROUNDING_S:
                yield f"two requests for {model} within {gap_s:.3f} s, {second} a second may be"
        at_once = max(sum(o.opened_s <= t.opened_s < o.ended_s for o in trips) for t in trips)
        if limits.concurrency is not None and at_once > limits.concurrency:
            yield f"{at_once} requests for {model} at once, {limits.concurrency} may be"


def _within(times: list[float], low: float, high: float) -> int:
    return sum(low <= at_s < high for at_s in times)


def _by_route(world: World) -> dict[tuple[str, str, str], list[Trip]]:
    routes: dict[tuple[str, str, str], list[Trip]] = defaultdict(list)
    for trip in world.trips:
        # What never left, because no socket came free, used nothing.
        if trip.attempts != 0:
            routes[trip.route].append(trip)
    return routes


def _a_refusal_is_justified(world: World) -> Iterator[str]:
    settings = world.plan.settings
    for outcome in world.outcomes:
        name, error = outcome.plan.name, outcome.error
        if isinstance(error, LimitExceeded) and not isinstance(error, BudgetExceeded):
            if outcome.is_turn and settings.limits is not None:
                continue  # its calls have what is left of the turn's own time
            own_s = outcome.plan.deadline_s
            total_s = settings.timeouts.total_s if own_s is None else own_s
            end_s = outcome.began_s + total_s
            if settings.limits is None:
                yield f"{name} was refused by a limiter, and there is none"
            elif outcome.ended_s + (error.retry_after_s or 0.0) < end_s - _SLACK_S:
                yield f"{name} was refused, with {end_s - outcome.ended_s:.3f} s to wait"
        if isinstance(error, BudgetExceeded) and not world.ledger.refusals:
            yield f"{name} was refused by a budget, and the ledger did not"


def _every_call_has_one_row(world: World) -> Iterator[str]:
    for outcome in world.outcomes:
        name = outcome.plan.name
        rows = [row for row in world.ledger.rows.values() if row.tags.get("call") == name]
        if len(rows) > 1 and not outcome.is_turn:
            yield f"{name} has {len(rows)} rows"
        # A budget refused it, or it ended before it was accepted: then nothing was sent.
        if not rows and (_sent(world, outcome) or outcome.kind == "answer"):
            yield f"{name} was sent, and has no row"
        for row in rows:
            if row.state == "open":
                yield f"the row of {name} is still open"


def _a_row_says_what_was(world: World) -> Iterator[str]:
    answered = {
        one.call for vendor in world.vendors for one in vendor.journal if one.whole
    }  # fmt: skip
    for row, outcome in _rows_of_calls(world):
        name = outcome.plan.name
        trips = [trip for trip in world.trips if trip.call == name]
        resent = any((trip.attempts or 0) > 1 for trip in trips)
        response = outcome.response
        if response is not None:
            state = "estimated" if response.usage.estimated else "settled"
            if (state, response.usage.cost_usd) != (row.state, row.cost_usd):
                yield f"{name} cost {response.usage.cost_usd}, its row: {row.state} {row.cost_usd}"
        elif row.state == "settled" and name not in answered:
            yield f"the row of {name} is settled, and nobody answered"
        elif row.state == "released":
            if name in answered and not resent:
                yield f"{name} was answered, and its row is released"
            if row.cost_usd != 0:
                yield f"{name} costs nothing, and its row says {row.cost_usd}"
        elif row.state != "settled" and not trips:
            yield f"{name} was never sent, and its row is {row.state}"
        error = outcome.error
        if isinstance(error, LoomError) and row.code not in ("", "cancelled", error.code):
            yield f"{name} failed as {error.code}, and its row says {row.code}"


def _rows_of_calls(world: World) -> Iterator[tuple[Entry, Outcome]]:
    """Give each row with its call; a turn has one for each of its calls: see the books of turns."""
    calls = {one.plan.name: one for one in world.outcomes if not one.is_turn}
    for row in world.ledger.rows.values():
        if row.tags["call"] in calls:
            yield row, calls[row.tags["call"]]


def _sent(world: World, outcome: Outcome) -> bool:
    return any(trip.call == outcome.plan.name for trip in world.trips)


ACCOUNTS: tuple[Callable[[World], Iterator[str]], ...] = (
    _a_limiter_holds_nothing,
    _a_limit_is_kept,
    _a_refusal_is_justified,
    _every_call_has_one_row,
    _a_row_says_what_was,
)
"""Every rule; a failure names what it found."""
