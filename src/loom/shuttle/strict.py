"""The form of a JSON schema that models keep best: objects closed, all properties required."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["strict_schema"]

# Where in a schema other schemas stand (JSON Schema 2020-12, Core 10 and 11). Everything else is
# data: a property may be called "default", and an example may look like a schema.
_HOLDS_ONE = frozenset({"items", "additionalProperties", "propertyNames", "contains", "not"})
_HOLDS_LIST = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_HOLDS_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})
# No default applies where every property must be written, and `discriminator` is OpenAPI's word,
# not JSON Schema's; OpenAI's strict mode takes neither.
_DROPPED = frozenset({"default", "discriminator"})
# The form in which both msgspec and pydantic read a Decimal; msgspec's `format: decimal` is in no
# draft, so no model knows it.
_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?$"


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """
    Close every object of a schema and require all its properties.

    An object without `properties`, such as that of `dict[str, int]`, stays open.
    `default` and `discriminator` are left out, an `enum` of one kind is given its `type`, and
    msgspec's format "decimal" becomes a pattern.

    Args:
        schema: Any JSON schema; it is not changed.

    Returns:
        A new schema that shares nothing with `schema`.
    """
    out = {
        keyword: _within(keyword, value)
        for keyword, value in schema.items()
        if keyword not in _DROPPED
    }
    if "properties" in out:
        if not isinstance(out.get("additionalProperties"), dict):
            out["additionalProperties"] = False
        out["required"] = list(out["properties"])
    if "enum" in out and "type" not in out:
        kinds = {type(value) for value in out["enum"]}
        if kinds in ({str}, {int}):
            out["type"] = "string" if kinds == {str} else "integer"
    if out.get("format") == "decimal":
        del out["format"]
        out.setdefault("pattern", _DECIMAL)
    if "$defs" in out:
        # Last, as people write it.
        out["$defs"] = out.pop("$defs")
    return out


def _within(keyword: str, value: Any) -> Any:
    if keyword in _HOLDS_ONE:
        return _part(value)
    if keyword in _HOLDS_LIST:
        return [_part(part) for part in value]
    if keyword in _HOLDS_NAMED:
        return {name: _part(part) for name, part in value.items()}
    return copy.deepcopy(value)


def _part(part: Any) -> Any:
    # `true` and `false` are schemas too.
    return strict_schema(part) if isinstance(part, Mapping) else part
