"""An agent as it runs: sessions in turns, tools of every kind, one answer at a time in each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import msgspec

from loom.agent.events import AgentEvent, Done, Summarised
from loom.agent.limits import AgentLimits, ContextPolicy
from loom.agent.log import Log
from loom.agent.loop import Gear, Parse
from loom.agent.response import AgentResponse
from loom.agent.session import SessionStore, new_session_id
from loom.agent.tally import Tally
from loom.agent.turn import Ask, begin_turn
from loom.core.ambient import Clock, Dice
from loom.core.errors import LoomError, StreamTruncated
from loom.core.messages import Message
from loom.core.provider import LLMProvider
from loom.core.request import ToolSpec
from loom.layers.trace import Telemetry, ending
from loom.shuttle.executor import Executor
from loom.shuttle.permission import Permissions
from loom.shuttle.source import ToolSource
from loom.shuttle.tool import Tool

if TYPE_CHECKING:
    from asyncio import Lock

    from loom.layers.trace_agent import AgentRecorder

__all__ = ["AgentRuntime"]

_log = logging.getLogger("loom.agent")


class AgentRuntime:
    """
    Holds chats: each turn runs the loop over one session, and turns of one session queue.

    Args:
        provider: Answers; not closed by this.
        clock: Tells the time.
        dice: Draws the ids of sessions.
        tools: Tools, and what brings tools; sources are closed by `aclose`.
        sessions: Where conversations are kept; None: nowhere. Closed by `aclose` if `owned`.
        owned: Whether the session store is closed with this.
        limits: How far a turn may go.
        permissions: Which tools may run.
        context: What happens to a conversation that outgrows the window.
        window: Gives a model's window in tokens, None when unknown; for "summarise".
        name: The agent's name in traces.
        telemetry: Where spans and metrics of turns and tools go; None: nowhere.
    """

    def __init__(
        self,
        provider: LLMProvider,
        *,
        clock: Clock,
        dice: Dice,
        tools: Iterable[Tool | ToolSource] = (),
        sessions: SessionStore | None = None,
        owned: bool = False,
        limits: AgentLimits = AgentLimits(),  # noqa: B008 - a frozen value
        permissions: Permissions = Permissions(),  # noqa: B008 - a frozen value
        context: ContextPolicy = "slide",
        window: Callable[[str], int | None] = lambda _: None,
        name: str = "agent",
        telemetry: Telemetry | None = None,
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._dice = dice
        self._given = tuple(tools)
        # Looked at once: to ask a protocol of a tool costs as much as all else before a turn.
        self._sources = [each for each in self._given if isinstance(each, ToolSource)]
        self._sessions = sessions
        self._owned = owned
        self._limits = limits
        self._permissions = permissions
        self._context: ContextPolicy = context
        self._window = window
        self._name = name
        self._telemetry = telemetry
        self._executor: Executor | None = None
        self._former: list[Executor] = []
        self._in_use: Counter[Executor] = Counter()
        self._tools: tuple[Tool, ...] = ()
        self._queues: dict[str, tuple[Lock, int]] = {}
        self._closed = False

    @property
    def sessions(self) -> SessionStore | None:
        """Where conversations are kept."""
        return self._sessions

    async def specs(self) -> tuple[ToolSpec, ...]:
        """
        The tools as the model is told of them.

        Returns:
            One of each tool that may run.

        Raises:
            LoomError: What a source raises that cannot be reached.
        """
        return (await self._ready()).specs

    async def chat(
        self,
        said: tuple[Message, ...],
        ask: Ask,
        *,
        session: str | None = None,
        parse: Parse | None = None,
    ) -> AgentResponse:
        """
        Do one turn, and wait for its answer; arguments and errors as of `stream`.

        Args:
            said: What the user says; empty: go on where the session broke off.
            ask: Gives model, options and system messages; these come before the session's.
            session: Which conversation; None: a new one.
            parse: Reads the answer as a value.

        Returns:
            The answer.
        """
        async with aclosing(self.stream(said, ask, session=session, parse=parse)) as events:
            async for event in events:
                if type(event) is Done:
                    return event.response
        raise StreamTruncated("the turn ended before its answer was complete")

    async def stream(
        self,
        said: tuple[Message, ...],
        ask: Ask,
        *,
        session: str | None = None,
        parse: Parse | None = None,
    ) -> AsyncGenerator[AgentEvent, None]:
        """
        Do one turn, and tell what happens.

        Args:
            said: What the user says; empty: go on where the session broke off.
            ask: Gives model, options and system messages; these come before the session's.
            session: Which conversation; None: a new one, which is kept if there is a store.
            parse: Reads the answer as a value.

        Yields:
            What happens; `Done` at last.

        Raises:
            InvalidRequest: If there is nothing to go on with.
            Conflict: If somebody else wrote to the session meanwhile.
            LoomError: What ends the turn without an answer.
            RuntimeError: After `aclose`.
        """
        if session is None and self._sessions is not None:
            session = new_session_id(self._dice)
        async with nullcontext() if session is None else self._place(session):
            executor = await self._ready()
            trace = self._trace(session)
            self._in_use[executor] += 1
            try:
                tally = Tally(self._limits, self._clock.monotonic_s())
                gear = self._gear(executor, parse, trace)
                log = await Log.open(self._sessions, session)
                turn = await begin_turn(
                    gear, log, ask, said, tally=tally, session=session, window=self._window
                )
                if turn.summarised:
                    yield Summarised(turn.summarised)
                async with aclosing(turn.loop.run(turn.left)) as events:
                    async for event in events:
                        yield (
                            self._finished(event, session, trace)
                            if isinstance(event, Done)
                            else event
                        )
            except BaseException as error:
                # A turn that nobody waits for any more is told to the trace too.
                self._failed(error, trace)
                raise
            finally:
                self._in_use[executor] -= 1

    async def aclose(self) -> None:
        """End every tool that still runs, and close what brought tools; safe to call twice."""
        self._closed = True
        executors, self._former = self._former, []
        if self._executor is not None:
            executors.append(self._executor)
        self._executor = None
        for executor in executors:
            await executor.aclose()
        for source in self._sources:
            await source.aclose()
        if self._owned and self._sessions is not None:
            await self._sessions.aclose()

    @asynccontextmanager
    async def _place(self, session: str) -> AsyncGenerator[None, None]:
        """Wait for the turns of the session that came before; they go in order."""
        from asyncio import Lock  # noqa: PLC0415 - asyncio brings ssl: 25 ms for an import of loom

        lock, waiting = self._queues.get(session) or (Lock(), 0)
        self._queues[session] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._queues.pop(session)
            if waiting > 1:
                self._queues[session] = (lock, waiting - 1)

    async def _ready(self) -> Executor:
        """The executor of the tools that there are now: a source may have others by now."""
        if self._closed:
            # A turn that queued until now: it would open again what was closed.
            raise RuntimeError("this agent is closed; make a new one")
        if self._executor is not None and not self._sources:
            return self._executor
        tools: list[Tool] = []
        for given in self._given:
            tools += await given.tools() if isinstance(given, ToolSource) else (given,)
        if self._executor is None or tuple(tools) != self._tools:
            if self._executor is not None:
                # Turns that began with it still use it.
                self._former.append(self._executor)
            await self._retire()
            self._tools = tuple(tools)
            limits = self._limits
            self._executor = Executor(
                tools,
                clock=self._clock,
                timeout_s=limits.tool_timeout_s,
                max_output_bytes=limits.max_output_bytes,
                max_parallel=limits.max_parallel,
                permissions=self._permissions,
            )
        return self._executor

    async def _retire(self) -> None:
        """Close executors whose tools are no longer offered, and that no turn uses."""
        idle = [executor for executor in self._former if not self._in_use[executor]]
        for executor in idle:
            self._former.remove(executor)
            del self._in_use[executor]
            await executor.aclose()

    def _gear(self, executor: Executor, parse: Parse | None, trace: AgentRecorder | None) -> Gear:
        return Gear(
            provider=self._provider,
            executor=executor,
            clock=self._clock,
            limits=self._limits,
            context=self._context,
            parse=parse,
            trace=trace,
        )

    def _trace(self, session: str | None) -> AgentRecorder | None:
        if self._telemetry is None:
            return None
        from loom.layers.trace_agent import AgentRecorder  # noqa: PLC0415 - an extra

        return AgentRecorder(
            self._telemetry.instruments,
            agent=self._name,
            provider=self._provider.name,
            model=self._provider.model,
            session=session,
            now_s=self._clock.monotonic_s(),
            content=self._telemetry.content,
        )

    def _finished(self, event: Done, session: str | None, trace: AgentRecorder | None) -> Done:
        response = msgspec.structs.replace(event.response, session=session)
        self._told(response)
        if trace is not None:
            trace.answered(response.usage, _facts(response), self._clock.monotonic_s())
        return Done(response)

    def _failed(self, error: BaseException, trace: AgentRecorder | None) -> None:
        if trace is None:
            return
        partial = error.partial if isinstance(error, LoomError) else None
        code = error.code if isinstance(error, LoomError) else ending(error)
        usage = None if partial is None else partial.usage
        trace.ended(code, usage, self._clock.monotonic_s())

    def _told(self, response: AgentResponse) -> None:
        """Say in the log what the turn cost."""
        cost, total, warn = (
            response.usage.cost_usd,
            response.session_cost_usd,
            self._limits.warn_usd,
        )
        is_dear = warn is not None and total - (cost or 0) < warn <= total
        if not is_dear and not _log.isEnabledFor(logging.INFO):
            return
        facts = {
            "turn_cost": "unknown" if cost is None else f"{cost:.6f}",
            "total_cost": f"{total:.6f}",
            "input_tokens": response.usage.input_tokens,
            "output_tokens": response.usage.output_tokens,
            "calls": len(response.calls),
            "tool_executions": len(response.tool_executions),
            "session": response.session or "",
        }
        _log.info("Turn completed", extra=facts)
        if is_dear:
            _log.warning(
                "Session cost exceeds threshold",
                extra={**facts, "threshold": f"{warn:.6f}"},
            )


def _facts(response: AgentResponse) -> dict[str, int | str]:
    """What a turn's span says beside its tokens."""
    facts: dict[str, int | str] = {
        "loom.agent.calls": len(response.calls),
        "loom.agent.tool_executions": len(response.tool_executions),
    }
    if response.stopped_by is not None:
        facts["loom.agent.stopped_by"] = response.stopped_by
    return facts
