"""Who decides about a call: the allow-list, a hook, a person; whatever is no clear yes is a no."""

from __future__ import annotations

import asyncio
import functools
import threading
from contextlib import aclosing
from typing import Any

import pytest

from loom.core.errors import ToolDenied
from loom.core.messages import ToolCall
from loom.shuttle.executor import Executor
from loom.shuttle.function import tool
from loom.shuttle.permission import Permissions
from loom.shuttle.result import ToolBegun, ToolResult
from loom.testing import FakeClock, LoopClock, SeededLoop, turn

pytestmark = pytest.mark.anyio

NOBODY = "error: permission denied: a person would have to approve it, and nobody can be asked"


@tool
async def read(name: str) -> str:
    return name


@tool(approval="ask")
async def write(name: str) -> str:
    return name


async def run(permissions: Permissions, *calls: ToolCall) -> tuple[int, list[ToolResult]]:
    """Give how many tools began, and the results in the order of the calls."""
    executor = Executor([read, write], clock=FakeClock(), permissions=permissions)
    async with aclosing(executor.run(calls)) as run:
        found = [event async for event in run]
    await executor.aclose()
    results = [event for event in found if isinstance(event, ToolResult)]
    order = {id(call): index for index, call in enumerate(calls)}
    results.sort(key=lambda one: order[id(one.call)])
    return sum(isinstance(event, ToolBegun) for event in found), results


READ = ToolCall("1", "read", {"name": "a"})
WRITE = ToolCall("2", "write", {"name": "b"})


async def async_yes(call: ToolCall) -> bool:
    await turn()
    return True


class Hook:
    async def __call__(self, call: ToolCall) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (True, "a"),
        ("allow", "a"),
        (False, "error: permission denied"),
        ("deny", "error: permission denied"),
        ("ask", NOBODY),
        (None, "error: permission denied"),
        (1, "error: permission denied"),
        ("yes", "error: permission denied"),
        ([], "error: permission denied"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_a_hook_decides(answer: Any, content: str, *, is_async: bool) -> None:
    """Only True and "allow" let a call run, from an async hook as from a plain one."""

    async def later(call: ToolCall) -> Any:
        return answer

    def now(call: ToolCall) -> Any:
        return answer

    begun, (result,) = await run(Permissions(approve=later if is_async else now), READ)

    assert content == result.content
    assert (1 if result.ok else 0) == begun
    assert result.ok or isinstance(result.error, ToolDenied)


@pytest.mark.parametrize(
    "hook",
    [async_yes, Hook(), functools.partial(async_yes), lambda call: async_yes(call)],  # noqa: PLW0108  it looks plain and is not
    ids=["async", "object", "partial", "lambda"],
)
async def test_each_form_of_hook_is_asked(hook: Any) -> None:
    """A coroutine function in any wrapping is awaited."""
    _, (result,) = await run(Permissions(approve=hook), READ)

    assert "a" == result.content


async def test_a_plain_hook_waits_in_a_thread() -> None:
    """A hook that blocks, as `input()` does, does not hold the loop."""
    gate = threading.Event()

    def hook(call: ToolCall) -> bool:
        return threading.current_thread() is not threading.main_thread() and gate.wait(10)

    async def open_it() -> None:
        await turn(5)
        gate.set()

    (_, (result,)), _ = await asyncio.gather(run(Permissions(approve=hook), READ), open_it())

    assert result.ok


async def test_a_tool_that_asks_needs_a_person() -> None:
    """The tool's own "ask" goes to `ask`; without one the call is denied, and says why."""
    asked: list[str] = []

    def person(call: ToolCall) -> bool:
        asked.append(call.name)
        return True

    begun, results = await run(Permissions(), READ, WRITE)
    assert (1, ["a", NOBODY]) == (begun, [one.content for one in results])

    begun, results = await run(Permissions(ask=person), READ, WRITE)
    assert (2, ["a", "b"]) == (begun, [one.content for one in results])
    assert ["write"] == asked


async def test_a_hook_goes_before_the_tools_own_wish() -> None:
    """`approve` alone decides: what it allows is not asked again."""
    _, results = await run(Permissions(approve=lambda call: call.name == "write"), READ, WRITE)

    assert ["error: permission denied", "b"] == [one.content for one in results]


async def test_a_person_who_is_asked_again_has_said_nothing() -> None:
    """A person's "ask" is no yes."""
    _, (result,) = await run(Permissions(ask=lambda call: "ask"), WRITE)

    assert "error: permission denied" == result.content


async def test_a_person_is_asked_one_question_at_a_time() -> None:
    """Calls that need a person wait for each other; identical ones are asked about once."""
    now, most, asked = 0, 0, []

    async def person(call: ToolCall) -> bool:
        nonlocal now, most
        now += 1
        most = max(most, now)
        asked.append(call.input["name"])
        await turn(3)
        now -= 1
        return True

    calls = [ToolCall(str(n), "write", {"name": name}) for n, name in enumerate("abcb")]
    begun, results = await run(Permissions(ask=person), *calls)

    assert (1, ["a", "b", "c"], 3) == (most, asked, begun)
    assert ["a", "b", "c", "b"] == [one.content for one in results]


async def test_an_invalid_call_asks_nobody() -> None:
    """A person is not asked about what cannot be run."""
    asked: list[ToolCall] = []

    await run(
        Permissions(approve=lambda call: not asked.append(call)),  # type: ignore[func-returns-value]  # True
        ToolCall("1", "read", {"nam": 1}),
        ToolCall("2", "nothing"),
    )

    assert [] == asked


@pytest.mark.parametrize("is_async", [False, True], ids=["plain", "async"])
async def test_a_hook_that_fails_denies(
    caplog: pytest.LogCaptureFixture, *, is_async: bool
) -> None:
    """An error in a hook is logged, and the call denied."""

    async def later(call: ToolCall) -> bool:
        raise ValueError("broken")

    def now(call: ToolCall) -> bool:
        raise ValueError("broken")

    _, (result,) = await run(Permissions(approve=later if is_async else now), READ)

    assert "error: permission denied: the approval failed" == result.content
    assert result.error is not None
    assert isinstance(result.error.__cause__, ValueError)
    assert "Approval of tool read failed: the call is denied" in caplog.text


async def test_a_hook_that_is_cancelled_denies() -> None:
    """A hook that raises `CancelledError` itself is no yes."""

    async def hook(call: ToolCall) -> bool:
        raise asyncio.CancelledError

    _, (result,) = await run(Permissions(approve=hook), READ)

    assert "error: permission denied" == result.content


def test_asking_takes_no_time_of_the_tool() -> None:
    """A person may think for an hour; the tool's limit begins when it does."""

    async def main(clock: LoopClock) -> None:
        async def person(call: ToolCall) -> bool:
            await clock.sleep(3600)
            return True

        @tool(approval="ask", timeout_s=1)
        async def act() -> str:
            await clock.sleep(0.9)
            return "done"

        executor = Executor([act], clock=clock, permissions=Permissions(ask=person))
        async with aclosing(executor.run([ToolCall("1", "act")])) as run:
            found = [event async for event in run]
        result = found[-1]
        assert isinstance(result, ToolResult)
        assert "done" == result.content
        assert pytest.approx(0.9) == result.duration_s

    with asyncio.Runner(loop_factory=lambda: SeededLoop(7)) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SeededLoop)
        runner.run(main(LoopClock(loop)))


async def test_others_run_while_a_person_thinks() -> None:
    """A call that waits for a person holds up no other, and no place among those that run."""
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def person(call: ToolCall) -> bool:
        return await answer

    executor = Executor(
        [read, write], clock=FakeClock(), max_parallel=1, permissions=Permissions(ask=person)
    )
    async with aclosing(executor.run([WRITE, READ])) as run:
        first = [await anext(run), await anext(run)]
        answer.set_result(True)
        rest = [event async for event in run]

    assert [READ, READ] == [event.call for event in first]
    assert [WRITE, WRITE] == [event.call for event in rest]
