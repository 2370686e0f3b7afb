"""What stands in a gap."""

from __future__ import annotations

import pytest

from loom.core.messages import Message
from loom.core.request import ChatRequest
from loom.providers.infill import infill


def filled(before: str, behind: str = "", seed: int = 0) -> str:
    request = ChatRequest(
        model="codestral-latest", messages=(Message.user(before),), extra={"suffix": behind}
    )
    return infill(request, seed).text


@pytest.mark.parametrize(
    ("before", "behind", "text"),
    [
        ("def add(a, b):\n", "", "    return a + b\n"),
        ("def add(a: int, b: int = 0) -> int:", "", "\n    return a + b\n"),
        ("def first(self, items):\n", "\n\nprint()", "    return items"),
        ("def now():\n", "", "    return None\n"),
        ("class A:\n", "", "    pass\n"),
        ("import os\nx = ", "", "result = None\n"),
        ("function sum(a, b) {\n", "}", "    return a + b\n"),
        ("def f(x):\n    y = x\n", "", "    return x\n"),
    ],
)
def test_code_gets_a_line_that_fits(before: str, behind: str, text: str) -> None:
    """Its indent follows the line before; the suffix's own line break is not doubled."""
    assert text == filled(before, behind)


def test_prose_goes_on_in_prose() -> None:
    """A blank is set where one is missing; the same request has the same text."""
    text = filled("Once upon a time")

    assert text.startswith(" ")
    assert not filled("Once upon a time ").startswith(" ")
    assert text == filled("Once upon a time")
    assert 1 < len({filled("Once upon a time", seed=seed) for seed in range(20)})


def test_nothing_before_is_no_failure() -> None:
    """A request without a message, or with an empty one, gets a text."""
    assert infill(ChatRequest(model="m", messages=())).text
    assert filled("")
