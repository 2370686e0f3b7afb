"""The frame of every command: names, help, exit codes, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import rich_click as click

from loom.cli import root
from loom.cli.root import COMMANDS, EXIT_CODES, SECTIONS
from loom.core.error_table import ERROR_TABLE
from loom.core.version import VERSION

if TYPE_CHECKING:
    from tests.cli.conftest import Run

CANARY = "loom-canary-key-0123456789"


def test_every_exit_code_of_the_table_is_published(looms: Run) -> None:
    """`--help` explains each number that an error can end with, and invents none."""
    given = {row.exit for row in ERROR_TABLE.values()}
    assert given | {0, 130} == set(EXIT_CODES)
    _, out, _ = looms("--help")
    for code, meaning in EXIT_CODES.items():
        assert f"{code}  {meaning}" in out


def test_help_has_sections(looms: Run) -> None:
    """Commands stand below what they are for, each once."""
    _, out, _ = looms("--help")
    assert all(f"─ {name} ─" in out for name in SECTIONS)
    assert "─ Commands ─" not in out
    assert all(1 == out.count(f"│ {name} ") for name in COMMANDS)


def test_no_option_of_chat_is_without_a_section(looms: Run) -> None:
    """They are many: a new one has its place too."""
    _, out, _ = looms("chat", "--help")
    assert "─ Tools and conversations ─" in out
    assert "─ Options ─" not in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_common_options(name: str, looms: Run) -> None:
    """Each command loads by its name and knows --json, -q, -v, --no-color and --debug."""
    code, out, err = looms(name, "--help")
    assert (0, "") == (code, err)
    for option in ("--json", "--quiet", "--verbose", "--no-color", "--debug"):
        assert option in out


def test_the_version_is_one_line(looms: Run) -> None:
    """`--version` works with other options beside it too."""
    assert (0, f"looms {VERSION}\n", "") == looms("--no-color", "--version")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("chta",), ["No such command 'chta'", "Did you mean 'chat'?"]),
        (("zzz",), ["No such command 'zzz'"]),
        (("models", "--jsno"), ["--jsno", "--json", "see `looms models --help`"]),
        (("models", "--as-of", "2024-13"), ["--as-of", "'2024-11'"]),
        (("models", "--for", "fun"), ["--for", "long_context"]),
        (("chat", "--temperature", "hot", "hi"), ["--temperature", "'hot'"]),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    words: tuple[str, ...], parts: list[str], looms: Run
) -> None:
    """What was wrong and where help is: on standard error, with click's exit code."""
    code, out, err = looms(*words)
    assert (2, "") == (code, out)
    for part in ["error[ERR_USAGE]: ", *parts]:
        assert part in err


def test_wrong_usage_is_json_with_json(looms: Run) -> None:
    """An error of the words themselves is an object too, wherever `--json` stands."""
    code, out, err = looms("models", "--nope", "--json")
    assert (2, "") == (code, out)
    assert "ERR_USAGE" == json.loads(err)["error"]["name"]


def test_without_a_command_help_is_shown(looms: Run) -> None:
    """Bare `looms` explains itself on standard error and does not hang."""
    code, out, err = looms()
    assert (2, "") == (code, out)
    assert "Usage: looms" in err


def test_a_prompt_alone_is_chat(looms: Run) -> None:
    """`looms "two words"` asks; one word is a command's name."""
    code, out, _ = looms("Say hello", "--sim")
    assert (0, "hello\n") == (code, out)


class Planted:
    """A command that ends in an error that nobody expects, with a key in a variable."""

    def __init__(self, error: BaseException) -> None:
        def fail() -> None:
            key = CANARY
            assert key
            raise error

        self.command = click.Command("planted", callback=fail)


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    def put(error: BaseException) -> None:
        command = Planted(error).command
        monkeypatch.setattr(root._Commands, "get_command", lambda *_: command)

    return put


def test_a_fault_of_ours_is_one_line(plant: Callable[[BaseException], None], looms: Run) -> None:
    """No traceback without --debug; with it one that shows no values of variables."""
    plant(ZeroDivisionError("nothing to divide"))
    code, out, err = looms("chat")
    assert (1, "") == (code, out)
    assert err.startswith("error[ERR_INTERNAL]: ZeroDivisionError: nothing to divide. Fix: ")
    assert 1 == err.count("\n")

    _, _, err = looms("--debug", "chat")
    assert "Traceback" in err
    assert CANARY not in err


def test_ctrl_c_anywhere_is_130(plant: Callable[[BaseException], None], looms: Run) -> None:
    """An interrupt outside of a call ends without a word."""
    plant(KeyboardInterrupt())
    assert (130, "", "") == looms("chat")
