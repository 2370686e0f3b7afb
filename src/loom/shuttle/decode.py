"""
JSON that a model wrote as a value of a Python type, exactly or not at all.

A model's words are hostile input, and error messages are logged: `NotFitting` says where and why
in words of the type, and never quotes the text.
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, NoReturn, TypeVar, overload

import msgspec

from loom.shuttle.annotated import breach
from loom.shuttle.schema import has_foreign_limits, is_pydantic, json_schema

__all__ = ["NotFitting", "decode_json"]

T = TypeVar("T")

# int() refuses more than 4,300 digits by default (sys.set_int_max_str_digits).
_MAX_DIGITS = 4300


class NotFitting(ValueError):
    """Where a text does not fit a type, and why; the message holds nothing of the text."""


@overload
def decode_json(type_: type[T], text: str) -> T: ...
@overload
def decode_json(type_: Any, text: str) -> Any: ...
def decode_json(type_: Any, text: str) -> Any:
    """
    Read a JSON text as a value of a type.

    Args:
        type_: As `loom.shuttle.schema.json_schema` takes it.
        text: The JSON, with nothing around it but white space.

    Returns:
        The value; all limits of the type hold.

    Raises:
        NotFitting: If the text is not JSON, gives a name twice, holds NaN, half a surrogate pair
            or a number too large, is nested too deeply, or does not fit the type.
    """
    try:
        raw = _exact_json(text)
        if is_pydantic(type_):
            return _decode_pydantic(type_, text)
        value = _decode_msgspec(type_, text)
        if has_foreign_limits(type_):
            found = breach(json_schema(type_, strict=False), raw)
            if found is not None:
                raise NotFitting(found)
    except RecursionError:
        raise NotFitting("it is nested too deeply") from None
    return value


def _exact_json(text: str) -> Any:
    """The JSON value, refusing what msgspec and pydantic let pass."""
    try:
        text.encode()
        return json.loads(
            text,
            # Both take the last of two equal names.
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            # pydantic reads 1e999 as infinity.
            parse_float=_finite,
            parse_int=_short_int,
        )
    except json.JSONDecodeError as error:
        what = "not JSON" if text.strip() else "empty"
        place = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise NotFitting(f"it is {what} ({place})") from None
    except UnicodeEncodeError:
        raise NotFitting("it holds half of a surrogate pair") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise NotFitting("an object gives one name twice")
    return out


def _no_constant(_word: str) -> NoReturn:
    raise NotFitting("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotFitting("a number is too large")
    return number


def _short_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise NotFitting("a number is too large")
    return int(digits)


# Beginnings of msgspec's sentences that name types, limits and fields of ours, and nothing of
# the text (msgspec 0.22, `_core.c`).
_SAFE = (
    "Expected ",
    "Object missing required field ",
    "Invalid UUID",
    "Invalid RFC3339",
    "Invalid ISO8601",
    "Invalid base64",
    "Invalid decimal",
    "Number out of range",
    "Integer value out of range",
    "Duration is out of range",
)
# Those that quote the text, and what is said instead.
_QUOTING = {
    "Invalid enum value ": "not one of the values that are allowed",
    "Invalid value ": "not one of the values that are allowed",
    "Object contains unknown field ": "a field that the type does not have",
}


def _decode_msgspec(type_: Any, text: str) -> Any:
    try:
        return msgspec.json.decode(text, type=type_, strict=True)
    except msgspec.ValidationError as error:
        raise NotFitting(_msgspec_reason(error)) from None
    except (msgspec.DecodeError, UnicodeError):
        # Python's own reader took the text: it reads half of a surrogate pair from `\ud800`.
        raise NotFitting("it holds half of a surrogate pair") from None


def _msgspec_reason(error: msgspec.ValidationError) -> str:
    said, cause = str(error), error.__cause__
    if cause is not None:
        # The type's own `__post_init__` refused, in its own words; msgspec adds the place.
        place = said.removeprefix(str(cause)).removeprefix(" - at ")
        return f"{place or '`$`'}: refused by the type's own check"
    reason, _, place = said.rpartition(" - at ")
    if not reason:
        reason, place = said, "`$`"
    if not reason.startswith(_SAFE):
        known = (words for start, words in _QUOTING.items() if reason.startswith(start))
        reason = next(known, "it does not fit")
    return f"{place}: {reason[0].lower()}{reason[1:]}"


# pydantic's kinds of error whose messages name types and limits only. Those of others may quote
# the text (`union_tag_invalid`, `value_error`, `uuid_parsing`): their kind is said instead.
_SAFE_KIND = re.compile(
    r"missing|extra_forbidden|literal_error|enum|multiple_of"
    r"|(?:greater|less)_than(?:_equal)?|(?:string_)?too_(?:short|long)|string_pattern_mismatch"
    r"|\w+_type|(?:int|float|bool)_parsing|int_from_float|finite_number"
)


def _decode_pydantic(type_: Any, text: str) -> Any:
    pydantic = sys.modules["pydantic"]
    try:
        return pydantic.TypeAdapter(type_).validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        kind, names = first["type"], _property_names(json_schema(type_, strict=False))
        reason = first["msg"] if _SAFE_KIND.fullmatch(kind) else kind.replace("_", " ")
        # A key that is no field's name is the model's word, and is not shown.
        steps = (
            f"[{step}]" if isinstance(step, int) else f".{step}" if step in names else "[...]"
            for step in first["loc"]
        )
        raise NotFitting(f"`${''.join(steps)}`: {reason[0].lower()}{reason[1:]}") from None


def _property_names(schema: Any) -> set[str]:
    if isinstance(schema, dict):
        own = schema.get("properties")
        names = set(own) if isinstance(own, dict) else set()
        return names.union(*(_property_names(part) for part in schema.values()))
    if isinstance(schema, list):
        return set().union(*(_property_names(part) for part in schema))
    return set()
