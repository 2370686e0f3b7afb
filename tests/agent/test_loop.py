"""The loop: ask, run tools, ask again; every limit ends well."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from tests.agent.kit import MODEL, Echo, Rig, Script, answer, call, calls, results

from loom.agent.events import CallCompleted, Done, ToolFinished, ToolStarted
from loom.agent.limits import AgentLimits
from loom.agent.response import total_usage
from loom.agent.session_memory import MemorySessions
from loom.core.errors import (
    BudgetExceeded,
    ConfigInvalid,
    ContentBlocked,
    ContextTooLong,
    OutputInvalid,
    RateLimited,
    ToolArgumentsInvalid,
    ToolCallMissing,
    ToolDenied,
    ToolFailed,
    ToolNotFound,
    ToolTimedOut,
)
from loom.core.events import StreamEvent, TextDelta
from loom.core.messages import Message, ToolCall
from loom.core.request import ChatRequest, NamedTool
from loom.core.response import LLMResponse, Usage
from loom.providers.scripted import ScriptedProvider
from loom.shuttle.permission import Permissions
from loom.testing import FakeClock

pytestmark = pytest.mark.anyio


def one(name: str = "echo", id: str = "abcdefgh1", **given: Any) -> Message:  # noqa: A002 - the wire's word
    return calls(call(id, name, **given))


async def test_a_plain_answer_ends_the_turn() -> None:
    """Without calls there is one request, and its text is the answer."""
    rig = Rig(["Hi there."], Echo())
    response = await rig.chat()
    assert "Hi there." == response.content
    assert 1 == len(response.calls) == len(rig.requests)
    assert () == response.tool_executions
    assert response.stopped_by is None


async def test_a_tool_is_run_and_its_result_goes_back() -> None:
    """The second request holds the call and its result, in the model's own order."""
    tool = Echo(gives={"rain": True})
    rig = Rig([one(city="Lyon"), "It rains."], tool)
    response = await rig.chat("Does it rain?")
    assert [{"city": "Lyon"}] == tool.inputs
    roles = [message.role for message in rig.requests[1].messages]
    assert ["user", "assistant", "tool"] == roles
    assert ['{"rain":true}'] == results(rig.requests[1].messages)
    assert "It rains." == response.content
    assert ["user", "assistant", "tool", "assistant"] == [m.role for m in response.messages]


async def test_usage_is_the_sum_of_all_calls() -> None:
    """Tokens of each call are added up, and each call is listed."""
    script = [
        answer(one(), finish="tool_calls", tokens=(10, 5)),
        answer(Message.assistant("x"), tokens=(20, 7)),
    ]
    response = await Rig(script, Echo()).chat()
    assert (30, 12, 42) == (
        response.usage.input_tokens,
        response.usage.output_tokens,
        response.usage.total_tokens,
    )
    assert 2 == len(response.calls)
    assert response.usage.cost_usd is None


async def test_parallel_calls_run_at_once_and_results_keep_their_order() -> None:
    """Three calls of one answer overlap; their results go back in the order of the calls."""
    gate = asyncio.Event()

    def opens(_: Any) -> str:
        gate.set()
        return "quick"

    slow, quick = Echo("slow", gives=gate), Echo("quick", gives=opens)
    asked = calls(call("abcdefgh1", "slow"), call("abcdefgh2", "quick"))
    rig = Rig([asked, "Done."], slow, quick)
    response = await rig.chat()
    assert ["let go", "quick"] == results(rig.requests[1].messages)
    assert ["slow", "quick"] == [result.call.name for result in response.tool_executions]


async def test_what_happens_is_told_as_it_happens() -> None:
    """A stream tells text, tools and costs, and ends with `Done`."""
    rig = Rig([one(), "It rains."], Echo())
    events = await rig.events()
    told = [type(event) for event in events]
    assert told.index(ToolStarted) < told.index(ToolFinished) < told.index(TextDelta)
    assert 2 == told.count(CallCompleted)
    assert isinstance(events[-1], Done)
    assert "It rains." == events[-1].response.content


@pytest.mark.parametrize(
    ("tool", "asked", "kind", "words"),
    [
        (Echo(), one("nosuch"), ToolNotFound, "error: tool not found: nosuch"),
        (Echo(gives=ValueError("no such city")), one(), ToolFailed, "no such city"),
        (Echo(timeout_s=0.01, gives=asyncio.Event()), one(), ToolTimedOut, "error: timed out"),
        (Echo(approval="deny"), one(), ToolDenied, "error: permission denied"),
        (
            Echo(),
            calls(ToolCall("abcdefgh1", "echo", {}, '{"city": "Ly')),
            ToolArgumentsInvalid,
            "error: invalid arguments",
        ),
    ],
)
async def test_a_failure_of_a_tool_is_a_result(
    tool: Echo, asked: Message, kind: type[Exception], words: str
) -> None:
    """The model is told what went wrong, and answers all the same."""
    rig = Rig([asked, "Sorry."], tool)
    response = await rig.chat()
    assert "Sorry." == response.content
    (result,) = response.tool_executions
    assert isinstance(result.error, kind)
    assert words in results(rig.requests[1].messages)[0]


async def test_the_last_turn_goes_out_without_tools() -> None:
    """The request that reaches the limit may not call tools, and is the answer."""
    rig = Rig([one(), one(), "Enough."], Echo(), limits=AgentLimits(max_turns=3))
    response = await rig.chat()
    assert [None, None, "none"] == [request.tool_choice for request in rig.requests]
    assert "max_turns" == response.stopped_by
    assert "Enough." == response.content


async def test_one_turn_is_one_request() -> None:
    """The only request goes out without tools: there would be none to hear of them."""
    rig = Rig(["At once."], Echo(), limits=AgentLimits(max_turns=1))
    response = await rig.chat()
    assert ["none"] == [request.tool_choice for request in rig.requests]
    assert "max_turns" == response.stopped_by


async def test_without_tools_no_limit_ends_their_use() -> None:
    """Where there are none to use, nothing stopped anybody."""
    rig = Rig(["At once."], limits=AgentLimits(max_turns=1))
    assert (await rig.chat()).stopped_by is None


async def test_a_hint_is_a_request_too() -> None:
    """An empty answer is asked for once more only while the model may be asked."""
    rig = Rig([one(), "", "Too late."], Echo(), limits=AgentLimits(max_turns=2))
    response = await rig.chat()
    assert "" == response.content
    assert 2 == len(rig.requests)


async def test_calls_of_an_answer_without_tools_are_left_out() -> None:
    """A model that calls a tool although it may not leaves no call without a result behind."""
    rig = Rig(
        [one(), calls(call("abcdefgh2", "echo"), text="Enough.")],
        Echo(),
        limits=AgentLimits(max_turns=2),
    )
    response = await rig.chat()
    assert "Enough." == response.content
    assert () == response.message.tool_calls
    assert () == response.messages[-1].tool_calls


async def test_calls_beyond_the_limit_of_executions_get_a_result() -> None:
    """What may not run any more says so, and an answer is asked for without tools."""
    tool = Echo()
    many = calls(*(call(f"abcdefgh{n}", "echo", n=n) for n in range(4)))
    rig = Rig([many, "Enough."], tool, limits=AgentLimits(max_tool_executions=3))
    response = await rig.chat()
    assert 3 == len(tool.inputs)
    assert "error: not run: the limit of 3 tools" in results(rig.requests[1].messages)[3]
    assert "none" == rig.requests[1].tool_choice
    assert "max_tool_executions" == response.stopped_by


async def test_calls_beyond_the_limit_of_an_answer_may_be_made_again() -> None:
    """The eleventh call of one answer is not run, and the turn goes on with tools."""
    tool = Echo()
    many = calls(*(call(f"abcdefg{n:02}", "echo", n=n) for n in range(12)))
    rig = Rig([many, "Fine."], tool)
    response = await rig.chat()
    assert 10 == len(tool.inputs)
    assert "error: not run: at most 10 tools" in results(rig.requests[1].messages)[11]
    assert rig.requests[1].tool_choice is None
    assert response.stopped_by is None


async def test_a_model_that_writes_no_arguments_is_told_twice() -> None:
    """The third answer in a row that cannot be understood ends the use of tools."""
    bad = [calls(ToolCall(f"abcdefgh{n}", "echo", {}, "{")) for n in range(3)]
    rig = Rig([*bad, "I give up."], Echo())
    response = await rig.chat()
    assert "max_argument_errors" == response.stopped_by
    assert [None, None, None, "none"] == [request.tool_choice for request in rig.requests]


async def test_a_model_that_calls_what_there_is_not_is_told_twice() -> None:
    """A tool that was never offered is a mistake as arguments that do not fit are."""
    bad = [calls(call(f"abcdefgh{n}", f"nosuch{n}")) for n in range(3)]
    rig = Rig([*bad, "I give up."], Echo())
    response = await rig.chat()
    assert "max_argument_errors" == response.stopped_by
    assert 3 == len([text for text in results(rig.requests[3].messages) if "not found" in text])
    assert [None, None, None, "none"] == [request.tool_choice for request in rig.requests]


async def test_a_call_that_was_cut_is_not_run() -> None:
    """`{}` may be all that is left of a call that `max_tokens` cut: it is told, and not run."""
    tool = Echo()
    cut = answer(calls(ToolCall("abcdefgh1", "echo", {}, "")), finish="length")
    rig = Rig([cut, "Shorter then."], tool)
    response = await rig.chat()
    assert [] == tool.inputs
    assert "cut off by max_tokens" in results(rig.requests[1].messages)[0]
    assert isinstance(response.tool_executions[0].error, ToolArgumentsInvalid)


async def test_tools_end_in_time_for_an_answer() -> None:
    """When the time for tools is over they are cancelled, and the model answers all the same."""
    tool = Echo(gives=asyncio.Event(), timeout_s=600)
    rig = Rig([one(), "Too slow."], tool, limits=AgentLimits(deadline_s=0.05), clock=FakeClock())
    response = await rig.chat()
    assert "Too slow." == response.content
    assert "deadline" == response.stopped_by
    assert 1 == tool.cancelled
    assert "error: timed out" in results(rig.requests[1].messages)[0]
    assert rig.requests[1].timeouts.total_s <= 0.05


def refusal(attempts: int = 0) -> BudgetExceeded:
    return BudgetExceeded("full", attempts=attempts)


async def test_a_budget_without_room_asks_for_a_short_answer() -> None:
    """When a tool has run and the money is short, the answer is asked for in fewer tokens."""
    script: Script = [one(), refusal(), refusal(), "Short."]
    rig = Rig(script, Echo())
    response = await rig.chat()
    assert "Short." == response.content
    assert "budget" == response.stopped_by
    assert [1024, 256] == [request.sampling.max_tokens for request in rig.requests[2:]]
    assert "none" == rig.requests[3].tool_choice


async def test_a_budget_without_any_room_is_an_error_with_the_usage_so_far() -> None:
    """The refusal carries what the turn has used before it."""
    script: Script = [
        answer(one(), finish="tool_calls"),
        *(refusal() for _ in range(4)),
    ]
    with pytest.raises(BudgetExceeded) as caught:
        await Rig(script, Echo()).chat()
    assert caught.value.partial is not None
    assert caught.value.partial.usage is not None
    assert 15 == caught.value.partial.usage.total_tokens


async def test_a_budget_that_refuses_the_first_call_is_an_error() -> None:
    """A turn that cannot begin is refused as it is."""
    rig = Rig([refusal()], Echo())
    with pytest.raises(BudgetExceeded):
        await rig.chat()
    assert 1 == len(rig.requests)


async def test_a_call_that_was_sent_before_the_budget_refused_is_not_sent_again() -> None:
    """It failed, and may have been billed: three shorter ones would be as well."""
    rig = Rig([one(), refusal(attempts=1), "Not asked."], Echo())
    with pytest.raises(BudgetExceeded):
        await rig.chat()
    assert 2 == len(rig.requests)


async def test_a_call_that_is_asked_again_has_what_is_left_of_the_time() -> None:
    """The deadline is the turn's, however often a conversation is made shorter."""
    clock = FakeClock()
    rig = Rig([], limits=AgentLimits(deadline_s=10), clock=clock, sessions=MemorySessions())

    class Slow(ScriptedProvider):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
            clock.advance(4)
            async with aclosing(super().stream(request)) as events:
                async for event in events:
                    yield event

    slow = Slow(["One.", ContextTooLong("too long"), "Two."], model=MODEL)
    rig.provider = rig.runtime._provider = slow
    await rig.chat("first", session="ann")
    await rig.chat("second", session="ann")
    assert [10, 10, 6] == [request.timeouts.total_s for request in slow.requests]


async def test_an_empty_answer_is_nudged_once() -> None:
    """A model that says nothing is asked once more; the nudge is no part of the conversation."""
    rig = Rig(["", "Here it is."], Echo())
    response = await rig.chat()
    assert "Here it is." == response.content
    assert "Your last answer was empty" in rig.requests[1].messages[-1].text
    assert "Your last answer was empty" not in str([m.text for m in response.messages])


async def test_a_second_empty_answer_is_the_answer() -> None:
    """A model that says nothing twice has nothing to say."""
    response = await Rig(["", ""], Echo()).chat()
    assert "" == response.content
    assert 2 == len(response.calls)


@pytest.mark.parametrize("choice", ["any", "required", NamedTool("echo")])
async def test_a_required_tool_is_required_once(choice: Any) -> None:
    """After the tool was called the model is free to answer."""
    rig = Rig([one(), "Done."], Echo())
    await rig.chat(tool_choice=choice)
    assert [choice, None] == [request.tool_choice for request in rig.requests]


async def test_a_required_tool_that_is_not_called_is_an_error() -> None:
    """The model is asked twice, then the turn fails, with its usage."""
    rig = Rig(["No.", "No!"], Echo())
    with pytest.raises(ToolCallMissing) as caught:
        await rig.chat(tool_choice="required")
    assert 2 == len(rig.requests)
    assert caught.value.partial is not None


async def test_blocked_content_is_an_error() -> None:
    """What the vendor refuses reaches the caller as it is."""
    with pytest.raises(ContentBlocked):
        await Rig([ContentBlocked("no")], Echo()).chat()


async def test_a_failing_call_has_the_usage_of_the_turn() -> None:
    """An error in the middle of a turn tells what the calls before it have used."""
    script: Script = [answer(one(), finish="tool_calls"), RateLimited("slow down")]
    with pytest.raises(RateLimited) as caught:
        await Rig(script, Echo()).chat()
    assert caught.value.partial is not None
    assert caught.value.partial.usage is not None
    assert 10 == caught.value.partial.usage.input_tokens


async def test_a_conversation_that_is_too_long_loses_results_and_goes_on() -> None:
    """With one turn only, the longest result of a tool is cut, never parted from its call."""
    rig = Rig([one(), ContextTooLong("too long"), "Done."], Echo(gives="x" * 5000))
    response = await rig.chat()
    assert "Done." == response.content
    first, second = results(rig.requests[1].messages)[0], results(rig.requests[2].messages)[0]
    assert 5000 == len(first)
    assert second.endswith("within the model's window]")


async def test_a_conversation_that_is_too_long_is_an_error_if_so_wished() -> None:
    """With context="error" nothing is left out."""
    with pytest.raises(ContextTooLong):
        await Rig(
            [one(), ContextTooLong("too long")], Echo(gives="x" * 5000), context="error"
        ).chat()


async def test_half_an_answer_of_a_full_window_is_asked_for_again() -> None:
    """`model_length` means that the window was full: the conversation is made shorter, once."""
    half = answer(Message.assistant("The answer is"), finish="model_length")
    rig = Rig([one(), half, "42."], Echo(gives="x" * 5000))
    response = await rig.chat()
    assert "42." == response.content
    assert "The answer is" not in [message.text for message in response.messages]
    assert 3 == len(response.calls)


async def test_an_answer_that_does_not_fit_is_asked_for_again() -> None:
    """Structured output is repaired once, then it is an error."""

    def parse(response: LLMResponse) -> int:
        if not response.content.isdigit():
            raise OutputInvalid("the answer is not a valid int")
        return int(response.content)

    rig = Rig(["many", "42"], Echo())
    assert 42 == (await rig.chat(parse=parse)).parsed
    assert "not a valid int" in rig.requests[1].messages[-1].text
    with pytest.raises(OutputInvalid):
        await Rig(["many", "lots"], Echo()).chat(parse=parse)


async def test_only_allowed_tools_are_told_of() -> None:
    """The allow-list hides the others, and refuses a call of one all the same."""
    tool, other = Echo(), Echo("other")
    permissions = Permissions(allowed=frozenset({"other"}))
    rig = Rig([one(), "No."], tool, other, permissions=permissions)
    response = await rig.chat()
    assert ["other"] == [spec.name for spec in rig.requests[0].tools]
    assert [] == tool.inputs
    assert response.tool_executions[0].error is not None


async def test_a_turn_tells_its_cost(caplog: pytest.LogCaptureFixture) -> None:
    """One line for each turn, in the words of the reference page."""
    caplog.set_level(logging.INFO, "loom.agent")
    await Rig([one(), "Done."], Echo()).chat()
    (record,) = caplog.records
    assert "Turn completed" == record.getMessage()
    assert 2 == record.__dict__["calls"]
    assert "unknown" == record.__dict__["turn_cost"]


async def test_leaving_a_turn_cancels_its_tools() -> None:
    """Whoever leaves a stream in the middle leaves no tool running."""
    tool = Echo(gives=asyncio.Event())
    rig = Rig([one()], tool)
    ask = rig.runtime.stream((Message.user("?"),), _ask())
    async for event in ask:
        if isinstance(event, ToolStarted):
            # It begins when the stream is asked for the next event.
            waiting = asyncio.ensure_future(anext(ask))
            for _ in range(5):
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            break
    await ask.aclose()
    assert 1 == tool.cancelled
    assert 0 == tool.running


@pytest.mark.parametrize(
    "given",
    [
        {"max_turns": 0}, {"max_tool_executions": -1}, {"deadline_s": 0}, {"max_turns": True},
        {"deadline_s": float("nan")}, {"max_parallel": 1.5},
    ],
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    """Each number is checked where it is given, and named."""
    with pytest.raises(ConfigInvalid, match=next(iter(given))):
        AgentLimits(**given)


def test_the_time_for_an_answer_is_a_fifth() -> None:
    """Of a long turn 30 seconds are kept."""
    assert 2 == AgentLimits(deadline_s=10).answer_reserve_s
    assert 30 == AgentLimits().answer_reserve_s
    assert Decimal("0.10") == AgentLimits().warn_usd


def _ask() -> Any:
    from tests.agent.kit import asking

    return asking(stream=True)


def test_a_sum_holds_every_number() -> None:
    """Whatever a call counts is added up: tokens of every kind, and seconds."""
    counts = [field.name for field in msgspec.structs.fields(Usage) if field.type is int]
    assert {"input_tokens", "reasoning_tokens", "audio_seconds"} <= set(counts)
    numbers: dict[str, Any] = {name: place for place, name in enumerate(counts, 1)}
    total = total_usage([Usage(**numbers)] * 3)
    assert [3 * place for place, _ in enumerate(counts, 1)] == [getattr(total, n) for n in counts]


@pytest.mark.parametrize("name", ["functions.echo", "", "wetter in köln", "x" * 100])
async def test_a_call_by_a_name_that_is_none_does_not_poison_the_conversation(name: str) -> None:
    """The model is told that there is no such tool, and the next request is legal."""
    rig = Rig([calls(ToolCall("abcdefgh1", name, {}, "{}")), "Sorry."], Echo())
    response = await rig.chat()
    assert isinstance(response.tool_executions[0].error, ToolNotFound)
    assert 2 == len(rig.requests)
