"""Types become schemas: every kind, in the order of the code, with what is written about it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import annotated_types
import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.shuttle.kinds import (
    CASES,
    Account,
    Box,
    Cat,
    Checked,
    Colour,
    Dog,
    Holder,
    Level,
    Limited,
    Movie,
    Node,
    Pair,
    Person,
    Point,
    Row,
    User,
)

from loom.shuttle.decode import decode_json
from loom.shuttle.schema import (
    has_foreign_limits,
    is_object,
    is_pydantic,
    json_schema,
    type_label,
)


def of(generic: Any, *args: Any) -> Any:
    """Subscribe a generic with types that only the running test knows."""
    return generic[args if len(args) > 1 else args[0]]


def encode(value: Any) -> bytes:
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump_json().encode()
    return msgspec.json.encode(value)


@pytest.mark.parametrize("kind", CASES)
def test_golden_schema(kind: str) -> None:
    """Each kind of type has exactly this schema, its properties in this order."""
    type_, _, expected = CASES[kind]
    got = json_schema(type_)
    assert expected == got
    assert list(expected.get("properties", ())) == list(got.get("properties", ()))


@pytest.mark.parametrize("kind", CASES)
def test_value_fits_its_schema_and_comes_back(kind: str) -> None:
    """A value, written as JSON, keeps to its type's schema and is read back equal."""
    type_, value, _ = CASES[kind]
    schema = json_schema(type_)
    jsonschema.Draft202012Validator.check_schema(schema)
    text = encode(value)
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert value == decode_json(type_, text.decode())


@pytest.mark.parametrize("kind", CASES)
def test_plain_form_asks_no_more_than_the_type(kind: str) -> None:
    """The plain form requires only what has no default, and takes the same values."""
    type_, value, _ = CASES[kind]
    schema = json_schema(type_, strict=False)
    jsonschema.Draft202012Validator(schema).validate(json.loads(encode(value)))
    assert schema.get("additionalProperties") is not False


def test_plain_form_keeps_defaults() -> None:
    """The plain form says the defaults, of re-written fields too."""
    properties = json_schema(Limited, strict=False)["properties"]
    assert {"type": "string", "minLength": 2, "maxLength": 4, "default": "word"} == (
        properties["word"]
    )
    assert ["age"] == json_schema(Limited, strict=False)["required"]


# --- families of types ---------------------------------------------------------------------

_numbers = itertools.count()
_names = st.lists(
    st.sampled_from(["alpha", "beta", "gamma", "delta"]), min_size=1, max_size=3, unique=True
)
_leaves = st.sampled_from(
    [
        (int, st.integers(-(2**53), 2**53)),
        (str, st.text(max_size=8)),
        (bool, st.booleans()),
        (float, st.floats(allow_nan=False, allow_infinity=False)),
        (None, st.none()),
        (Colour, st.sampled_from(Colour)),
        (Literal["a", "b"], st.sampled_from(["a", "b"])),
        (Annotated[int, msgspec.Meta(ge=0, lt=10)], st.integers(0, 9)),
        (Annotated[int, annotated_types.MultipleOf(3)], st.integers(-9, 9).map(lambda n: n * 3)),
    ]
)


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    @st.composite
    def classes(draw: st.DrawFn) -> tuple[Any, st.SearchStrategy[Any]]:
        fields = {name: draw(inner) for name in draw(_names)}
        pairs = [(name, type_) for name, (type_, _) in fields.items()]
        values = {name: strategy for name, (_, strategy) in fields.items()}
        make: Any = draw(st.sampled_from([dataclasses.make_dataclass, msgspec.defstruct]))
        cls: Any = make(f"Made{next(_numbers)}", pairs)
        return cls, st.fixed_dictionaries(values).map(lambda given_: cls(**given_))

    return st.one_of(
        inner.map(lambda pair: (of(list, pair[0]), st.lists(pair[1], max_size=3))),
        inner.map(
            lambda pair: (
                of(dict, str, pair[0]),
                st.dictionaries(st.text(max_size=4), pair[1], max_size=3),
            )
        ),
        inner.map(lambda pair: (pair[0] | None if pair[0] else None, st.none() | pair[1])),
        st.tuples(inner, inner).map(
            lambda two: (of(tuple, two[0][0], two[1][0]), st.tuples(two[0][1], two[1][1]))
        ),
        classes(),
    )


@given(st.data(), st.recursive(_leaves, _grown, max_leaves=5))
def test_any_type_of_a_family_round_trips(
    data: st.DataObject, pair: tuple[Any, st.SearchStrategy[Any]]
) -> None:
    """Whatever is built of these types has a valid schema, and its values come back equal."""
    type_, values = pair
    value = data.draw(values)
    schema = json_schema(type_)
    jsonschema.Draft202012Validator.check_schema(schema)
    text = msgspec.json.encode(value).decode()
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    assert value == decode_json(type_, text)


# --- what has no schema --------------------------------------------------------------------


@dataclasses.dataclass
class Bad:
    fine: int
    numbers: dict[str, list[complex]]


@dataclasses.dataclass
class Outer:
    node: Node
    bad: Bad | None


@dataclasses.dataclass
class TwoClasses:
    both: Person | Node


@dataclasses.dataclass
class Unresolved:
    there: Nowhere  # type: ignore[name-defined]  # noqa: F821 - that is the test


@dataclasses.dataclass
class NoType:
    number: "1 | 2"  # type: ignore[valid-type]  # noqa: UP037 - that is the test


@dataclasses.dataclass
class WrongLimit:
    name: Annotated[str, annotated_types.Gt(1)]


class StructWithModel(msgspec.Struct):
    user: User


class ModelWithFunction(pydantic.BaseModel):
    fine: int
    call: Callable[[], int]


@dataclasses.dataclass
class BadDefault:
    number: Any = dataclasses.field(default=complex(1, 2))


@pytest.mark.parametrize(
    ("type_", "named"),
    [
        (complex, r"^complex cannot be written"),
        (object, r"^object cannot"),
        (42, r"^42 cannot .* Type '42' is not supported$"),
        (msgspec.msgpack.Ext, r"^Ext cannot"),
        (list[complex], r"^list\[complex\]: complex cannot"),
        (Annotated[complex, "c"], r"^complex: complex cannot"),
        (Bad, r"^Bad\.numbers: complex cannot be written as a JSON schema: use a dataclass"),
        (Outer, r"^Outer\.bad\.numbers: complex cannot"),
        (Box[complex], r"Box\[complex\]"),
        (TwoClasses, r"^TwoClasses\.both: Person \| Node cannot .* more than one dataclass"),
        (Unresolved, r"^Unresolved cannot .* name 'Nowhere' is not defined"),
        (NoType, r"^NoType\.number: 3 cannot .* Type '3' is not supported"),
        (WrongLimit, r"^WrongLimit\.name: str cannot .* numeric type"),
        (StructWithModel, r"^StructWithModel\.user: User cannot"),
        (ModelWithFunction, r"^ModelWithFunction\.call cannot"),
        (tuple[User, Callable[[], int]], r"^tuple\[User, .*Callable.*\] cannot"),
        (BadDefault, r"^BadDefault cannot"),
    ],
)
def test_type_without_a_schema_is_named_with_its_field(type_: Any, named: str) -> None:
    """What cannot be written is a TypeError that names the type and the way to it."""
    with pytest.raises(TypeError, match=named) as caught:
        json_schema(type_)
    assert "\n" not in str(caught.value)


def test_is_object_refuses_what_has_no_schema() -> None:
    """The question whether a type is an object is not answered for a type that has no schema."""
    with pytest.raises(TypeError, match=r"^Bad\.numbers"):
        is_object(Bad)


# --- questions about types -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Person, True),
        (Movie, True),
        (Point, True),
        (User, True),
        (dict[str, int], True),
        (Annotated[Person, msgspec.Meta(title="P")], True),
        (Row, False),
        (Pair, False),
        (Cat | Dog, False),
        (Person | None, False),
        (list[User], False),
        (User | None, False),
        (int, False),
        (Colour, False),
    ],
)
def test_is_object(type_: Any, expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Only what is written in braces counts as an object."""
    assert expected is is_object(type_)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (User, True),
        (Checked, True),
        (Holder, True),
        (list[User | None], True),
        (dict[str, Account], True),
        (Person, False),
        (Node, False),
        (StructWithModel, False),
        (Unresolved, False),
        (Literal["User"], False),
        (42, False),
    ],
)
def test_is_pydantic(type_: Any, expected: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """A type is pydantic's when one of its models stands in it, unless a Struct is around it."""
    assert expected is is_pydantic(type_)


def test_pydantic_is_not_imported() -> None:
    """Who does not use pydantic does not pay for it, nor for griffelib without sections."""
    code = (
        "import sys, msgspec\n"
        "from loom.client.output import output_format, parse_output\n"
        "class P(msgspec.Struct):\n"
        "    '''A point.'''\n"
        "    x: int\n"
        "output_format(P); parse_output(P, '{\"x\": 1}')\n"
        "print(sorted({'pydantic', 'griffe', 'jsonschema', 'annotated_types'} & {*sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]\n" == done.stdout


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Limited, True),
        (list[Limited], True),
        (Row, True),
        (Annotated[int, annotated_types.Gt(0)], True),
        (Person, False),
        (Movie, False),
        (Level, False),
        (int, False),
    ],
)
def test_has_foreign_limits(type_: Any, expected: bool) -> None:  # noqa: FBT001 - a parameter
    """Only limits that msgspec does not read itself count as foreign."""
    assert expected is has_foreign_limits(type_)


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Person, "Person"),
        (list[Person], "list[Person]"),
        (Person | None, "Person | None"),
        (dict[str, Any], "dict[str, Any]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Literal["a"], "Literal['a']"),
        (Annotated[int, "x"], "int"),
        (Box[int], "Box[int]"),
        (Any, "Any"),
        (None, "None"),
    ],
)
def test_type_label(type_: Any, expected: str) -> None:
    """A type is called what it is called in the code."""
    assert expected == type_label(type_)


def test_two_classes_of_one_name_stay_apart() -> None:
    """Two classes with the same name are two definitions."""
    first = dataclasses.make_dataclass("Same", [("a", int)], namespace={"__qualname__": "A.Same"})
    second = dataclasses.make_dataclass("Same", [("b", str)], namespace={"__qualname__": "B.Same"})
    schema = json_schema(of(tuple, first, second))
    assert 2 == len(schema["$defs"])
    parts = [
        schema["$defs"][part["$ref"].removeprefix("#/$defs/")] for part in (schema["prefixItems"])
    ]
    assert [["a"], ["b"]] == [part["required"] for part in parts]


def test_two_classes_of_one_full_name_are_refused() -> None:
    """Classes that even their module does not tell apart cannot be named in a schema."""
    made = [dataclasses.make_dataclass("Same", [(name, int)]) for name in "abc"]
    with pytest.raises(TypeError, match="two of its classes share one name"):
        json_schema(of(tuple, *made))


def test_docstring_of_sections_only_describes_the_fields() -> None:
    """A docstring without a summary leaves the class without a description."""

    class Bare(msgspec.Struct):
        """
        Attributes:
            x: To the right.
        """

        x: int

    schema = json_schema(Bare)
    assert "description" not in schema
    assert {"description": "To the right.", "type": "integer"} == schema["properties"]["x"]


def test_holder_of_a_model_is_read_by_pydantic() -> None:
    """A plain dataclass around a pydantic model has a schema, and comes back whole."""
    schema = json_schema(Holder)
    assert ["user"] == schema["required"]
    assert "The login." == schema["$defs"]["User"]["properties"]["name"]["description"]
    text = '{"user": {"name": "ada", "friend": null, "mood": "bad"}}'
    assert Holder(User(name="ada", mood="bad")) == decode_json(Holder, text)
