"""Makes a turn ready: its history, its request, and what an earlier, broken one has left behind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import TypeAlias

import msgspec

from loom.agent.condense import condensing_point, is_long, summary_of
from loom.agent.history import ClosingWords, OpenCall, messages_of, settled
from loom.agent.log import Log
from loom.agent.loop import Gear, Loop
from loom.agent.session import Condensed, Said
from loom.agent.tally import Tally
from loom.core.errors import InvalidRequest
from loom.core.messages import Message, Part
from loom.core.request import ChatRequest, ToolSpec
from loom.shuttle.executor import Executor
from loom.shuttle.identical import call_key

__all__ = ["Ask", "Turn", "begin_turn"]

Ask: TypeAlias = Callable[[tuple[ToolSpec, ...]], Awaitable[ChatRequest]]
"""Gives the request of a turn for the tools that are offered, still without the conversation."""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """
    A turn that is ready.

    Attributes:
        loop: Does it.
        left: Calls of a broken turn that may still run; the loop begins with them.
        summarised: How many messages are told by a new summary; 0: there is none.
    """

    loop: Loop
    left: tuple[OpenCall, ...] = ()
    summarised: int = 0


async def begin_turn(
    gear: Gear,
    log: Log,
    ask: Ask,
    said: tuple[Message, ...],
    *,
    tally: Tally,
    session: str | None,
    window: Callable[[str], int | None],
) -> Turn:
    """
    Make a turn ready.

    Args:
        gear: What it works with.
        log: The conversation so far.
        ask: Gives the request.
        said: What the user says; empty: go on where the session broke off.
        tally: Counts; its time has begun.
        session: The conversation's id; None: it is not kept.
        window: Gives a model's window in tokens; None when unknown.

    Returns:
        The turn.

    Raises:
        InvalidRequest: If there is nothing to go on with, or an option is not as it must be.
        LoomError: If the conversation could not be summarised.
    """
    specs = gear.executor.specs
    request = _request(await ask(specs), specs, gear, session)
    summarised = 0
    if said and gear.context == "summarise" and is_long(log.entries, window(request.model)):
        summarised = await _condensed(gear, log, request, tally)
    if said:
        log.hold(*(Said(message=message) for message in settled(log.entries)))
        since = log.mark(len(log))
        log.hold(*(Said(message=message) for message in said))
        left: tuple[OpenCall, ...] = ()
    else:
        since = log.mark(_beginning(log))
        left = _left(log, gear.executor)
        if not left and not _is_waiting(log):
            raise InvalidRequest("there is nothing to go on with in this session: say something")
    loop = Loop(gear, log, request, tally, since=since)
    return Turn(loop=loop, left=left, summarised=summarised)


def _request(
    request: ChatRequest, tools: tuple[ToolSpec, ...], gear: Gear, session: str | None
) -> ChatRequest:
    """The request of every call of a turn, still without the conversation."""
    attribution = request.attribution
    if session is not None:
        attribution = msgspec.structs.replace(attribution, session=session)
    return msgspec.structs.replace(
        request,
        tools=tools,
        attribution=attribution,
        fit="error" if gear.context == "error" else "slide",
        # Each call has its own deadline within the turn's.
        deadline_s=None,
        trace_parent=None if gear.trace is None else gear.trace.parent,
    )


def _left(log: Log, executor: Executor) -> tuple[OpenCall, ...]:
    """
    The calls of a broken turn that may still run; the others get their results.

    What began before the break may have been done, and nothing is done twice: nor is a call that
    is the same as one that began, for of those one runs, and all get its result.
    """
    given = _given(log)
    begun = {call_key(each.call) for each in log.open_calls if each.begun}
    left: list[OpenCall] = []
    for each in log.open_calls:
        call, key = each.call, call_key(each.call)
        if key in given:
            log.hold(Said(message=Message.tool(call, given[key])))
        elif key in begun and not getattr(executor.tool(call.name), "repeatable", False):
            log.hold(Said(message=Message.tool(call, ClosingWords().begun)))
        else:
            left.append(each)
    return tuple(left)


def _given(log: Log) -> dict[Hashable, str | tuple[Part, ...]]:
    """What the calls of the last answer gave that have results, by what they are."""
    messages = log.messages
    places = [place for place, message in enumerate(messages) if message.tool_calls]
    if not places:
        return {}
    waiting = {each.position for each in log.open_calls}
    calls = [
        call
        for position, call in enumerate(messages[places[-1]].tool_calls)
        if position not in waiting
    ]
    results = [message for message in messages[places[-1] + 1 :] if message.role == "tool"]
    return {
        call_key(call): result.content or "" for call, result in zip(calls, results, strict=True)
    }


async def _condensed(gear: Gear, log: Log, request: ChatRequest, tally: Tally) -> int:
    point = condensing_point(log.entries)
    if point is None:
        return 0
    before = log.entries[:point]
    told = (*messages_of(before), *settled(before))
    response = await summary_of(gear.provider, request, told)
    tally.responses.append(response)
    usage, model = response.usage, response.model
    await log.add(Condensed(until=point, summary=response.content, model=model, usage=usage))
    return len(told)


def _beginning(log: Log) -> int:
    """At which entry the last turn begins."""
    users = [
        place
        for place, entry in enumerate(log.entries)
        if isinstance(entry, Said) and entry.message.role == "user"
    ]
    return users[-1] if users else len(log)


def _is_waiting(log: Log) -> bool:
    """Whether the model owes an answer: the last that was said is a user's, or a tool's."""
    messages = log.messages
    return bool(messages) and messages[-1].role in ("user", "tool")
