"""A program on a terminal: what it shows is waited for, and keys are typed."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tests.cli.conftest import Start

__all__ = ["Screen"]

_PATIENCE_S = 60.0


class Screen:
    """
    A program all of whose streams are one terminal.

    Args:
        start: Starts it.
        words: The words after `looms`.
        environment: What its environment has beside the test's.
    """

    def __init__(self, start: Start, *words: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        env = {
            **os.environ,
            "TERM": "xterm-256color",
            "COLUMNS": "100",
            "LINES": "40",
            "PROMPT_TOOLKIT_NO_CPR": "1",  # nobody here says where the cursor is
        }
        self.process: subprocess.Popen[bytes] = start(
            *words,
            env={**env, **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.text = ""
        self._seen = 0

    def until(self, words: str) -> str:
        """Read until these words are shown, behind those that were waited for before."""
        return self._until(re.compile(re.escape(words))) or ""

    def prompt(self) -> str:
        """Read until the program waits for a line; `prompt_toolkit` moves where others print."""
        return self._until(re.compile("(?<!-)>[ \x08]")) or ""

    def insist(self, keys: str, words: str) -> str:
        """
        Type keys until these words are shown.

        A signal that comes just before Python's line waits is only seen with the next key.
        """
        for _ in range(int(_PATIENCE_S)):
            self.keys(keys)
            found = self._until(re.compile(re.escape(words)), patience_s=1.0)
            if found is not None:
                return found
        raise AssertionError(f"{words!r} did not come: {self.text!r}")

    def _until(self, words: re.Pattern[str], *, patience_s: float | None = None) -> str | None:
        while not (match := words.search(self.text, self._seen)):
            ready, _, _ = select.select([self._master], [], [], patience_s or _PATIENCE_S)
            if not ready and patience_s is not None:
                return None
            assert ready, f"{words.pattern!r} did not come: {self.text!r}"
            piece = self._read()
            assert piece, f"it ended before {words.pattern!r} came: {self.text!r}"
        shown = self.text[self._seen : match.end()]
        self._seen = match.end()
        return shown

    def keys(self, keys: str) -> None:
        """Type keys; `\\r` is Enter, `\\x03` Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Read to the end, and give the exit code."""
        while self._read():
            pass
        return self.process.wait(_PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._master)

    def _read(self) -> str:
        # The terminal's end is an error on Linux, and an empty read elsewhere.
        try:
            piece = os.read(self._master, 65_536).decode(errors="replace").replace("\r\n", "\n")
        except OSError:
            return ""
        self.text += piece
        return piece


def _own_terminal() -> None:
    """Make standard input the program's own terminal: Ctrl-C comes as a signal."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
