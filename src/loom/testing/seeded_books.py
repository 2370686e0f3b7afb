"""
The books of a seed: what must hold, whatever happened.

Each rule is a generator that yields what it finds broken. A rule is pure: it reads the record.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from loom.core.errors import LoomError, StreamTruncated
from loom.testing.seeded_gate import Trip
from loom.testing.seeded_plan import KEY, NEW_KEY, OTHER_KEY
from loom.testing.seeded_tools import CLEANING_S
from loom.testing.seeded_vendor import Served
from loom.testing.seeded_world import Outcome, World

__all__ = ["RULES", "broken"]

# A deadline is kept to so much, and so is a cancellation.
_SLACK_S = 0.050
_ROUNDING_S = 1e-6
# What a 4xx may be followed by another request after: design, "Errors, in one table".
_AGAIN = (408, 409, 425, 429)


def broken(world: World) -> list[str]:
    """
    Check everything.

    Args:
        world: After its run.

    Returns:
        What does not hold; nothing when the books balance.
    """
    return [*world.leaks, *(fault for rule in RULES for fault in rule(world))]


def _every_call_ends_once(world: World) -> Iterator[str]:
    for outcome in world.outcomes:
        name, kind = outcome.plan.name, outcome.kind
        if kind in ("", "bug"):
            yield f"{name} ended in no way that there is: {outcome.error!r}"
        if kind == "cancelled" and not outcome.cancelled_s:
            yield f"{name} was cancelled, and nobody asked for it"
        if outcome.cancelled_s and kind != "cancelled":
            yield f"{name} was to be cancelled and ended as {kind}"
        slack_s = _SLACK_S + (CLEANING_S if outcome.is_turn else 0.0)
        if outcome.cancelled_s and outcome.ended_s > outcome.cancelled_s[0] + slack_s:
            late_s = outcome.ended_s - outcome.cancelled_s[0]
            yield f"{name} ended {late_s:.3f} s after it was cancelled"
        if kind == "limit" and outcome.ended_s > _limit_s(outcome) + slack_s:
            yield f"{name} went on after its caller's own limit"
        if kind == "left" and not outcome.plan.leave:
            yield f"{name} ended as if its reader had left"


def _limit_s(outcome: Outcome) -> float:
    return outcome.began_s + (outcome.plan.limit_s or 0.0)


def _closing_breaks_off(world: World) -> Iterator[str]:
    dawdlers = {outcome.plan.name for outcome in world.outcomes if outcome.plan.dawdle_s}
    for trip in world.trips:
        closed_s = world.closed_s
        if closed_s is None or trip.opened_s > closed_s or trip.call in dawdlers:
            continue
        if trip.ended_s > closed_s + _SLACK_S:
            yield f"{trip.call} was not broken off when its client was closed"


def _an_answer_is_whole_and_ones_own(world: World) -> Iterator[str]:
    whole = {(one.call, one.text): one for one in _served(world) if one.whole}
    for outcome in world.outcomes:
        if outcome.response is None:
            continue
        name, way = outcome.plan.name, outcome.plan.way
        one = whole.get((name, outcome.text))
        if one is None:
            yield f"{name} got {outcome.text!r}, which was never sent to it as a whole answer"
        # An answer that came as plain JSON is a stream of one event, which is `Completed`.
        elif way == "events" and one.fault == "json" and not outcome.pieces:
            continue
        elif way in ("events", "texts") and "".join(outcome.pieces) != outcome.text:
            yield f"{name} was given {outcome.pieces}, and then {outcome.text!r} as the whole"


def _a_failure_keeps_what_came(world: World) -> Iterator[str]:
    for outcome in world.outcomes:
        error = outcome.error
        if isinstance(error, LoomError) and error.partial is not None:
            texts = [one.text for one in _served(world) if one.call == outcome.plan.name]
            if not any(text.startswith(error.partial.text) for text in texts):
                yield f"{outcome.plan.name} failed with the text of another: {error.partial.text!r}"


def _a_deadline_is_kept(world: World) -> Iterator[str]:
    for outcome in world.outcomes:
        if outcome.late_s > _SLACK_S:
            yield f"{outcome.plan.name} ended {outcome.late_s:.3f} s after its deadline"


def _what_was_sent_is_reported(world: World) -> Iterator[str]:
    served = _served(world)
    for outcome in world.outcomes:
        if outcome.kind not in ("answer", "error") or _knows_nothing(outcome):
            continue
        if outcome.is_turn:
            continue  # several calls: see the books of turns
        name = outcome.plan.name
        trips = [trip for trip in world.trips if trip.call == name]
        seen = sum(one.call == name for one in served)
        sent = sum(trip.attempts or 0 for trip in trips)
        answered = sum(trip.status is not None for trip in trips)
        if outcome.attempts != sent:
            yield f"{name} reports {outcome.attempts} requests; {sent} were sent"
        if not answered <= seen <= sent:
            yield (
                f"{name}: {sent} requests were sent and {answered} answered; the vendor saw {seen}"
            )
        told = outcome.response or outcome.error
        timeline = getattr(told, "timeline", None)
        if timeline is not None and timeline.sends != outcome.attempts:
            yield f"{name}: {outcome.attempts} requests, {timeline.sends} in the timeline"


def _knows_nothing(outcome: Outcome) -> bool:
    # Raised by who reads texts, when they are to begin anew: only the stream goes on to know.
    error = outcome.error
    return isinstance(error, StreamTruncated) and error.timeline is None


def _nothing_is_sent_after_the_first_event(world: World) -> Iterator[str]:
    for outcome in world.outcomes:
        marks = outcome.marks
        for trip in _trips_of(world, outcome):
            before = [is_event for order, is_event in marks if order < trip.order]
            if before and before[-1]:
                yield f"{outcome.plan.name} was sent again after its first event"
        if any(is_event is False for _, is_event in marks) and not world.plan.settings.rescue:
            yield f"{outcome.plan.name} began anew without rescue"


def _a_refusal_is_final(world: World) -> Iterator[str]:
    refused: dict[tuple[str, int, tuple[str, str, str]], int] = {}
    for trip in world.trips:
        who = (trip.call, trip.step, trip.route)
        if who in refused:
            yield f"{trip.call} was sent to {trip.route[1]} again after a {refused[who]}"
        status = trip.status or 200
        one = _row(world, trip)
        no_plan = one is not None and one.fault == "429 not in plan"
        if no_plan or (400 <= status < 500 and status not in _AGAIN):
            refused[who] = status


def _waits_are_kept(world: World) -> Iterator[str]:
    policy = world.plan.settings.retry
    for trip in world.trips:
        one = _row(world, trip)
        asked_s = None if one is None else one.retry_after_s
        later = [
            other.opened_s
            for other in world.trips
            if other.order > trip.order
            and (other.call, other.step, other.route) == (trip.call, trip.step, trip.route)
        ]
        if asked_s is None or not later:
            continue
        waited_s = later[0] - trip.ended_s
        if waited_s < asked_s - _ROUNDING_S:
            yield f"{trip.call} waited {waited_s:.3f} s; {asked_s} s were asked for"
        if policy is not None and asked_s > policy.retry_after_cap_s:
            yield f"{trip.call} waited {asked_s} s, more than it may"


def _attempts_are_limited(world: World) -> Iterator[str]:
    policy = world.plan.settings.retry
    most = 1 if policy is None else max(policy.attempts, policy.rate_limit_attempts, 2)
    routes = 1 + len(world.plan.settings.fallback)
    for outcome in world.outcomes:
        steps = Counter(trip.step for trip in _trips_of(world, outcome))
        for count in steps.values():
            if count > most * routes:
                yield f"{outcome.plan.name} was tried {count} times"


def _keys_stay_at_home(world: World) -> Iterator[str]:
    for vendor, keys in zip(world.vendors, ({KEY, NEW_KEY}, {OTHER_KEY}), strict=True):
        for one in vendor.journal:
            if one.key not in keys:
                yield f"request {one.number} of {one.call} brought a key that is not its vendor's"


def _served(world: World) -> list[Served]:
    return [one for vendor in world.vendors for one in vendor.journal]


def _trips_of(world: World, outcome: Outcome) -> list[Trip]:
    return [trip for trip in world.trips if trip.call == outcome.plan.name]


def _row(world: World, trip: Trip) -> Served | None:
    """What the vendor did, when the client saw its status."""
    for one in _served(world):
        if (
            one.call == trip.call
            and (one.model, one.key) == trip.route[1:]
            and trip.opened_s <= one.at_s <= trip.ended_s
            and one.status == trip.status
        ):
            return one
    return None


RULES: tuple[Callable[[World], Iterator[str]], ...] = (
    _every_call_ends_once,
    _closing_breaks_off,
    _an_answer_is_whole_and_ones_own,
    _a_failure_keeps_what_came,
    _a_deadline_is_kept,
    _what_was_sent_is_reported,
    _nothing_is_sent_after_the_first_event,
    _a_refusal_is_final,
    _waits_are_kept,
    _attempts_are_limited,
    _keys_stay_at_home,
)
"""Every rule; a failure names what it found."""
