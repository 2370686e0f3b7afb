"""`AsyncAgent`: a model that uses tools until it has an answer, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any, Self

import msgspec

from loom.agent.backend import Backend
from loom.agent.backend_tools import backend_prompt, backend_tools
from loom.agent.events import AgentEvent, Done
from loom.agent.limits import AgentLimits, ContextPolicy
from loom.agent.loop import Parse
from loom.agent.response import AgentResponse
from loom.agent.runtime import AgentRuntime
from loom.agent.session import SessionStore
from loom.agent.session_open import open_sessions
from loom.agent.turn import Ask
from loom.client.answering import llm_of
from loom.client.arguments import BudgetLike
from loom.client.closing import AsyncClosing
from loom.client.discreet import discreet, discreet_async
from loom.client.llm import Llm, LlmLike
from loom.client.options import Messages, coerce_messages
from loom.client.output import parsed_response
from loom.client.watched import Watched
from loom.core.ambient import Clock, Dice, SystemDice
from loom.core.errors import ConfigInvalid, StreamTruncated
from loom.core.messages import Message
from loom.core.request import ChatRequest, ToolSpec
from loom.shuttle.permission import Permissions
from loom.shuttle.source import ToolSource
from loom.shuttle.tool import Tool, tool_specs

__all__ = ["AgentTool", "AsyncAgent", "AsyncAgentStream", "checked_tools"]

AgentTool = Tool | ToolSource
"""What an agent may use: a tool (`@tool`), or what brings tools (`mcp(...)`)."""


class AsyncAgent(AsyncClosing):
    """
    A model that uses tools until it has an answer, for asyncio. Works with `async with`.

    One agent serves any number of tasks of one event loop. Turns of different sessions run side
    by side; those of one session queue.

    Args:
        llm: Who answers: `"mistral:mistral-large-latest"`, a client (`AsyncMistral(...)`,
            `Mistral(...)`), or any `LLMProvider`. A client is not closed with the agent.
        tools: What the model may use; sources of tools are closed with the agent.
        backend: What the agent works on; its operations become tools, its schema is told to the
            model, and it is closed with the agent.
        system_prompt: What the model is told of its task.
        sessions: Where conversations are kept: "sqlite:///chats.db", a path, "memory:", or a
            store; None: nowhere, each turn stands alone.
        limits: How far one turn may go.
        permissions: Which tools may run, and who is asked.
        context: What happens to a conversation that outgrows the model's window: "slide" leaves
            out the oldest turns, "summarise" has the model tell them in few words, "error" raises
            `ContextTooLong`.
        budget: What calls may cost, as for `Mistral`; None: as the client has it.
        name: The agent's name in traces.
        options: Options of each call (`temperature`, `max_tokens`, `reasoning_effort`, ...);
            those of a turn win.
        dice: Draws the ids of sessions; for tests.
        clock: Tells time to the agent; None: the client's.

    Raises:
        ConfigInvalid: If one of these is not as it must be.
        InvalidRequest: If two tools have one name, or a tool is malformed.
        LoomError: As making a client, when `llm` is a name.
    """

    @discreet
    def __init__(
        self,
        *,
        llm: LlmLike | Llm,
        tools: Iterable[AgentTool] = (),
        backend: Backend | None = None,
        system_prompt: str | None = None,
        sessions: str | Path | SessionStore | None = None,
        limits: AgentLimits = AgentLimits(),  # noqa: B008 - a frozen value
        permissions: Permissions = Permissions(),  # noqa: B008 - a frozen value
        context: ContextPolicy = "slide",
        budget: BudgetLike | None = None,
        name: str = "agent",
        options: Mapping[str, Any] | None = None,
        dice: Dice | None = None,
        clock: Clock | None = None,
    ) -> None:
        if context not in ("slide", "summarise", "error"):
            raise ConfigInvalid(f"'context' is 'slide', 'summarise' or 'error', not {context!r}")
        given = checked_tools(tools)
        self.name = name
        self._backend = backend
        self._system_prompt = system_prompt
        self._options = dict(options or {})
        changes = {} if budget is None else {"budget": budget}
        self._llm = llm_of(llm, changes, clock)
        owned = isinstance(sessions, str | Path)
        store = open_sessions(sessions) if isinstance(sessions, str | Path) else sessions
        self._runtime = AgentRuntime(
            self._llm.provider,
            clock=clock or self._llm.clock,
            dice=dice or SystemDice(),
            tools=given if backend is None else (*given, *backend_tools(backend)),
            sessions=store,
            owned=owned,
            limits=limits,
            permissions=permissions,
            context=context,
            window=self._llm.window,
            name=name,
            telemetry=self._llm.telemetry,
        )
        self._closed = False

    @classmethod
    def from_file(cls, path: str | Path, **changes: Any) -> Self:
        """Make the agent of a YAML file; arguments and errors as of `parts_from_file`."""
        from loom.client.file_parts import parts_from_file  # noqa: PLC0415 - most agents have none

        return cls(**parts_from_file(path, changes))

    @property
    def model(self) -> str:
        """The model when a turn names none."""
        return self._llm.provider.model

    @property
    def sessions(self) -> SessionStore | None:
        """Where conversations are kept: read, list, search, delete them here."""
        return self._runtime.sessions

    async def tools(self) -> tuple[ToolSpec, ...]:
        """
        The tools as the model is told of them; sources are asked for theirs.

        Returns:
            One of each tool that may run.

        Raises:
            LoomError: What a source raises that cannot be reached.
        """
        return await self._runtime.specs()

    async def instructions(self) -> tuple[Message, ...]:
        """
        What the model is told before each conversation: its task, and what the backend holds.

        Returns:
            A system message, or none.

        Raises:
            LoomError: What the backend raises.
        """
        parts = [] if self._system_prompt is None else [self._system_prompt]
        if self._backend is not None:
            parts.append(await backend_prompt(self._backend))
        return (Message.system("\n\n".join(parts)),) if parts else ()

    @discreet_async
    async def chat(
        self, messages: Messages, *, session: str | None = None, **options: Any
    ) -> AgentResponse:
        """
        Say something, and wait for the answer; tools run meanwhile.

        Args:
            messages: A string, a `Message`, a dict, or a list of these.
            session: Which conversation goes on; None: a new one.
            options: Any option of `Mistral.chat` (`temperature`, `tool_choice`, `output`, ...);
                `tool_choice` holds until a tool was called.

        Returns:
            The answer, with every call, every tool, and the sum of tokens and costs.

        Raises:
            CallerError: What is asked is not as it must be.
            VendorError: The vendor, or the way to it, failed; `.partial.usage` is the turn's.
            ToolCallMissing: A tool was required, and the model called none, asked twice.
            OutputInvalid: With `output`: the answer does not fit, asked twice.
            Conflict: Somebody else wrote to the session meanwhile.
            RuntimeError: After `aclose`.
        """
        turn = self._turn(coerce_messages(messages), session, options)
        return await _folded(turn)

    @discreet
    def stream(
        self, messages: Messages, *, session: str | None = None, **options: Any
    ) -> AsyncAgentStream:
        """
        Say something, and see what happens. A plain call; iterate over what it returns.

        Args:
            messages: As for `chat`.
            session: As for `chat`.
            options: As for `chat`.

        Returns:
            Text, thinking, tools that start and finish, costs, and `Done` at last. Nothing is
            sent before the first event is asked for.

        Raises:
            CallerError: If messages are not as they must be.
            RuntimeError: After `aclose`.
        """
        turn = self._turn(coerce_messages(messages), session, options, stream=True)
        return AsyncAgentStream(turn)

    @discreet_async
    async def resume(self, session: str, **options: Any) -> AgentResponse:
        """
        Go on where a turn of a session broke off: by a crash, an error, a cancellation.

        Results that stand in the session are used; tools that had not begun are run; one that had
        begun and left no result is not run again, unless it is `repeatable`: the model is told.

        Args:
            session: Which conversation.
            options: As for `chat`.

        Returns:
            The answer.

        Raises:
            InvalidRequest: If there is nothing to go on with.
            LoomError: As `chat`.
            RuntimeError: After `aclose`.
        """
        return await _folded(self._turn((), session, options))

    @discreet
    def resume_stream(self, session: str, **options: Any) -> AsyncAgentStream:
        """
        Go on as `resume` does, and see what happens. A plain call; iterate over what it returns.

        Args:
            session: Which conversation.
            options: As for `chat`.

        Returns:
            As `stream`.

        Raises:
            RuntimeError: After `aclose`.
        """
        return AsyncAgentStream(self._turn((), session, options, stream=True))

    async def aclose(self) -> None:
        """End tools that still run, close backend and sources of tools; safe to call twice."""
        if self._closed:
            return
        self._closed = True
        await self._runtime.aclose()
        if self._backend is not None:
            await self._backend.close()
        if self._llm.close is not None:
            await self._llm.close()

    def __repr__(self) -> str:
        """Name and model."""
        closed = " closed" if self._closed else ""
        return f"<{type(self).__name__} {self.name!r} model={self.model!r}{closed}>"

    def _turn(
        self,
        said: tuple[Message, ...],
        session: str | None,
        options: Mapping[str, Any],
        *,
        stream: bool = False,
    ) -> AsyncGenerator[AgentEvent, None]:
        if self._closed:
            raise RuntimeError("this agent is closed; make a new one")
        every = {**self._options, **options}
        if "tools" in every:
            raise TypeError("an agent has its tools from the start: give them to AsyncAgent(...)")
        return self._runtime.stream(
            said, self._ask(every, stream=stream), session=session, parse=_parse(every)
        )

    def _ask(self, options: Mapping[str, Any], *, stream: bool) -> Ask:
        async def ask(tools: tuple[ToolSpec, ...]) -> ChatRequest:
            # The turn puts the tools in; here they only say which `tool_choice` there may be.
            named = tools if "tool_choice" in options else ()
            request = self._llm.build(named, options)
            return msgspec.structs.replace(
                request, messages=await self.instructions(), stream=stream
            )

        return ask


class AsyncAgentStream(Watched[AgentEvent, AgentResponse]):
    """
    What happens during one turn: an async iterator, and an async context manager.

    It closes itself at `Done`, on an error, and when the block is left: models are no longer
    asked then, and tools that run are cancelled. One that is dropped in the middle is closed by
    the garbage collector, with a `ResourceWarning`.

    Args:
        events: The events of a turn.
    """

    def __init__(self, events: AsyncGenerator[AgentEvent, None]) -> None:
        super().__init__(events, Done)

    @property
    def text_stream(self) -> AsyncIterator[str]:
        """
        The pieces of what the model says, before and after it uses tools.

        When an answer begins anew after some of it was given (`rescue=True`), this raises
        `StreamTruncated`. Iterate over the events to follow it.
        """
        return self._texts()

    @discreet_async
    async def final(self) -> AgentResponse:
        """
        Read to the end.

        Returns:
            The whole answer.

        Raises:
            LoomError: Whatever ended the turn.
            StreamTruncated: If the stream was closed before its end.
        """
        return await super().final()


async def _folded(events: AsyncGenerator[AgentEvent, None]) -> AgentResponse:
    async with aclosing(events):
        async for event in events:
            if type(event) is Done:
                return event.response
    raise StreamTruncated("the turn ended before its answer was complete")


def _parse(options: Mapping[str, Any]) -> Parse | None:
    output = options.get("output")
    if output is None:
        return None
    return lambda response: parsed_response(response, output).parsed


def checked_tools(tools: Iterable[AgentTool]) -> tuple[AgentTool, ...]:
    """
    Refuse what is no tool.

    Args:
        tools: Tools, and what brings tools.

    Returns:
        The same.

    Raises:
        ConfigInvalid: If it is no list, or something in it cannot run; the position is named.
        InvalidRequest: If two tools have one name, or one is malformed.
    """
    if isinstance(tools, str | Mapping) or not isinstance(tools, Iterable):
        raise ConfigInvalid("'tools' must be a list of tools: decorate functions with @tool")
    every = tuple(tools)
    for place, each in enumerate(every):
        if not isinstance(each, Tool | ToolSource):
            raise ConfigInvalid(
                f"tools[{place}] is a {type(each).__name__}, which cannot run: decorate a function"
                " with @tool, or give an object with name, description, parameters and execute"
            )
    # Two of one name, and malformed ones, are found here and not by the first call.
    tool_specs(each for each in every if isinstance(each, Tool))
    return every
