"""
A text that fits a regular expression, for the common ones.

Literals, classes, groups, alternatives and repeats are understood; a pattern that needs more
(look-around, back-references) may come out wrong, and `example` says so with None.
"""

from __future__ import annotations

import re

__all__ = ["compiled", "example"]

# What a shorthand class stands for: the first character is the one that is written.
_CLASSES = {"d": "7", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_NOTHING = frozenset("bBAZ")
# A pattern can ask for more than memory holds.
_LONGEST = 100_000
_SPARE = "a7A-_ .,:;/@#%+*=~!?xyzXYZ0"


def compiled(pattern: str) -> re.Pattern[str] | None:
    """
    The pattern, ready for use; None for one that Python does not read.

    Args:
        pattern: Of any dialect.
    """
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning):
        # The last one only where a program turned warnings into errors.
        return None


class _Writer:
    """Reads a pattern once and writes the shortest text for it, plus `extra` repeats."""

    def __init__(self, pattern: str, extra: int) -> None:
        self.pattern = pattern
        self.extra = extra
        self.at = 0

    def peek(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def take(self) -> str:
        character = self.peek()
        self.at += 1
        return character

    def alternatives(self) -> str:
        texts = [self.sequence()]
        while self.peek() == "|":
            self.take()
            texts.append(self.sequence())
        return texts[0]

    def sequence(self) -> str:
        text = ""
        while self.peek() not in ("", "|", ")"):
            atom = self.atom()
            text += atom * min(self.repeats(), _LONGEST)
        return text[:_LONGEST]

    def atom(self) -> str:
        match self.take():
            case "(":
                return self.group()
            case "[":
                return self.character_class()
            case "\\":
                return self.escape(self.take())
            case "^" | "$":
                return ""
            case ".":
                return "a"
            case character:
                return character

    def group(self) -> str:
        head = re.compile(r"\?(?::|P<\w+>)").match(self.pattern, self.at)
        if head:
            self.at = head.end()
        text = self.alternatives()
        self.take()
        return text

    def escape(self, character: str) -> str:
        if character in _NOTHING:
            return ""
        return _CLASSES.get(character, {"n": "\n", "t": "\t"}.get(character, character))

    def character_class(self) -> str:
        begin = self.at
        if self.peek() == "^":
            self.take()
        if self.peek() == "]":
            self.take()
        while self.peek() not in ("", "]"):
            if self.take() == "\\":
                self.take()
        self.take()
        # The class itself is the judge: try likely characters against it.
        kind = compiled("[" + self.pattern[begin : self.at])
        every = _SPARE + "".join(map(chr, range(32, 0x250)))
        return next((one for one in every if kind and kind.fullmatch(one)), "")

    def repeats(self) -> int:
        found = re.compile(r"(\*|\+|\?|\{(\d*)(,?)(\d*)\})[?+]?").match(self.pattern, self.at)
        if found is None:
            return 1
        self.at = found.end()
        if found[1] == "?":
            return min(1, self.extra)
        if found[1] in "*+":
            return self.extra + (found[1] == "+")
        least = int(found[2] or 0)
        if not found[3]:
            return least
        return min(least + self.extra, int(found[4])) if found[4] else least + self.extra


def example(pattern: str, shortest: int = 0, longest: int | None = None) -> str | None:
    """
    A text in which the pattern is found.

    Args:
        pattern: A regular expression, as JSON schema has them: not anchored.
        shortest: The least number of characters.
        longest: The most; None for no limit.

    Returns:
        The text, or None when none was found.
    """
    judge = compiled(pattern)
    if judge is None:
        return None
    for extra in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, shortest):
        text = _Writer(pattern, extra).alternatives()
        # An open end takes any tail; a closed one is refused by the search below.
        for candidate in (text, text.ljust(shortest, "a"), text.rjust(shortest, "a")):
            fits = len(candidate) >= shortest and (longest is None or len(candidate) <= longest)
            if fits and judge.search(candidate):
                return candidate
    return None
