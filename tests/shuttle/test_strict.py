"""The strict form of a schema."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
from hypothesis import given
from hypothesis import strategies as st

from loom.shuttle.strict import strict_schema


def test_objects_are_closed_and_all_properties_required() -> None:
    """Every object with properties, wherever it stands, is closed and requires them all."""
    schema = {
        "$defs": {"A": {"type": "object", "properties": {"x": {}}}},
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A"},
            "b": {"anyOf": [{"type": "object", "properties": {"y": {}}}, {"type": "null"}]},
            "c": {"type": "array", "items": {"properties": {"z": {}}}},
        },
        "required": ["a"],
    }
    closed = {"additionalProperties": False}
    assert {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/$defs/A"},
            "b": {
                "anyOf": [
                    {"type": "object", "properties": {"y": {}}, "required": ["y"], **closed},
                    {"type": "null"},
                ]
            },
            "c": {
                "type": "array",
                "items": {"properties": {"z": {}}, "required": ["z"], **closed},
            },
        },
        "required": ["a", "b", "c"],
        **closed,
        "$defs": {"A": {"type": "object", "properties": {"x": {}}, "required": ["x"], **closed}},
    } == strict_schema(schema)


def test_open_objects_stay_open() -> None:
    """A mapping without named properties, and typed further properties, are left as they are."""
    mapping = {"type": "object", "additionalProperties": {"type": "integer"}}
    assert mapping == strict_schema(mapping)
    mixed = {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}}
    assert mixed | {"required": ["a"]} == strict_schema(mixed)
    loose = {"properties": {}, "additionalProperties": True}
    assert {"properties": {}, "additionalProperties": False, "required": []} == (
        strict_schema(loose)
    )


def test_data_is_not_taken_for_schema() -> None:
    """Properties and examples may be called like keywords."""
    schema = {
        "properties": {"default": {"type": "integer", "default": 3}, "discriminator": {}},
        "examples": [{"properties": {"default": 1}, "default": 2}],
        "required": [],
    }
    out = strict_schema(schema)
    assert {"default": {"type": "integer"}, "discriminator": {}} == out["properties"]
    assert schema["examples"] == out["examples"]
    assert ["default", "discriminator"] == out["required"]


def test_boolean_schemas_pass() -> None:
    """`true` and `false` are schemas."""
    schema = {"items": False, "prefixItems": [True], "$defs": {"never": False}}
    assert schema == strict_schema(schema)


def test_enum_of_one_kind_gets_its_type() -> None:
    """Texts and whole numbers are typed; a mixture, and what has a type, is left."""
    assert "string" == strict_schema({"enum": ["a"]})["type"]
    assert "integer" == strict_schema({"enum": [1, 2]})["type"]
    assert {"enum": [True]} == strict_schema({"enum": [True]})
    assert {"enum": ["a", None]} == strict_schema({"enum": ["a", None]})
    assert {"enum": ["a"], "type": ["string"]} == strict_schema({"enum": ["a"], "type": ["string"]})


def test_decimal_is_said_in_a_way_that_models_know() -> None:
    """msgspec's own format becomes a pattern, unless there is one; other formats stay."""
    assert {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"} == (
        strict_schema({"type": "string", "format": "decimal"})
    )
    assert {"pattern": "^1"} == strict_schema({"format": "decimal", "pattern": "^1"})
    assert {"format": "date"} == strict_schema({"format": "date"})


_schemas: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([{}, {"type": "integer", "default": 1}, {"enum": ["a", "b"]}, True]),
    lambda inner: st.one_of(
        inner.map(lambda part: {"type": "array", "items": part}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.dictionaries(st.sampled_from(["default", "a", "items"]), inner).map(
            lambda parts: {"type": "object", "properties": parts, "required": []}
        ),
    ),
    max_leaves=8,
).filter(lambda schema: schema is not True)


@given(_schemas)
def test_the_callers_schema_is_not_edited(schema: dict[str, Any]) -> None:
    """The argument is as before, shares nothing with the result, and strict is strict enough."""
    before = copy.deepcopy(schema)
    out = strict_schema(schema)
    assert before == schema
    jsonschema.Draft202012Validator.check_schema(out)
    assert out == strict_schema(out)
    _spoil(out)
    assert before == schema


def _spoil(part: Any) -> None:
    if isinstance(part, dict):
        for inner in part.values():
            _spoil(inner)
        part["spoilt"] = True
    elif isinstance(part, list):
        for inner in part:
            _spoil(inner)
        part.append("spoilt")
