"""
Arguments that a model wrote, held against a tool's JSON schema, with words that teach the model.

What is accepted though it is not to the letter, because it can be read in one way only:

- a text where no text may stand, if it is the JSON of what may: `"5"` for an integer, `"true"`
  for a boolean, `"[1, 2]"` for a list;
- a number without a fraction (`5.0`) for an integer;
- `null` for an argument that may be left out and is never null: it is taken as left out.

Nothing else is guessed: a number is no text (`007` would have become 7), a single value is no
list, `1` is not true, and an unknown name is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from loom.core.errors import ToolArgumentsInvalid
from loom.shuttle.schema_check import (
    ANY_KIND,
    Schema,
    SchemaReader,
    TooLong,
    listed_parts,
    named_parts,
)
from loom.shuttle.schema_words import json_kind

__all__ = ["arguments_invalid", "copied", "fitted_arguments", "mended", "problems"]

# The model reads them all at once, and must not drown in them.
_MAX_PROBLEMS = 20
_MAX_NAMES = 40
_MAX_DEPTH = 50


def fitted_arguments(schema: Schema, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """
    Arguments that fit a schema.

    Args:
        schema: Of the arguments: an object. Known are `type`, `required`, `properties`,
            `additionalProperties`, `enum`, `const`, `anyOf`, `oneOf`, `allOf`, `items`,
            `prefixItems`, `pattern`, all minima and maxima, `multipleOf`, and `$ref` within the
            schema; what is not known is let pass.
        arguments: As the model wrote them; they are not changed.

    Returns:
        A new dict that shares nothing with `arguments`.

    Raises:
        ToolArgumentsInvalid: If they do not fit; the message names every problem.
    """
    try:
        if not problems(schema, arguments):
            return dict(copied(arguments))
        read = mended(schema, arguments)
        if not (found := problems(schema, read)):
            return dict(read)
    except RecursionError:
        found = ("they are nested too deeply",)
    raise arguments_invalid(found, schema)


def problems(schema: Schema, value: Any) -> tuple[str, ...]:
    """
    Everything in which a value does not fit a schema.

    Args:
        schema: As `fitted_arguments` takes it.
        value: A JSON value.

    Returns:
        One sentence each, for example "`unit`: expected one of "c", "f", got a number". They
        hold names, kinds and limits, and of the value at most unknown names, cut.
    """
    return SchemaReader(schema).problems(value)


def mended(schema: Schema, value: Any) -> Any:
    """
    A value in which everything that can be read in one way only is read so.

    Args:
        schema: As `fitted_arguments` takes it.
        value: A JSON value; it is not changed.

    Returns:
        A new value, which may still not fit.
    """
    try:
        return _mended(SchemaReader(schema), schema, value, 0)
    except (TooLong, RecursionError):
        return copied(value)


def arguments_invalid(found: Iterable[str], schema: Schema) -> ToolArgumentsInvalid:
    """
    The error that tells a model what is wrong with its arguments.

    Args:
        found: The problems.
        schema: Of the arguments; its names are listed.

    Returns:
        The error; its message begins with "invalid arguments: ".
    """
    every = list(found)
    shown = every[:_MAX_PROBLEMS]
    if len(every) > len(shown):
        shown.append(f"and {len(every) - len(shown)} more")
    properties, required = named_parts(schema), listed_parts(schema, "required")
    names = [
        f"{name} (required)" if name in required else str(name)
        for name in list(properties)[:_MAX_NAMES]
    ]
    if len(properties) > len(names):
        names.append("...")
    told = f"the arguments are: {', '.join(names)}" if names else "it takes no arguments"
    return ToolArgumentsInvalid(f"invalid arguments: {'; '.join([*shown, told])}")


def copied(value: Any) -> Any:
    """
    A JSON value's copy: a tool may change what it is given, and the call it came from may not.

    Args:
        value: Dicts, lists and scalars.

    Returns:
        The same value; its dicts and lists are new.
    """
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    return value


def _mended(reader: SchemaReader, schema: Any, value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return copied(value)
    schema = reader.resolved(schema)
    kinds = reader.kinds(schema)
    if isinstance(value, str) and "string" not in kinds:
        value = _read(value, kinds)
    elif isinstance(value, float) and "integer" in kinds and "number" not in kinds:
        value = int(value) if value.is_integer() else value
    if not isinstance(value, Mapping | list):
        return value
    for keyword in ("anyOf", "oneOf"):
        for option in listed_parts(schema, keyword):
            read = _mended(reader, option, value, depth + 1)
            if not reader.check(option, read):
                return read
    if isinstance(value, Mapping):
        return _mended_object(reader, schema, value, depth)
    first, rest = listed_parts(schema, "prefixItems"), schema.get("items", True)
    parts = [*first, *[rest] * max(0, len(value) - len(first))]
    return [
        _mended(reader, part, item, depth + 1) for part, item in zip(parts, value, strict=False)
    ]


def _mended_object(
    reader: SchemaReader, schema: Schema, value: Mapping[str, Any], depth: int
) -> dict[str, Any]:
    named, required = named_parts(schema), listed_parts(schema, "required")
    rest = schema.get("additionalProperties", True)
    out = {}
    for name, item in value.items():
        part = named.get(name, rest)
        left_out = item is None and name in named and name not in required
        if left_out and "null" not in reader.kinds(part):
            continue
        out[name] = _mended(reader, part, item, depth + 1)
    return out


def _read(text: str, kinds: frozenset[str]) -> Any:
    # Python's words for them can mean nothing else.
    json_text = {"True": "true", "False": "false", "None": "null"}.get(text.strip(), text)
    try:
        found = msgspec.json.decode(json_text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text
    kind = json_kind(found)
    if kinds == ANY_KIND or (kind not in kinds and not (kind == "integer" and "number" in kinds)):
        return text
    return found
