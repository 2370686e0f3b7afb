"""Whether a JSON schema is one: draft 7 and the newer drafts, as far as their keywords agree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["schema_problem"]

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """
    Say why a value is no JSON schema.

    Args:
        schema: An object. Keywords that no draft knows are let through.

    Returns:
        The first problem found, naming the keyword; None if there is none.
    """
    # A stack of its own: a schema may be nested deeper than Python calls.
    waiting: list[Any] = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, bool):
            continue
        if not isinstance(each, Mapping):
            return f"{each!r:.60} is not of type 'object', 'boolean'"
        for keyword, value in each.items():
            check = _PLAIN.get(keyword)
            if check is not None and not check(value):
                return f"{value!r:.60} is not a value for {keyword!r}"
        problem = _collect(each, waiting)
        if problem is not None:
            return problem
    return None


def _collect(schema: Mapping[str, Any], waiting: list[Any]) -> str | None:
    waiting.extend(schema[keyword] for keyword in _ONE & schema.keys())
    for keyword in _NAMED & schema.keys():
        if not isinstance(schema[keyword], Mapping):
            return f"{schema[keyword]!r:.60} is not of type 'object'"
        waiting.extend(schema[keyword].values())
    listed = _LISTED | ({"items"} if isinstance(schema.get("items"), list) else set())
    for keyword in listed & schema.keys():
        if not isinstance(schema[keyword], list | tuple) or not schema[keyword]:
            return f"{schema[keyword]!r:.60} is not a list of schemas"
        waiting.extend(schema[keyword])
    if "items" not in listed:
        waiting.append(schema.get("items", True))
    return None


# Keywords that hold a schema, schemas by name, and a list of schemas.
_ONE = {
    "additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames",
    "then", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
_NAMED = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
_LISTED = {"allOf", "anyOf", "oneOf", "prefixItems"}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _are_texts(value: Any) -> bool:
    return (
        _is_list(value)
        and all(isinstance(each, str) for each in value)
        and len(set(value)) == len(value)
    )


def _is_pattern(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError):
        return False
    return True


def _are_types(value: Any) -> bool:
    named = [value] if isinstance(value, str) else value
    return _are_texts(named) and bool(named) and _TYPES.issuperset(named)


def _keywords() -> Iterator[tuple[str, Callable[[Any], bool]]]:
    for names, check in (
        ("$id $ref $schema $comment $anchor title description format", _is_text),
        ("maximum minimum exclusiveMaximum exclusiveMinimum", _is_number),
        ("maxLength minLength maxItems minItems maxProperties minProperties", _is_count),
        ("uniqueItems", _is_flag),
        ("enum examples", _is_list),
        ("required", _are_texts),
        ("pattern", _is_pattern),
        ("type", _are_types),
    ):
        yield from ((name, check) for name in names.split())
    yield "multipleOf", lambda value: _is_number(value) and value > 0


_PLAIN = dict(_keywords())
