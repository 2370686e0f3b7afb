"""Docstrings in the three forms that people write."""

from __future__ import annotations

import logging

import pytest

from loom.shuttle.docstring import Described, describe

GOOGLE = """
Says something.

    More of it,
    on two lines.

Args:
    name (str): The name,
        told on two lines.
    *rest: What is left.
    silent:

Returns:
    Nothing.
"""
NUMPY = """
Says something.

Parameters
----------
name : str
    The name,
    told on two lines.

Other Parameters
----------------
*rest
    What is left.
"""
SPHINX = """
Says something.

:param str name: The name,
    told on two lines.
:param rest: What is left.
:returns: Nothing.
"""
ATTRIBUTES = {
    "google": "It.\n\nAttributes:\n    x: To the right.\n    y (int): Upwards.\n",
    "numpy": "It.\n\nAttributes\n----------\nx : int\n    To the right.\ny\n    Upwards.\n",
    "sphinx": "It.\n\n:ivar x: To the right.\n:var y: Upwards.\n:vartype y: int\n",
}
FIELDS = {"name": "The name, told on two lines.", "rest": "What is left."}


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_arguments_are_found(docstring: str) -> None:
    """Each form gives the same fields, without stars, types and line breaks."""
    assert FIELDS == describe(docstring).fields


@pytest.mark.parametrize("form", ATTRIBUTES)
def test_attributes_are_found(form: str) -> None:
    """Attributes count like arguments: that is how classes write them."""
    expected = Described("It.", {"x": "To the right.", "y": "Upwards."})
    assert expected == describe(ATTRIBUTES[form])


def test_summary_keeps_its_lines_and_no_section() -> None:
    """The summary is the text without any section."""
    assert "Says something.\n\n    More of it,\n    on two lines." == describe(GOOGLE).summary


@pytest.mark.parametrize("docstring", [None, "", "  \n "])
def test_nothing_said(docstring: str | None) -> None:
    """No docstring is an empty one."""
    assert Described("", {}) == describe(docstring)


def test_text_without_sections_is_the_summary() -> None:
    """A docstring without sections is left as it is, cleaned of its indentation."""
    assert Described("First.\n\nNote: x: y.", {}) == describe("First.\n\n    Note: x: y.\n    ")


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Types that a docstring leaves out are no reason for a warning."""
    with caplog.at_level(logging.DEBUG):
        describe(GOOGLE)
        describe(NUMPY)
        describe(SPHINX)
    assert [] == caplog.records
