"""
Where faults happen: on a request's way, before its key is looked at.

Keys, checks and limits see only requests that get no fault, or one that strikes in the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import ConfigInvalid, InvalidRequest
from loom.server.line import CallerGone, Line, Receive, Scope, Send
from loom.server.simulator.exchange import Exchange
from loom.server.simulator.fault_acts import ACTS, Scene
from loom.server.simulator.fault_wire import Answer, Wire, lost_of, passed, transport_of
from loom.server.simulator.faults import Fault, FaultPlan, RequestInfo, parse_fault, split_model
from loom.server.simulator.openai_words import as_openai_tells
from loom.server.simulator.scenario import ScenarioRun, request_info
from loom.wire.mistral.errors import encode_error_reply

if TYPE_CHECKING:
    from loom.server.simulator.gate import AsgiApp

__all__ = ["HEADER", "FaultDoor", "LateReader"]

HEADER = "x-loom-fault"
"""The request header that names a fault."""

_HEADER = HEADER.encode()
_OPENAI = "/openai/v1/"
_STREAM = b"text/event-stream"


class FaultDoor:
    """
    Gives each request its fault; the gate asks it.

    A header goes before a suffix of the model's name, that before the script, and that before
    chance.

    Args:
        plan: Chooses faults by header, suffix and chance.
        script: Chooses them, and answers, by a scenario; None without one.
        clock: Tells the time and waits.
    """

    def __init__(self, plan: FaultPlan, script: ScenarioRun | None, clock: Clock) -> None:
        self._plan = plan
        self._script = script
        self._clock = clock

    def reset(self) -> None:
        """Count from the beginning."""
        self._plan.reset()
        if self._script is not None:
            self._script.reset()

    def plan(self, exchange: Exchange) -> _Happening | _Refused | None:
        """
        Choose the fault of a request; a fault in the model's name is cut off from it.

        Args:
            exchange: The request.

        Returns:
            What happens to it, or None.
        """
        asked = exchange.asked
        if not asked.path.startswith(("/v1/", _OPENAI)):
            return None
        model, suffix = split_model(exchange.model)
        if suffix is not None:
            exchange.fields = {**(exchange.fields or {}), "model": model}
            exchange.body = msgspec.json.encode(exchange.fields)
        info = request_info(
            exchange.fields,
            number=asked.number,
            header=asked.headers.get(HEADER),
            suffix=suffix,
        )
        scripted = None
        if self._script is not None:
            # Also with a header: the script counts every request.
            scripted = self._script.choose(info, self._clock.monotonic_s())
        try:
            by_name = info.header is not None or suffix is not None
            fault = scripted if scripted is not None and not by_name else self._plan.plan(info)
        except ConfigInvalid as error:
            return _Refused(error)
        return None if fault is None else _Happening(fault, info, exchange, self._clock)


class _Refused:
    """
    A request that names no fault that there is.

    Attributes:
        name: What the journal shows.

    Args:
        problem: What is wrong with the name.
    """

    name = "unknown"

    def __init__(self, problem: ConfigInvalid) -> None:
        self._problem = problem

    async def act(self, scope: Scope, receive: Receive, send: Send, rest: AsgiApp) -> None:
        """Answer 400, with the faults that there are."""
        del receive, rest
        reply = encode_error_reply(InvalidRequest(self._problem.message, http_status=400))
        body = as_openai_tells(reply.body, 400) if _of_openai(scope) else reply.body
        await Line(send).whole(reply.status, reply.headers, body)


class _Happening:
    """
    A fault on one request.

    Attributes:
        name: The fault's id.

    Args:
        fault: What it is.
        info: What is known of the request.
        exchange: Where it is taken down.
        clock: Waits.
    """

    def __init__(self, fault: Fault, info: RequestInfo, exchange: Exchange, clock: Clock) -> None:
        self.name = fault.row.id
        self._fault = fault
        self._info = info
        self._exchange = exchange
        self._clock = clock

    async def act(self, scope: Scope, receive: Receive, send: Send, rest: AsgiApp) -> None:
        """
        Do it.

        Args:
            scope: ASGI's, with the connection's transport.
            receive: ASGI's; gives the body again.
            send: ASGI's.
            rest: The rest of the way.
        """
        body = await receive()
        wire = Wire(scope, self._clock, self._exchange)

        def answer(*, swapped: bool = False) -> Any:
            wire.notes = False
            first = _swapped(self._exchange) or body if swapped else body
            return _answered(rest, scope, _again(first, receive))

        scene = Scene(
            fault=self._fault,
            info=self._info,
            wire=wire,
            send=send,
            answer=answer,
            clock=self._clock,
            openai=_of_openai(scope),
        )
        try:
            await ACTS[self._fault.row.act](scene)
        except CallerGone:
            await wire.end("close")


class LateReader:
    """
    The outermost application: leaves a request's body unread when its header asks for that.

    Whatever is inside reads the body first, and so comes too late for this fault.

    Args:
        app: The application.
        clock: Waits.
    """

    def __init__(self, app: AsgiApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        asked = next((value for name, value in scope["headers"] if name == _HEADER), b"")
        if b"unread" in asked:
            await self._wait(scope, asked.decode("latin-1"))
        await self._app(scope, receive, send)

    async def _wait(self, scope: Scope, asked: str) -> None:
        try:
            fault = parse_fault(asked)
        except ConfigInvalid:
            return  # the gate says so to the caller
        if fault.row.act == "unread":
            transport = transport_of(scope)
            transport.pause_reading()
            if await passed(lost_of(scope), self._clock, fault.number("seconds")):
                transport.resume_reading()


def _of_openai(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(_OPENAI)


def _swapped(exchange: Exchange) -> dict[str, Any] | None:
    if exchange.fields is None or not exchange.asked.path.endswith("/completions"):
        return None  # there is only one kind
    # OpenAI takes these options with a stream alone.
    fields = {name: value for name, value in exchange.fields.items() if name != "stream_options"}
    exchange.fields = {**fields, "stream": not exchange.streamed}
    exchange.body = msgspec.json.encode(exchange.fields)
    return {"type": "http.request", "body": exchange.body, "more_body": False}


def _again(first: Any, receive: Receive) -> Receive:
    given = False

    async def again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first

    return again


@asynccontextmanager
async def _answered(app: AsgiApp, scope: Scope, receive: Receive) -> AsyncIterator[Answer]:
    """What the application answers; it is stopped when the block is left."""
    # Without a bound: an answer is small, and its pace is the application's own.
    sent: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()

    async def run() -> None:
        try:
            await app(scope, receive, sent.put)
        finally:
            sent.put_nowait(None)

    task = asyncio.ensure_future(run())
    try:
        start = await sent.get()
        if start is None:
            raise CallerGone
        headers = list(start["headers"])
        streamed = dict(headers).get(b"content-type", b"").startswith(_STREAM)
        async with aclosing(_bodies(sent)) as pieces:
            yield Answer(start["status"], headers, pieces, streamed)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _bodies(sent: asyncio.Queue[Mapping[str, Any] | None]) -> AsyncGenerator[bytes, None]:
    while (message := await sent.get()) is not None:
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return
