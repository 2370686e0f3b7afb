"""
What stands in `Annotated[...]` besides `msgspec.Meta`, made into `msgspec.Meta`.

A text is a description; objects in the manner of the package annotated-types (`Gt`, `Ge`, `Lt`,
`Le`, `Interval`, `MultipleOf`, `MinLen`, `MaxLen`, `Len`) are limits. msgspec reads its own
`Meta` only, so what the others ask is written into the schema here, and `breach` checks it.
"""

from __future__ import annotations

import functools
import math
import operator
import re
import types
from collections.abc import Callable, Mapping
from datetime import datetime, time
from typing import Annotated, Any, NotRequired, Required, Union, get_args, get_origin

import msgspec

__all__ = ["breach", "with_meta"]

_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern")

# msgspec names these forms only where it asks for a time zone; without them a model writes
# whatever a date may look like. One without a time zone is still taken, and where none may stand
# there is no name for the form.
_FORMS: dict[Any, msgspec.Meta] = {
    datetime: msgspec.Meta(extra_json_schema={"format": "date-time"}),
    time: msgspec.Meta(extra_json_schema={"format": "time"}),
}


def with_meta(hint: Any) -> Any:
    """
    The same type with every limit and description as `msgspec.Meta`.

    It looks through unions and containers, not into classes.

    Args:
        hint: A type as it is written in an annotation.

    Returns:
        `hint` itself when it holds nothing that msgspec would overlook.

    Raises:
        TypeError: If a limit is not one that msgspec can hold, for example a date.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Required, NotRequired):
        return with_meta(args[0])
    if not args:
        return Annotated[hint, _FORMS[hint]] if hint in (datetime, time) else hint
    if origin is Annotated:
        return _with_own_meta(hint)
    inner_args = tuple(with_meta(arg) for arg in args)
    if all(a is b for a, b in zip(inner_args, args, strict=True)):
        return hint
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, inner_args)
    return origin[inner_args]


def _with_own_meta(hint: Any) -> Any:
    plain = get_args(hint)[0]
    has_none = any(getattr(found, "tz", None) is False for found in hint.__metadata__)
    inner = plain if has_none else with_meta(plain)
    metas = [_meta(found) for found in hint.__metadata__]
    if inner is plain and all(a is b for a, b in zip(metas, hint.__metadata__, strict=True)):
        return hint
    # Subscribing with a tuple is how Annotated takes a list of any length.
    return Annotated[(inner, *metas)]


def _meta(found: object) -> object:
    if isinstance(found, msgspec.Meta):
        return found
    if isinstance(found, str):
        return msgspec.Meta(description=found)
    # `documentation`: typing_extensions.Doc (PEP 727); `metadata`: pydantic's Field().
    limits: dict[str, Any] = {}
    for part in (found, *getattr(found, "metadata", ())):
        said = {name: getattr(part, name, None) for name in _LIMITS}
        limits |= {name: value for name, value in said.items() if value is not None}
    text = getattr(found, "documentation", None) or getattr(found, "description", None)
    if isinstance(text, str):
        limits["description"] = text
    # MinLen(0) is annotated-types' way to say "no limit"; msgspec takes it too.
    return msgspec.Meta(**limits) if limits else found


_NUMBER_LIMITS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("minimum", ">=", operator.ge),
    ("exclusiveMinimum", ">", operator.gt),
    ("maximum", "<=", operator.le),
    ("exclusiveMaximum", "<", operator.lt),
    ("multipleOf", "a multiple of", lambda value, step: math.fmod(value, step) == 0),
)
_SIZE_LIMITS: dict[type, tuple[str, str]] = {
    str: ("minLength", "maxLength"),
    list: ("minItems", "maxItems"),
    dict: ("minProperties", "maxProperties"),
}


def breach(schema: Mapping[str, Any], value: Any) -> str | None:
    """
    The first limit of a schema that a value does not keep.

    Only limits of numbers, sizes and patterns are looked at; types are checked by the decoder.

    Args:
        schema: As `json_schema` gives it.
        value: A JSON value.

    Returns:
        Where and what, for example "`$.age`: expected a number >= 0"; None when all is well.
        It holds field names and limits, and nothing of the value.
    """
    return _breach(schema, value, schema.get("$defs", {}), "$")


def _breach(schema: Any, value: Any, defs: Mapping[str, Any], path: str) -> str | None:
    if not isinstance(schema, Mapping):
        return None
    if (ref := schema.get("$ref")) is not None:
        found = _breach(defs[ref.removeprefix("#/$defs/")], value, defs, path)
        if found is not None:
            return found
    if options := schema.get("anyOf"):
        fitting = [option for option in options if _may_be(option, value, defs)]
        found_all = [_breach(option, value, defs, path) for option in fitting]
        if found_all and None not in found_all:
            return found_all[0]
    return _own_breach(schema, value, path) or _inner_breach(schema, value, defs, path)


def _may_be(schema: Mapping[str, Any], value: Any, defs: Mapping[str, Any]) -> bool:
    if (ref := schema.get("$ref")) is not None:
        return _may_be(defs[ref.removeprefix("#/$defs/")], value, defs)
    kinds = {
        "integer": int,
        "number": int | float,
        "string": str,
        "array": list,
        "object": dict,
        "boolean": bool,
        "null": type(None),
    }
    kind = kinds.get(schema.get("type", ""), object)
    if isinstance(value, bool):
        return kind in (bool, object)
    return isinstance(value, kind)


def _own_breach(schema: Mapping[str, Any], value: Any, path: str) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for keyword, words, holds in _NUMBER_LIMITS:
            if keyword in schema and not holds(value, schema[keyword]):
                return f"`{path}`: expected a number {words} {schema[keyword]}"
    if (keywords := _SIZE_LIMITS.get(type(value))) is not None:
        at_least, at_most = (schema.get(keyword) for keyword in keywords)
        if at_least is not None and len(value) < at_least:
            return f"`{path}`: expected a length >= {at_least}"
        if at_most is not None and len(value) > at_most:
            return f"`{path}`: expected a length <= {at_most}"
    pattern = schema.get("pattern")
    if isinstance(value, str) and pattern is not None and re.search(pattern, value) is None:
        return f"`{path}`: expected text that matches {pattern!r}"
    return None


def _inner_breach(
    schema: Mapping[str, Any], value: Any, defs: Mapping[str, Any], path: str
) -> str | None:
    inner: list[tuple[Any, Any, str]] = []
    if isinstance(value, list):
        first = schema.get("prefixItems", [])
        rest = [schema.get("items")] * max(0, len(value) - len(first))
        inner = [
            (part, item, f"{path}[{index}]")
            for index, (part, item) in enumerate(zip([*first, *rest], value, strict=False))
        ]
    elif isinstance(value, dict):
        named = schema.get("properties", {})
        inner = [
            # Keys of a plain dict are the model's words: they are not shown.
            (named[key], item, f"{path}.{key}")
            if key in named
            else (schema.get("additionalProperties"), item, f"{path}[...]")
            for key, item in value.items()
        ]
    found = (_breach(part, item, defs, where) for part, item, where in inner)
    return next((reason for reason in found if reason is not None), None)
