"""A conversation of the command line: an agent, its session, and one turn after another."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, TypeVar

from click.exceptions import Exit

from loom.agent.history import messages_of, settled
from loom.agent.response import AgentResponse
from loom.agent.session import SessionStore
from loom.cli.approve import Approver
from loom.cli.follow import Follower
from loom.cli.keep import RUN_TAG
from loom.cli.terminal import Terminal
from loom.core.errors import BudgetExceeded
from loom.core.messages import Message

if TYPE_CHECKING:
    from loom.client.agent import AsyncAgent

__all__ = ["Conversation", "is_live"]

T = TypeVar("T")

_INTERRUPTED = 130
_OWN_BUDGET = re.compile(rf"the budget of the tag:{re.escape(RUN_TAG)} '\w+' \(([\d.]+) USD\)")


class Conversation:
    """
    Turns of one agent, shown on the terminal.

    Everything runs on the main thread: what is asked on the terminal stands behind what came
    before it, and Ctrl-C cancels the turn.

    Args:
        terminal: Where things go.
        runner: Its event loop.
        agent: Answers; closed by who made it.
        approver: Asks on the same terminal.
        store: Where sessions are kept; None: nowhere.
        session: Which one; None: none.
        preface: What a new session is told first, as its instructions; None: nothing.
        as_of: The day whose prices hold for estimates.
        live: Whether text is shown as it comes.

    Attributes:
        terminal: As given.
        agent: As given.
        store: As given.
        session: The session of the next turn; it may be changed.
        options: Options of each turn; they may be changed.
        tells_session: Whether the session stands beside each cost.
    """

    def __init__(
        self,
        terminal: Terminal,
        runner: asyncio.Runner,
        agent: AsyncAgent,
        approver: Approver,
        *,
        store: SessionStore | None = None,
        session: str | None = None,
        preface: str | None = None,
        as_of: date | None = None,
        live: bool = True,
    ) -> None:
        self.terminal = terminal
        self.agent = agent
        self.store = store
        self.session = session
        self.options: dict[str, Any] = {}
        self.tells_session = True
        self._runner = runner
        self._approver = approver
        self._preface = preface
        self._as_of = as_of
        self._live = live

    @property
    def model(self) -> str:
        """Who is asked."""
        return str(self.options.get("model") or self.agent.model)

    def wait(self, what: Coroutine[Any, Any, T]) -> T:
        """
        Run something on the conversation's loop.

        Args:
            what: The coroutine.

        Returns:
            What it gives.
        """
        return self._runner.run(what)

    def opening(self, said: Sequence[Message]) -> list[Message]:
        """
        What is said, with the instructions before it that a new session begins with.

        Args:
            said: What the user says.

        Returns:
            The messages.
        """
        if self._preface is None or self.wait(self._is_known()):
            return list(said)
        return [Message.system(self._preface), *said]

    async def _is_known(self) -> bool:
        if self.store is None or self.session is None:
            return False
        return await self.store.info(self.session) is not None

    async def history(self) -> tuple[Message, ...]:
        """What the model is told of the session so far."""
        if self.store is None or self.session is None:
            return ()
        entries = await self.store.read(self.session)
        return (*messages_of(entries), *settled(entries))

    def say(self, said: Sequence[Message]) -> AgentResponse:
        """
        Do a turn, and show it.

        Args:
            said: What the user says.

        Returns:
            The answer.

        Raises:
            LoomError: What ended the turn.
            Exit: With 130 when it was interrupted; what came so far was shown.
        """
        every = self.opening(said)
        follower = self._follower(every)

        async def turn() -> AgentResponse:
            stream = self.agent.stream(every, session=self.session, **self.options)
            return await follower.follow(stream)

        return self._interruptible(turn(), follower)

    def resume(self) -> AgentResponse:
        """
        Go on where the session broke off, and show it.

        Returns:
            The answer.

        Raises:
            LoomError: What ended the turn.
            Exit: With 130 when it was interrupted.
        """
        follower = self._follower(())

        async def turn() -> AgentResponse:
            stream = self.agent.resume_stream(self.session or "", **self.options)
            return await follower.follow(stream)

        return self._interruptible(turn(), follower)

    def _follower(self, said: Sequence[Message]) -> Follower:
        return Follower(
            self.terminal,
            self._approver,
            model=self.model,
            said=said,
            session=self.session,
            tells_session=self.tells_session,
            live=self._live,
            as_of=self._as_of,
        )

    def _interruptible(
        self, turn: Coroutine[Any, Any, AgentResponse], follower: Follower
    ) -> AgentResponse:
        try:
            return self._runner.run(turn)
        except KeyboardInterrupt:
            follower.interrupted()
            raise Exit(_INTERRUPTED) from None
        except BudgetExceeded as error:
            # What `--max-cost` is kept by says nothing to who wrote `--max-cost`.
            error.message = _OWN_BUDGET.sub(r"--max-cost \1 for all calls", error.message)
            raise


def is_live(terminal: Terminal, stream: bool | None) -> bool:  # noqa: FBT001 - an option's value
    """
    Whether an agent's text is shown as it comes.

    Args:
        terminal: Where it goes.
        stream: What was asked for; None: nothing.

    Returns:
        As asked; else only on a terminal, where people read along: off it what a model says
        before it uses tools would stand in the answer.
    """
    if stream is not None:
        return stream
    return not terminal.json and terminal.out.is_terminal
