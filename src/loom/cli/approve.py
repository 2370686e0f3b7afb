"""Who approves a tool call on the command line: nobody, everybody, or the person in front of it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Literal, TypeAlias

from loom.cli.terminal import Terminal
from loom.cli.tool_text import call_text
from loom.core.messages import ToolCall
from loom.shuttle.permission import Permissions, Verdict

__all__ = ["APPROVALS", "Approver", "Mode"]

Mode: TypeAlias = Literal["auto", "ask", "never"]
"""What `--approve` takes."""

APPROVALS: tuple[Mode, ...] = ("auto", "ask", "never")
"""The words of `--approve`."""

# What cannot be read cannot be approved; of more than this it is said how much there is.
_MOST = 4000
_YES, _NO, _ALWAYS = ("y", "yes"), ("", "n", "no"), ("a", "always")


class Approver:
    """
    Decides about tool calls, and asks on the terminal where a person is to decide.

    Args:
        terminal: Where the question stands.
        mode: "auto" runs every tool, "ask" asks for each, "never" runs none; None: each tool says
            for itself whether to ask.

    Attributes:
        is_asking: Whether a question stands there, into which nothing may be written.
    """

    def __init__(self, terminal: Terminal, mode: Mode | None) -> None:
        self._terminal = terminal
        self._mode = mode
        self._always: set[str] = set()
        self.is_asking = False

    @property
    def permissions(self) -> Permissions:
        """What the agent is given."""
        if self._mode is None:
            return Permissions(ask=self._ask)
        return Permissions(approve=self._approve, ask=self._ask)

    async def _approve(self, call: ToolCall) -> Verdict:
        del call
        verdicts: dict[Mode | None, Verdict] = {"auto": "allow", "ask": "ask"}
        return verdicts.get(self._mode, "deny")

    async def _ask(self, call: ToolCall) -> Verdict:
        if call.name in self._always:
            return "allow"
        if not _can_ask():
            self._terminal.warn(
                f"{call_text(call)} needs an approval, and nobody can be asked off a terminal:"
                " it is denied (--approve auto allows it)"
            )
            return "deny"
        self.is_asking = True
        try:
            return await self._answer(call)
        finally:
            self.is_asking = False

    async def _answer(self, call: ToolCall) -> Verdict:
        _forget_typed()
        whole = call_text(call, most=sys.maxsize)
        hidden = f" ({len(whole) - _MOST:,} more characters)" if len(whole) > _MOST else ""
        while True:
            self._terminal.question(f"Run {whole[:_MOST]}{hidden}? [y]es, [n]o, [a]lways: ")
            line = await _read_line()
            word = line.strip().lower()
            if word in _ALWAYS:
                self._always.add(call.name)
            if word in (*_YES, *_ALWAYS):
                return "allow"
            if word in _NO:
                if not line:
                    # Ctrl-D left the cursor behind the question.
                    self._terminal.say("")
                return "deny"


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def _forget_typed() -> None:
    """Take away what was typed before the question was there: it is no answer to it."""
    try:
        import termios  # noqa: PLC0415 - not on every system
    except ImportError:  # pragma: no cover - Windows
        return
    termios.tcflush(sys.stdin, termios.TCIFLUSH)


async def _read_line() -> str:
    """Wait for a line of the terminal; a cancelled wait leaves nobody behind who reads."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[str] = loop.create_future()
    number = sys.stdin.fileno()

    def read() -> None:
        if not arrived.done():
            # A terminal gives a line at a time, and nothing at all for Ctrl-D.
            arrived.set_result(os.read(number, 4096).decode(errors="replace"))

    try:
        loop.add_reader(number, read)
    except RuntimeError:  # pragma: no cover - Windows has no such way
        return await loop.run_in_executor(None, sys.stdin.readline)
    try:
        return await arrived
    finally:
        loop.remove_reader(number)
