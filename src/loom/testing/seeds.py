"""
The whole client stack under thousands of seeds: `python -m loom.testing.seeds`.

A seed gives a world: calls, cancellations, faults, a network and a clock that jumps. It is run in
virtual time, and its books are checked. What fails is printed with the seed; the same seed does the
same again, on every machine with this version of Python and of aiohttp.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from loom.agent.session import Said
from loom.core.ambient import SystemClock
from loom.core.errors import LoomError
from loom.testing.chance import Chance
from loom.testing.seeded_accounts import unsound
from loom.testing.seeded_books import broken
from loom.testing.seeded_loop import SeededLoop
from loom.testing.seeded_plan import Plan, draw_plan
from loom.testing.seeded_run import MOST_TURNS, run_world
from loom.testing.seeded_turns import astray
from loom.testing.seeded_world import Alter, Outcome, World

__all__ = ["SeedReport", "main", "run_plan", "run_seed", "run_seeds"]

_MOST_WORLDS = 50


class SeedReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a seed did.

    Attributes:
        seed: Which.
        broken: What does not hold; empty when the books balance.
        trace: What happened, a line each, with the virtual seconds.
        counts: How many calls ended how ("ends: ..."), and how often each fault ("fault: ...") and
            each thing on the way ("seen: ...") occurred.
        requests: What the vendors saw.
        turns: Turns of the loop.
        virtual_s: How long it took in its own time.
    """

    seed: int
    broken: tuple[str, ...]
    trace: tuple[str, ...]
    counts: Counter[str]
    requests: int
    turns: int
    virtual_s: float

    def text(self) -> str:
        """What a person wants to see of it."""
        verdict = [f"  - {fault}" for fault in self.broken] or ["  the books balance"]
        return "\n".join(
            [
                f"seed {self.seed}:",
                *verdict,
                "what happened, in virtual seconds:",
                *self.trace,
                f"replay: python -m loom.testing.seeds {self.seed}",
            ]
        )


def run_seed(seed: int, *, alter: Alter | None = None, check: bool = True) -> SeedReport:
    """
    Run one seed.

    Args:
        seed: Any whole number from 0.
        alter: Changes the client before it is used.
        check: Whether broken books raise.

    Returns:
        What it did.

    Raises:
        AssertionError: If the books do not balance; the message holds the seed and the trace.
    """
    return run_plan(draw_plan(seed), alter=alter, check=check)


def run_plan(plan: Plan, *, alter: Alter | None = None, check: bool = True) -> SeedReport:
    """
    Run a plan, perhaps one that was made by hand.

    Args:
        plan: What happens; its seed draws the rest.
        alter: Changes the client before it is used.
        check: Whether broken books raise.

    Returns:
        What it did.

    Raises:
        AssertionError: If the books do not balance; the message holds the seed and the trace.
    """
    chance = Chance(plan.seed).fork()
    # A turn of an agent is many calls.
    most_turns = MOST_TURNS if plan.agent is None else 4 * MOST_TURNS
    loop = SeededLoop(chance.fork(), weather=plan.weather, most_turns=most_turns)
    world = World(plan, loop, chance)
    # Collected when it likes, garbage would close what a bug left open, at any moment.
    # Of all ages now and then: whoever runs thousands of worlds holds some fifty.
    gc.collect(2 if gc.get_count()[2] > _MOST_WORLDS else 1)
    enabled = gc.isenabled()
    gc.disable()
    try:
        faults = _run(world, alter)
        gc.collect(0)
    finally:
        if enabled:
            gc.enable()
    # A run that was stopped in the middle has books that do not balance anyway.
    report = _report(world, faults or [*broken(world), *unsound(world), *astray(world)])
    if check and report.broken:
        raise AssertionError(report.text())
    return report


def run_seeds(seeds: Iterable[int], *, alter: Alter | None = None) -> Counter[str]:
    """
    Run many seeds.

    Args:
        seeds: Which.
        alter: Changes each client before it is used.

    Returns:
        All their counts, as in `SeedReport`.

    Raises:
        AssertionError: At the first whose books do not balance.
    """
    seen: Counter[str] = Counter()
    for seed in seeds:
        seen.update(run_seed(seed, alter=alter).counts)
    return seen


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Replay a seed, or run many.

    Args:
        arguments: Of the command line; None: the process's own.

    Returns:
        The exit code: 1 if books did not balance.
    """
    logging.getLogger("loom").addHandler(logging.NullHandler())
    parser = argparse.ArgumentParser(
        prog="python -m loom.testing.seeds",
        description="Run the client in worlds drawn from seeds, and check that the books balance.",
    )
    parser.add_argument("seed", nargs="*", type=int, help="replay these and print what happens")
    parser.add_argument("--count", type=int, default=1000, help="how many to run (1000)")
    parser.add_argument("--start", type=int, default=0, help="the first of them (0)")
    given = parser.parse_args(arguments)
    if given.seed:
        reports = [run_seed(seed, check=False) for seed in given.seed]
        _print("\n\n".join(report.text() for report in reports))
        return int(any(report.broken for report in reports))
    return _many(range(given.start, given.start + given.count))


def _many(seeds: Sequence[int]) -> int:
    clock = SystemClock()
    begin_s = clock.monotonic_s()
    seen: Counter[str] = Counter()
    failed: list[int] = []
    for seed in seeds:
        report = run_seed(seed, check=False)
        seen.update(report.counts)
        if report.broken:
            failed.append(seed)
            _print(f"seed {seed}: {report.broken[0]}")
    took_s = clock.monotonic_s() - begin_s
    for kind in sorted(seen):
        _print(f"{seen[kind]:9,}  {kind}")
    verdict = f"{len(failed)} with broken books" if failed else "books balanced"
    _print(f"{len(seeds):,} seeds in {took_s:.0f} s: {verdict}")
    return int(bool(failed))


def _run(world: World, alter: Alter | None) -> list[str]:
    # A deadlock, or a loop that spins, is a finding as all others.
    try:
        with asyncio.Runner(loop_factory=lambda: world.loop) as runner:
            runner.run(run_world(world, alter))
    except AssertionError as error:
        return [str(error)]
    return []


def _report(world: World, faults: list[str]) -> SeedReport:
    begin_s = world.trace[0][0] if world.trace else 0.0
    return SeedReport(
        seed=world.plan.seed,
        broken=tuple(faults),
        trace=tuple(f"{at_s - begin_s:10.4f}  {text}" for at_s, text in world.trace),
        counts=_counts(world),
        requests=sum(len(vendor.journal) for vendor in world.vendors),
        turns=world.loop.turns,
        virtual_s=world.loop.time() - begin_s,
    )


def _counts(world: World) -> Counter[str]:
    counts: Counter[str] = Counter()
    for outcome in world.outcomes:
        counts[f"ends: {_end(outcome)}"] += 1
        counts["seen: cancelled twice"] += len(outcome.cancelled_s) > 1
        counts["seen: retried"] += len(outcome.waits_s)
        counts["seen: queued"] += outcome.queued
        counts["seen: began anew"] += sum(is_event is False for _, is_event in outcome.marks)
    for vendor in world.vendors:
        counts.update(f"fault: {one.fault}" for one in vendor.journal)
        counts.update({f"fault: {name}": count for name, count in vendor.counts.items()})
    counts["seen: refused by the budget"] += world.ledger.refusals
    counts.update(f"row: {row.state}" for row in world.ledger.rows.values())
    counts["seen: kept socket was closed"] += sum(trip.attempts == 2 for trip in world.trips)
    counts["seen: wall clock jumped"] += len(world.plan.jumps)
    words = Counter(one.plan.name.split()[0] for one in world.outcomes if one.turn is not None)
    counts["seen: turn of an agent"] += sum(one.is_turn for one in world.outcomes)
    counts["seen: taken up again"] += words["again"]
    counts["seen: gone on anew"] += words["anew"]
    counts["seen: a tool not run again"] += _not_again(world)
    counts.update(f"tool: {run.how}" for run in world.runs)
    counts["seen: other vendor asked"] += len(world.vendors[1].journal)
    return counts


def _not_again(world: World) -> int:
    """How many tools had begun when their turn broke off, and were left at that."""
    return sum(
        isinstance(entry, Said) and entry.message.text.startswith("error: interrupted")
        for entries in world.histories.values()
        for entry in entries
    )


def _end(outcome: Outcome) -> str:
    error = outcome.error
    if outcome.kind != "error" or not isinstance(error, LoomError):
        return outcome.kind
    return error.code if error.phase is None else f"{error.code} ({error.phase})"


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
