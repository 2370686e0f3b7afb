"""The calls of one answer on their way: who is asked, who runs, what has come."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import ToolDenied, ToolError
from loom.core.messages import ToolCall
from loom.shuttle.approval import Approvals
from loom.shuttle.identical import call_key
from loom.shuttle.permission import Verdict
from loom.shuttle.result import ToolResult, failed
from loom.shuttle.threads import GRACE_S, WorkerThreads

if TYPE_CHECKING:
    # Shorter chains of imports: the executor makes the jobs.
    from loom.shuttle.job import Job

__all__ = ["Batch", "Entry", "end_tasks"]

_log = logging.getLogger("loom.tools")


class Entry(msgspec.Struct, eq=False):
    """
    A call that may be run, and those that are identical to it.

    Attributes:
        job: Its run.
        own: What the tool says itself of its approval.
        repeats: Identical calls of the same answer; they get the same result.
        asking: The task that asks whether it may be run.
        began_s: When it began, in seconds of the clock.
    """

    job: Job
    own: Verdict
    repeats: list[ToolCall] = []
    asking: asyncio.Task[None] | None = None
    began_s: float = 0.0


class Batch:
    """
    The calls of one answer.

    Args:
        clock: Tells how long a tool ran.
        threads: Where tools run that are not `async`.
        approvals: Who is asked.
        left: Told of each task that does not end when it is cancelled.

    Attributes:
        results: What has come, and was not handed on yet.
        ready: Who may begin, in order.
        running: How many run now.
        is_late: Whether the time for all of them is over.
    """

    def __init__(
        self,
        clock: Clock,
        threads: WorkerThreads,
        approvals: Approvals,
        left: Callable[[asyncio.Task[Any]], object],
    ) -> None:
        self.results: deque[ToolResult] = deque()
        self.ready: deque[Entry] = deque()
        self.running = 0
        self.is_late = False
        self._timer: asyncio.TimerHandle | None = None
        self._clock = clock
        self._threads = threads
        self._approvals = approvals
        self._left = left
        self._entries: list[Entry] = []
        self._news = asyncio.Event()
        self._person = asyncio.Lock()
        self._is_over = False

    def admit(
        self, calls: Iterable[ToolCall], prepare: Callable[[ToolCall], tuple[Job, Verdict]]
    ) -> None:
        """
        Take calls in: each becomes ready, is asked about, or has its result at once.

        Args:
            calls: In the order of the answer.
            prepare: Gives a call's job and what its tool says of approval; an error that it
                raises is the call's result.
        """
        met: dict[Any, Entry | ToolResult] = {}
        every = tuple(calls)
        for call in every:
            key = call_key(call) if len(every) > 1 else None
            known = met.get(key)
            if known is None:
                met[key] = self._admitted(call, prepare)
            elif isinstance(known, Entry):
                known.repeats.append(call)
            else:
                self.results.append(_repeated(known, call))

    def begin(self, entry: Entry) -> None:
        """
        Let a call's tool run.

        Args:
            entry: One of `ready`.
        """
        entry.began_s = self._clock.monotonic_s()
        self.running += 1
        entry.job.begin(self._threads, lambda _: self._ended(entry))

    def expire_in(self, limit_s: float) -> None:
        """
        Let the time run for all calls.

        Args:
            limit_s: In seconds; not above 0: it is over.
        """
        if limit_s > 0:
            self._timer = asyncio.get_running_loop().call_later(limit_s, self._expire)
        else:
            self.is_late = True

    async def news(self) -> None:
        """Wait until something is ready, or has a result."""
        await self._news.wait()
        self._news.clear()

    def refuse(self, entry: Entry, error: ToolError) -> None:
        """
        Give a call that is ready an error instead of letting it run.

        Args:
            entry: One of `ready`.
            error: Why.
        """
        self._finish(entry, failed(entry.job.call, error))

    def cancel(self) -> set[asyncio.Task[Any]]:
        """Cancel everything, and give the tasks that still have to end."""
        waiting: list[asyncio.Task[Any]] = []
        for entry in self._entries:
            entry.job.stop_timer()
            if entry.asking is not None:
                waiting.append(entry.asking)
            if entry.job.task is not None and not entry.job.is_left:
                waiting.append(entry.job.task)
        waiting = [task for task in waiting if not task.done()]
        # In the order of the calls, and not of a set: what happens now is the same each time.
        for task in waiting:
            # One that is ending for its time limit is left to its clean-up.
            if not task.cancelling():
                task.cancel()
        return set(waiting)

    async def close(self) -> None:
        """Cancel everything, and wait for its end; what comes now is no result."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        for task in await end_tasks(self.cancel()):
            self._left(task)

    def _admitted(
        self, call: ToolCall, prepare: Callable[[ToolCall], tuple[Job, Verdict]]
    ) -> Entry | ToolResult:
        try:
            job, own = prepare(call)
        except Exception as error:  # noqa: BLE001 - a stranger's schema, or its own decoder
            return self._failed(call, error)
        if own == "deny" and not self._approvals.must_ask(own):
            return self._failed(call, ToolDenied("permission denied"))
        entry = Entry(job, own)
        self._entries.append(entry)
        if self._approvals.must_ask(own):
            asking = self._approvals.decide(call, own, self._person)
            entry.asking = asyncio.create_task(asking, name=f"loom-approval {call.name}")
            entry.asking.add_done_callback(lambda task: self._decided(entry, task))
        else:
            self.ready.append(entry)
        return entry

    def _failed(self, call: ToolCall, error: Exception) -> ToolResult:
        result = failed(call, error)
        self.results.append(result)
        return result

    def _decided(self, entry: Entry, task: asyncio.Task[None]) -> None:
        # Asked for in any case: asyncio would complain of an error that nobody looked at.
        error = None if task.cancelled() else task.exception()
        if self._is_over:
            return
        if task.cancelled():
            self._finish(entry, failed(entry.job.call, ToolDenied("permission denied")))
        elif error is not None:
            self._finish(entry, failed(entry.job.call, error))
        else:
            self.ready.append(entry)
            self._news.set()

    def _expire(self) -> None:
        self.is_late = True
        self._news.set()

    def _ended(self, entry: Entry) -> None:
        self.running -= 1
        if entry.job.is_left and entry.job.task is not None:
            self._left(entry.job.task)
        if not self._is_over:
            duration_s = self._clock.monotonic_s() - entry.began_s
            self._finish(entry, entry.job.result(duration_s))

    def _finish(self, entry: Entry, result: ToolResult) -> None:
        self.results.append(result)
        self.results.extend(_repeated(result, call) for call in entry.repeats)
        self._news.set()


async def end_tasks(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """
    Wait for tasks that were cancelled, at most a second.

    Args:
        tasks: Which.

    Returns:
        Those that have not ended.

    Raises:
        CancelledError: At the end, if whoever waits was cancelled meanwhile.
    """
    loop = asyncio.get_running_loop()
    until_s = loop.time() + GRACE_S
    cancelled: asyncio.CancelledError | None = None
    while tasks and (rest_s := until_s - loop.time()) > 0:
        try:
            await asyncio.wait(tasks, timeout=rest_s)
        except asyncio.CancelledError as error:
            # No task is left behind because its owner is in a hurry.
            cancelled = error
        tasks = {task for task in tasks if not task.done()}
    for task in tasks:
        _log.warning("Task %s does not end when cancelled; left behind", task.get_name())
    if cancelled is not None:
        raise cancelled
    return tasks


def _repeated(result: ToolResult, call: ToolCall) -> ToolResult:
    return msgspec.structs.replace(result, call=call, repeated=True)
