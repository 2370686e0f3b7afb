"""
Runs what a model asked for: in parallel, within limits, each call with exactly one result.

The laws of this file:

1. A call never raises: whatever goes wrong is a result that tells the model.
2. Every call has one result, by its position: ids may repeat. Identical calls run once.
3. When `run` is closed, at whatever point and however often, no task of it is left; a tool that
   swallows its cancellation is given a second, then left to `aclose` with a log line.
4. A tool begins when the consumer has seen its `ToolBegun`, and not before.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from functools import partial
from typing import Any, get_args

from loom.core.ambient import Clock
from loom.core.errors import ToolArgumentsInvalid, ToolDenied, ToolFailed, ToolNotFound
from loom.core.messages import ToolCall
from loom.core.request import ToolSpec
from loom.shuttle.approval import Approvals
from loom.shuttle.arguments import fitted_arguments
from loom.shuttle.batch import Batch, end_tasks
from loom.shuttle.job import Job
from loom.shuttle.permission import Permissions, Verdict
from loom.shuttle.result import ToolBegun, ToolResult
from loom.shuttle.schema_words import nearest, quoted
from loom.shuttle.threads import WorkerThreads
from loom.shuttle.tool import DecodingTool, Tool, tool_specs

__all__ = ["Executor"]

# Threads of tools that do not end count: so many may hang before others wait.
_MIN_THREADS = 32
_MAX_NAMES = 40
_VERDICTS: dict[Any, Verdict] = {word: word for word in get_args(Verdict)}


class _Offer:
    # A tool with what does not change from call to call.

    def __init__(self, tool: Tool, spec: ToolSpec, timeout_s: float) -> None:
        self.tool = tool
        self.spec = spec
        own = getattr(tool, "timeout_s", None)
        self.timeout_s: float = timeout_s if own is None else own
        # A word that nobody knows allows nothing.
        self.approval = _VERDICTS.get(getattr(tool, "approval", "allow"), "deny")
        self._decoding = tool if isinstance(tool, DecodingTool) else None
        # A plain `execute` may give an awaitable at once: the tool says so by its `is_async`.
        said = getattr(tool, "is_async", None)
        self.is_async = inspect.iscoroutinefunction(tool.execute) if said is None else bool(said)

    def starter(self, arguments: dict[str, Any]) -> Callable[[], Any]:
        if self._decoding is not None:
            return partial(self._decoding.run, self._decoding.decode(arguments))
        return partial(self.tool.execute, fitted_arguments(self.spec.parameters, arguments))


class Executor:
    """
    Runs what a model asked for.

    Args:
        tools: What it may ask for; each has its own name.
        clock: Tells how long a tool ran.
        timeout_s: How long a tool may run, in seconds, above 0; a tool's own `timeout_s` goes
            first. Asking a person does not count, waiting for a thread does.
        max_output_bytes: Bytes (UTF-8) of a result that the model is shown, at least 1.
        max_parallel: How many tools of one answer run at once, at least 1.
        permissions: Which calls may be run.

    Raises:
        InvalidRequest: If a tool is malformed, or two have the same name.
        TypeError: If something is no tool.
        ValueError: If a number is out of its range.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        clock: Clock,
        timeout_s: float = 30.0,
        max_output_bytes: int = 65_536,
        max_parallel: int = 10,
        permissions: Permissions = Permissions(),  # noqa: B008 - a frozen value
    ) -> None:
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be above 0, not {timeout_s!r}")
        if max_output_bytes < 1 or max_parallel < 1:
            raise ValueError("max_output_bytes and max_parallel must be at least 1")
        every = tuple(tools)
        for one in every:
            if not callable(getattr(one, "execute", None)):
                raise TypeError(f"a {type(one).__name__} is no tool: decorate functions with @tool")
        specs = tool_specs(every)
        self._tools = {
            spec.name: _Offer(one, spec, timeout_s) for one, spec in zip(every, specs, strict=True)
        }
        self._allowed = {
            name
            for name in self._tools
            if permissions.allowed is None or name in permissions.allowed
        }
        self._clock = clock
        self._max_bytes = max_output_bytes
        self._max_parallel = max_parallel
        self._approvals = Approvals(permissions)
        self._threads = WorkerThreads(max(_MIN_THREADS, max_parallel), "loom-tool")
        self._batches: dict[Batch, None] = {}
        self._strays: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """What the model is told: the tools that may be run, in the order in which they came."""
        return tuple(offer.spec for name, offer in self._tools.items() if name in self._allowed)

    def tool(self, name: str) -> Tool | None:
        """
        A tool, allowed or not.

        Args:
            name: Its name.

        Returns:
            The tool; None if there is none of that name.
        """
        found = self._tools.get(name)
        return None if found is None else found.tool

    async def run(
        self, calls: Sequence[ToolCall], *, limit_s: float | None = None
    ) -> AsyncGenerator[ToolBegun | ToolResult, None]:
        """
        Run the calls of one answer.

        Closed before its end, it cancels the tools that run and waits for them: use it with
        `contextlib.aclosing`.

        Args:
            calls: In the order of the answer.
            limit_s: How long all of them may take, in seconds; None: any time. When it is over
                what runs is ended, and nothing more begins.

        Yields:
            A `ToolBegun` before each tool that really begins (none for calls that are repeated,
            denied, unknown or invalid), and one `ToolResult` for each call, as they complete; none
            for those that had none when the limit was over.

        Raises:
            RuntimeError: After `aclose`.
        """
        if self._ends():
            raise RuntimeError("the executor is closed")
        batch = Batch(self._clock, self._threads, self._approvals, self._leave)
        self._batches[batch] = None
        left = len(calls)
        try:
            if limit_s is not None:
                batch.expire_in(limit_s)
            batch.admit(calls, self._prepared)
            while left:
                if batch.results:
                    # First: what is done is told, and written down, before more is begun.
                    left -= 1
                    yield batch.results.popleft()
                elif batch.is_late:
                    break
                elif batch.ready and (self._ends() or batch.running < self._max_parallel):
                    entry = batch.ready.popleft()
                    if not self._ends():
                        yield ToolBegun(entry.job.call)
                    if self._ends():
                        batch.refuse(entry, ToolFailed("the executor is closed"))
                    else:
                        batch.begin(entry)
                else:
                    await batch.news()
        finally:
            del self._batches[batch]
            await batch.close()

    async def aclose(self) -> None:
        """
        Cancel what runs, and give back the threads; a second time does nothing.

        A tool that does not end within a second is left to itself, with a log line: its thread is
        a daemon, and keeps no program from ending.
        """
        self._is_closed = True
        loop = asyncio.get_running_loop()
        # A task of another loop is that loop's to end.
        waiting = {task for task in self._strays if task.get_loop() is loop}
        for task in waiting:
            task.cancel()
        for batch in self._batches:
            waiting |= batch.cancel()
        try:
            await end_tasks(waiting)
        finally:
            self._threads.shutdown()
            self._approvals.close()

    def _ends(self) -> bool:
        return self._is_closed

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._strays.add(task)
        task.add_done_callback(self._strays.discard)

    def _prepared(self, call: ToolCall) -> tuple[Job, Verdict]:
        if call.name not in self._tools:
            raise ToolNotFound(self._not_found(call.name))
        if call.name not in self._allowed:
            raise ToolDenied("permission denied")
        if call.problem is not None:
            raise ToolArgumentsInvalid(f"invalid arguments: {call.problem}")
        offer = self._tools[call.name]
        job = Job(
            call,
            offer.starter(call.input),
            is_async=offer.is_async,
            limit_s=offer.timeout_s,
            max_bytes=self._max_bytes,
        )
        return job, offer.approval

    def _not_found(self, name: str) -> str:
        names = [known for known in self._tools if known in self._allowed]
        shown = quoted(name).strip("`")
        if not names:
            return f"tool not found: {shown}; there are no tools"
        told = f"tool not found: {shown}; the tools are: {', '.join(names[:_MAX_NAMES])}"
        if len(names) <= _MAX_NAMES:
            return told
        meant = nearest(name, names)
        return f"{told}, ..." + (f"; did you mean {meant}?" if meant else "")
