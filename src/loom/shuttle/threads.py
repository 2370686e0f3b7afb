"""
Worker threads for functions that are not `async`: a loop never waits inside a stranger's code.

The laws of this file:

1. The threads are daemons, and nobody joins them: one that never ends keeps no program from
   ending.
2. A thread that nobody waits for any more still counts: there are never more than `most`.
3. A function's outcome travels as a value: whatever it raises, a `CancelledError` included,
   reaches who waits as what it is (`call_in_thread`).
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar, cast

__all__ = ["GRACE_S", "WorkerThreads", "call_in_thread"]

GRACE_S = 1.0
"""How long a tool that was cancelled may take to end, in seconds."""

T = TypeVar("T")

_Job: TypeAlias = "tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]] | None"


class _State:
    # What the threads hold; not the pool, so that one that is forgotten is collected.

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.lock = threading.Lock()
        self.pid = os.getpid()
        self.threads = 0
        # Threads that wait; below 0, jobs that wait for a thread.
        self.waiting = 0
        self.is_closed = False


class WorkerThreads(Executor):
    """
    A few daemon threads, started when they are needed.

    `loop.run_in_executor` takes it.

    Args:
        most: How many threads there are at most, at least 1.
        name: What the threads are called.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._state = _State()
        self._finalizer = weakref.finalize(self, _close, self._state)
        # At exit nobody is woken: daemon threads end with the interpreter.
        self._finalizer.atexit = False

    @property
    def busy(self) -> int:
        """How many threads run something now, those included that nobody waits for."""
        with self._state.lock:
            return self._state.threads - max(0, self._state.waiting)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Run a function on a thread, now or when one is free.

        Args:
            fn: What to run.
            args: For it.
            kwargs: For it.

        Returns:
            A future; cancelled before a thread takes it, the function is not run.

        Raises:
            RuntimeError: After `shutdown`, or when the interpreter exits.
        """
        state = self._state
        if state.pid != os.getpid():
            # A forked child has none of the threads.
            state = self._state = _State()
            self._finalizer = weakref.finalize(self, _close, state)
            self._finalizer.atexit = False
        future: Future[Any] = Future()
        with state.lock:
            if state.is_closed:
                raise RuntimeError("the worker threads are closed")
            starts = state.waiting <= 0 and state.threads < self._most
            state.waiting -= 0 if starts else 1
            state.threads += 1 if starts else 0
        if starts:
            self._start(state)
        state.jobs.put((future, fn, args, kwargs))
        return future

    def _start(self, state: _State) -> None:
        thread = threading.Thread(target=_work, args=(state,), name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # The interpreter exits, or the system has no more threads.
            with state.lock:
                state.threads -= 1
            raise

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - the base class's
        """
        End the threads that wait, and those that run when they are done; nobody is waited for.

        Args:
            wait: Not heeded.
            cancel_futures: Not heeded.
        """
        del wait, cancel_futures
        _close(self._state)


def _close(state: _State) -> None:
    with state.lock:
        if state.is_closed:
            return
        state.is_closed = True
        threads = state.threads
    for _ in range(threads):
        state.jobs.put(None)


def _work(state: _State) -> None:
    while (job := state.jobs.get()) is not None:
        future, function, args, kwargs = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - it belongs to who waits
                future.set_exception(error)
        del job, future, function, args, kwargs
        with state.lock:
            state.waiting += 1
    with state.lock:
        state.threads -= 1
        state.waiting -= 1


async def call_in_thread(threads: WorkerThreads, function: Callable[[], T]) -> T:
    """
    Call a function on a worker thread and wait for what it gives.

    Context variables are carried over. Cancelled, it waits no longer; the function goes on if a
    thread has taken it, and its outcome is dropped.

    Args:
        threads: Whose.
        function: What to call.

    Returns:
        What it returned.

    Raises:
        BaseException: Whatever it raised.
    """
    loop = asyncio.get_running_loop()
    outcome = await loop.run_in_executor(threads, _caught, copy_context().run, function)
    value, error = outcome
    if error is not None:
        try:
            raise error
        finally:
            # The error's traceback holds this frame, and the frame would hold the error.
            del error, outcome
    return cast("T", value)


def _caught(
    run: Callable[[Callable[[], T]], T], function: Callable[[], T]
) -> tuple[T | None, BaseException | None]:
    # asyncio refuses to hand a StopIteration on, and takes some errors for a cancellation.
    try:
        return run(function), None
    except BaseException as error:  # noqa: BLE001 - it belongs to who waits
        return None, error
