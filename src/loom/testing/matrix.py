"""
The fault matrix put to the test: each row with a real client over real sockets.

The rows are those of `core/fault_matrix.toml`; what a server can cause, the simulator causes, and
the rest are scenes (`SCENES`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.faults import FaultCase, FaultRow, fault_matrix
from loom.testing.matrix_agent import AGENT
from loom.testing.matrix_answers import ANSWERS
from loom.testing.matrix_bench import Bench, Scene
from loom.testing.matrix_leaving import LEAVING
from loom.testing.matrix_line import LINE
from loom.testing.matrix_money import MONEY
from loom.testing.matrix_places import PLACES
from loom.testing.matrix_refusals import REFUSALS
from loom.testing.matrix_sight import Sight
from loom.testing.matrix_time import TIME

__all__ = ["SCENES", "FaultResult", "check_row", "matrix_bench", "run_matrix"]

SCENES: Mapping[str, Scene] = {
    **LINE,
    **ANSWERS,
    **LEAVING,
    **TIME,
    **PLACES,
    **REFUSALS,
    **MONEY,
    **AGENT,
}
"""What the simulator cannot cause, or not judge, by its name in `core/fault_matrix.toml`."""

# A case that takes longer hangs.
_CASE_S = 30.0


class FaultResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a row held.

    Attributes:
        id: The row.
        fault: What went wrong.
        expected: What should happen, of each kind of case.
        seen: What happened, and what was not as it must be.
        ok: Whether the two are one; None: the row waits.
        needs: What it waits for; empty: nothing.
        ms: Milliseconds that it took.
    """

    id: str
    fault: str
    expected: str
    seen: str
    ok: bool | None
    needs: str = ""
    ms: int = 0


@asynccontextmanager
async def matrix_bench(
    connect: Callable[..., Any], connect_blocking: Callable[..., Any]
) -> AsyncIterator[Bench]:
    """
    Start what the rows are tested with.

    Args:
        connect: Makes the asynchronous client: `AsyncMistral`.
        connect_blocking: Makes the blocking one: `Mistral`.

    Yields:
        It.
    """
    bench = Bench(connect, connect_blocking)
    # The simulator starts a thread, and waits for it.
    await asyncio.to_thread(bench.simulator.start)
    try:
        yield bench
    finally:
        await asyncio.to_thread(bench.simulator.stop)


async def run_matrix(
    connect: Callable[..., Any],
    connect_blocking: Callable[..., Any],
    ids: Iterable[str] = (),
) -> AsyncIterator[FaultResult]:
    """
    Put rows to the test, one after the other.

    Args:
        connect: Makes the asynchronous client: `AsyncMistral`.
        connect_blocking: Makes the blocking one: `Mistral`.
        ids: Which rows; none: all.

    Yields:
        How each held.

    Raises:
        ConfigInvalid: If there is no such row.
    """
    wanted = list(ids)
    rows = {row.id: row for row in fault_matrix()}
    for unknown in (name for name in wanted if name not in rows):
        raise ConfigInvalid(f"there is no row {unknown!r}; there are {', '.join(rows)}")
    async with matrix_bench(connect, connect_blocking) as bench:
        for row in rows.values():
            if not wanted or row.id in wanted:
                yield await check_row(bench, row)


async def check_row(bench: Bench, row: FaultRow) -> FaultResult:
    """
    Put a row to the test.

    Args:
        bench: What it is tested with.
        row: The row.

    Returns:
        How it held.
    """
    clock = SystemClock()
    began_s = clock.monotonic_s()
    expected: dict[str, None] = {}
    seen: dict[str, None] = {}
    for case in row.cases:
        for stream in _modes(case):
            wanted = _wanted(row, case)
            sight = await _look(bench, row, case, stream=stream)
            expected[_text(wanted)] = None
            told = _text(_without_what_nobody_sees(sight, wanted))
            if told != _text(wanted):
                told = f"{case.fault or case.scene} {'stream' if stream else 'plain'}: {told}"
            seen[told] = None
    waits = bool(row.needs)
    return FaultResult(
        id=row.id,
        fault=row.fault,
        expected="; ".join(expected) or _text(_wanted(row, FaultCase())),
        seen="; ".join(seen),
        ok=None if waits else bool(seen) and list(expected) == list(seen),
        needs=row.needs,
        ms=round(1000 * (clock.monotonic_s() - began_s)),
    )


def _modes(case: FaultCase) -> tuple[bool, ...]:
    if case.mode:
        return (case.mode == "stream",)
    both = not case.scene or SCENES[case.scene].both
    return (True, False) if both else (True,)


def _wanted(row: FaultRow, case: FaultCase) -> Sight:
    wire = row.wire if case.wire is None else case.wire
    attempts = case.attempts
    if attempts is None:
        attempts = row.attempts if case.wire is None and row.attempts is not None else wire
    return Sight(
        code=row.expected if case.expected is None else case.expected,
        phase=row.phase if case.phase is None else case.phase,
        wire=wire,
        attempts=attempts,
        charge=row.charge if case.charge is None else case.charge,
    )


def _without_what_nobody_sees(sight: Sight, wanted: Sight) -> Sight:
    """A call that was ended from outside tells nobody of its attempts and charges."""
    return msgspec.structs.replace(
        sight,
        attempts=wanted.attempts if sight.attempts is None else sight.attempts,
        charge=wanted.charge if sight.charge is None else sight.charge,
        phase=sight.phase if wanted.phase or sight.code != wanted.code else "",
    )


_OUTCOMES = {"": "an answer", "cancelled": "cancelled", "left": "left"}


def _text(sight: Sight) -> str:
    outcome = _OUTCOMES.get(sight.code, sight.code)
    phase = f" ({sight.phase})" if sight.phase and sight.code else ""
    parts = [f"{outcome}{phase}", _counted(sight.wire, "request")]
    if sight.attempts not in (None, sight.wire):
        parts.append(_counted(sight.attempts or 0, "attempt"))
    if sight.charge:
        parts.append(sight.charge)
    return ", BUT ".join([", ".join(parts), *sight.broken])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


async def _look(bench: Bench, row: FaultRow, case: FaultCase, *, stream: bool) -> Sight:
    try:
        async with asyncio.timeout(_CASE_S):
            if case.scene:
                seen = await SCENES[case.scene].play(bench, stream=stream)
            else:
                seen = await _caused(bench, row, case, stream=stream)
            return _counted_right(seen, row.breaker if case.breaker is None else case.breaker)
    except TimeoutError:
        return Sight(code="", broken=(f"it hangs: over after {_CASE_S} s",))
    except Exception as error:  # noqa: BLE001 - a broken row shall not hide the others
        return Sight(code=type(error).__name__, broken=(str(error),))


def _counted_right(seen: Sight, breaker: int) -> Sight:
    """Whether the breaker counted each failed attempt that left, or none of them."""
    teller = seen.error or seen.response
    if seen.failures is None or teller is None or teller.timeline is None:
        return seen
    failed = [attempt for attempt in teller.timeline.attempts if attempt.code and attempt.sends]
    wrong = seen.failures != breaker * len(failed)
    return seen.but(wrong and f"the breaker counted {seen.failures}")


async def _caused(bench: Bench, row: FaultRow, case: FaultCase, *, stream: bool) -> Sight:
    """A row that the simulator causes."""
    wanted = _wanted(row, case)
    short = wanted.phase if wanted.code in ("timeout", "stream_stalled") else ""
    async with bench.line(fault=case.fault, short=short, skip_bad_events=case.skip) as line:
        seen = await bench.sight(line, stream=stream)
        tries = 0 if seen.attempts is None else seen.attempts
        slept = line.clock.slept
        seen = seen.but(
            len(slept) != max(0, tries - 1) and f"it waited {len(slept)} times",
            case.waits is not None
            and not all(case.waits[0] <= wait_s <= case.waits[1] for wait_s in slept)
            and f"it waited {', '.join(f'{wait_s:.2f}' for wait_s in slept)} s",
        )
        if seen.error is not None and wanted.charge == "estimated":
            seen = seen.but(*await bench.partial(seen.error.partial))
        if seen.response is not None and row.same:
            whole = await bench.whole()
            other = seen.response.content != whole.content
            seen = seen.but(other and "the answer is another")
        return seen
