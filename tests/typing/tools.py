"""What type checkers see of tools; checked by mypy and pyright, never run."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, assert_type

from loom import Message, Permissions, Tool, ToolCall, ToolResult, tool, tool_result_message
from loom.core.ambient import SystemClock
from loom.core.messages import Part
from loom.shuttle.executor import Executor
from loom.shuttle.function import FunctionTool
from loom.shuttle.result import ToolBegun


@tool
async def weather(city: str, unit: Literal["c", "f"] = "c") -> dict[str, float]:
    return {city: 1.0}


@tool(name="sum", timeout_s=2.5, approval="ask", repeatable=True)
def add(a: int, b: int = 0) -> int:
    return a + b


class Shop:
    @tool
    def price(self, item: int) -> float:
        return float(item)


def takes_tools(*tools: Tool) -> None: ...


def takes_functions(*tools: FunctionTool[..., Any]) -> None: ...


async def the_function_keeps_its_type() -> None:
    assert_type(await weather("Oslo", unit="f"), dict[str, float])
    assert_type(add(1, b=2), int)
    assert_type(Shop().price(3), float)
    add("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]  an int is asked for
    add()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  `a` is missing


def a_tool_is_a_tool() -> None:
    def plain(x: int) -> str:
        return str(x)

    assert_type(tool(plain)(1), str)
    assert_type(tool(plain, strict=True)(1), str)
    assert_type(tool(functools.partial(plain, 1))(), str)
    takes_tools(weather, add, tool(plain), Shop().price)
    takes_functions(weather, add, tool(plain), Shop().price)
    assert_type(add.name, str)
    assert_type(add.parameters, Mapping[str, Any])
    assert_type(add.timeout_s, float | None)
    assert_type(add.approval, Literal["allow", "deny", "ask"])
    assert_type(add.execute({"a": 1}), Awaitable[Any] | Any)
    tool(plain, approval="perhaps")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]  not a verdict


async def who_writes_the_loop(call: ToolCall) -> None:
    def yes(call: ToolCall) -> bool:
        return call.name == "add"

    async def person(call: ToolCall) -> Literal["allow", "deny"]:
        return "allow"

    hook: Callable[[ToolCall], bool] = yes
    permissions = Permissions(allowed=frozenset({"add"}), approve=hook, ask=person)
    executor = Executor([weather, add], clock=SystemClock(), permissions=permissions)
    async for event in executor.run([call]):
        assert_type(event, ToolBegun | ToolResult)
        if isinstance(event, ToolResult):
            assert_type(event.content, str | tuple[Part, ...])
            assert_type(event.ok, bool)
            assert_type(event.message, Message)
    assert_type(tool_result_message(call, {"a": 1}), Message)
    assert_type(tool_result_message("id", "text"), Message)
