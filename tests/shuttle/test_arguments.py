"""Arguments against a schema: what fits, what is read so that it fits, what is told."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from loom.core.errors import ToolArgumentsInvalid
from loom.shuttle.arguments import arguments_invalid, fitted_arguments, mended, problems

KINDS = ["null", "boolean", "integer", "number", "string", "array", "object"]
NAMES = st.sampled_from(["a", "b", "c"])

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.sampled_from([0.0, 0.5, 1.0, 2.5, 1e300])
    | st.text("abé5", max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def with_inner(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(KINDS) | st.lists(st.sampled_from(KINDS), min_size=1),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": st.booleans() | inner,
            "items": st.booleans() | inner,
            "prefixItems": several,
            "anyOf": several,
            "oneOf": several,
            "allOf": several,
        },
    )


leaves = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(KINDS) | st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
        "enum": st.lists(scalars, min_size=1, max_size=3),
        "const": scalars,
        "minimum": st.integers(-2, 5),
        "maximum": st.integers(-2, 5),
        "exclusiveMinimum": st.integers(-2, 5),
        "exclusiveMaximum": st.integers(-2, 5),
        "multipleOf": st.integers(1, 4),
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "pattern": st.sampled_from(["^a", "b$", "[0-9]+", "^(a|b)c?$"]),
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(0, 2),
        "minProperties": st.integers(0, 2),
        "maxProperties": st.integers(0, 2),
        "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"]),
    },
)
parts = st.recursive(leaves | st.booleans(), with_inner, max_leaves=6)
# References lead down only: in a circle jsonschema itself never ends.
schemas = st.tuples(
    parts.filter(lambda part: isinstance(part, dict)),
    leaves.map(lambda part: {key: one for key, one in part.items() if key != "$ref"}),
    scalars,
).map(
    lambda drawn: {
        **drawn[0],
        "$defs": {"one": drawn[1], "two": {"const": drawn[2]}},
    }
)


@settings(max_examples=250)
@example({"const": 0.5}, None)
@given(schemas, values)
def test_the_subset_agrees_with_jsonschema(schema: dict[str, Any], value: Any) -> None:
    """For every keyword that is known, a value fits exactly when `jsonschema` says so."""
    fits = Draft202012Validator(schema).is_valid(value)

    assert fits == (not problems(schema, value))


@given(schemas, values)
def test_what_fits_is_left_alone(schema: dict[str, Any], value: Any) -> None:
    """Mending changes nothing but null, in what fits already; and never what it was given."""
    before = copy.deepcopy((schema, value))

    read = mended(schema, value)

    assert before == (schema, value)
    if not problems(schema, value):
        assert not problems(schema, read)


OBJECT = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "near": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "note": {"type": "string"},
    },
    "required": ["id"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
            "required": ["lat", "lon"],
            "additionalProperties": False,
        }
    },
}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"id": 1}, {"id": 1}),
        ({"id": "1", "tags": '["a"]'}, {"id": 1, "tags": ["a"]}),
        ({"id": 2.0, "note": None}, {"id": 2}),
        (
            {"id": 1, "near": '{"lat": "1", "lon": 2}'},
            {"id": 1, "near": {"lat": 1, "lon": 2}},
        ),
        ({"id": 1, "near": None}, {"id": 1, "near": None}),
        ({"id": 1, "near": "null"}, {"id": 1, "near": None}),
    ],
)
def test_arguments_are_fitted(written: dict[str, Any], read: dict[str, Any]) -> None:
    """What can be read in one way only is read so; the call's own dict stays as it was."""
    before = copy.deepcopy(written)

    found = fitted_arguments(OBJECT, written)

    assert read == found
    assert before == written
    assert found is not written


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "`id` is missing"),
        ({"id": 0}, "`id`: expected a number at least 1"),
        ({"id": 1, "unit": "celcius"}, 'got another value, did you mean "celsius"?'),
        ({"id": 1, "tags": ["a", 5, None]}, "`tags[1]`: expected a text, got an integer"),
        ({"id": 1, "tags": ["a", "b", "c"]}, "`tags`: expected at most 2 items, got 3"),
        ({"id": 1, "near": {"lat": 1, "lng": 2}}, "`near` has no `lng`, did you mean"),
        ({"id": 1, "near": 5}, "`near`: expected an object or null, got an integer"),
        ({"id": 1, "note": 5}, "`note`: expected a text, got an integer"),
    ],
)
def test_what_is_wrong_is_told(written: dict[str, Any], words: str) -> None:
    """Each problem names its place and what was expected; the names that exist follow."""
    with pytest.raises(ToolArgumentsInvalid) as caught:
        fitted_arguments(OBJECT, written)

    assert words in caught.value.message
    assert caught.value.message.endswith("are: id (required), unit, near, tags, note")


def test_messages_have_an_end() -> None:
    """Many problems and many names are cut."""
    schema = {"type": "object", "properties": {f"p{n}": {} for n in range(99)}}

    message = arguments_invalid([f"problem {n}" for n in range(50)], schema).message

    assert "problem 19; and 30 more; the arguments are: p0, " in message
    assert message.endswith("p39, ...")


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"$ref": "#", "type": "object"}]},
        {"properties": {"a": {"$ref": "#"}}, "anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"properties": {"a": {"pattern": "(a+)+$"}}},
        {"properties": {"a": {"pattern": "(a|a)*$"}}},
        {"properties": {"a": {"pattern": "a*a*a*a*a*a*b"}}},
        {"properties": {"a": {"pattern": "(?<name>"}}},
        {"properties": [1], "required": 5, "anyOf": "x", "type": 3, "enum": {}, "items": 7},
        {"type": "thing", "minimum": "1", "multipleOf": 0, "prefixItems": {}},
        {"$ref": "https://example.org/schema"},
        {"required": [{}, 5], "properties": {"a": {"multipleOf": float("inf")}}},
        {"patternProperties": {"x": False}, "additionalProperties": False},
    ],
    ids=str,
)
def test_a_hostile_schema_costs_little(schema: dict[str, Any]) -> None:
    """Circles, alternatives that multiply and endless patterns are let pass, and soon."""
    long: dict[str, Any] = {"a": "a" * 5000 + "!"}

    assert long == fitted_arguments(schema, long)
    assert nested(200) == fitted_arguments(schema, nested(200))


def test_alternatives_that_multiply_are_given_up() -> None:
    """Thirty levels of two alternatives each, a thousand million ways, take no time."""
    defs = {
        f"l{n}": {
            "anyOf": [
                {"properties": {"a": {"$ref": f"#/$defs/l{n + 1}"}}, "required": ["a"]},
                {"properties": {"a": {"$ref": f"#/$defs/l{n + 1}"}}, "required": ["a"]},
            ]
        }
        for n in range(30)
    }
    schema = {"$ref": "#/$defs/l0", "$defs": {**defs, "l30": {"type": "integer"}}}

    assert nested(40) == fitted_arguments(schema, nested(40))


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"allOf": [{"$ref": "#"}]},
        {"items": {"$ref": "#"}},
    ],
    ids=str,
)
def test_mending_by_a_circle_gives_the_value(schema: dict[str, Any]) -> None:
    """What takes too many steps to mend stays as it is."""
    value = [[{"a": [1]}]]

    read = mended(schema, value)

    assert value == read
    assert read is not value


def test_what_is_too_deep_is_refused() -> None:
    """Nesting beyond measure is told to the model."""
    with pytest.raises(ToolArgumentsInvalid, match="they are nested too deeply"):
        fitted_arguments({}, nested_lists(5000))


def nested_lists(depth: int) -> dict[str, Any]:
    deep: Any = 1
    for _ in range(depth):
        deep = [deep]
    return {"a": deep}


def test_numbers_and_texts_keep_their_limits() -> None:
    """A multiple by its digits, a pattern, a constant: each is told."""
    assert not problems({"multipleOf": 0.1}, 0.3)
    assert ("expected a multiple of 0.1",) == problems({"multipleOf": 0.1}, 0.35)
    assert ("expected a text that matches '^a'",) == problems({"pattern": "^a"}, "b")
    assert ('expected {"a": [1]}',) == problems({"const": {"a": [1]}}, {"a": [2]})
    assert not problems({"const": {"a": [1]}}, {"a": [1.0]})
    assert not problems({"pattern": "(?<name>a)"}, "b")
