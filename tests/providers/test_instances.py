"""Values made for a JSON schema fit it, by the judgement of another library."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from loom.providers.fitting import fits, same
from loom.providers.instances import instance
from loom.providers.pattern import example
from loom.providers.words import Words

Json = dict[str, Any]

PROMPT = "Ada lives in Paris with 2 cats and pays 3.5 EUR for `tea` on 2026-05-01."


def judged(value: Any, schema: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def bounded(low: Any, width: Any, names: tuple[str, str]) -> Any:
    return st.tuples(low, width).map(lambda pair: {names[0]: pair[0], names[1]: sum(pair)})


NUMBERS: Any = st.one_of(
    st.just({}),
    bounded(st.integers(-50, 50), st.integers(0, 9), ("minimum", "maximum")),
    bounded(st.integers(-50, 50), st.integers(2, 9), ("exclusiveMinimum", "exclusiveMaximum")),
    st.integers(1, 12).map(lambda step: {"multipleOf": step, "minimum": step + 1}),
)
REALS = st.one_of(
    NUMBERS,
    st.just({"multipleOf": 0.1, "minimum": 0.25}),
    st.just({"exclusiveMinimum": 0, "exclusiveMaximum": 0.5}),
    st.just({"minimum": 0.25, "maximum": 0.75}),
)
TEXTS: Any = st.one_of(
    st.just({}),
    bounded(st.integers(0, 30), st.integers(0, 5), ("minLength", "maxLength")),
    st.sampled_from(
        [
            {"pattern": pattern}
            for pattern in (
                r"^[A-Z]{3}-\d{4}$",
                r"^\S+@\S+\.\w+$",
                r"^(red|green|blue)$",
                r"^#[0-9a-fA-F]{6}$",
                r"^\+?[1-9]\d{1,14}$",
                r"^[^\s]+$",
                r"\d",
                r"^v?\d+(\.\d+){2}$",
                r"^(?:[a-z]+_)*[a-z]+$",
            )
        ]
    ),
    st.just({"pattern": "^[a-z]+$", "minLength": 7}),
    st.sampled_from(
        [{"format": name} for name in ("date", "date-time", "email", "uri", "uuid", "ipv4")]
    ),
)
SCALARS = st.one_of(
    NUMBERS.map(lambda rules: {"type": "integer", **rules}),
    REALS.map(lambda rules: {"type": "number", **rules}),
    TEXTS.map(lambda rules: {"type": "string", **rules}),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"const": 7}, {}, True]),
    st.lists(st.one_of(st.text(max_size=5), st.integers()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
    st.sampled_from(["integer", "string"]).map(lambda kind: {"type": [kind, "null"]}),
)
KEYS = st.sampled_from(["name", "city", "age", "email", "unit", "note", "item_id", "x"])


def objects(inner: Any) -> Any:
    def build(properties: Json, required: set[str], closed: bool | None) -> Json:  # noqa: FBT001 - hypothesis gives it by place
        schema: Json = {"type": "object", "properties": properties}
        schema["required"] = sorted(required & properties.keys())
        if closed is not None:
            schema["additionalProperties"] = closed
        return schema

    properties = st.dictionaries(KEYS, inner, max_size=4)
    return st.builds(build, properties, st.sets(KEYS), st.sampled_from([None, True, False]))


def arrays(inner: Any) -> Any:
    sizes = bounded(st.integers(0, 3), st.integers(0, 3), ("minItems", "maxItems"))
    return st.builds(lambda item, size: {"type": "array", "items": item, **size}, inner, sizes)


def unions(inner: Any) -> Any:
    return st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts})


SCHEMAS = st.recursive(
    SCALARS, lambda inner: st.one_of(objects(inner), arrays(inner), unions(inner)), max_leaves=8
)


@given(SCHEMAS, st.sampled_from([PROMPT, "", "hello"]), st.booleans())
def test_every_made_value_fits_its_schema(schema: Any, prompt: str, sparse: bool) -> None:  # noqa: FBT001 - hypothesis gives it by place
    """A made value is valid for jsonschema, whatever the prompt offers."""
    value = instance(schema, Words(prompt).suggest, sparse=sparse)

    assert [] == judged(value, schema)


PERSON: Json = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "boss": {"$ref": "#/$defs/person"},
        "friends": {"type": "array", "items": {"$ref": "#/$defs/person"}, "minItems": 1},
    },
    "required": ["name"],
    "additionalProperties": False,
}

SPECIAL: dict[str, Any] = {
    "a recursive reference": {"$defs": {"person": PERSON}, "$ref": "#/$defs/person"},
    "a reference to the root": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["next"],
    },
    "a reference with keywords beside it": {
        "$defs": {"short": {"type": "string", "maxLength": 4}},
        "properties": {"code": {"$ref": "#/$defs/short", "minLength": 3, "description": "x"}},
        "required": ["code"],
    },
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"type": "string", "minLength": 9}}, "required": ["b"]},
        ]
    },
    "oneOf where both could fit": {
        "oneOf": [{"type": "number"}, {"type": "integer", "minimum": 5}, {"type": "boolean"}]
    },
    "tagged oneOf": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, kind: {"type": "number"}},
                "required": ["kind", kind],
                "additionalProperties": False,
            }
            for kind in ("circle", "square")
        ]
    },
    "allOf with the same keywords": {
        "type": "object",
        "required": ["n", "t", "e", "c"],
        "properties": {
            "n": {
                "allOf": [{"type": "integer", "minimum": 3}, {"minimum": 9, "maximum": 30}],
                "maximum": 12,
            },
            "t": {
                "allOf": [{"minLength": 3}, {"minLength": 9, "maxLength": 30}],
                "type": "string",
                "maxLength": 12,
            },
            "e": {"allOf": [{"enum": ["a", "b", "c"]}, {"enum": ["b", "d"]}]},
            "c": {
                "allOf": [
                    {"required": ["x"]},
                    {"required": ["y", "x"]},
                    {"patternProperties": {"^x": {"type": "integer"}}},
                    {"patternProperties": {"^y": {"type": "null"}}},
                ]
            },
        },
    },
    "allOf with two titles": {"allOf": [{"title": "a"}, {"title": "b", "type": "integer"}]},
    "only one side of if": {
        "properties": {"kind": {"const": "b"}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}},
        "else": {"required": ["weight"]},
    },
    "an array without its type": {"minItems": 2, "items": {"type": "integer"}},
    "a number without its type": {"exclusiveMinimum": 10},
    "optional properties and more": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": False},
        "minProperties": 3,
    },
    "a pattern that needs look-around": {
        "type": "object",
        "patternProperties": {"^(?=x)xy$": {"type": "integer"}, "^(?!a)b$": True},
        "minProperties": 1,
    },
    "more unique values than there are": {
        "type": "array",
        "items": {"type": "boolean"},
        "uniqueItems": True,
        "minItems": 2,
    },
    "a reference to true": {"$defs": {"any": True}, "$ref": "#/$defs/any"},
    "a reference into a list": {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"$ref": "#/prefixItems/0"}],
        "minItems": 2,
    },
    "not": {"type": "integer", "minimum": 0, "not": {"enum": [0, 1]}, "maximum": 9},
    "prefixItems": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "items": False,
        "minItems": 2,
    },
    "uniqueItems": {
        "type": "array",
        "items": {"enum": ["a", "b", "c"]},
        "uniqueItems": True,
        "minItems": 3,
    },
    "unique numbers": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0},
        "uniqueItems": True,
        "minItems": 6,
    },
    "unique texts": {
        "type": "array",
        "items": {"type": "string"},
        "uniqueItems": True,
        "minItems": 4,
    },
    "contains": {"type": "array", "contains": {"const": 4}, "minItems": 2},
    "a map": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "minProperties": 2,
    },
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^x-": {"type": "integer"}},
        "additionalProperties": False,
        "minProperties": 2,
    },
    "propertyNames": {
        "type": "object",
        "propertyNames": {"pattern": "^[a-z]{2}$"},
        "minProperties": 1,
    },
    "if and then": {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}},
        "required": ["kind"],
        "if": {"properties": {"kind": {"const": "a"}}},
        "then": {"required": ["size"], "properties": {"size": {"type": "integer"}}},
        "else": {"required": ["weight"]},
    },
    "a required name without a schema": {"type": "object", "required": ["free"]},
    "default and examples": {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "default": 41, "minimum": 10},
            "b": {"type": "integer", "examples": [3, 77], "minimum": 10},
        },
        "required": ["a", "b"],
    },
    "an escaped pointer": {
        "$defs": {"a/b~c": {"type": "integer"}},
        "type": "array",
        "items": {"$ref": "#/$defs/a~1b~0c"},
        "minItems": 1,
    },
    "everything": {},
    "true": True,
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_value_fits_a_schema_with_rarer_keywords(name: str, sparse: bool) -> None:  # noqa: FBT001 - pytest gives it by name
    """References, combinations and rarer keywords are obeyed too."""
    schema = SPECIAL[name]

    assert [] == judged(instance(schema, Words(PROMPT).suggest, sparse=sparse), schema)


@given(
    SCHEMAS,
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-60, 60), st.floats(-9, 9), st.text(max_size=9)
        ),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
)
def test_the_judge_agrees_with_jsonschema(schema: Any, value: Any) -> None:
    """`fits` says of any value what jsonschema says."""
    assert fits(value, schema) == (not judged(value, schema))


@pytest.mark.parametrize("name", SPECIAL)
def test_the_judge_agrees_on_rarer_keywords(name: str) -> None:
    """`fits` agrees with jsonschema for values that were made for other schemas."""
    schema = SPECIAL[name]
    values = [instance(other, Words(PROMPT).suggest) for other in SPECIAL.values()]

    assert [not judged(value, schema) for value in values] == [
        fits(value, schema) for value in values
    ]


def test_a_schema_beyond_all_bounds_is_survived() -> None:
    """Millions of items, endless recursion and bad references end with a value, soon."""
    endless = {
        "$defs": {
            "t": {
                "type": "object",
                "required": ["l", "r"],
                "properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}},
            }
        },
        "$ref": "#/$defs/t",
    }
    for schema in (
        endless,
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**12},
        {"type": "string", "pattern": "^a{999999999}$"},
        {"type": "string", "pattern": "(["},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": "array", "items": {"const": 1}, "uniqueItems": True, "minItems": 3},
        {"allOf": [{"$ref": "#"}]},
        {"type": "object", "minProperties": 500},
        {"$defs": {"never": False}, "$ref": "#/$defs/never"},
        False,
    ):
        instance(schema, Words(PROMPT).suggest)


@pytest.mark.parametrize("name", ["#/prefixItems/7", "#/prefixItems/x", "#/a/b"])
def test_a_pointer_to_nothing_means_anything(name: str) -> None:
    """A reference that leads nowhere is no rule."""
    assert fits(5, {"$ref": name, "prefixItems": [], "a": 1})


def test_sizes_and_doubles_are_judged() -> None:
    """`minProperties` and `uniqueItems` are rules; 1 and true are no doubles."""
    assert not fits({}, {"minProperties": 1})
    assert not fits([1, 2, 1.0], {"uniqueItems": True})
    assert fits([1, True], {"uniqueItems": True})


def test_true_is_not_one() -> None:
    """JSON equality tells true from 1, and 1.0 is 1."""
    assert (False, True, True, False) == (
        same(True, 1),  # noqa: FBT003 - a JSON value
        same(1.0, 1),
        same([{"a": 1}], [{"a": 1.0}]),
        same([{"a": True}], [{"a": 1}]),
    )


@given(st.from_regex(r"\A[a-z0-9^$.\[\]+*?(){}|\\-]{0,12}\Z"), st.integers(0, 9))
def test_an_example_fits_or_is_none(pattern: str, shortest: int) -> None:
    """What `example` gives is found by the pattern; of what it cannot read it says None."""
    text = example(pattern, shortest)

    assert text is None or (len(text) >= shortest and re.search(pattern, text))


@pytest.mark.parametrize(
    "schema",
    [
        {"items": [{"type": "string"}, {"type": "integer"}], "additionalItems": False},
        {"type": "string", "minLength": 2.0, "maxLength": 3.0},
        {"type": "array", "minItems": 1.0, "maxItems": 2.0},
        {"type": "object", "minProperties": 2.0},
        {"type": "number", "multipleOf": 1e-300},
    ],
    ids=["draft 7 items", "length", "items", "properties", "tiny step"],
)
def test_older_and_odd_spellings_are_understood(schema: dict[str, Any]) -> None:
    """Draft 7 lists its items, JSON writes 2.0 for 2, and a step may be very small."""
    value = instance(schema, lambda _name, _kind: ())

    Draft7Validator(schema).validate(value)
