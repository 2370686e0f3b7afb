"""`Agent`: the blocking twin of `AsyncAgent`. It holds no logic: the portal runs each turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from loom.agent.backend import Backend
from loom.agent.events import AgentEvent, Done
from loom.agent.limits import AgentLimits, ContextPolicy
from loom.agent.response import AgentResponse
from loom.agent.session import SessionStore
from loom.client.agent import AgentTool, AsyncAgent, AsyncAgentStream
from loom.client.arguments import BudgetLike
from loom.client.closing import Closing
from loom.client.discreet import discreet
from loom.client.lease import Lease
from loom.client.llm import LlmLike
from loom.client.options import Messages
from loom.client.sessions import Sessions
from loom.client.watched_reader import WatchedReader
from loom.core.ambient import Clock, Dice
from loom.core.request import ToolSpec
from loom.shuttle.permission import Permissions

__all__ = ["Agent", "AgentStream"]


class Agent(Closing):
    """
    A model that uses tools until it has an answer. Works with `with`, and without.

    One agent serves any number of threads. Turns of different sessions run side by side; those of
    one session queue. Blocking tools run in threads of their own; Ctrl-C ends the turn.

    Args:
        llm: Who answers: `"mistral:mistral-large-latest"`, a client (`Mistral(...)`,
            `AsyncMistral(...)`), or any `LLMProvider`. A client is not closed with the agent.
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
        llm: LlmLike,
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
        self._async = AsyncAgent(
            llm=llm,
            tools=tools,
            backend=backend,
            system_prompt=system_prompt,
            sessions=sessions,
            limits=limits,
            permissions=permissions,
            context=context,
            budget=budget,
            name=name,
            options=options,
            dice=dice,
            clock=clock,
        )
        self._lease = Lease(self._async.aclose)
        # A blocking client that nobody else holds must live as long as its agent.
        self._llm = llm

    @classmethod
    def of(cls, agent: AsyncAgent) -> Self:
        """
        The blocking twin of an agent; it owns it.

        Args:
            agent: One that was not used yet.

        Returns:
            The twin.
        """
        twin = cls.__new__(cls)
        twin._async = agent  # noqa: SLF001 - a new one of itself
        twin._lease = Lease(agent.aclose)  # noqa: SLF001 - a new one of itself
        return twin

    @classmethod
    def from_file(cls, path: str | Path, **changes: Any) -> Self:
        """Make the agent of a YAML file; arguments and errors as of `AsyncAgent.from_file`."""
        return cls.of(AsyncAgent.from_file(path, **changes))

    @property
    def name(self) -> str:
        """The agent's name in traces."""
        return self._async.name

    @property
    def model(self) -> str:
        """The model when a turn names none."""
        return self._async.model

    @property
    def sessions(self) -> Sessions | None:
        """Where conversations are kept: read, list, search, export, delete them here."""
        store = self._async.sessions
        return None if store is None else Sessions(store, self._lease)

    def tools(self) -> tuple[ToolSpec, ...]:
        """
        The tools as the model is told of them; sources are asked for theirs.

        Returns:
            One of each tool that may run.

        Raises:
            LoomError: What a source raises that cannot be reached.
        """
        return self._lease.portal().call(self._async.tools)

    @discreet
    def chat(
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
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(
            lambda: self._async.chat(messages, session=session, **options)
        )

    @discreet
    def stream(
        self, messages: Messages, *, session: str | None = None, **options: Any
    ) -> AgentStream:
        """
        Say something, and see what happens; iterate over what this returns.

        Args:
            messages: As for `chat`.
            session: As for `chat`.
            options: As for `chat`.

        Returns:
            Text, thinking, tools that start and finish, costs, and `Done` at last. Nothing is
            sent before the first event is asked for.

        Raises:
            CallerError: If messages are not as they must be.
            RuntimeError: After `close`.
        """
        events = self._async.stream(messages, session=session, **options)
        return AgentStream(self._lease, events, owner=self)

    @discreet
    def resume(self, session: str, **options: Any) -> AgentResponse:
        """
        Go on where a turn of a session broke off: by a crash, an error, Ctrl-C.

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
            RuntimeError: After `close`, or on the thread of the clients' event loop.
        """
        return self._lease.portal().call(lambda: self._async.resume(session, **options))

    @discreet
    def resume_stream(self, session: str, **options: Any) -> AgentStream:
        """
        Go on as `resume` does, and see what happens; iterate over what this returns.

        Args:
            session: Which conversation.
            options: As for `chat`.

        Returns:
            As `stream`.

        Raises:
            RuntimeError: After `close`.
        """
        events = self._async.resume_stream(session, **options)
        return AgentStream(self._lease, events, owner=self)

    def close(self) -> None:
        """
        End tools that still run, close backend and sources of tools; safe to call twice.

        Raises:
            RuntimeError: On the thread of the clients' event loop.
        """
        self._lease.close()

    def __del__(self) -> None:
        """Have a forgotten agent closed."""
        lease: Lease | None = getattr(self, "_lease", None)
        if lease is not None:
            lease.abandon()

    def __repr__(self) -> str:
        """Name and model."""
        closed = " closed" if self._lease.closed else ""
        return f"<{type(self).__name__} {self.name!r} model={self.model!r}{closed}>"


class AgentStream(WatchedReader[AgentEvent, AgentResponse]):
    """
    What happens during one turn: an iterator, and a context manager.

    It closes itself at `Done`, on an error, on Ctrl-C, and when the block is left: models are no
    longer asked then, and tools that run are cancelled. One that is dropped in the middle is
    closed by the garbage collector, with a `ResourceWarning`.

    Args:
        lease: The agent's share of the portal.
        events: The stream of the async agent.
        owner: The agent; it lives as long as its streams.
    """

    def __init__(self, lease: Lease, events: AsyncAgentStream, *, owner: object = None) -> None:
        super().__init__(lease, events, last=Done, owner=owner)

    @property
    def text_stream(self) -> Iterator[str]:
        """
        The pieces of what the model says, before and after it uses tools.

        When an answer begins anew after some of it was given (`rescue=True`), this raises
        `StreamTruncated`. Iterate over the events to follow it.
        """
        return self._texts()

    @discreet
    def final(self) -> AgentResponse:
        """
        Read to the end.

        Returns:
            The whole answer.

        Raises:
            LoomError: Whatever ended the turn.
            StreamTruncated: If the stream was closed before its end.
        """
        return super().final()
