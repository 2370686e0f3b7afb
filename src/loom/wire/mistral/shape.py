"""
Checks of JSON values that speak as the vendor's validator does.

The vendor's server is built on pydantic 2: its kinds, places and sentences of errors are what
callers see in a 422. A check looks at one value and writes down every problem it finds.

Source: recorded bodies of status 422 (contract: section 6); pydantic 2, "Validation errors".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

__all__ = [
    "Check",
    "Field",
    "Loc",
    "Problem",
    "anything",
    "boolean",
    "either",
    "fields",
    "integer",
    "items",
    "mapping",
    "no_object",
    "number",
    "one_of",
    "problem",
    "tagged",
    "text",
]

Loc: TypeAlias = tuple[str | int, ...]
"""Where a value stands, from "body" on."""

Problem: TypeAlias = dict[str, Any]
"""One entry of a 422's list: `type`, `loc`, `msg`, `input`, and `ctx` where the kind has one."""

Check: TypeAlias = Callable[[Any, Loc, list[Problem]], None]
"""Looks at a value and appends what is wrong with it."""


class Field(NamedTuple):
    """
    One field of an object.

    Attributes:
        check: What its value must be.
        required: Whether it must be there.
        nullable: Whether null stands for "not given".
    """

    check: Check
    required: bool = False
    nullable: bool = False


def problem(
    kind: str, loc: Loc, said: str, value: Any, ctx: Mapping[str, Any] | None = None
) -> Problem:
    """
    One entry of a 422's list, keys in the recorded order.

    Args:
        kind: The validator's name for it, for example "missing".
        loc: Where.
        said: The sentence.
        value: What stood there.
        ctx: The limits that the sentence names.

    Returns:
        JSON values.
    """
    entry = {"type": kind, "loc": list(loc), "msg": said, "input": value}
    return entry if ctx is None else {**entry, "ctx": dict(ctx)}


def anything(value: Any, loc: Loc, found: list[Problem]) -> None:
    """Take every value."""
    del value, loc, found


def text(value: Any, loc: Loc, found: list[Problem]) -> None:
    """Take a string."""
    if not isinstance(value, str):
        found.append(problem("string_type", loc, "Input should be a valid string", value))


def boolean(value: Any, loc: Loc, found: list[Problem]) -> None:
    """Take true or false."""
    if not isinstance(value, bool):
        found.append(problem("bool_type", loc, "Input should be a valid boolean", value))


def mapping(value: Any, loc: Loc, found: list[Problem]) -> None:
    """Take an object, whatever is in it."""
    if not isinstance(value, Mapping):
        found.append(problem("dict_type", loc, "Input should be a valid dictionary", value))


class _Bound(NamedTuple):
    kind: str
    sign: str
    said: str
    holds: Callable[[float, float], bool]


_BOUNDS = (
    _Bound("greater_than_equal", "ge", "greater than or equal to", lambda x, limit: x >= limit),
    _Bound("greater_than", "gt", "greater than", lambda x, limit: x > limit),
    _Bound("less_than_equal", "le", "less than or equal to", lambda x, limit: x <= limit),
)


def _within(value: float, loc: Loc, found: list[Problem], limits: Mapping[str, float]) -> None:
    for kind, sign, said, holds in _BOUNDS:
        if sign in limits and not holds(value, limits[sign]):
            sentence = f"Input should be {said} {limits[sign]:g}"
            found.append(problem(kind, loc, sentence, value, {sign: limits[sign]}))
            return


def number(**limits: float) -> Check:
    """
    Take a number.

    Args:
        limits: `ge`, `gt` and `le`, as far as there are any.

    Returns:
        The check. Numbers written as text are refused.
    """

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            _within(value, loc, found, limits)
        elif isinstance(value, str):
            said = "Input should be a valid number, unable to parse string as a number"
            found.append(problem("float_parsing", loc, said, value))
        else:
            found.append(problem("float_type", loc, "Input should be a valid number", value))

    return check


def integer(**limits: float) -> Check:
    """
    Take a whole number.

    Args:
        limits: `ge`, `gt` and `le`, as far as there are any.

    Returns:
        The check. Numbers written as text are refused.
    """

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        if isinstance(value, int) and not isinstance(value, bool):
            _within(value, loc, found, limits)
        elif isinstance(value, float):
            said = "Input should be a valid integer, got a number with a fractional part"
            found.append(problem("int_from_float", loc, said, value))
        elif isinstance(value, str):
            said = "Input should be a valid integer, unable to parse string as an integer"
            found.append(problem("int_parsing", loc, said, value))
        else:
            found.append(problem("int_type", loc, "Input should be a valid integer", value))

    return check


def one_of(*words: str) -> Check:
    """
    Take one of some words.

    Args:
        words: All of them, in the order in which the sentence names them.

    Returns:
        The check.
    """
    quoted = [f"'{word}'" for word in words]
    expected = " or ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        if not isinstance(value, str) or value not in words:
            ctx = {"expected": expected}
            found.append(problem("literal_error", loc, f"Input should be {expected}", value, ctx))

    return check


def items(each: Check, most: int | None = None) -> Check:
    """
    Take a list.

    Args:
        each: What its items must be.
        most: How many there may be.

    Returns:
        The check.
    """

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        if not isinstance(value, list | tuple):
            found.append(problem("list_type", loc, "Input should be a valid list", value))
            return
        if most is not None and len(value) > most:
            said = f"List should have at most {most} items after validation, not {len(value)}"
            ctx = {"field_type": "List", "max_length": most, "actual_length": len(value)}
            found.append(problem("too_long", loc, said, value, ctx))
            return
        for place, item in enumerate(value):
            each(item, (*loc, place), found)

    return check


def either(*branches: tuple[str, Check]) -> Check:
    """
    Take what any of the branches takes; when none does, all their problems are named.

    Args:
        branches: The validator's name of each branch, which stands in `loc`, and its check.

    Returns:
        The check.
    """

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        every: list[Problem] = []
        for label, branch in branches:
            before = len(every)
            branch(value, (*loc, label), every)
            if len(every) == before:
                return
        found.extend(every)

    return check


def fields(known: Mapping[str, Field]) -> Check:
    """
    Take an object with these fields and no others.

    Args:
        known: The fields by name.

    Returns:
        The check: first each field in order, then what is unknown.
    """

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        if not isinstance(value, Mapping):
            found.append(no_object(value, loc))
            return
        for name, field in known.items():
            if name not in value:
                if field.required:
                    found.append(problem("missing", (*loc, name), "Field required", value))
            elif value[name] is not None or not field.nullable:
                field.check(value[name], (*loc, name), found)
        for name in value:
            if name not in known:
                said = "Extra inputs are not permitted"
                found.append(problem("extra_forbidden", (*loc, name), said, value[name]))

    return check


def tagged(key: str, kinds: Mapping[str, Check]) -> Check:
    """
    Take an object whose field `key` says what it must be.

    Args:
        key: The field that holds the tag.
        kinds: A check for each tag; the tag stands in `loc` behind the object's place.

    Returns:
        The check.
    """
    expected = ", ".join(f"'{tag}'" for tag in kinds)

    def check(value: Any, loc: Loc, found: list[Problem]) -> None:
        if not isinstance(value, Mapping):
            found.append(no_object(value, loc))
        elif value.get(key) is None:
            said = f"Unable to extract tag using discriminator '{key}'"
            ctx = {"discriminator": f"'{key}'"}
            found.append(problem("union_tag_not_found", loc, said, value, ctx))
        elif isinstance(value[key], str) and value[key] in kinds:
            kinds[value[key]](value, (*loc, value[key]), found)
        else:
            said = f"Input tag '{value[key]}' found using '{key}' does not match any of the"
            said += f" expected tags: {expected}"
            ctx = {"discriminator": f"'{key}'", "tag": str(value[key]), "expected_tags": expected}
            found.append(problem("union_tag_invalid", loc, said, value, ctx))

    return check


def no_object(value: Any, loc: Loc) -> Problem:
    """
    The problem of a value that is not an object.

    Args:
        value: What stood there.
        loc: Where.

    Returns:
        JSON values.
    """
    said = "Input should be a valid dictionary or object to extract fields from"
    return problem("model_attributes_type", loc, said, value)
