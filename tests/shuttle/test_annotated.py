"""Limits and descriptions in `Annotated` that msgspec does not read itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import datetime, time
from typing import Annotated, Any, Literal, Required

import annotated_types as at
import msgspec
import pydantic
import pytest
from typing_extensions import Doc

from loom.shuttle.annotated import breach, with_meta
from loom.shuttle.decode import NotFitting, decode_json
from loom.shuttle.schema import json_schema

Foreign = Annotated[int, at.Gt(0)]
Ours = Annotated[int, msgspec.Meta(gt=0)]
Described = Annotated[list[Ours], msgspec.Meta(description="x")]


@dataclasses.dataclass
class Inner:
    size: Annotated[int, at.Gt(0)]


@dataclasses.dataclass
class Outer:
    inner: Inner
    more: list[Inner] = dataclasses.field(default_factory=list)
    either: Annotated[int, at.Le(9)] | Annotated[str, at.MaxLen(2)] | None = None
    named: dict[str, Annotated[float, at.MultipleOf(0.5)]] = dataclasses.field(default_factory=dict)
    pair: tuple[Annotated[int, at.Lt(5)], bool] = (0, True)
    any: Any = None


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Annotated[int, at.Gt(0)], msgspec.Meta(gt=0)),
        (Annotated[int, at.Interval(ge=0, lt=9)], msgspec.Meta(ge=0, lt=9)),
        (Annotated[str, at.Len(1, 4)], msgspec.Meta(min_length=1, max_length=4)),
        (Annotated[str, at.MinLen(1)], msgspec.Meta(min_length=1)),
        (Annotated[str, "A word."], msgspec.Meta(description="A word.")),
        (Annotated[str, Doc("A word.")], msgspec.Meta(description="A word.")),
        (
            Annotated[int, pydantic.Field(ge=1, description="One up.")],
            msgspec.Meta(ge=1, description="One up."),
        ),
    ],
    ids=str,
)
def test_what_others_write_becomes_meta(hint: Any, expected: msgspec.Meta) -> None:
    """Each way to write a limit or a description gives the same `Meta`."""
    assert Annotated[hint.__origin__, expected] == with_meta(hint)


@pytest.mark.parametrize(
    "hint",
    [
        int,
        None,
        list[int],
        int | None,
        tuple[()],
        Literal["a"],
        Callable[[int], str],
        Annotated[int, msgspec.Meta(gt=0)],
        Annotated[int, object],
    ],
    ids=str,
)
def test_nothing_foreign_leaves_the_hint_itself(hint: Any) -> None:
    """A hint without foreign limits is given back as it is."""
    assert hint is with_meta(hint)


def test_it_looks_through_containers_and_unions() -> None:
    """Limits within unions, containers and `Required` are found."""
    assert Ours | None == with_meta(Foreign | None)
    assert dict[str, list[Ours]] == with_meta(dict[str, list[Foreign]])
    assert Sequence[Ours] == with_meta(Sequence[Foreign])
    assert Ours == with_meta(Required[Foreign])
    assert Described == with_meta(Annotated[list[Foreign], "x"])


def test_limits_of_other_things_than_numbers_are_refused() -> None:
    """A limit that a schema cannot hold is an error, not silence."""
    with pytest.raises(TypeError):
        with_meta(Annotated[str, at.Gt("a")])


GOOD: dict[str, Any] = {"inner": {"size": 1}}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"inner": {"size": 0}}, "`$.inner.size`: expected a number > 0"),
        ({"more": [{"size": 1}, {"size": -1}]}, "`$.more[1].size`: expected a number > 0"),
        ({"either": 9}, None),
        ({"either": "ab"}, None),
        ({"either": None}, None),
        ({"either": 10}, "`$.either`: expected a number <= 9"),
        ({"either": "abc"}, "`$.either`: expected a length <= 2"),
        ({"named": {"k": 1.5}}, None),
        ({"named": {"k": 1.6}}, "`$.named[...]`: expected a number a multiple of 0.5"),
        ({"pair": [5, False]}, "`$.pair[0]`: expected a number < 5"),
        ({"any": {"deep": [1, "x", True]}}, None),
    ],
)
def test_breach_names_the_place_and_the_limit(
    changed: dict[str, Any], expected: str | None
) -> None:
    """The first limit that is not kept is said with its place; plain keys are not shown."""
    text = msgspec.json.encode(GOOD | changed).decode()
    if expected is None:
        assert isinstance(decode_json(Outer, text), Outer)
    else:
        with pytest.raises(NotFitting) as caught:
            decode_json(Outer, text)
        assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"minimum": 2}, 1, "`$`: expected a number >= 2"),
        ({"minimum": 2}, True, None),
        ({"minimum": 2}, "1", None),
        ({"minLength": 2}, "a", "`$`: expected a length >= 2"),
        ({"maxItems": 1}, [1, 2], "`$`: expected a length <= 1"),
        ({"minProperties": 1}, {}, "`$`: expected a length >= 1"),
        ({"pattern": "^a"}, "b", "`$`: expected text that matches '^a'"),
        ({"pattern": "^a"}, "ab", None),
        ({"items": False}, [], None),
        ({"anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 2}]}, True, None),
        ({"anyOf": [{}, {"type": "integer", "minimum": 2}]}, 1, None),
        ({"anyOf": [{"type": "string"}]}, 1, None),
        (
            {"anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"type": "integer", "maximum": 0}}},
            1,
            "`$`: expected a number <= 0",
        ),
        ({"$ref": "#/$defs/A", "minimum": 1, "$defs": {"A": {}}}, 0, "`$`: expected a number >= 1"),
    ],
)
def test_breach_of_plain_schemas(schema: dict[str, Any], value: Any, expected: str | None) -> None:
    """Limits count for their own kind of value only."""
    assert expected == breach(schema, value)


def test_recursive_values_are_followed() -> None:
    """A type within itself is checked at every depth."""
    text = '{"size": 1, "next": {"size": 1, "next": {"size": 0, "next": null}}}'
    with pytest.raises(NotFitting, match=r"`\$\.next\.next\.size`: expected a number > 0"):
        decode_json(Chain, text)
    assert "#/$defs/Chain" in str(json_schema(Chain))


@dataclasses.dataclass
class Chain:
    size: Annotated[int, at.Gt(0)]
    next: Chain | None


def test_a_moment_is_named_as_one() -> None:
    """A date and time, and a time of the day, have their `format`; without a zone none may have."""
    naive = Annotated[datetime, msgspec.Meta(tz=False)]

    assert {"type": "string", "format": "date-time"} == json_schema(datetime)
    assert {"type": "string", "format": "time"} == json_schema(time)
    assert {"type": "string"} == json_schema(naive)
