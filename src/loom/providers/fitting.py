"""
Whether a value fits a JSON schema.

The keywords of draft 2020-12 that describe values; `format` is not judged, as the draft has it.
A reference that leads nowhere, or round in a circle, is taken as "anything".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias
from urllib.parse import unquote

from loom.providers.pattern import compiled

__all__ = ["Schema", "fits", "resolve", "same"]

Schema: TypeAlias = Mapping[str, Any] | bool

# A schema that refers to itself is followed so far; real ones end after a few steps.
_REFERENCES = 32
# Schemas inside one another that describe one value; more is a circle, and each turn may double.
_TURNS = 10

_IS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
}


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; `true` is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def resolve(schema: Schema, root: Schema) -> Mapping[str, Any]:
    """
    The schema behind a reference; keywords beside the reference stay.

    Args:
        schema: Any schema; `True` and `False` become `{}` and `{"not": {}}`.
        root: The document that `#/...` points into.

    Returns:
        A schema without `$ref`, in the words of the newest draft.
    """
    if isinstance(schema, bool):
        return {} if schema else {"not": {}}
    for _ in range(_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return _plain(schema)
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        target = _pointed_at(reference, root)
        if isinstance(target, bool):
            target = {} if target else {"not": {}}
        clash = beside.keys() & target.keys()
        schema = {"allOf": [target, beside]} if clash else {**target, **beside}
    return {}


_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def _plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    # 2.0 is a whole number to JSON; a list of `items` is draft 7's `prefixItems`.
    new: dict[str, Any] = {
        key: int(schema[key]) for key in _COUNTS if isinstance(schema.get(key), float)
    }
    if isinstance(schema.get("items"), list):
        new |= {"prefixItems": schema["items"], "items": schema.get("additionalItems", True)}
    return {**schema, **new} if new else schema


def _pointed_at(reference: str, root: Schema) -> Schema:
    if not reference.startswith("#"):
        return {}
    place: Any = root
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping) and key in place:
            place = place[key]
        elif isinstance(place, list) and key.isdigit() and int(key) < len(place):
            place = place[int(key)]
        else:
            return {}
    return place if isinstance(place, Mapping | bool) else {}


def fits(value: Any, schema: Schema, root: Schema | None = None, turns: int = 0) -> bool:
    """
    Whether a JSON value fits a schema.

    Args:
        value: dict, list, str, int, float, bool or None.
        schema: The schema.
        root: The document that its references point into; None: the schema itself.
        turns: How many schemas this same value was already held against, one inside the other.

    Returns:
        True when it fits.
    """
    if turns > _TURNS:
        return True
    root = schema if root is None else root
    rules = resolve(schema, root)
    return (
        _is_allowed(value, rules)
        and _fits_together(value, rules, root, turns + 1)
        and _fits_kind(value, rules, root)
    )


def _fits_kind(value: Any, rules: Mapping[str, Any], root: Schema) -> bool:
    match value:
        case bool() | None:
            return True
        case int() | float():
            return _fits_number(value, rules)
        case str():
            return _fits_text(value, rules)
        case list():
            return _fits_array(value, rules, root)
        case _:
            return _fits_object(value, rules, root)


def _is_allowed(value: Any, rules: Mapping[str, Any]) -> bool:
    kinds = rules.get("type")
    if kinds is not None:
        names = [kinds] if isinstance(kinds, str) else kinds
        if not any(_IS.get(name, bool)(value) for name in names):
            return False
    if "const" in rules and not same(value, rules["const"]):
        return False
    return "enum" not in rules or any(same(value, each) for each in rules["enum"])


def _fits_together(value: Any, rules: Mapping[str, Any], root: Schema, turns: int) -> bool:
    def obeys(schema: Schema) -> bool:
        return fits(value, schema, root, turns)

    if not all(map(obeys, rules.get("allOf", ()))):
        return False
    if "anyOf" in rules and not any(map(obeys, rules["anyOf"])):
        return False
    if "oneOf" in rules and sum(map(obeys, rules["oneOf"])) != 1:
        return False
    if "not" in rules and obeys(rules["not"]):
        return False
    if "if" in rules:
        return obeys(rules.get("then" if obeys(rules["if"]) else "else", True))
    return True


def _fits_number(value: float, rules: Mapping[str, Any]) -> bool:
    step = rules.get("multipleOf")
    # Decimal of the printed form: 0.3 is a multiple of 0.1 for everybody but binary floats.
    divides = step is None or (math.isfinite(value) and _divides(step, value))
    return (
        divides
        and value >= rules.get("minimum", -math.inf)
        and value <= rules.get("maximum", math.inf)
        and ("exclusiveMinimum" not in rules or value > rules["exclusiveMinimum"])
        and ("exclusiveMaximum" not in rules or value < rules["exclusiveMaximum"])
    )


def _divides(step: float, value: float) -> bool:
    try:
        return Decimal(str(value)) % Decimal(str(step)) == 0
    except InvalidOperation:
        # So many steps that Decimal's digits do not count them.
        return True


def _fits_text(value: str, rules: Mapping[str, Any]) -> bool:
    if not rules.get("minLength", 0) <= len(value) <= rules.get("maxLength", math.inf):
        return False
    return "pattern" not in rules or _found(rules["pattern"], value)


def _found(pattern: str, text: str) -> bool:
    judge = compiled(pattern)
    # Another dialect of regular expressions is not ours to judge.
    return judge is None or judge.search(text) is not None


def _fits_array(value: list[Any], rules: Mapping[str, Any], root: Schema) -> bool:
    if not rules.get("minItems", 0) <= len(value) <= rules.get("maxItems", math.inf):
        return False
    if rules.get("uniqueItems") and any(
        same(left, right) for i, left in enumerate(value) for right in value[:i]
    ):
        return False
    first = rules.get("prefixItems", [])
    rest = rules.get("items", True)
    return all(
        fits(item, first[i] if i < len(first) else rest, root) for i, item in enumerate(value)
    ) and ("contains" not in rules or any(fits(item, rules["contains"], root) for item in value))


def _fits_object(value: dict[str, Any], rules: Mapping[str, Any], root: Schema) -> bool:
    if not rules.get("minProperties", 0) <= len(value) <= rules.get("maxProperties", math.inf):
        return False
    if any(name not in value for name in rules.get("required", ())):
        return False
    names = rules.get("propertyNames", True)
    return all(
        fits(name, names, root) and all(fits(item, each, root) for each in _rules_of(name, rules))
        for name, item in value.items()
    )


def _rules_of(name: str, rules: Mapping[str, Any]) -> list[Schema]:
    found = [rules["properties"][name]] if name in rules.get("properties", {}) else []
    found += [
        each
        for pattern, each in rules.get("patternProperties", {}).items()
        if _found(pattern, name)
    ]
    return found or [rules.get("additionalProperties", True)]
