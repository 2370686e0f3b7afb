"""Tools that are not async: in daemon threads, never on the loop, never in the way of an end."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import CancelledError
from contextlib import aclosing
from typing import Any

import pytest

from loom.core.ambient import SystemClock
from loom.core.messages import ToolCall
from loom.shuttle import executor as module
from loom.shuttle.executor import Executor
from loom.shuttle.function import tool
from loom.shuttle.result import ToolResult
from loom.shuttle.threads import WorkerThreads, call_in_thread
from loom.testing import turn_until

pytestmark = pytest.mark.anyio


async def results(executor: Executor, calls: list[ToolCall]) -> list[ToolResult]:
    async with aclosing(executor.run(calls)) as run:
        return [event async for event in run if isinstance(event, ToolResult)]


def called(prefix: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == prefix]


def joined(prefix: str) -> bool:
    for thread in called(prefix):
        thread.join(10)
    return not called(prefix)


async def test_plain_tools_run_side_by_side() -> None:
    """Three blocking tools meet at a barrier: they run at once, and not on the loop."""
    barrier = threading.Barrier(3)

    @tool
    def meet(n: int) -> int:
        barrier.wait(10)
        return n

    executor = Executor([meet], clock=SystemClock())

    found = await results(executor, [ToolCall(str(n), "meet", {"n": n}) for n in range(3)])

    assert [True] * 3 == [one.ok for one in found]
    await executor.aclose()
    assert joined("loom-tool")


async def test_a_thread_is_used_again() -> None:
    """Calls one after the other share one thread."""
    threads = WorkerThreads(4, "loom-test-again")

    names = {await call_in_thread(threads, threading.get_ident) for _ in range(5)}

    # The thread counts itself free just after it gave its result: two may be started.
    assert len(names) <= 2
    threads.shutdown()
    assert joined("loom-test-again")


async def test_there_are_never_more_threads_than_may() -> None:
    """Jobs beyond the most wait for a thread, and run in their turn."""
    gate, threads = threading.Event(), WorkerThreads(2, "loom-test-most")

    waiting = [
        asyncio.ensure_future(call_in_thread(threads, lambda: gate.wait(10))) for _ in "abcde"
    ]
    assert await turn_until(lambda: 2 == threads.busy)
    assert 2 == len(called("loom-test-most"))
    gate.set()

    assert [True] * 5 == await asyncio.gather(*waiting)
    threads.shutdown()
    assert joined("loom-test-most")
    assert 0 == threads.busy


async def test_a_job_that_is_cancelled_in_the_queue_never_runs() -> None:
    """What nobody waits for any more is skipped."""
    gate, ran, threads = threading.Event(), [], WorkerThreads(1, "loom-test-queue")

    first = asyncio.ensure_future(call_in_thread(threads, lambda: gate.wait(10)))
    second = asyncio.ensure_future(call_in_thread(threads, lambda: ran.append(1)))
    assert await turn_until(lambda: threads.busy == 1)
    second.cancel()
    await asyncio.wait([second])
    gate.set()

    assert await first
    assert 1 == await call_in_thread(threads, lambda: 1)
    assert [] == ran
    threads.shutdown()


async def test_a_closed_pool_takes_nothing() -> None:
    """After `shutdown` a job is refused; a second `shutdown` does nothing."""
    threads = WorkerThreads(1, "loom-test-closed")
    threads.shutdown()
    threads.shutdown()

    with pytest.raises(RuntimeError, match="the worker threads are closed"):
        await call_in_thread(threads, lambda: 1)


async def test_a_thread_that_cannot_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, the job is refused and nothing is counted."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = WorkerThreads(1, "loom-test-refused")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await call_in_thread(threads, lambda: 1)

    assert 0 == threads.busy
    assert 1 == await call_in_thread(threads, lambda: 1)
    threads.shutdown()


async def test_a_forgotten_pool_ends_its_threads() -> None:
    """A pool that is collected lets its threads go."""
    threads = WorkerThreads(1, "loom-test-forgotten")
    await call_in_thread(threads, lambda: 1)

    del threads
    gc.collect()

    assert joined("loom-test-forgotten")


@pytest.mark.parametrize("error", [CancelledError(), KeyError(1), SystemExit(1)], ids=repr)
async def test_what_a_function_raises_comes_as_it_is(error: BaseException) -> None:
    """An error of a thread is no cancellation, even if it looks like one."""
    threads = WorkerThreads(1, "loom-test-raise")

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await call_in_thread(threads, fail)

    assert error is caught.value
    threads.shutdown()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """The parent's idle thread is not waited for in a child."""
    threads = WorkerThreads(1, "loom-test-fork")
    assert 1 == threads.submit(lambda: 1).result(10)
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        os._exit(threads.submit(lambda: 7).result(10))

    assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    threads.shutdown()


async def test_a_thread_beyond_its_limit_is_abandoned_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hanging thread has its place until it ends; what it returns late is dropped."""
    monkeypatch.setattr(module, "_MIN_THREADS", 1)
    gate, begun = threading.Event(), threading.Event()

    @tool(timeout_s=0.02)
    def hang() -> str:
        begun.set()
        gate.wait(10)
        return "late"

    @tool(timeout_s=0.02)
    def short() -> str:
        return "done"

    executor = Executor([hang, short], clock=SystemClock(), max_parallel=1)

    (found,) = await results(executor, [ToolCall("1", "hang")])
    assert ("error: timed out after 0.02 s", True) == (found.content, begun.is_set())
    (found,) = await results(executor, [ToolCall("2", "short")])
    assert (
        "error: timed out after 0.02 s: it never began, all threads are busy with tools that do"
        " not end"
    ) == found.content
    await executor.aclose()
    assert 1 == len(called("loom-tool"))
    gate.set()
    assert joined("loom-tool")


async def test_a_coroutine_that_comes_too_late_is_closed() -> None:
    """A thread that gives a coroutine after its limit leaves no warning."""
    gate = threading.Event()

    async def inner() -> None: ...

    def late() -> Any:
        gate.wait(10)
        return inner()

    executor = Executor([tool(late, timeout_s=0.02)], clock=SystemClock())

    (found,) = await results(executor, [ToolCall("1", "late")])
    gate.set()
    await executor.aclose()

    assert not found.ok
    assert joined("loom-tool")
    gc.collect()


HANGS = """
import asyncio, threading
from loom import ToolCall, tool
from loom.core.ambient import SystemClock
from loom.shuttle.executor import Executor

@tool(timeout_s=0.05)
def hang() -> str:
    threading.Event().wait()
    return ""

@tool(timeout_s=0.05)
async def swallow() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if closing:
                raise

closing = False

async def main():
    global closing
    executor = Executor([hang, swallow], clock=SystemClock())
    async for event in executor.run([ToolCall("1", "hang"), ToolCall("2", "swallow")]):
        print(getattr(event, "content", "begun"))
    closing = True
    {end}

asyncio.run(main())
print("end")
"""


@pytest.mark.parametrize("end", ["await executor.aclose()", "pass"], ids=["closed", "left"])
@pytest.mark.realtime
def test_a_hanging_tool_keeps_no_program_from_ending(end: str) -> None:
    """A thread that never ends, and a task that swallows its cancellation, end with the program."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HANGS.replace("{end}", end)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip

    assert (0, "Tool swallow does not end when cancelled; left behind\n") == (
        done.returncode,
        done.stderr,
    )
    assert [
        "begun",
        "begun",
        "error: timed out after 0.05 s",
        "error: timed out after 0.05 s",
        "end",
    ] == done.stdout.split("\n")[:-1]


def test_a_tool_may_use_a_blocking_client() -> None:
    """A plain tool asks a model itself: it runs on a thread, and not on the client's loop."""
    from loom import Mistral

    with Mistral(sim=True) as mistral:

        @tool
        def ask(question: str) -> str:
            """Ask another model."""
            return mistral.chat(question).content

        async def main() -> ToolResult:
            executor = Executor([ask], clock=SystemClock())
            (found,) = await results(executor, [ToolCall("1", "ask", {"question": "Hello"})])
            await executor.aclose()
            return found

        found = asyncio.run(main())

    assert found.ok, found.content
    assert found.content
