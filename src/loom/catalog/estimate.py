"""Guesses how many tokens a text has, where no vocabulary is at hand."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["rough_tokens"]

# About what tekken makes of a text: a word with the sign before it, long words in pieces of eight,
# capitals in pieces of four, each digit alone, signs in pairs, other scripts two letters a token.
# The lengths are those with the least error on the recorded prompts, which
# `benchmarks/tokens.py --estimate` prints.
_TOKEN = re.compile(
    r"[^\r\na-zA-Z0-9]?[A-Z]*[a-z]{1,8}|\s?[A-Z]{1,4}|\d|\s?[!-/:-@\[-`{-~]{1,2}"
    r"|\s+|\s?\w{1,2}|\s?[^\w\s]|.",
    re.DOTALL,
)


def rough_tokens(text: str) -> Sequence[str]:
    """
    Cut a text into about as many pieces as it has tokens.

    Args:
        text: Any text.

    Returns:
        Pieces that joined are the text.
    """
    return _TOKEN.findall(text)
