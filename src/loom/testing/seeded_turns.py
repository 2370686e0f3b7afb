"""
The books of a seed, the part of agents: what must hold of turns, tools and conversations.

As in `seeded_books.py`, each rule yields what it finds broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

from loom.agent.history import messages_of, settled
from loom.agent.session import Begun, Said
from loom.core.errors import Conflict, InvalidRequest, LoomError, StreamTruncated
from loom.core.messages import Message, ToolCall
from loom.core.response import Usage
from loom.ledger.entry import Entry as Row
from loom.testing.seeded_tools import CLEANING_S, ONCE
from loom.testing.seeded_world import Outcome, World
from loom.wire.mistral.history import legal_history

__all__ = ["TURN_RULES", "astray"]

# A deadline is kept to so much.
_SLACK_S = 0.050
_ROUNDING_S = 1e-6
# What a turn makes another, shorter call after.
_SHORTER = ("budget_exceeded", "context_length_exceeded")


def astray(world: World) -> list[str]:
    """
    Check everything of agents.

    Args:
        world: After its run.

    Returns:
        What does not hold; nothing when the books balance.
    """
    if world.plan.agent is None:
        return []
    return [fault for rule in TURN_RULES for fault in rule(world)]


def _turns(world: World) -> Iterator[tuple[str, Outcome]]:
    return ((one.plan.name, one) for one in world.outcomes if one.is_turn)


def _every_request_is_legal(world: World) -> Iterator[str]:
    for vendor in world.vendors:
        for one in vendor.journal:
            if one.illegal:
                yield f"request {one.number} of {one.call} is illegal: {one.illegal}"


def _an_answer_is_that_of_its_last_call(world: World) -> Iterator[str]:
    whole = {(one.call, one.text) for v in world.vendors for one in v.journal if one.whole}
    for name, outcome in _turns(world):
        for call in outcome.calls:
            if (name, call.content) not in whole:
                yield f"{name} got {call.content!r}, which was never sent to it as a whole answer"
        turn = outcome.turn
        if turn is None:
            continue
        if turn.content != turn.calls[-1].content:
            yield f"{name} got {turn.content!r}, and its last call gave {turn.calls[-1].content!r}"
        if outcome.plan.way == "texts":
            given = "".join(outcome.pieces)
            if given != "".join(call.content for call in turn.calls) and not _as_json(world, name):
                yield f"{name} was given {given!r} as its texts"


def _as_json(world: World, name: str) -> bool:
    # An answer that came as plain JSON is a stream of one event, which is `Completed`.
    return any(one.call == name and one.fault == "json" for v in world.vendors for one in v.journal)


def _usage_is_that_of_the_rows(world: World) -> Iterator[str]:
    for name, outcome in _turns(world):
        rows = _rows(world, name)
        steps = {trip.step for trip in world.trips if trip.call == name}
        if len(rows) < len(steps):
            yield f"{name} sent {len(steps)} requests, and has {len(rows)} rows"
        named = _queue(world, outcome)
        strange = {row.session for row in rows} - {named}
        # Of a conversation that is new, nobody knows the name before its end.
        if strange and (named is not None or world.sessions is None):
            yield f"the rows of {name} are of the sessions {strange}"
        answered = [row for row in rows if not row.code and row.state in ("settled", "estimated")]
        turn = outcome.turn
        if turn is not None:
            if len(answered) != len(turn.calls):
                yield f"{name} has {len(turn.calls)} answers, and {len(answered)} rows of them"
            codes = {row.code for row in rows} - {"", *_SHORTER}
            if codes:
                yield f"{name} went on after {codes}"
            if (wrong := _difference(turn.usage, answered)) is not None:
                yield f"{name} used {wrong}"
        error = outcome.error
        if isinstance(error, LoomError) and answered and not _knows_nothing(error):
            told = error.partial and error.partial.usage
            wrong = "nothing at all" if not told else _difference(told, answered)
            # What the vendor told of the call that failed is in the account too.
            if wrong is not None and (not told or _difference(told, rows) is not None):
                yield f"{name} failed, and used {wrong}"


def _knows_nothing(error: LoomError) -> bool:
    # Raised by who reads texts, when they are to begin anew: only the turn goes on to know.
    return isinstance(error, StreamTruncated) and error.timeline is None


def _what_was_sent_is_told(world: World) -> Iterator[str]:
    for name, outcome in _turns(world):
        if outcome.attempts is None or outcome.kind not in ("answer", "error"):
            continue
        failed = [row for row in _rows(world, name) if row.code]
        if outcome.kind == "error" and failed:
            failed.pop()  # the error tells of it
        # A call that was too dear may have been sent before that was known: its row tells.
        told = outcome.attempts + sum(one.sends for row in failed for one in row.attempts)
        sent = sum(trip.attempts or 0 for trip in world.trips if trip.call == name)
        if told != sent:
            yield f"{name} tells of {told} requests; {sent} were sent"


def _difference(usage: Usage, rows: Sequence[Row]) -> str | None:
    cost_usd = sum((row.cost_usd or Decimal(0) for row in rows), Decimal(0))
    told = (usage.input_tokens, usage.output_tokens, usage.cost_usd or Decimal(0))
    written = (
        sum(row.input_tokens for row in rows),
        sum(row.output_tokens for row in rows),
        cost_usd,
    )
    return None if told == written else f"{told} by its own account, {written} by the ledger"


def _rows(world: World, name: str) -> list[Row]:
    return [row for row in world.ledger.rows.values() if row.tags.get("call") == name]


def _no_tool_runs_twice(world: World) -> Iterator[str]:
    counts = Counter(run.number for run in world.runs if run.tool in ONCE)
    for number, count in counts.items():
        if count > 1:
            yield f"the tool of {number} ran {count} times"
    wanted = {} if world.wishes is None else world.wishes.wanted
    for run in world.runs:
        if run.number not in wanted or wanted[run.number].tool != run.tool:
            yield f"{run.tool} ran for {run.number}, and nobody asked for it"


def _a_tool_ends_with_its_turn(world: World) -> Iterator[str]:
    ends_s = {name: outcome.ended_s for name, outcome in _turns(world)}
    for run in world.runs:
        # One that never ended is among what is held.
        if run.ended_s is not None and run.ended_s > ends_s[run.turn] + _ROUNDING_S:
            late_s = run.ended_s - ends_s[run.turn]
            yield f"{run.tool} {run.number} ran on {late_s:.3f} s after the end of {run.turn}"
        if world.shut_s is not None and run.began_s > world.shut_s + _ROUNDING_S:
            yield f"{run.tool} {run.number} began after its agent was closed"


def _turns_of_a_conversation_queue(world: World) -> Iterator[str]:
    for name, outcome in _turns(world):
        error = outcome.error
        # With a timeline it is a vendor's, about something else.
        if isinstance(error, Conflict) and error.timeline is None:
            yield f"{name} met another turn of its conversation: {error.message}"


def _a_turn_keeps_its_limits(world: World) -> Iterator[str]:
    plan = world.plan.agent
    limits = {} if plan is None else plan.limits
    for name, outcome in _turns(world):
        turn = outcome.turn
        if turn is None:
            continue
        if len(turn.calls) > limits["max_turns"]:
            yield f"{name} asked {len(turn.calls)} times, {limits['max_turns']} it may"
        ran = sum(one.duration_s > 0 and not one.repeated for one in turn.tool_executions)
        if ran > limits["max_tool_executions"]:
            yield f"{name} ran {ran} tools, {limits['max_tool_executions']} it may"
    at_once = max((_running(world, run.began_s) for run in world.runs), default=0)
    turns = sum(1 for _ in _turns(world))
    if at_once > turns * limits.get("max_parallel", 1):
        yield f"{at_once} tools ran at once in {turns} turns"


def _running(world: World, at_s: float) -> int:
    return sum(
        run.began_s <= at_s and (run.ended_s is None or at_s < run.ended_s) for run in world.runs
    )


def _a_turn_keeps_its_deadline(world: World) -> Iterator[str]:
    plan = world.plan.agent
    most_s = 0.0 if plan is None else plan.limits["deadline_s"]
    store_s = 0.0 if plan is None else 5 * plan.store_s
    for name, outcome in _turns(world):
        # One that was ended from outside may have queued until then.
        if outcome.plan.dawdle_s or outcome.kind not in ("answer", "error"):
            continue
        # Turns of one conversation queue, and the time runs from there.
        before = [
            other.ended_s
            for _, other in _turns(world)
            if other is not outcome
            and _queue(world, other) == _queue(world, outcome) is not None
            and outcome.began_s <= other.ended_s <= outcome.ended_s
        ]
        took_s = outcome.ended_s - max([outcome.began_s, *before])
        if took_s > most_s + _SLACK_S + CLEANING_S + store_s:
            yield f"{name} took {took_s:.3f} s, {most_s} s it may"


def _queue(world: World, outcome: Outcome) -> str | None:
    if outcome.session is not None or world.plan.agent is None:
        return outcome.session
    turn = world.plan.agent.turns.get(outcome.plan.name)
    return None if turn is None else turn.session


def _histories_are_legal(world: World) -> Iterator[str]:
    for session, entries in world.histories.items():
        messages = (*messages_of(entries), *settled(entries))
        try:
            legal_history((*messages, Message.user("?")))
        except InvalidRequest as error:
            yield f"the history of {session} is illegal: {error.message}"
        yield from (f"{session}: {fault}" for fault in _mixed_results(world, messages))


def _mixed_results(world: World, messages: Sequence[Message]) -> Iterator[str]:
    plan = world.plan.agent
    most = 0 if plan is None else plan.limits["max_output_bytes"]
    waiting: list[ToolCall] = []
    for message in messages:
        if message.role == "assistant":
            waiting = list(message.tool_calls)
        elif message.role == "tool":
            # The last turn's may be settled after those that came: the wire has them in order.
            call = next(call for call in waiting if call.id == message.tool_call_id)
            waiting.remove(call)
            number = call.input.get("number", "")
            if message.text.startswith("done") and message.text != f"done {number}":
                yield f"{number} got {message.text!r}"
            if message.text.startswith(("much", "huge")) and len(message.text) > most + 200:
                yield f"{number} got {len(message.text)} characters, {most} it may"


def _what_ran_was_written_down(world: World) -> Iterator[str]:
    """Before a tool begins, that it does is durable; what it gave is, before anything follows."""
    if world.sessions is None:
        return
    begun = sum(isinstance(e, Begun) for entries in world.histories.values() for e in entries)
    if begun < len(world.runs):
        yield f"{len(world.runs)} tools ran, and {begun} were written down before"


def _sums_are_those_of_the_entries(world: World) -> Iterator[str]:
    for session, entries in world.histories.items():
        used = [e.usage for e in entries if isinstance(e, Said) and e.usage is not None]
        rows = [
            row
            for row in world.ledger.rows.values()
            if row.session == session and row.state in ("settled", "estimated")
        ]
        if sum(usage.input_tokens for usage in used) > sum(row.input_tokens for row in rows):
            yield f"{session} has more tokens than its calls used"


TURN_RULES: tuple[Callable[[World], Iterator[str]], ...] = (
    _every_request_is_legal,
    _an_answer_is_that_of_its_last_call,
    _usage_is_that_of_the_rows,
    _what_was_sent_is_told,
    _no_tool_runs_twice,
    _a_tool_ends_with_its_turn,
    _turns_of_a_conversation_queue,
    _a_turn_keeps_its_limits,
    _a_turn_keeps_its_deadline,
    _histories_are_legal,
    _what_ran_was_written_down,
    _sums_are_those_of_the_entries,
)
"""Every rule; a failure names what it found."""
