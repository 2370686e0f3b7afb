"""The checks speak as pydantic does: its kinds, places, sentences and limits."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
import pytest

from loom.wire.mistral.shape import (
    Check,
    Field,
    Problem,
    anything,
    boolean,
    either,
    fields,
    integer,
    items,
    mapping,
    number,
    one_of,
    tagged,
    text,
)


class Url(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    url: str
    detail: Literal["low", "high"] | None = None


class Cat(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["cat"]
    lives: Annotated[int, pydantic.Field(ge=1)]


class Dog(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    kind: Literal["dog"]
    names: list[str] = []


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]

URL = fields(
    {"url": Field(text, required=True), "detail": Field(one_of("low", "high"), nullable=True)}
)
PET = tagged(
    "kind",
    {
        "cat": fields({"kind": Field(anything), "lives": Field(integer(ge=1), required=True)}),
        "dog": fields({"kind": Field(anything), "names": Field(items(text))}),
    },
)

# Types that are no str, number, list or dict of what is asked, one of each kind.
ODD: list[Any] = [None, [], {}, [1]]

PAIRS: list[tuple[str, Check, Any, list[Any]]] = [
    ("text", text, str, [*ODD, 1, 1.5, True, "fine", ""]),
    ("boolean", boolean, bool, [*ODD, True, False]),
    ("number", number(ge=0, le=1.5), Annotated[float, pydantic.Field(ge=0, le=1.5)],
     [*ODD, 2, -1, 1.51, 0, 1.5, 1, "hot", ""]),
    ("above", number(gt=0, le=1), Annotated[float, pydantic.Field(gt=0, le=1)], [0, 0.0, 1, 1.1]),
    ("integer", integer(ge=1), Annotated[int, pydantic.Field(ge=1)], [*ODD, 0, -5, 1, 1.5, "many"]),
    ("literal", one_of("a", "b", "c"), Literal["a", "b", "c"], [*ODD, "a", "d", 1]),
    ("literal of two", one_of("a", "b"), Literal["a", "b"], ["c"]),
    ("literal of one", one_of("a"), Literal["a"], ["c"]),
    ("mapping", mapping, dict[str, Any], [None, [], {}, {"a": 1}, 1, "x"]),
    ("list", items(text), list[str], [None, [], ["a"], ["a", 1, None], {}, "abc", 1]),
    ("short list", items(text, 2), Annotated[list[str], pydantic.Field(max_length=2)],
     [["a"], ["a", "b", "c"]]),
    ("union", either(("str", text), ("list[str]", items(text))), str | list[str],
     ["a", ["a"], [1], 1, None, {}]),
    ("object", URL, Url,
     [{"url": "x"}, {}, {"url": 1, "more": 2}, {"url": "x", "detail": None},
      {"url": "x", "detail": "medium"}, {"a": 1, "b": 2}, "x", 1, None, []]),
    ("string or object", either(("str", text), ("Url", URL)), str | Url, [1, {"url": 1}, {"x": 1}]),
    ("tagged", PET, Pet,
     [{"kind": "cat", "lives": 9}, {"kind": "cat", "lives": 0}, {"kind": "dog", "names": [1]},
      {"kind": "cow"}, {}, {"kind": 5}, {"kind": "dog", "tail": True}, None, "cat", 7, []]),
]  # fmt: skip

CASES = [
    pytest.param(check, wanted, value, id=f"{name} {value!r}")
    for name, check, wanted, values in PAIRS
    for value in values
]


def theirs(wanted: Any, value: Any) -> list[Problem]:
    adapter = pydantic.TypeAdapter[Any](wanted)
    try:
        # As the vendor's framework calls it.
        adapter.validate_python(value, from_attributes=True)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False)
        return [{**each, "loc": ["body", *each["loc"]]} for each in found]
    return []


@pytest.mark.parametrize(("check", "wanted", "value"), CASES)
def test_a_check_says_what_pydantic_says(check: Check, wanted: Any, value: Any) -> None:
    """Kind, place, sentence, value and limits are those of the validator that the vendor uses."""
    found: list[Problem] = []
    check(value, ("body",), found)

    assert theirs(wanted, value) == found


@pytest.mark.parametrize(
    ("check", "value", "kind"),
    [
        (number(), "0.7", "float_parsing"),
        (number(), True, "float_type"),
        (integer(), "3", "int_parsing"),
        (integer(), True, "int_type"),
        (integer(), 3.0, "int_from_float"),
        (boolean, "true", "bool_type"),
        (boolean, 1, "bool_type"),
    ],
)
def test_no_value_is_taken_for_another(check: Check, value: Any, kind: str) -> None:
    """Where pydantic would convert, the check refuses: no recording shows the API doing it."""
    found: list[Problem] = []
    check(value, ("body", "x"), found)

    assert [kind] == [each["type"] for each in found]
