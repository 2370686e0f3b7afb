"""
A value held against a JSON schema: every problem, in words for a model.

A schema may come from a stranger (an MCP server): references that run in circles, alternatives
that multiply and patterns that never end cost a bounded number of steps. What is beyond, and
every keyword that is not known here, is let pass: the tool's own check comes later.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeAlias, TypeGuard

from loom.shuttle.schema_words import (
    json_kind,
    kind_words,
    listed,
    nearest,
    quoted,
    same_json,
    wanted_words,
)

__all__ = ["ANY_KIND", "Schema", "SchemaReader", "TooLong", "listed_parts", "named_parts"]

Schema: TypeAlias = Mapping[str, Any]

ANY_KIND = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
"""All JSON types."""

# Far more than an honest schema needs for one call; 20,000 steps are some 20 ms.
_MAX_STEPS = 20_000
_MAX_DEPTH = 100
_NUMBERS = frozenset({"integer", "number"})


class TooLong(Exception):
    """The schema takes more steps than a call may cost; the rest is let pass."""


class SchemaReader:
    """
    Reads one schema.

    Args:
        schema: Any JSON schema; `$ref` is followed within it, by `#/...` pointers.
    """

    def __init__(self, schema: Schema) -> None:
        self._root = schema
        self._steps = 0

    def problems(self, value: Any) -> tuple[str, ...]:
        """
        Everything in which a value does not fit.

        Args:
            value: A JSON value.

        Returns:
            One sentence each.
        """
        try:
            return tuple(dict.fromkeys(self.check(self._root, value)))
        except (TooLong, RecursionError):
            return ()

    def resolved(self, schema: Any) -> Schema:
        """
        A schema with its `$ref` followed; `true`, and what is not found, is a schema for all.

        Args:
            schema: A part of the schema.
        """
        for _ in range(_MAX_DEPTH):
            if not isinstance(schema, Mapping):
                return {"enum": []} if schema is False else {}
            ref = schema.get("$ref")
            if not isinstance(ref, str):
                return schema
            beside = {key: part for key, part in schema.items() if key != "$ref"}
            target = self._pointed(ref)
            schema = {"allOf": [target, beside]} if beside.keys() & _HEEDED else target
        return {}

    def kinds(self, schema: Any, depth: int = 0) -> frozenset[str]:
        """
        The JSON types that a schema may take; an "integer" is no "number" here.

        Args:
            schema: A part of the schema.
            depth: How deep it stands in alternatives.

        Raises:
            TooLong: If that takes too many steps.
        """
        self._step(depth)
        schema = self.resolved(schema)
        found = _own_kinds(schema)
        for keyword in ("anyOf", "oneOf"):
            if options := listed_parts(schema, keyword):
                each = [self.kinds(option, depth + 1) for option in options]
                found &= frozenset().union(*each)
        for part in listed_parts(schema, "allOf"):
            found &= self.kinds(part, depth + 1)
        return found

    def check(self, schema: Any, value: Any, path: str = "", depth: int = 0) -> list[str]:
        """
        The problems of a value with a part of the schema.

        Args:
            schema: The part.
            value: A JSON value.
            path: Where the value stands, for example "address.city"; empty for the whole.
            depth: How deep it stands.

        Returns:
            One sentence each.

        Raises:
            TooLong: If that takes too many steps.
        """
        self._step(depth)
        schema = self.resolved(schema)
        kind = json_kind(value)
        kinds = _own_kinds(schema)
        if kind not in kinds and not (kind == "integer" and "number" in kinds):
            return [_wrong(path, self._wanted(schema), value)]
        found = _fixed(schema, value, path)
        found += self._combined(schema, value, path, depth)
        if isinstance(value, str):
            found += _text_limits(schema, value, path)
        elif kind in _NUMBERS:
            found += _number_limits(schema, value, path)
        elif isinstance(value, Mapping):
            found += self._object(schema, value, path, depth)
        elif kind == "array":
            found += self._array(schema, value, path, depth)
        return found

    def _step(self, depth: int) -> None:
        self._steps += 1
        if self._steps > _MAX_STEPS or depth > _MAX_DEPTH:
            raise TooLong

    def _pointed(self, ref: str) -> Any:
        if not ref.startswith("#"):
            return {}
        found: Any = self._root
        for step in ref[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return {} if found is None else found

    def _wanted(self, schema: Schema) -> str:
        kinds = self.kinds(schema)
        order = ("string", "number", "integer", "boolean", "array", "object", "null")
        # Whoever takes any number need not be told of those without a fraction.
        hidden = "integer" if "number" in kinds else ""
        shown = [kind for kind in order if kind in kinds and kind != hidden]
        form = schema.get("format")
        if values := schema.get("enum"):
            return f"one of {listed(values)}"
        return wanted_words(shown, form if isinstance(form, str) else None)

    def _combined(self, schema: Schema, value: Any, path: str, depth: int) -> list[str]:
        found: list[str] = []
        for part in listed_parts(schema, "allOf"):
            found += self.check(part, value, path, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            options = listed_parts(schema, keyword)
            if not options:
                continue
            each = [self.check(option, value, path, depth + 1) for option in options]
            fitting = each.count([])
            if not fitting:
                found += self._nearest_option(schema, options, each, value, path)
            elif keyword == "oneOf" and fitting > 1:
                found.append(_said(path, "it fits more than one of the forms that it may have"))
        return found

    def _nearest_option(
        self, schema: Schema, options: list[Any], each: list[list[str]], value: Any, path: str
    ) -> list[str]:
        """The problems of the one form that was meant, if the value's kind tells which."""
        kind = json_kind(value)
        meant = [
            problems
            for option, problems in zip(options, each, strict=True)
            if kind in (kinds := self.kinds(option)) or (kind == "integer" and "number" in kinds)
        ]
        if not meant:
            return [_wrong(path, self._wanted(schema), value)]
        # Of several objects the one with the fewest faults is most likely meant.
        return min(meant, key=len)

    def _object(self, schema: Schema, value: Mapping[str, Any], path: str, depth: int) -> list[str]:
        named = named_parts(schema)
        rest = schema.get("additionalProperties", True)
        found = []
        for name, item in value.items():
            if name in named:
                found += self.check(named[name], item, _inner(path, name), depth + 1)
            elif "patternProperties" in schema:
                continue
            elif rest is False:
                found.append(_unknown(path, name, named))
            elif isinstance(rest, Mapping):
                found += self.check(rest, item, _inner(path, name), depth + 1)
        required = [name for name in listed_parts(schema, "required") if isinstance(name, str)]
        found += [f"`{_inner(path, name)}` is missing" for name in required if name not in value]
        return found + _sizes(schema, len(value), path, ("minProperties", "maxProperties"), "names")

    def _array(self, schema: Schema, value: Any, path: str, depth: int) -> list[str]:
        first = listed_parts(schema, "prefixItems")
        found = []
        for index, item in enumerate(value):
            part = first[index] if index < len(first) else schema.get("items", True)
            if part is False:
                found.append(_said(path, f"expected at most {len(first)} items"))
                break
            if part is not True:
                found += self.check(part, item, f"{path}[{index}]", depth + 1)
        return found + _sizes(schema, len(value), path, ("minItems", "maxItems"), "items")


_HEEDED = frozenset(
    {
        "type", "enum", "const", "anyOf", "oneOf", "allOf", "properties", "required",
        "additionalProperties", "items", "prefixItems", "pattern", "minimum", "maximum",
        "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
        "minItems", "maxItems", "minProperties", "maxProperties",
    }
)  # fmt: skip


def named_parts(schema: Schema) -> Mapping[str, Any]:
    """A schema's `properties`; none if they are no object."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def listed_parts(schema: Schema, keyword: str) -> list[Any]:
    """
    What a keyword lists; nothing if it is no list.

    Args:
        schema: A part of a schema.
        keyword: For example "anyOf".
    """
    found = schema.get(keyword)
    return list(found) if isinstance(found, list | tuple) else []


def _own_kinds(schema: Schema) -> frozenset[str]:
    said = schema.get("type")
    if isinstance(said, str):
        kinds = frozenset({said})
    elif isinstance(said, list | tuple):
        kinds = frozenset(one for one in said if isinstance(one, str))
    elif isinstance(schema.get("enum"), list | tuple):
        return frozenset(json_kind(one) for one in schema["enum"])
    elif "const" in schema:
        return frozenset({json_kind(schema["const"])})
    else:
        return ANY_KIND
    if not kinds <= ANY_KIND:
        return ANY_KIND
    return kinds | _NUMBERS if "number" in kinds else kinds


def _inner(path: str, name: str) -> str:
    shown = quoted(name).strip("`")
    return f"{path}.{shown}" if path else shown


def _said(path: str, words: str) -> str:
    return f"`{path}`: {words}" if path else words


def _wrong(path: str, wanted: str, value: Any) -> str:
    return _said(path, f"expected {wanted}, got {kind_words(value)}")


def _unknown(path: str, name: str, named: Mapping[str, Any]) -> str:
    place = f"`{path}` has no {quoted(name)}" if path else f"{quoted(name)} is not an argument"
    meant = nearest(name, named)
    return f"{place}, did you mean `{meant}`?" if meant else place


def _fixed(schema: Schema, value: Any, path: str) -> list[str]:
    if "const" in schema and not same_json(schema["const"], value):
        return [_said(path, f"expected {listed([schema['const']])}")]
    values = schema.get("enum")
    if not isinstance(values, list | tuple) or any(same_json(one, value) for one in values):
        return []
    texts = [one for one in values if isinstance(one, str)]
    meant = nearest(value, texts) if isinstance(value, str) else None
    hint = f", did you mean {listed([meant])}?" if meant else ""
    return [_said(path, f"expected one of {listed(values)}, got another value{hint}")]


def _text_limits(schema: Schema, value: str, path: str) -> list[str]:
    found = _sizes(schema, len(value), path, ("minLength", "maxLength"), "characters")
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and not _matches(pattern, value):
        found.append(_said(path, f"expected a text that matches {pattern[:200]!r}"))
    return found


def _matches(pattern: str, value: str) -> bool:
    if not _ends_soon(pattern, len(value)):
        return True
    try:
        return re.search(pattern, value) is not None
    except (re.error, OverflowError, RecursionError):
        # It is written for another engine: ECMA 262 knows forms that Python does not.
        return True


_REPEAT = r"(?:[*+]|\{\d*,\d*\})"


def _ends_soon(pattern: str, length: int) -> bool:
    """Whether a stranger's pattern surely takes no more than a few milliseconds."""
    if re.search(rf"\){_REPEAT}", pattern) and re.search(r"[|]|[*+}]\??[^)]*\)", pattern):
        # A group that repeats what repeats, or what may be read in two ways: exponential.
        return False
    repeats = len(re.findall(_REPEAT, pattern))
    return len(pattern) <= 1000 and (length + 1) ** max(1, repeats) <= 1_000_000


_NUMBER_LIMITS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("minimum", "at least", operator.ge),
    ("exclusiveMinimum", "above", operator.gt),
    ("maximum", "at most", operator.le),
    ("exclusiveMaximum", "below", operator.lt),
)


def _number_limits(schema: Schema, value: float, path: str) -> list[str]:
    found = []
    for keyword, words, holds in _NUMBER_LIMITS:
        limit = schema.get(keyword)
        if _is_number(limit) and not holds(value, limit):
            found.append(_said(path, f"expected a number {words} {limit}"))
    step = schema.get("multipleOf")
    if _is_number(step) and step > 0 and not _is_multiple(value, step):
        found.append(_said(path, f"expected a multiple of {step}"))
    return found


def _is_number(limit: Any) -> TypeGuard[float]:
    return isinstance(limit, int | float) and not isinstance(limit, bool)


def _is_multiple(value: float, step: float) -> bool:
    if not (math.isfinite(value) and math.isfinite(step)):
        return False
    # By their digits: 0.3 is a multiple of 0.1.
    return Fraction(str(value)) % Fraction(str(step)) == 0


def _sizes(
    schema: Schema, size: int, path: str, keywords: tuple[str, str], words: str
) -> list[str]:
    at_least, at_most = schema.get(keywords[0]), schema.get(keywords[1])
    if _is_number(at_least) and size < at_least:
        return [_said(path, f"expected at least {at_least} {words}, got {size}")]
    if _is_number(at_most) and size > at_most:
        return [_said(path, f"expected at most {at_most} {words}, got {size}")]
    return []
