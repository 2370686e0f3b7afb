"""Texts that fit regular expressions."""

from __future__ import annotations

import re

import pytest

from loom.providers.pattern import example


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"^[A-Z]{3}-\d{4}$", "AAA-7777"),
        (r"^(red|green)$", "red"),
        (r"^(?:ab)+c$", "abc"),
        (r"^(?P<year>\d{4})$", "7777"),
        (r"^[^a]b?$", "7"),
        (r"^[]x]$", "x"),
        (r"^[\]\d]$", "7"),
        (r"\bword\b", "word"),
        (r"\Aword\Z", "word"),
        (r"^a{2,}$", "aa"),
        (r"^a{2,3}?$", "aa"),
        (r"^\t\.\W$", "\t.-"),
        (r"^x*$", ""),
        ("", ""),
    ],
)
def test_the_shortest_text_is_written(pattern: str, expected: str) -> None:
    """Classes, groups, alternatives, repeats and escapes are understood."""
    assert expected == example(pattern)


@pytest.mark.parametrize(
    ("pattern", "shortest", "longest", "length"),
    [
        (r"^[a-z]+$", 7, None, range(7, 9)),
        (r"^\d{2,9}$", 5, 6, range(5, 7)),
        (r"^a?b?c?$", 3, 3, range(3, 4)),
        ("x", 40, None, range(40, 41)),
        ("x$", 40, None, range(40, 41)),
    ],
)
def test_a_length_is_reached(
    pattern: str, shortest: int, longest: int | None, length: range
) -> None:
    """Open repeats grow, and open ends are filled."""
    text = example(pattern, shortest, longest)

    assert text is not None
    assert re.search(pattern, text)
    assert len(text) in length


@pytest.mark.parametrize(
    "pattern",
    [
        "([",
        "^(?=b)a$",
        r"^(a)\1\1b(?<!b)$",
        "^[^\\s\\S]$",
        "(" * 5000 + ")" * 5000,
        "a{99999999999999999999}",
        "^a{5}$|^b{5}$",
    ],
)
def test_what_is_beyond_it_is_said(pattern: str) -> None:
    """None means: nothing was found, within five to six characters at most."""
    assert example(pattern, 6, 6) is None
