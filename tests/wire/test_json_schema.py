"""What is a JSON schema: ours and jsonschema's meta-schema agree."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loom.core.errors import InvalidRequest
from loom.wire.mistral.json_schema import schema_problem
from loom.wire.mistral.strict import check_request

VALUE = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-2, 2) | st.text(max_size=2)
TEXTS = st.lists(st.text(max_size=2), max_size=3)
TYPE = st.sampled_from(["object", "string", "array", "integer", "null", "nonsense"])


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    one = inner | VALUE | TEXTS
    listed = st.lists(inner, max_size=2) | one
    named = st.dictionaries(st.text(max_size=2), one, max_size=2) | one
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPE | st.lists(TYPE, max_size=2) | VALUE,
            "properties": named,
            "patternProperties": st.dictionaries(st.just("^a"), one, max_size=1),
            "definitions": named,
            "additionalProperties": one,
            "items": listed,
            "allOf": listed,
            "anyOf": listed,
            "not": one,
            "if": one,
            "required": TEXTS | VALUE,
            "enum": st.lists(VALUE, max_size=2) | VALUE,
            "minimum": VALUE,
            "exclusiveMaximum": VALUE,
            "multipleOf": VALUE,
            "minLength": VALUE,
            "maxItems": VALUE,
            "uniqueItems": VALUE,
            "title": VALUE,
            "$ref": st.sampled_from(["#", "#/definitions/x"]) | st.integers(),
            "x-unknown": VALUE,
        },
    )


SCHEMAS = keywords(st.recursive(st.just({}) | st.booleans(), keywords, max_leaves=4))


@settings(max_examples=400)
@given(SCHEMAS)
def test_a_schema_is_one_where_its_meta_schema_says_so(schema: dict[str, Any]) -> None:
    """Neither is stricter than the other, on the keywords that all drafts share."""
    try:
        jsonschema.Draft7Validator.check_schema(schema)
    except jsonschema.SchemaError:
        assert schema_problem(schema) is not None
    else:
        assert schema_problem(schema) is None


def test_nesting_has_no_limit() -> None:
    """A schema deeper than Python calls is looked at to its end."""
    schema: dict[str, Any] = {"type": 5}
    for _ in range(50_000):
        schema = {"items": schema}
    try:
        assert schema_problem(schema) == "5 is not a value for 'type'"
    finally:
        while schema:  # taking it apart at once would overflow the interpreter's own stack
            schema = schema.get("items", {})


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "nonsense"}, "'type'"),
        ({"pattern": "("}, "'pattern'"),
        ({"pattern": 1}, "'pattern'"),
        ({"properties": {"a": {"required": "a"}}}, "'required'"),
        ({"$defs": []}, "object"),
        ({"prefixItems": []}, "list of schemas"),
        ({"not": 3}, "3"),
    ],
)
def test_a_bad_schema_is_refused_with_its_place(schema: dict[str, Any], named: str) -> None:
    """Tools and answer forms are both looked at; the sentence names the keyword."""
    hello = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    tool = {"function": {"name": "f", "parameters": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for more, begin in (({"tools": [tool]}, "tool"), ({"response_format": form}, "response")):
        with pytest.raises(InvalidRequest, match=f"^Invalid {begin} schema: .*{named}") as caught:
            check_request({**hello, **more})
        assert caught.value.http_status == 400
