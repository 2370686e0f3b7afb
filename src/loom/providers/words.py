"""What a prompt offers to fill in: its numbers, quotations, places, addresses, days."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["Words", "arithmetic", "name_words"]

# Property names that want a name with a capital letter, and those that want the prompt itself.
_PEOPLE = frozenset(("author", "customer", "name", "person", "subject", "user", "who"))
_CODES = frozenset(("code", "id", "key", "number", "ref", "reference"))
_PLACES_TEXT = (
    "address area city country destination district from location origin place region"
    " state station team to town"
)
_PLACES = frozenset(_PLACES_TEXT.split())
_WHOLE_TEXT = (
    "body content description input message note prompt q query question request search summary"
    " task term text topic"
)
_WHOLE = frozenset(_WHOLE_TEXT.split())
# Words that stand at the head of a sentence with a capital letter and name nothing.
_OPENERS_TEXT = (
    "a add after all also an and answer any are ask at be before book but by calculate call can"
    " check compute convert could create delete describe do does email explain fetch find first for"
    " from generate get give has have hello help hey hi how i if in is it its json just let list"
    " look make me my name no not now of on once one only open or please python remind reply return"
    " run say schedule search send set show so tell that the then there they this to translate use"
    " using was we what what's when where which who why will with would write yes you your"
)
_OPENERS = frozenset(_OPENERS_TEXT.split())
_WAYS = {
    "to": frozenset(("to", "destination", "target")),
    "from": frozenset(("from", "origin", "source")),
}
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"[\"\u201c`]([^\"\u201d`\n]+)[\"\u201d`]|(?<!\w)'([^'\n]+)'(?!\w)")
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_AFTER = re.compile(r"\b(?:in|for|at|near|of|to|from|about)\s+$", re.IGNORECASE)
# A minus and an x want room around them: 2026-01-15 is a day and no sum.
_SUM = re.compile(
    r"(?<![\w./-])(-?\d+(?:\.\d+)?)(\s*[+*/\u00d7\u00f7]\s*|\s+[-x]\s+)(-?\d+(?:\.\d+)?)"
    r"(?![\w.]*\d|\s*/\d)"
)
_FORMATS = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "uri": re.compile(r"https?://[^\s\"'<>]+[^\s\"'<>.,;:!?)]"),
    "date": re.compile(r"(?<!\d)\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\dT])"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:\d\d)"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "ipv4": re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|(?![\d.]))){4}"),
}


def name_words(name: str) -> tuple[str, ...]:
    """The words of an identifier: `getCurrent_weather` gives get, current, weather."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return tuple(word.lower() for word in re.split(r"[\W_]+", spaced) if word)


def arithmetic(text: str) -> tuple[str, str] | None:
    """
    The first sum in a text, and its value.

    Args:
        text: For example "what is 12 * 12?".

    Returns:
        For example `("12 * 12", "144")`; None when there is none, or it divides by zero.
    """
    found = _SUM.search(text)
    if found is None:
        return None
    left, right = float(found[1]), float(found[3])
    match found[2].strip():
        case "+":
            value = left + right
        case "-":
            value = left - right
        case "/" | "\u00f7":
            if right == 0:
                return None
            value = left / right
        case _:
            value = left * right
    return found[0], f"{value:.12g}"


class Words:
    """
    The words of one prompt, as suggestions for named values.

    Args:
        text: The prompt.
    """

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        self.numbers = [
            float(each) if "." in each else int(each) for each in _NUMBER.findall(self.text)
        ]
        self.quoted = [a or b for a, b in _QUOTED.findall(self.text)]
        self.names = self._names()

    def _names(self) -> list[str]:
        phrases: list[tuple[int, str]] = []
        end = -1
        for found in _WORD.finditer(self.text):
            word = found[0].removesuffix("'s").removesuffix("\u2019s").rstrip("-'\u2019")
            if not word[:1].isupper() or word.lower() in _OPENERS:
                continue
            if phrases and self.text[end : found.start()] == " ":
                phrases[-1] = (phrases[-1][0], f"{phrases[-1][1]} {word}")
            else:
                phrases.append((found.start(), word))
            end = found.start() + len(word)
        # What follows "in", "for", "from" is more likely the place that was meant.
        led = [phrase for at, phrase in phrases if _AFTER.search(self.text[:at])]
        self.first_names = list(dict.fromkeys(phrase for _, phrase in phrases))
        return list(dict.fromkeys([*led, *self.first_names]))

    def joined_names(self) -> list[str]:
        """Names that stand side by side, "Paris and Rome" or "Paris, Rome and Oslo"."""
        if not self.names:
            return []
        one = "(?:" + "|".join(re.escape(name) for name in self.names) + ")"
        row = re.search(rf"{one}(?:,\s*{one})*,?\s+(?:and|&)\s+(?:in\s+|for\s+)?{one}", self.text)
        return list(dict.fromkeys(re.findall(one, row[0]))) if row else self.names[:1]

    def suggest(self, name: str, kind: str) -> Sequence[Any]:
        """
        Values that a property could have, best first.

        Args:
            name: The property.
            kind: Its JSON type, a format such as "date", or "enum".

        Returns:
            The values; none when the prompt offers nothing.
        """
        match kind:
            case "string":
                return self._strings(name)
            case "integer":
                return [*self._said(name, whole=True), *map(int, self._whole_numbers())]
            case "number":
                return [*self._said(name, whole=False), *self.numbers]
            case "enum":
                return [each.lower() for each in re.findall(r"[\w-]+", self.text)]
            case "boolean" | "null":
                return ()
            case _:
                found = _FORMATS.get(kind)
                return found.findall(self.text) if found else ()

    def _whole_numbers(self) -> list[float]:
        return [number for number in self.numbers if float(number).is_integer()]

    def _said(self, name: str, *, whole: bool) -> list[float]:
        number = r"(-?\d+)(?![\w.]*\d)" if whole else r"(-?\d+(?:\.\d+)?)"
        label = r"[\s_-]+".join(map(re.escape, name_words(name)))
        if not label:
            return []
        either = rf"\b{label}\b\W*(?:is|of|=|:|to)?\s*{number}|{number}\s*{label}\b"
        return [
            int(a or b) if whole else float(a or b)
            for a, b in re.findall(either, self.text, re.IGNORECASE)
        ]

    def _strings(self, name: str) -> list[str]:
        words = name_words(name)
        if not words:
            return []
        found = [*self._labelled(words), *self._special(words)]
        if _PEOPLE & set(words):
            found += self.first_names
        elif _PLACES & set(words):
            found += self.names
        found += self.quoted
        if _WHOLE & set(words) and self.text:
            found.append(self.text)
        return found

    def _labelled(self, words: Sequence[str]) -> list[str]:
        """What the prompt itself gives the name to: "order id A-17", "path: /tmp/x"."""
        label = r"[\s_-]+".join(map(re.escape, words))
        said = re.findall(
            rf"\b{label}\b\s*(?:is|=|:)?\s*[\"'`]([^\"'`\n]+)[\"'`]"
            rf"|\b{label}\b\s*(?:=|:|is)\s*([\w@./-]*[\w/])"
            rf"|\b{label}\b\s+([\w-]*\d[\w-]*)",
            self.text,
            re.IGNORECASE,
        )
        return ["".join(each) for each in said]

    def _special(self, words: Sequence[str]) -> list[str]:
        """What the words of a name say of its form: sums, addresses, codes, "from" and "to"."""
        found: list[str] = []
        if {"expression", "equation", "formula"} & set(words):
            sum_ = arithmetic(self.text)
            found += [sum_[0]] if sum_ else []
        for word, names in _WAYS.items():
            if words[0] in names:
                found += re.findall(rf"\b{word} ([A-Z][\w-]*(?: [A-Z][\w-]*)*)", self.text)
        kind = {"url": "uri", "link": "uri", "day": "date"}.get(words[-1], words[-1])
        if kind in _FORMATS:
            found += _FORMATS[kind].findall(self.text)
        if words[-1] in _CODES:
            found += re.findall(r"(?<![\w.-])[A-Za-z]*[#_-]?\d[\w-]*(?![\w.])", self.text)
        return found
