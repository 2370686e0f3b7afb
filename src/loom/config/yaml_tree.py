"""
YAML as a tree of texts: every value keeps its line, and nobody guesses its type.

YAML 1.1 reads `no` as false, `1e3` as a text, `12:30` as 750 and `0.50` as a float. Here each value
stays the text that was written, and whoever knows what is expected reads it (`config/shapes.py`).
Nothing that YAML could run, repeat or nest without end is taken: no tags, no anchors, no aliases,
no second document, and all sizes have a limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

import msgspec

from loom.core.errors import ConfigInvalid

__all__ = ["MOST_CHARACTERS", "Misfit", "Node", "nearest", "read_yaml"]

MOST_CHARACTERS = 128 * 1024
"""The longest document: PyYAML reads some hundred thousand characters in a second."""

_DEEPEST = 16
_MOST_NODES = 10_000
_UNFIT = re.compile("[\x00\ud800-\udfff]")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class Misfit(Exception):
    """
    Something in a document is not as it must be.

    Attributes:
        line: Where, from 1.
        words: What, and what was expected. No value that may be a secret.
    """

    def __init__(self, line: int, words: str) -> None:
        super().__init__(words)
        self.line = line
        self.words = words


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """
    A value of the document.

    Attributes:
        line: Where it stands, from 1.
        text: A scalar as it was written, escapes and folds resolved; None for the others.
        quoted: Whether a scalar stood in quotes or in a block.
        items: A list's; None for the others.
        pairs: A mapping's, by key, with the line of each key; None for the others.
    """

    line: int
    text: str | None = None
    quoted: bool = False
    items: tuple[Node, ...] | None = None
    pairs: dict[str, tuple[int, Node]] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was given: `key:`, `~` or `null`."""
        return self.text in _NULLS and not self.quoted

    @property
    def kind(self) -> str:
        """What it is, for errors."""
        if self.items is not None:
            return "a list"
        if self.pairs is not None:
            return "a mapping"
        return "nothing" if self.empty else "a text" if self.quoted else "a value"


def read_yaml(text: str) -> Node:
    """
    Read one document.

    Args:
        text: YAML, at most `MOST_CHARACTERS`.

    Returns:
        Its root.

    Raises:
        Misfit: If it is not YAML, or has what is not taken.
        ConfigInvalid: If PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ImportError:
        raise ConfigInvalid(
            "YAML files need the package pyyaml: pip install 'looms[yaml]'"
        ) from None
    if len(text) > MOST_CHARACTERS:
        raise Misfit(1, f"is longer than {MOST_CHARACTERS:,} characters")
    try:
        return _Tree(yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise Misfit(line, f"is not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A character that YAML does not allow, or an escape of none: no line is told.
        raise Misfit(1, f"is not YAML: {getattr(error, 'reason', type(error).__name__)}") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """
    What somebody may have meant.

    Args:
        name: What was written.
        known: What there is.

    Returns:
        "did you mean 'x'?", or the list of all.
    """
    known = list(known)
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"


class _Tree:
    """Makes nodes of PyYAML's events; these come one by one, so nothing is expanded."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._count = 0

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            match type(event).__name__:
                case "StreamStartEvent" | "DocumentEndEvent" | "StreamEndEvent":
                    continue
                case "DocumentStartEvent":
                    if root is not None:
                        line = event.start_mark.line + 1
                        raise Misfit(line, "a second document begins here: give each its file")
                    root = self._node(next(self._events), 0)
        if root is None:
            raise Misfit(1, "is empty")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        self._count += 1
        kind = type(event).__name__
        if kind == "AliasEvent" or event.anchor is not None:
            raise Misfit(line, "anchors and aliases (&, *) are not taken: write it out")
        if event.tag is not None:
            raise Misfit(line, "tags (!) are not taken")
        if depth > _DEEPEST or self._count > _MOST_NODES:
            raise Misfit(line, "is nested too deeply, or has too many values")
        if kind == "ScalarEvent":
            if _UNFIT.search(event.value):
                raise Misfit(line, "holds a character that no text has (NUL, half of a pair)")
            return Node(line=line, text=event.value, quoted=event.style is not None)
        if kind == "SequenceStartEvent":
            return Node(line=line, items=tuple(self._items("SequenceEndEvent", depth)))
        return Node(line=line, pairs=self._pairs(depth))

    def _items(self, end: str, depth: int) -> Iterator[Node]:
        while type(event := next(self._events)).__name__ != end:
            yield self._node(event, depth + 1)

    def _pairs(self, depth: int) -> dict[str, tuple[int, Node]]:
        pairs: dict[str, tuple[int, Node]] = {}
        nodes = self._items("MappingEndEvent", depth)
        for key in nodes:
            if key.text is None:
                raise Misfit(key.line, f"a key is {key.kind}; it must be a name")
            if key.text in pairs:
                first = pairs[key.text][0]
                raise Misfit(key.line, f"{key.text[:80]!r} stands here and in line {first}")
            pairs[key.text] = (key.line, next(nodes))
        return pairs
