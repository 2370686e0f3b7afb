"""`looms chat` alone on a terminal: questions, commands with a slash, Ctrl-C and Ctrl-D."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.screen import Screen

from loom.agent.session import Condensed, Entry, Said, Withdrawn
from loom.cli import editor
from loom.cli.editor import PlainEditor, open_editor
from loom.cli.history import History
from loom.cli.repl import withdrawal
from loom.core.messages import Message, ToolCall
from loom.providers.scripted import ScriptedProvider

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

Serve = Callable[..., ScriptedProvider]


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a data and a state folder of its own."""
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(params=["toolkit", "plain"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Have it run with prompt_toolkit, and without."""
    if request.param == "toolkit":
        return {}
    # A package that is found first and cannot be imported is as good as none.
    hidden = tmp_path / "hidden" / "prompt_toolkit"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not here')\n")
    return {"PYTHONPATH": str(hidden.parent)}


def texts(provider: ScriptedProvider, number: int) -> list[str]:
    return [message.text for message in provider.requests[number].messages]


def test_a_conversation(
    start: Start, serve: Serve, looms: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    """Questions go on with each other; `-c` goes on with them later; files are the owner's."""
    provider = serve("One.", "Two.", "Three.")
    with Screen(start, "chat", "-s", "Be brief.", **environment) as screen:
        screen.until("Ctrl-D leaves")
        screen.prompt()
        screen.keys("first\r")
        screen.until("One.")
        screen.prompt()
        screen.keys("second\r")
        screen.until("Two.")
        screen.prompt()
        screen.keys("\x04")
        screen.until("`looms chat -c` goes on")
        assert 0 == screen.end()
    assert ["Be brief.", "first", "One.", "second"] == texts(provider, 1)
    with Screen(start, "chat", "-c", **environment) as screen:
        screen.until("2 questions, first")
        screen.prompt()
        screen.keys("/quit\r")
        assert 0 == screen.end()
    assert "Three.\n" == looms("chat", "-c", "third").out
    assert ["Be brief.", "first", "One.", "second", "Two.", "third"] == texts(provider, 2)
    for path in (tmp_path / "data" / "sessions.db", tmp_path / "state" / "looms" / "history"):
        assert 0o600 == path.stat().st_mode & 0o777


def test_ctrl_c_ends_the_answer_and_not_the_program(
    start: Start, serve: Serve, environment: dict[str, str]
) -> None:
    """The text so far stays with what it cost; at the prompt it only says how to leave."""
    serve(words_per_second=10)
    with Screen(start, "chat", **environment) as screen:
        screen.prompt()
        screen.keys("Tell me a story about a loom\r")
        screen.until(" loom")
        screen.until(" ")
        screen.until(" the ")
        screen.keys("\x03")
        screen.until("interrupted · mistral-large-latest · about ")
        screen.prompt()
        screen.insist("\x03", "Ctrl-D or /quit leaves")
        screen.prompt()
        screen.keys("/quit\r")
        assert 0 == screen.end()
    assert "Traceback" not in screen.text


def test_an_error_does_not_end_it(start: Start, serve: Serve) -> None:
    """It is told as everywhere, and the next question is asked."""
    serve("Fine.")
    with Screen(start, "chat", "-m", "mistral-larg-latest") as screen:
        screen.prompt()
        screen.keys("hi\r")
        screen.until("error[ERR_MODEL_NOT_FOUND]")
        screen.prompt()
        screen.keys("/model mistral-large-latest\r")
        screen.until("mistral-large-latest\n")
        screen.prompt()
        screen.keys("hi\r")
        screen.until("Fine.")
        screen.prompt()
        screen.keys("/quit\r")
        assert 0 == screen.end()


CODE = '''
from loom import tool

@tool(approval="ask")
def delete_file(path: str) -> str:
    """Delete a file.

    For ever.
    """
    return "gone"
'''


def test_tools_and_a_question(start: Start, serve: Serve, tmp_path: Path) -> None:
    """Tools are listed; a call that needs an approval is asked for, also after Ctrl-C."""
    (tmp_path / "my_tools.py").write_text(CODE)
    call = Message.assistant(tool_calls=(ToolCall("abcdefghi", "delete_file", {"path": "x"}),))
    provider = serve(call, call, "Done.")
    with Screen(start, "chat", "-t", "my_tools") as screen:
        screen.prompt()
        screen.keys("/tools\r")
        screen.until("delete_file              Delete a file.\n")
        screen.prompt()
        screen.keys("delete it\r")
        screen.until("[a]lways: ")
        screen.keys("\x03")
        screen.until("interrupted · ")
        screen.prompt()
        screen.keys("delete it now\r")
        screen.until("[a]lways: ")
        screen.keys("y\r")
        screen.until("Done.")
        screen.until("2 calls, 1 tool")
        screen.prompt()
        screen.keys("\x04")
        assert 0 == screen.end()
    assert "gone" == provider.requests[-1].messages[-1].text


def test_commands(start: Start, serve: Serve, tmp_path: Path) -> None:
    """/cost, /undo, /save, /session, /help, and what is none of them."""
    provider = serve("One.", "Two.", "Three.", "Four.")
    with Screen(start, "chat", "--session", "ann") as screen:

        def do(keys: str, *words: str) -> None:
            screen.prompt()
            screen.keys(f"{keys}\r")
            for each in words:
                screen.until(each)

        do("/cost", "nothing was asked yet")
        do("/save", "nothing was said yet")
        do("/undo", "there is nothing to take back")
        do("first", "One.", "$")
        do("second", "Two.", "$")
        do("/undo", "taken back: second")
        do("third", "Three.", "$")
        do("/cost", "3 questions · ")
        do("/save talk.json", "written to talk.json")
        do("/save talk.json", "cannot write 'talk.json'")
        do("/hlep", "there is no command /hlep: did you mean /help?")
        do("/zzz", "there is no command /zzz: /help lists them")
        do("/", "/undo     take back")
        do("/session", "this is ann", "3 questions  first")
        do("/session bob", "bob: new")
        do("//help is what?", "Four.", "$")
        do("/tools", "no tools: start with")
        do("/model openai:gpt-4.1", "is not mistral's")
        do("/model", "mistral-large-latest")
        do("/exit")
        screen.until("session bob · ")
        assert 0 == screen.end()
    assert ["first", "One.", "third"] == texts(provider, 2)
    assert ["/help is what?"] == texts(provider, 3)
    assert "ann" == json.loads((tmp_path / "talk.json").read_text())["session"]["id"]


def test_several_lines(start: Start, serve: Serve) -> None:
    """Alt-Enter begins a line, and a paste stays whole."""
    provider = serve("One.", "Two.")
    with Screen(start, "chat") as screen:
        screen.prompt()
        screen.keys("one\x1b\rtwo\r")
        screen.until("One.")
        screen.prompt()
        screen.keys("\x1b[200~three\rfour\x1b[201~\r")
        screen.until("Two.")
        screen.prompt()
        screen.keys("\x04")
        screen.end()
    assert (["one\ntwo"], "three\nfour") == (texts(provider, 0), texts(provider, 1)[-1])


def test_several_lines_without_the_extra(start: Start, serve: Serve, tmp_path: Path) -> None:
    """A backslash, or two fences; what was typed comes back with the arrow key."""
    hidden = tmp_path / "hidden" / "prompt_toolkit"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not here')\n")
    provider = serve("One.", "Two.", "Three.")
    with Screen(start, "chat", PYTHONPATH=str(hidden.parent)) as screen:
        screen.prompt()
        screen.keys("one\\\r")
        screen.until(". ")
        screen.keys("two\r")
        screen.until("One.")
        screen.prompt()
        screen.keys('"""\r')
        for line in ("three", "", "four", '"""'):
            screen.until(". ")
            screen.keys(f"{line}\r")
        screen.until("Two.")
        screen.prompt()
        screen.keys("five\r")
        screen.until("Three.")
        screen.prompt()
        screen.keys("/he\t\r")
        screen.until("this list")
        screen.prompt()
        screen.keys("\x04")
        screen.end()
    assert ["one\ntwo", "three\n\nfour", "five"] == [texts(provider, n)[-1] for n in range(3)]


@pytest.mark.parametrize("words", [("chat",), ("chat", "--json"), ("chat", "--dry-run")])
def test_off_a_terminal_it_says_what_to_do(words: tuple[str, ...], looms: Run) -> None:
    """A pipe without a word in it is no conversation."""
    code, out, err = looms(*words)
    assert (2, "") == (code, out)
    assert "there is no prompt" in err


def test_history(tmp_path: Path) -> None:
    """The newest thousand come back, whole; a broken line costs itself alone."""
    path = tmp_path / "state" / "history"
    history = History(path)
    assert [] == history.lines()
    history.add("one\ntwo")
    history.add("h\ud800")
    with path.open("ab") as file:
        file.write(b"{broken\n")
    history.add("three")
    assert ["one\ntwo", "h?", "three"] == history.lines()
    assert (0o600, 0o700) == (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)
    for number in range(1001):
        history.add(str(number))
    assert (1000, "1", "1000") == (
        len(history.lines()), history.lines()[0], history.lines()[-1],
    )  # fmt: skip


def test_a_history_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    """The file's place is taken by something else."""
    (tmp_path / "state").write_text("")
    history = History(tmp_path / "state" / "history")
    history.add("one")
    assert [] == history.lines()


def test_the_best_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """prompt_toolkit where it is installed, else Python's own."""
    history = History(tmp_path / "history")
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert isinstance(open_editor(history, ["/help"]), PlainEditor)
    assert "/help " == editor._completed("/h", 0, ["/help", "/quit"])
    assert None is editor._completed("/h", 1, ["/help", "/quit"])


def said(role: str, text: str = "x") -> Entry:
    if role == "user":
        return Said(message=Message.user(text))
    return Said(message=Message.assistant(text))


@pytest.mark.parametrize(
    ("entries", "since"),
    [
        ((), None),
        ((said("user"), said("assistant")), 0),
        ((said("user"), said("assistant"), said("user"), said("assistant")), 2),
        ((said("user"), said("assistant"), said("user"), Withdrawn(since=2)), 0),
        ((said("user"), said("assistant"), Withdrawn(since=0)), None),
        (
            (said("user"), said("assistant"), Condensed(until=2, summary="s"), said("user")),
            3,
        ),
        ((said("assistant"),), None),
    ],
)
def test_what_undo_takes_back(entries: tuple[Entry, ...], since: int | None) -> None:
    """The last question that still counts, with all that came of it."""
    taken = withdrawal(entries)
    assert since == (None if taken is None else taken[0].since)


def test_nothing_heavy_is_loaded_for_a_single_question() -> None:
    """The editor is only imported where somebody types."""
    import subprocess

    code = "import sys, loom.cli.chat; print('prompt_toolkit' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    assert "False\n" == out
