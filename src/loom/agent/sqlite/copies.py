"""
How large a query gets before it begins: SQLite copies a view, or a part of a `WITH`, for each use.

Twenty parts that each use the one before twice are a million copies; while they are made, SQLite
(before 3.41) looks at no cap. So their number is bounded beforehand, from above: the text is
cut into words as SQLite does, and whatever may be a use counts as one. This decides about effort
alone; what a query may do is never decided by its text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

__all__ = ["MOST_COPIES", "copies"]

MOST_COPIES = 100_000
"""65,536 copies of a join take 0.4 s and 60 MiB (own measurement with SQLite 3.40)."""

_WORDS = re.compile(
    r"""--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]"""
    r"""|[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*|\S""",
    re.DOTALL,
)
_BEFORE_TABLE = frozenset({"from", "join", ",", "(", "in", "into", "update"})
# These cannot be the name of a column. Source: the grammar's fallbacks, parse.y of SQLite 3.40.
_RESERVED_WORDS = """
all and as between case collate distinct else escape exists from group having in into is join limit
not null on or order select set then union using values when where
"""
_RESERVED = frozenset(_RESERVED_WORDS.split())


class _Part:
    """A SELECT: what it uses, and how often it names one thing."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.inner: list[_Part] = []
        self.once = False


def copies(query: str, view: Callable[[str], str | None]) -> float:
    """
    About how many copies of parts a query makes, not fewer.

    Args:
        query: Its text.
        view: Gives a view's text by its name in small letters; None if there is no such view.

    Returns:
        The number; infinite where parts use one another in a circle, or lie too deep.
    """
    named: dict[str, list[_Part]] = {}
    try:
        return _Counting(named, view).of(_read(query, named))
    except RecursionError:
        return float("inf")


class _Counting:
    def __init__(self, named: dict[str, list[_Part]], view: Callable[[str], str | None]) -> None:
        self._named = named
        self._view = view
        self._known: dict[int, float] = {}
        self._open: set[int] = set()
        self._views: dict[str, _Part | None] = {}

    def of(self, part: _Part) -> float:
        key = id(part)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            return float("inf")
        self._open.add(key)
        uses = sum(self.of(inner) for inner in part.inner)
        for name in _tables(part.words):
            uses += sum(self._use(one, key) for one in self._named.get(name, ()))
            if (seen := self._read_view(name)) is not None:
                uses += self.of(seen)
            uses += 1
        self._open.discard(key)
        self._known[key] = total = 1 + uses * (1 if part.once else _most_named(part.words))
        return total

    def _use(self, part: _Part, user: int) -> float:
        # A part that uses itself recurs, and is not copied.
        return 0 if id(part) == user else self.of(part)

    def _read_view(self, name: str) -> _Part | None:
        if name not in self._views:
            text = self._view(name)
            self._views[name] = None if text is None else _read(text, self._named)
        return self._views[name]


def _read(text: str, named: dict[str, list[_Part]]) -> _Part:
    """Take a text apart; each part of a `WITH` goes to its name."""
    words = list(_plain(text))
    root = _Part()
    stack = [root]
    closing: list[bool] = []
    for at, word in enumerate(words):
        if word == "(":
            following = words[at + 1] if at + 1 < len(words) else ""
            is_part = following in ("select", "with", "values")
            closing.append(is_part)
            stack[-1].words.append(word)
            if is_part:
                _open(words, at, stack, named)
        elif word == ")":
            if closing and closing.pop():
                stack.pop()
            stack[-1].words.append(word)
        else:
            stack[-1].words.append(word)
            if word == "by" and words[at - 1] == "group":
                stack[-1].once = True
    return root


def _open(words: list[str], at: int, stack: list[_Part], named: dict[str, list[_Part]]) -> None:
    part = _Part()
    place, materialized = _name_before(words, at)
    if place is None:
        stack[-1].inner.append(part)
    else:
        named.setdefault(words[place].removeprefix("'"), []).append(part)
        part.once = materialized
        # Where it gets its name it is not used.
        here = len(stack[-1].words) + place - at - 1
        if here >= 0 and stack[-1].words[here] == words[place]:
            stack[-1].words[here] = ""
    stack.append(part)


def _name_before(words: list[str], at: int) -> tuple[int | None, bool]:
    """Where the name of a `WITH` part stands that opens here, and whether it is computed once."""
    at -= 1
    materialized = at >= 1 and words[at] == "materialized"
    if materialized:
        at -= 1
        if words[at] == "not":
            materialized = False
            at -= 1
    if at < 1 or words[at] != "as":
        return None, False
    at -= 1
    if words[at] == ")":
        depth = 1
        while at > 0 and depth:
            at -= 1
            depth += {")": 1, "(": -1}.get(words[at], 0)
        at -= 1
    return (at, materialized) if at >= 0 else (None, False)


def _plain(text: str) -> Iterator[str]:
    """Words in small letters; quoted names without their quotes, comments left out."""
    for match in _WORDS.finditer(text):
        word = match[0]
        if word.startswith(("--", "/*")):
            continue
        if len(word) > 1 and word[0] in "'\"`[":
            # A mark before it keeps a name from being taken for a word of the language.
            mark = "'" if word[0] == "'" else ""
            word = mark + word[1:-1].replace(word[0] * 2, word[0])
        yield word.lower()


def _tables(words: list[str]) -> Iterator[str]:
    """Whatever may be the name of a table."""
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        after = words[at + 1] if at + 1 < len(words) else ""
        in_schema = before == "." and at > 1 and words[at - 2] in ("main", "temp", "'main", "'temp")
        if after != "." and (before in _BEFORE_TABLE or in_schema):
            yield word.removeprefix("'")


def _most_named(words: list[str]) -> int:
    """How often the name that stands there most often does; at least 1."""
    names = Counter(
        word
        for at, word in enumerate(words)
        if (word[:1].isalpha() or word[:1] == "_" or len(word) > 1)
        and not word.startswith("'")
        and word not in _RESERVED
        and words[at - 1 : at] != ["as"]
        and (at + 1 >= len(words) or words[at + 1] not in (".", "("))
    )
    return max(names.values(), default=1)
