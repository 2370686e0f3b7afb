"""Where a person types: `prompt_toolkit` if it is installed, else Python's own line."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from loom.cli.history import History

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings

__all__ = ["Editor", "PlainEditor", "ToolkitEditor", "open_editor"]

_PROMPT = "> "
_MORE = ". "
_FENCE = '"""'


class Editor(Protocol):
    """Reads what somebody types."""

    multiline_hint: str
    """How a text of several lines is typed."""

    @abstractmethod
    def read(self) -> str:
        """
        Wait for a text.

        Returns:
            The text, without the line feed at its end.

        Raises:
            EOFError: On Ctrl-D.
            KeyboardInterrupt: On Ctrl-C.
        """


def open_editor(history: History, words: Sequence[str]) -> Editor:
    """
    The best editor that there is.

    Args:
        history: What was typed before; what is typed is added.
        words: What Tab completes at the beginning of a line.

    Returns:
        The editor.
    """
    try:
        import prompt_toolkit  # noqa: F401, PLC0415 - an extra, 0.3 s
    except ImportError:
        return PlainEditor(history, words)
    return ToolkitEditor(history, words)


class PlainEditor(Editor):
    """
    Python's own line, with its history and completion where the machine has `readline`.

    A line that ends in a backslash goes on; so does everything between two lines of three
    quotation marks.

    Args:
        history: What was typed before.
        words: What Tab completes.
    """

    multiline_hint = 'end a line with \\ to go on, or put """ around the text'

    def __init__(self, history: History, words: Sequence[str]) -> None:
        self._history = history
        self._readline: ModuleType | None = None
        try:
            import readline  # noqa: PLC0415 - not on every system
        except ImportError:  # pragma: no cover - Windows
            return
        self._readline = readline
        readline.set_auto_history(False)
        readline.clear_history()
        for line in history.lines():
            readline.add_history(line)
        readline.set_completer_delims(" ")
        readline.set_completer(lambda text, state: _completed(text, state, words))
        editline = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if editline else "tab: complete")

    def read(self) -> str:
        """Wait for a text, and keep it in the history."""
        try:
            text = self._typed()
        except (EOFError, KeyboardInterrupt):
            # The cursor stands behind what was typed.
            sys.stdout.write("\n")
            raise
        if text.strip():
            self._keep(text)
        return text

    def _typed(self) -> str:
        line = input(_PROMPT)
        if line.strip() == _FENCE:
            return self._fenced()
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(input(_MORE))
        return "\n".join(lines)

    def _fenced(self) -> str:
        lines: list[str] = []
        while (line := input(_MORE)).strip() != _FENCE:
            lines.append(line)
        return "\n".join(lines)

    def _keep(self, text: str) -> None:
        self._history.add(text)
        if self._readline is not None:
            self._readline.add_history(text)


class ToolkitEditor(Editor):
    """
    The editor of `prompt_toolkit`: Enter sends, Alt-Enter begins a line, a paste stays whole.

    Args:
        history: What was typed before.
        words: What Tab completes.
    """

    multiline_hint = "Alt-Enter begins a new line"

    def __init__(self, history: History, words: Sequence[str]) -> None:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - an extra
        from prompt_toolkit.history import InMemoryHistory  # noqa: PLC0415 - an extra

        self._history = history
        self._session: PromptSession[str] = PromptSession(
            history=InMemoryHistory(history.lines()),
            completer=_completer(words),
            complete_while_typing=False,
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation=_MORE,
        )

    def read(self) -> str:
        """Wait for a text, and keep it in the history."""
        text = self._session.prompt(_PROMPT)
        if text.strip():
            self._history.add(text)
        return text


def _keys() -> KeyBindings:
    from prompt_toolkit.filters import completion_is_selected  # noqa: PLC0415 - an extra
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent  # noqa: PLC0415 - an extra

    keys = KeyBindings()

    @keys.add("enter", filter=~completion_is_selected)
    def send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def begin_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _completer(words: Sequence[str]) -> Completer:
    from prompt_toolkit.completion import WordCompleter  # noqa: PLC0415 - an extra

    return WordCompleter(list(words), sentence=True)


def _completed(text: str, state: int, words: Sequence[str]) -> str | None:
    found = [f"{word} " for word in words if text and word.startswith(text)]
    return found[state] if state < len(found) else None
