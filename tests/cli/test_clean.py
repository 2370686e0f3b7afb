"""Nothing that a terminal would obey is left in a model's text, wherever it is cut."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.cli.clean import Cleaner, cleaned

# Every way into and out of a sequence, and plain letters between them.
PIECES = st.sampled_from(
    [
        *"ab \n\t\r0;?[]P\\XmHé漢",
        "\x1b",
        "\x07",
        "\x9b",
        "\x9c",
        "\x9d",
        "\x90",
        "\x00",
        "\x7f",
        "😀",
    ]
)
HOSTILE = st.lists(PIECES, max_size=30).map("".join) | st.text(max_size=30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("a\x1b[2J\x1b[1;1Hb", "ab"),
        ("\x1b]0;title\x07shown", "shown"),
        ("\x1b]52;c;aGVsbG8=\x1b\\shown", "shown"),
        ("\x1b]8;;https://evil.example\x1b\\text\x1b]8;;\x1b\\", "text"),
        ("\x9b31mred\x9b0m", "red"),
        ("\x9d52;c;aGVsbG8=\x9cshown", "shown"),
        ("\x1bP1$r0m\x1b\\shown", "shown"),
        ("\x1b_private\x1b\\shown", "shown"),
        ("\x1b(B\x1b=\x1bcshown", "shown"),
        ("over\rwritten", "overwritten"),
        ("line\r\nline", "line\nline"),
        ("back\x08space\x7f\x00\x07", "backspace"),
        ("\x1b[38;2;1;2;3\nnext line", "\nnext line"),
        ("\x1b]0;never ended\nnext line", "\nnext line"),
        ("\x1b\x1b[31mred", "red"),
        ("\x1b]0;a\x1b[31mred", "red"),
        ("unfinished \x1b[31", "unfinished "),
        ("漢字 é 😀", "漢字 é 😀"),
    ],
)
def test_sequences_go_and_text_stays(text: str, expected: str) -> None:
    """Colours, cursor moves, titles, clipboard and links are taken out, letters stay."""
    assert expected == cleaned(text)


@given(HOSTILE)
def test_no_control_character_is_left(text: str) -> None:
    """Line feed and tab are the only control characters of the result."""
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", cleaned(text)) is None


@given(HOSTILE)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    """What was cleaned is clean."""
    assert cleaned(text) == cleaned(cleaned(text))


@given(HOSTILE, st.lists(st.integers(0, 30), max_size=5))
def test_cuts_do_not_matter(text: str, cuts: list[int]) -> None:
    """A text in pieces gives what the whole text gives."""
    cleaner = Cleaner()
    marks = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(marks)]
    assert cleaned(text) == "".join(cleaner.feed(piece) for piece in pieces)


@given(st.text(st.characters(exclude_categories=["Cc"])))
def test_text_without_controls_is_untouched(text: str) -> None:
    """No letter of any script is lost."""
    assert text == cleaned(text)
