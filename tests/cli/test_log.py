"""`-v`: the library's log on standard error, its fields beside the messages."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from loom.cli.terminal import Terminal

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_a_call_is_told_of_with_its_fields(looms: Run) -> None:
    """Tokens, money and latency can be read, and standard output stays the answer."""
    code, out, err = looms("chat", "--sim", "-v", "--no-stream", "hi")

    assert (0, False) == (code, "request" in out)
    asked, answered = (line for line in err.splitlines() if line.startswith("info: "))
    assert (
        "info: Mistral request model=mistral-large-latest input_message_count=1 tools=0"
        " stream=false"
    ) == asked
    assert re.fullmatch(
        r"info: Mistral response latency=\d+\.\d{3}s model=\S+ input_tokens=\d+ output_tokens=\d+"
        r" cost_usd=0\.\d+ tool_calls=0 finish_reason=stop attempts=1 request_id=\S+",
        answered,
    )


def test_without_v_nothing_is_told_of_a_call(looms: Run) -> None:
    """Only the line with its cost."""
    _, _, err = looms("chat", "--sim", "hi")
    assert "Mistral re" not in err


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, "said"),
        ({"code": None, "tools": 0}, "said tools=0"),
        ({"cost_usd": Decimal("0.0000007")}, "said cost_usd=0.0000007"),
        ({"model": "two words", "name2": ""}, 'said model="two words" name2=""'),
        ({"model": "a\x1b[31mb\n"}, 'said model="a\\u001b[31mb\\n"'),
    ],
)
def test_fields_are_words_behind_the_message(
    capsys: pytest.CaptureFixture[str], extra: dict[str, Any], expected: str
) -> None:
    """None is left out, money is written out, blanks are quoted, and no terminal is steered."""
    terminal = Terminal()
    terminal.start_log()
    logging.getLogger("loom.test").warning("said", extra=extra)
    assert f"warning: {expected}\n" == capsys.readouterr().err


def test_a_line_of_the_log_does_not_cut_thoughts(capsys: pytest.CaptureFixture[str]) -> None:
    """The library logs on its own thread; what it says in the middle of a line comes after it."""
    terminal = Terminal()
    terminal.verbose = 1
    terminal.start_log()
    terminal.murmur("let me ")
    logging.getLogger("loom.test").info("said", extra={"model": "m"})
    terminal.murmur("see")
    terminal.end_line()
    logging.getLogger("loom.test").info("more")
    assert "let me see\ninfo: said model=m\ninfo: more\n" == capsys.readouterr().err
