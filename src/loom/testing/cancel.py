"""
The cancellation injector: a coroutine is cancelled at each of its suspensions, and nothing leaks.

It runs the coroutine again and again as a real task, and calls the real `Task.cancel` when the
coroutine has suspended for the k-th time; so `asyncio.timeout`, task groups and shields behave as
they do outside. Each point is tried in two ways:

- *early*: what the task waits for has not come, and is cancelled with it;
- *late*: it has come, and the task is cancelled before it runs again. Here a permit or a socket
  that was just handed over gets lost.

With `twice`, the second cancellation comes at each suspension of the cleanup after the first.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, TypeAlias

import msgspec

from loom.testing.turns import turn_until

__all__ = ["Probes", "Survey", "abandoned_generators", "cancel_everywhere"]

Probes: TypeAlias = Mapping[str, Callable[[], int]]
"""By name: how many of something (sockets, permits, reservations) are held now."""

# Sockets are closed within a few turns of the loop; this is far more.
_SETTLE_TURNS = 200
# For owner tasks that wait for a thread (a ledger's), when turns were not enough.
_SETTLE_S = 2.0


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the injector did.

    Attributes:
        suspensions: How often the coroutine suspends when nobody cancels it.
        runs: How often it was run.
    """

    suspensions: int
    runs: int


async def cancel_everywhere(
    make_coroutine: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[], object] | None = None,
    *,
    probes: Probes | None = None,
    twice: Sequence[bool] = (False, True),
    late: Sequence[bool] = (False, True),
    limit: int = 1000,
) -> Survey:
    """
    Cancel a coroutine at every suspension, and look after each run whether anything is left.

    After each run it holds that `CancelledError` came out, that no task and no half-read async
    generator is left, that each probe shows what it showed before, and that `check` is content.

    Args:
        make_coroutine: Makes the coroutine anew for each run; left alone, it must end by itself.
        check: Raises if something is amiss; called after each run.
        probes: Numbers that must be as before after each run.
        twice: Whether to cancel once, or a second time during the cleanup; by default both.
        late: Whether what was awaited has come when the cancellation does; by default both.
        limit: Suspensions after which the coroutine is taken to be endless.

    Returns:
        How many suspensions there were, and how many runs were made.

    Raises:
        AssertionError: If something leaked; the message says what, and where it was cancelled.
    """
    runner = _Runner(make_coroutine, check, probes or {})
    suspensions = 0
    with abandoned_generators() as runner.abandoned:
        for is_late in late:
            suspensions = await _cancel_at_each(runner, is_late=is_late, twice=twice, limit=limit)
        gc.collect()
        runner.look(runner.last)
    return Survey(suspensions=suspensions, runs=runner.runs)


async def _cancel_at_each(
    runner: _Runner, *, is_late: bool, twice: Sequence[bool], limit: int
) -> int:
    for first in range(limit + 1):
        run = await runner.run((first,), is_late=is_late)
        if not run.places:
            return run.suspensions
        if True in twice:
            for second in range(first + 1, run.suspensions + 1):
                await runner.run((first, second), is_late=is_late)
    raise AssertionError(f"no end after {limit} suspensions: is it endless? If not, raise limit=")


@contextmanager
def abandoned_generators() -> Generator[list[str], None, None]:
    """
    Find async generators that were left half-read for the garbage collector to close.

    Returns:
        A context manager that gives the list of their names and places; it grows.
    """
    found: list[str] = []
    # Not the pair itself: the collector does not look into it, and would free no loop that had a
    # generator with this hook.
    first, last = sys.get_asyncgen_hooks()

    def note(generator: AsyncGenerator[Any, Any]) -> None:
        code: CodeType = getattr(generator, "ag_code")  # noqa: B009  # the ABC does not know it
        found.append(f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})")
        if last is not None:
            last(generator)

    sys.set_asyncgen_hooks(firstiter=first, finalizer=note)
    try:
        yield found
    finally:
        sys.set_asyncgen_hooks(firstiter=first, finalizer=last)


class _Run(Coroutine[Any, Any, object]):
    # A coroutine around the coroutine: the task steps it, so that it sees each suspension.

    def __init__(
        self, inner: Coroutine[Any, Any, object], points: Sequence[int], *, is_late: bool
    ) -> None:
        self.suspensions = 0
        self.places: list[str] = []
        self.task = asyncio.get_running_loop().create_task(self)
        self._inner = inner
        self._points = points
        self._is_late = is_late
        if 0 in points:
            self.places.append("its very start")
            self.task.cancel()

    def __await__(self) -> Generator[Any, Any, object]:  # pragma: no cover - see close
        return self._inner.__await__()

    def send(self, value: Any) -> Any:
        return self._suspended(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._suspended(self._inner.throw(*error))

    def close(self) -> None:  # pragma: no cover - a coroutine has it; no task calls it
        self._inner.close()

    def _suspended(self, awaited: Any) -> Any:
        self.suspensions += 1
        if self.suspensions in self._points:
            self.places.append(_place(self._inner))
            if self._is_late and asyncio.isfuture(awaited):
                # Callbacks run in the order they were added: this one before the task's own.
                awaited.add_done_callback(lambda _: self.task.cancel())
            else:
                self.task.cancel()
        return awaited

    def __str__(self) -> str:
        where = " and then at ".join(self.places) or "no point"
        return f"cancelled {'late' if self._is_late else 'early'} at {where}"


class _Runner:
    def __init__(
        self,
        make_coroutine: Callable[[], Coroutine[Any, Any, object]],
        check: Callable[[], object] | None,
        probes: Probes,
    ) -> None:
        self.runs = 0
        self.abandoned: list[str] = []
        self.last = ""
        self._make_coroutine = make_coroutine
        self._check = check
        self._probes = probes
        self._tasks = asyncio.all_tasks()
        self._before = {name: probe() for name, probe in probes.items()}

    async def run(self, points: Sequence[int], *, is_late: bool) -> _Run:
        run = _Run(self._make_coroutine(), points, is_late=is_late)
        self.runs += 1
        await asyncio.wait([run.task])
        self.last = str(run)
        if run.places and not run.task.cancelled():
            error = run.task.exception()
            how = "returned" if error is None else f"raised {error!r}"
            raise AssertionError(f"it {how} instead of CancelledError, {run}") from error
        if not run.places:
            await run.task  # An error that nobody provoked is raised as it is.
        if not await turn_until(self._settled, at_most=_SETTLE_TURNS) and self._left():
            await asyncio.wait(self._left(), timeout=_SETTLE_S)
        self.look(self.last)
        return run

    def look(self, where: str) -> None:
        for task in self._left():
            raise AssertionError(f"a task is left, {where}: {task!r}")
        for name, probe in self._probes.items():
            now, before = probe(), self._before[name]
            if now != before:
                raise AssertionError(f"{name}: {now} held, {before} before, {where}")
        if self.abandoned:
            raise AssertionError(f"async generator left half-read, {where}: {self.abandoned[0]}")
        if self._check is not None:
            self._check()

    def _left(self) -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - self._tasks

    def _settled(self) -> bool:
        probes = self._probes.items()
        return not self._left() and all(probe() == self._before[name] for name, probe in probes)


def _place(coroutine: object) -> str:
    # Down the chain of awaits to the innermost frame. An `anext()` does not say which generator it
    # drives; the collector knows what it refers to.
    frame: FrameType | None = None
    while coroutine is not None:
        frame = _frame(coroutine) or frame
        coroutine = _awaited(coroutine)
    if frame is None:
        return "an unknown place"
    return f"{frame.f_code.co_qualname} ({frame.f_code.co_filename}:{frame.f_lineno})"


def _frame(coroutine: object) -> FrameType | None:
    match coroutine:
        case CoroutineType():
            return coroutine.cr_frame
        case AsyncGeneratorType():
            return coroutine.ag_frame
        case GeneratorType():
            return coroutine.gi_frame
        case _:
            return None


def _awaited(coroutine: object) -> object:
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        if hasattr(coroutine, name):
            inner: object = getattr(coroutine, name)
            return inner
    for inner in gc.get_referents(coroutine):
        if _frame(inner) is not None:
            return inner
    return None
