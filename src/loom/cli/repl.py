"""`looms chat` alone: one question after another, and commands that begin with a slash."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from click.exceptions import Exit

from loom.agent.session import Entry, Said, SessionInfo, Withdrawn, check_session_id
from loom.agent.session_export import ExportForm, export_session
from loom.cli.converse import Conversation
from loom.cli.editor import Editor, open_editor
from loom.cli.history import History
from loom.cli.terminal import dollars
from loom.cli.tool_text import visible
from loom.cli.turn_text import counted
from loom.config.folders import state_folder
from loom.core.errors import LoomError
from loom.core.messages import Message

__all__ = ["Repl", "withdrawal"]

_COMMAND = re.compile(r"/([a-z]*)(?:\s+(.*))?", re.DOTALL)
_FORMS: dict[str, ExportForm] = {".json": "json", ".jsonl": "jsonl"}
_SESSIONS = 10
_FIRST_WORDS = 40


class Repl:
    """
    Reads questions and commands until somebody leaves.

    Args:
        conversation: Does the turns; it has a session.
        take_model: Gives the id of a model, and raises if there is no such; None: any may be.
        editor: Where somebody types; None: the best that there is.
        again: How one goes on with the session later, for example `looms chat -c`.
    """

    def __init__(
        self,
        conversation: Conversation,
        *,
        take_model: Callable[[str], str] | None = None,
        editor: Editor | None = None,
        again: str = "looms chat -c",
    ) -> None:
        self._conversation = conversation
        self._terminal = conversation.terminal
        # It is told at the end, and by `/session`.
        conversation.tells_session = False
        self._take_model = take_model
        self._again = again
        self._commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "help": ("this list", self._help),
            "model": ("which model answers; /model ID takes another", self._model),
            "tools": ("what the model may use", self._tools),
            "cost": ("what this conversation has cost", self._cost),
            "undo": ("take back the last question and its answer", self._undo),
            "save": (
                "write the conversation to a file: /save talk.md, .json or .jsonl",
                self._save,
            ),
            "session": ("which conversation this is; /session NAME takes another", self._session),
            "quit": ("leave; Ctrl-D does too", _leave),
        }
        self._editor = editor or open_editor(
            History(state_folder() / "history"), [f"/{name}" for name in self._commands]
        )

    def run(self) -> None:
        """Read and answer until somebody leaves."""
        terminal = self._terminal
        terminal.say(f"{self._conversation.model} · /help lists the commands · Ctrl-D leaves")
        before = self._info()
        if before is not None:
            turns = counted(before.turns, "question")
            terminal.say(f"going on with {before.id}: {turns}, {_cut(before.title)}")
        while True:
            try:
                text = self._editor.read()
            except EOFError:
                break
            except KeyboardInterrupt:
                terminal.say("Ctrl-C ends an answer; Ctrl-D or /quit leaves")
                continue
            try:
                self._do(text)
            except _Left:
                break
            except LoomError as error:
                terminal.fail(error)
            except (Exit, KeyboardInterrupt):
                # An answer was interrupted, and what came of it was shown.
                continue
        if self._info() is not None:
            terminal.say(f"session {self._conversation.session} · `{self._again}` goes on")

    def _do(self, text: str) -> None:
        match = _COMMAND.fullmatch(text.strip())
        if match is None:
            if text.strip():
                # Two slashes begin a question that begins with one.
                said = text.removeprefix("/") if text.startswith("//") else text
                self._conversation.say([Message.user(said)])
            return
        name = {"exit": "quit", "": "help"}.get(match[1], match[1])
        if name not in self._commands:
            near = get_close_matches(name, self._commands, n=1)
            wish = f"did you mean /{near[0]}?" if near else "/help lists them"
            self._say(f"there is no command /{name}: {wish}")
            return
        self._commands[name][1]((match[2] or "").strip())

    def _say(self, text: str) -> None:
        # Asked for, so it is said with `-q` too.
        self._terminal.write(f"{text}\n")

    # --- commands ------------------------------------------------------------------------------

    def _help(self, _: str) -> None:
        for name, (words, _run) in self._commands.items():
            self._say(f"/{name:8} {words}")
        self._say(f"{self._editor.multiline_hint}; // begins a question with a slash")

    def _model(self, given: str) -> None:
        if given:
            model = given if self._take_model is None else self._take_model(given)
            self._conversation.options["model"] = model
        self._say(self._conversation.model)

    def _tools(self, _: str) -> None:
        tools = self._conversation.wait(self._conversation.agent.tools())
        for tool in tools:
            first = (tool.description or "").strip().partition("\n")[0]
            self._say(visible(f"{tool.name:24} {first}".rstrip()))
        if not tools:
            self._say("no tools: start with --tool, --backend or --mcp")

    def _cost(self, _: str) -> None:
        info = self._info()
        if info is None:
            self._say("nothing was asked yet")
            return
        unknown = ""
        if info.unpriced_calls:
            unknown = f" and {counted(info.unpriced_calls, 'call')} at an unknown price"
        self._say(
            f"{counted(info.turns, 'question')} · {info.input_tokens:,} in,"
            f" {info.output_tokens:,} out · {dollars(info.cost_usd)}{unknown}"
        )

    def _undo(self, _: str) -> None:
        store, session = self._conversation.store, self._conversation.session or ""
        entries = () if store is None else self._conversation.wait(store.read(session))
        taken = withdrawal(entries)
        if store is None or taken is None:
            self._say("there is nothing to take back")
            return
        entry, words = taken
        self._conversation.wait(store.append(session, [entry], expected=len(entries)))
        self._say(f"taken back: {_cut(visible(' '.join(words.split())))}")

    def _save(self, given: str) -> None:
        info, store = self._info(), self._conversation.store
        if info is None or store is None:
            self._say("nothing was said yet")
            return
        path = Path(given or f"{re.sub(r'[^A-Za-z0-9._-]', '_', info.id)}.md").expanduser()
        entries = self._conversation.wait(store.read(info.id))
        text = export_session(info, entries, _FORMS.get(path.suffix, "markdown"))
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self._say(f"cannot write {str(path)!r}: {error.strerror}")
            return
        self._say(f"written to {path}")

    def _session(self, given: str) -> None:
        if given:
            check_session_id(given)
            self._conversation.session = given
            info = self._info()
            self._say(f"{given}: {'new' if info is None else counted(info.turns, 'question')}")
            return
        self._say(f"this is {self._conversation.session}")
        store = self._conversation.store
        others = () if store is None else self._conversation.wait(store.list(limit=_SESSIONS))
        for info in others:
            turns = counted(info.turns, "question")
            self._say(visible(f"{info.id:20} {turns:>13}  {_cut(info.title)}"))

    def _info(self) -> SessionInfo | None:
        store, session = self._conversation.store, self._conversation.session
        if store is None or session is None:
            return None
        return self._conversation.wait(store.info(session))


class _Left(Exception):
    """Somebody leaves."""


def _leave(_: str) -> None:
    raise _Left


def _cut(text: str) -> str:
    return f"{text[:_FIRST_WORDS].rstrip()}..." if len(text) > _FIRST_WORDS else text


def withdrawal(entries: tuple[Entry, ...]) -> tuple[Withdrawn, str] | None:
    """
    What takes back the last turn of a session.

    Args:
        entries: The session's, the oldest first.

    Returns:
        The entry that is to be added, and what the user had said; None when nothing is left.
    """
    gone: set[int] = set()
    for place, entry in enumerate(entries):
        if isinstance(entry, Withdrawn):
            gone.update(range(max(0, entry.since), place))
    for place in range(len(entries) - 1, -1, -1):
        entry = entries[place]
        if place in gone or not isinstance(entry, Said) or entry.message.role != "user":
            continue
        return Withdrawn(since=place), entry.message.text
    return None
