"""How near two model ids are, and whether the difference looks like a slip of the finger."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["closest", "distance", "looks_misspelt"]

# "-2512", "-4-0", "-3.5": a new version is news, not a slip.
_VERSION = re.compile(r"-[0-9][0-9.\-]*")

_SLIP = 2


def distance(first: str, second: str, limit: int) -> int:
    """
    Letters to insert, delete or replace to make one of the other.

    Args:
        first: One word.
        second: The other.
        limit: Beyond this the exact number does not matter.

    Returns:
        The Levenshtein distance, or `limit + 1` for anything above the limit.
    """
    if abs(len(first) - len(second)) > limit:
        return limit + 1
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        line = [row]
        for column, other in enumerate(second, 1):
            replaced = above[column - 1] + (letter != other)
            line.append(min(replaced, above[column] + 1, line[-1] + 1))
        if min(line) > limit:
            return limit + 1
        above = line
    return min(above[-1], limit + 1)


def closest(word: str, known: Iterable[str], count: int) -> tuple[str, ...]:
    """
    The known ids that are nearest to a word, nearest first, then by the alphabet.

    Args:
        word: What was written.
        known: The ids to choose from.
        count: How many at most.

    Returns:
        Ids.
    """
    asked = word.lower()
    ranked = sorted((distance(asked, name.lower(), 1000), name) for name in known)
    return tuple(name for _, name in ranked[:count])


def looks_misspelt(word: str, known: Iterable[str]) -> bool:
    """
    Whether a word that is no known id is a known id with a slip in it.

    Two letters off is a slip. A difference in digits or in the version is none: the vendor may
    have released a model since the catalogue was written.

    Args:
        word: What was written; not one of `known`.
        known: The ids.

    Returns:
        True when it is surely a slip.
    """
    asked = word.lower()
    near = [name for name in known if distance(asked, name.lower(), _SLIP) <= _SLIP]
    return bool(near) and not any(_same_but_for_version(asked, name.lower()) for name in near)


def _same_but_for_version(first: str, second: str) -> bool:
    if first == second:
        return False
    return _without_digits(first) == _without_digits(second) or (
        _VERSION.sub("", first) == _VERSION.sub("", second)
    )


def _without_digits(word: str) -> str:
    return "".join(letter for letter in word if not letter.isdigit())
