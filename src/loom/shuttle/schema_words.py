"""JSON values and what a schema wants, in words; of a value no more than its kind is told."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = ["json_kind", "kind_words", "listed", "nearest", "quoted", "same_json", "wanted_words"]

# A name that the model made up is told back to it, cut and without control characters.
_QUOTED_CHARS = 40
_MAX_LISTED = 20
_WORDS = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "array": "a list",
    "object": "an object",
}
_FORMATS = {
    "date-time": "a date and time (RFC 3339)",
    "date": "a date (YYYY-MM-DD)",
    "time": "a time (hh:mm:ss)",
    "duration": "a duration (ISO 8601)",
    "uuid": "a UUID",
    "decimal": "a decimal number as a text",
    "email": "an e-mail address",
    "uri": "a URI",
}


def json_kind(value: Any) -> str:
    """The JSON type of a value; a number without a fraction is an "integer"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Mapping) else "array"


def kind_words(value: Any) -> str:
    """A value's kind for people and models, for example "a text"."""
    return _WORDS[json_kind(value)]


def wanted_words(kinds: Iterable[str], form: str | None = None) -> str:
    """
    What is expected, in words.

    Args:
        kinds: JSON types.
        form: The schema's `format`, if it has one.

    Returns:
        For example "an integer or null".
    """
    words = [
        _FORMATS.get(form or "", _WORDS["string"]) if kind == "string" else _WORDS.get(kind, kind)
        for kind in kinds
    ]
    return " or ".join(dict.fromkeys(words)) or "nothing"


def listed(values: Sequence[Any]) -> str:
    """Values of a schema as JSON, at most twenty."""
    shown = [json.dumps(value, ensure_ascii=False) for value in values[:_MAX_LISTED]]
    return ", ".join([*shown, *(["..."] if len(values) > _MAX_LISTED else [])])


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelt one most likely means."""
    by_lower = {one.lower(): one for one in known}
    found = get_close_matches(name[:200].lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def quoted(name: str) -> str:
    """A stranger's name between backticks: short, printable."""
    shown = name if len(name) <= _QUOTED_CHARS else f"{name[: _QUOTED_CHARS - 3]}..."
    return f"`{''.join(char if char.isprintable() else '?' for char in shown)}`"


def same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 is 1.0 and not true."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_json(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other)
