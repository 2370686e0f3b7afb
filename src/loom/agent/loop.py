"""
One turn of a conversation: ask, run tools, ask again, until there is an answer.

The laws of this file:

1. Every call of a tool has exactly one result, and it stands in the log before the model is asked
   again; a log that breaks off in between is mended when it is read (`agent/history.py`).
2. Tools run in parallel, results go back in the order of the calls.
3. A limit is no error: what may not run gets a result that says so, and the model is asked for its
   answer without tools.
4. What holds for a layer holds here: whoever leaves early closes everything, and nothing of the
   surroundings is changed across a `yield`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from loom.agent.context import shrink
from loom.agent.events import AgentEvent, CallCompleted, Done, ToolFinished, ToolStarted
from loom.agent.history import OpenCall
from loom.agent.limits import AgentLimits, ContextPolicy
from loom.agent.response import AgentResponse
from loom.agent.session import Begun, Said, Withdrawn
from loom.core.ambient import Clock
from loom.core.errors import (
    BudgetExceeded,
    ContentBlocked,
    ContextTooLong,
    LoomError,
    OutputInvalid,
    StreamTruncated,
    ToolArgumentsInvalid,
    ToolCallMissing,
    ToolDenied,
    ToolTimedOut,
)
from loom.core.events import Completed, Relayed
from loom.core.messages import Message, ToolCall
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.shuttle.result import ToolBegun, ToolResult

if TYPE_CHECKING:
    from loom.agent.log import Log
    from loom.agent.tally import Tally
    from loom.layers.trace_agent import AgentRecorder
    from loom.shuttle.executor import Executor

__all__ = ["Gear", "Loop", "Parse"]

Parse: TypeAlias = Callable[[LLMResponse], Any]
"""Reads an answer as a value; raises `OutputInvalid` when it does not fit."""

_FORCED = ("any", "required")
_EMPTY = "Your last answer was empty. Answer the question, or call a tool."
_NO_CALL = "You must call one of the tools now."
# What a last answer may cost when the budget has no room for a long one, in tokens.
_SHORT_ANSWERS = (1024, 256, 64)


class Gear(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a turn works with.

    Attributes:
        provider: Answers.
        executor: Runs tools.
        clock: Tells the time.
        limits: How far the turn may go.
        context: What happens to a conversation that outgrows the window.
        parse: Reads the answer as a value; None: nobody does.
        trace: Records the turn and its tools; None: nobody does.
    """

    provider: LLMProvider
    executor: Executor
    clock: Clock
    limits: AgentLimits
    context: ContextPolicy = "slide"
    parse: Parse | None = None
    trace: AgentRecorder | None = None


class Loop:
    """
    One turn of a conversation.

    Args:
        gear: What it works with.
        log: The conversation so far; what the user says waits in it.
        request: What is asked, without the conversation: model, options, system messages.
        tally: Counts; its time has begun.
        since: At which entry of the log this turn begins.
    """

    def __init__(
        self, gear: Gear, log: Log, request: ChatRequest, tally: Tally, *, since: int
    ) -> None:
        self._gear = gear
        self._log = log
        self._request = request
        self._tally = tally
        self._since = since
        self._before = len(log.before)
        # What only the next request holds: it is no part of the conversation.
        self._hint: str | None = None
        self._hinted: set[str] = set()
        self._squeezed = False
        self._parsed: Any = None
        self._choice = request.tool_choice

    async def run(self, left: tuple[OpenCall, ...] = ()) -> AsyncGenerator[AgentEvent, None]:
        """
        Do the turn.

        Args:
            left: Calls without results that an earlier, broken turn has left behind; they may run.

        Yields:
            What happens; `Done` at last.

        Raises:
            LoomError: What ends the turn without an answer; `.partial` has the usage so far.
        """
        calls = tuple(each.call for each in left)
        positions = tuple(each.position for each in left)
        try:
            while True:
                if calls:
                    async with aclosing(self._executed(calls, positions)) as events:
                        async for event in events:
                            yield event
                async with aclosing(self._answered()) as answers:
                    async for event in answers:
                        yield event
                response = self._tally.responses[-1]
                calls = self._calls(response)
                positions = tuple(range(len(calls)))
                if not calls and not await self._goes_on(response):
                    break
        except ContentBlocked as error:
            self._tally.told(error)
            if self._log.kept > self._since:
                # What was refused would be refused again with each later turn.
                await self._log.add(Withdrawn(since=self._since))
            raise
        except LoomError as error:
            self._tally.told(error)
            raise
        yield Done(self._response())

    # --- asking the model --------------------------------------------------------------------

    async def _answered(self) -> AsyncGenerator[AgentEvent, None]:
        """Ask once, with a shorter conversation or answer where that is what it takes."""
        offers_tools = bool(self._request.tools)
        self._tally.asking(self._gear.clock.monotonic_s(), offers_tools=offers_tools)
        request = self._next_request()
        short = iter(_SHORT_ANSWERS)
        refused: BudgetExceeded | None = None
        while True:
            try:
                async with aclosing(self._gear.provider.stream(self._timed(request))) as events:
                    async for event in events:
                        if isinstance(event, Completed):
                            await self._heard(event.response)
                            break
                        if not isinstance(event, Relayed):  # which only a gateway asks for
                            yield event
                    else:
                        raise StreamTruncated("the stream ended before the answer was complete")
                break
            except ContextTooLong:
                shorter = shrink(request.messages)
                if shorter is None or self._gear.context == "error":
                    raise
                request = msgspec.structs.replace(request, messages=shorter)
            except BudgetExceeded as error:
                if error.attempts:
                    # It was sent, and failed: a shorter answer would fail, and cost, as well.
                    raise
                refused = refused or error
                shorter_answer = self._cheaper(request, next(short, None))
                if shorter_answer is None:
                    raise refused from None
                request = shorter_answer
        yield CallCompleted(self._tally.responses[-1], self._tally.usage)

    def _next_request(self) -> ChatRequest:
        request, tally = self._request, self._tally
        messages = (*request.messages, *self._log.messages)
        if self._squeezed:
            messages = shrink(messages) or messages
        if self._hint is not None:
            messages = (*messages, Message.user(self._hint))
            self._hint = None
        choice = self._choice
        if request.tools and tally.stopped_by is not None:
            choice = "none"
        return msgspec.structs.replace(request, messages=messages, tool_choice=choice)

    def _timed(self, request: ChatRequest) -> ChatRequest:
        """The same, with no more time than the turn has left."""
        left_s = max(0.001, self._tally.ends_s - self._gear.clock.monotonic_s())
        if left_s >= request.timeouts.total_s:
            return request
        timeouts = msgspec.structs.replace(request.timeouts, total_s=left_s)
        return msgspec.structs.replace(request, timeouts=timeouts)

    def _cheaper(self, request: ChatRequest, max_tokens: int | None) -> ChatRequest | None:
        """The last answer, so short that a budget may have room for it."""
        longest = request.sampling.max_tokens
        if max_tokens is None or not self._tally.results:
            return None
        self._tally.stop("budget")
        sampling = request.sampling
        if longest is None or max_tokens < longest:
            sampling = msgspec.structs.replace(sampling, max_tokens=max_tokens)
        return msgspec.structs.replace(request, tool_choice="none", sampling=sampling)

    async def _heard(self, response: LLMResponse) -> None:
        self._tally.responses.append(response)
        message = response.message
        if message.tool_calls and not self._calls(response):
            # Asked for an answer without tools, it called one: a call without result is no history.
            message = msgspec.structs.replace(message, tool_calls=())
        said = Said(message=message, model=response.model, usage=response.usage)
        await self._log.add(said)
        self._choice = None if message.tool_calls and self._is_forced() else self._choice

    def _is_forced(self) -> bool:
        return self._choice in _FORCED or not isinstance(self._choice, str | None)

    def _calls(self, response: LLMResponse) -> tuple[ToolCall, ...]:
        return () if self._tally.stopped_by is not None else response.tool_calls

    async def _goes_on(self, response: LLMResponse) -> bool:
        """Whether an answer without calls is followed by another request."""
        if self._may_squeeze(response):
            # The window was full: half an answer is no answer, and not part of the conversation.
            self._squeezed = True
            await self._log.add(Withdrawn(since=len(self._log) - 1))
            return True
        if self._is_forced() and self._tally.stopped_by is None:
            if "call" in self._hinted:
                raise ToolCallMissing(
                    f"tool_choice is {self._choice!r}, and {response.model!r} called no tool,"
                    " asked twice",
                    provider=self._gear.provider.name,
                    model=response.model,
                )
            return self._ask_again("call", _NO_CALL)
        if not response.content.strip() and response.finish_reason in ("stop", None):
            return self._ask_again("empty", _EMPTY)
        return self._gear.parse is not None and not self._fits(self._gear.parse, response)

    def _may_squeeze(self, response: LLMResponse) -> bool:
        if response.finish_reason != "model_length" or self._squeezed or not self._tally.may_ask:
            return False
        every = (*self._request.messages, *self._log.messages[:-1])
        return self._gear.context != "error" and shrink(every) is not None

    def _fits(self, parse: Parse, response: LLMResponse) -> bool:
        try:
            self._parsed = parse(response)
        except OutputInvalid as error:
            hint = f"{error.message}. Answer again, with the JSON alone."
            if not self._ask_again("output", hint):
                raise
            return False
        return True

    def _ask_again(self, why: str, hint: str) -> bool:
        if why in self._hinted or not self._tally.may_ask:
            return False
        self._hinted.add(why)
        self._hint = hint
        return True

    # --- running tools -----------------------------------------------------------------------

    async def _executed(
        self, calls: tuple[ToolCall, ...], positions: tuple[int, ...]
    ) -> AsyncGenerator[AgentEvent, None]:
        """Run an answer's calls; each has its result in the log when this ends."""
        refused = self._refused(calls)
        for result in refused.values():
            yield ToolFinished(result)
        running = [index for index in range(len(calls)) if index not in refused]
        results, begun = dict(refused), 0
        async with aclosing(self._outcomes([calls[index] for index in running])) as outcomes:
            last: ToolCall | None = None
            while (outcome := await self._next(outcomes, last)) is not None:
                at = _place(outcome.call, calls, running, results)
                if isinstance(outcome, ToolBegun):
                    begun, last = begun + 1, outcome.call
                    name = last.name
                    await self._log.add(Begun(call_id=last.id, name=name, position=positions[at]))
                    self._tool_began(last)
                    yield ToolStarted(last)
                else:
                    results[at], last = outcome, None
                    self._tool_ended(outcome)
                    await self._keep(outcome)
                    yield ToolFinished(outcome)
        for late in self._late(calls, results):
            self._tool_ended(late)
            await self._keep(late)
            yield ToolFinished(late)
        for result in refused.values():
            await self._keep(result)
        self._tally.ran([results[index] for index in range(len(calls))], begun)

    def _outcomes(self, calls: list[ToolCall]) -> AsyncGenerator[ToolBegun | ToolResult, None]:
        left_s = self._tally.tools_end_s - self._gear.clock.monotonic_s()
        return self._gear.executor.run(calls, limit_s=left_s)

    async def _next(
        self, outcomes: AsyncGenerator[ToolBegun | ToolResult, None], begun: ToolCall | None
    ) -> ToolBegun | ToolResult | None:
        trace = self._gear.trace
        if trace is None:
            return await anext(outcomes, None)
        # The tool that was told of begins in this step, inside its span.
        with trace.within(begun):
            return await anext(outcomes, None)

    def _late(
        self, calls: tuple[ToolCall, ...], results: dict[int, ToolResult]
    ) -> list[ToolResult]:
        """Give a result to each call that has none: the time for tools was over before."""
        late = [index for index in range(len(calls)) if index not in results]
        words = "error: timed out: the time for this turn is over; answer with what you have"
        for index in late:
            self._tally.stop("deadline")
            results[index] = ToolResult(call=calls[index], content=words, error=ToolTimedOut(words))
        return [results[index] for index in late]

    def _tool_began(self, call: ToolCall) -> None:
        trace = self._gear.trace
        if trace is not None:
            tool = self._gear.executor.tool(call.name)
            said = getattr(tool, "description", None)
            trace.tool_began(
                call, said if isinstance(said, str) else None, self._gear.clock.monotonic_s()
            )

    def _tool_ended(self, result: ToolResult) -> None:
        trace = self._gear.trace
        if trace is not None:
            now_s = self._gear.clock.monotonic_s()
            trace.tool_ended(result.call, result.error, result.content, now_s)

    async def _keep(self, result: ToolResult) -> None:
        await self._log.add(Said(message=result.message))

    def _refused(self, calls: tuple[ToolCall, ...]) -> dict[int, ToolResult]:
        """The calls that may not run, with the results that say why."""
        limits, tally = self._gear.limits, self._tally
        refused: dict[int, ToolResult] = {}
        if self._is_cut():
            # Its arguments may look whole: `{}` where the model was cut before the first one.
            refused[len(calls) - 1] = _cut_off(calls[-1])
        room = min(limits.max_calls_per_answer, tally.tools_left)
        for index, call in enumerate(calls):
            if index in refused or index < room:
                continue
            if index >= tally.tools_left:
                tally.stop("max_tool_executions")
                why = f"the limit of {limits.max_tool_executions} tools in a turn is reached;"
                why += " answer with what you have"
            else:
                why = f"at most {limits.max_calls_per_answer} tools run of one answer; call again"
            words = f"error: not run: {why}"
            refused[index] = ToolResult(call=call, content=words, error=ToolDenied(words))
        return refused

    def _is_cut(self) -> bool:
        responses = self._tally.responses
        return bool(responses) and responses[-1].finish_reason in ("length", "model_length")

    # --- the end -----------------------------------------------------------------------------

    def _response(self) -> AgentResponse:
        tally = self._tally
        return AgentResponse(
            message=msgspec.structs.replace(tally.responses[-1].message, tool_calls=()),
            usage=tally.usage,
            calls=tuple(tally.responses),
            tool_executions=tuple(tally.results),
            messages=self._log.messages[self._before :],
            stopped_by=tally.stopped_by,
            latency_s=self._gear.clock.monotonic_s() - tally.began_s,
            parsed=self._parsed,
            session_cost_usd=self._log.cost_usd,
        )


def _place(
    call: ToolCall, calls: tuple[ToolCall, ...], running: list[int], results: dict[int, ToolResult]
) -> int:
    """Which of the calls this is; equal ids are told apart by identity."""
    same = [index for index in running if calls[index] is call and index not in results]
    return same[0]


def _cut_off(call: ToolCall) -> ToolResult:
    words = (
        "error: invalid arguments: the call was cut off by max_tokens; call again with shorter"
        " arguments"
    )
    return ToolResult(call=call, content=words, error=ToolArgumentsInvalid(words))
