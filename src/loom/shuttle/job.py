"""
One run of a tool: a task, its time limit, and what came of it.

What a tool raises is its failure, and told to the model: `SystemExit` too (a command line's
`sys.exit()` ends no program here), and `TimeoutError`, which is not our limit. `KeyboardInterrupt`
is a person's: it goes through. A cancellation that nobody asked for is the tool's failure.
Fault matrix, row 44.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from loom.core.errors import ToolFailed, ToolTimedOut
from loom.core.messages import Part, ToolCall
from loom.shuttle.output import as_content
from loom.shuttle.result import ToolResult, failed
from loom.shuttle.threads import GRACE_S, WorkerThreads, call_in_thread

__all__ = ["Job"]

_log = logging.getLogger("loom.tools")


class _Outcome(msgspec.Struct, frozen=True):
    value: Any = None
    content: str | tuple[Part, ...] = ""
    cut: bool = False
    error: BaseException | None = None


class Job:
    """
    One run of a tool.

    Args:
        call: Which call it answers.
        start: Calls the tool; for one that is `async`, gives its coroutine.
        is_async: Whether `start` gives a coroutine at once; if not, it runs on a thread.
        limit_s: How long it may take, in seconds.
        max_bytes: The cap of its output.

    Attributes:
        call: As given.
        task: Its task, once it has begun.
        is_left: Whether it did not end when it was cancelled, and nobody waits for it any more.
    """

    def __init__(
        self,
        call: ToolCall,
        start: Callable[[], Any],
        *,
        is_async: bool,
        limit_s: float,
        max_bytes: int,
    ) -> None:
        self.call = call
        self.task: asyncio.Task[_Outcome] | None = None
        self.is_left = False
        self._start = start
        self._is_async = is_async
        self._limit_s = limit_s
        self._max_bytes = max_bytes
        self._is_over = False
        self._has_thread = False
        self._timed_out = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, threads: WorkerThreads, ended: Callable[[Job], object]) -> None:
        """
        Let it run as a task of the running loop.

        Args:
            threads: Where it runs if it is not `async`.
            ended: Called once, when it has ended or was left behind.
        """
        loop = asyncio.get_running_loop()
        name = f"loom-tool {self.call.name}"
        self.task = loop.create_task(self._run(threads), name=name)
        self.task.add_done_callback(lambda _: self._done(ended))
        if self._limit_s < float("inf"):
            self._timer = loop.call_later(self._limit_s, self._expire, ended)

    def stop_timer(self) -> None:
        """Forget the time limit: the job is ended for another reason."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def result(self, duration_s: float) -> ToolResult:
        """
        What came of it.

        Args:
            duration_s: How long it took, in seconds.
        """
        if self._timed_out:
            return failed(self.call, self._timeout(), duration_s)
        if self.task is None or self.task.cancelled():
            return failed(self.call, ToolFailed("cancelled"), duration_s)
        if (error := self.task.exception()) is not None:
            # A KeyboardInterrupt, which has gone through the loop already.
            return failed(self.call, error, duration_s)
        outcome = self.task.result()
        if outcome.error is not None:
            return failed(self.call, outcome.error, duration_s)
        return ToolResult(
            call=self.call,
            content=outcome.content,
            value=outcome.value,
            cut=outcome.cut,
            duration_s=duration_s,
        )

    async def _run(self, threads: WorkerThreads) -> _Outcome:
        try:
            if self._is_async:
                return self._written(await self._start())
            value, outcome = await call_in_thread(threads, self._in_thread)
            # A plain function may give an awaitable: one that was decorated, say.
            return self._written(await value) if outcome is None else outcome
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return _Outcome(error=error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool's failure is a result
            return _Outcome(error=error)

    def _in_thread(self) -> tuple[Any, _Outcome | None]:
        self._has_thread = True
        try:
            value = self._start()
            if not inspect.isawaitable(value):
                return value, self._written(value)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a tool's failure is a result
            # Here, and not in the coroutine: no coroutine can pass a StopIteration on.
            return None, _Outcome(error=error)
        if self._is_over and inspect.iscoroutine(value):
            # Nobody will await it.
            value.close()
        return value, None

    def _written(self, value: Any) -> _Outcome:
        if isinstance(value, BaseException):
            return _Outcome(error=value)
        if isinstance(value, ToolResult):
            content, cut = as_content(value.content, self._max_bytes)
            return _Outcome(value.value, content, cut or value.cut, value.error)
        content, cut = as_content(value, self._max_bytes)
        return _Outcome(value, content, cut)

    def _expire(self, ended: Callable[[Job], object]) -> None:
        self._is_over = self._timed_out = True
        assert self.task is not None  # noqa: S101 - the timer is set when the task is made
        self.task.cancel()
        self._timer = self.task.get_loop().call_later(GRACE_S, self._leave, ended)

    def _leave(self, ended: Callable[[Job], object]) -> None:
        self.is_left = True
        _log.warning("Tool %s does not end when cancelled; left behind", self.call.name)
        ended(self)

    def _done(self, ended: Callable[[Job], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.is_left:
            ended(self)

    def _timeout(self) -> ToolTimedOut:
        words = f"timed out after {self._limit_s:g} s"
        if not self._is_async and not self._has_thread:
            words += ": it never began, all threads are busy with tools that do not end"
        return ToolTimedOut(words)
