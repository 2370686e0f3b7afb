"""Generated types: what the schema takes is what the function is given, and nothing else."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import annotated_types as at
import msgspec
import pydantic
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from loom.core.errors import ToolArgumentsInvalid
from loom.shuttle.arguments import mended
from loom.shuttle.function import FunctionTool, tool


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float = 0.5


@dataclasses.dataclass(frozen=True)
class Box:
    size: Annotated[int, at.Gt(0)]
    name: str | None = None


class Options(TypedDict, total=False):
    deep: bool


class Model(pydantic.BaseModel):
    count: int
    tags: list[str] = []


CLASSES: Sequence[Any] = (Colour, Level, Point, Box, Options, Model)
PLAIN: Sequence[Any] = (
    *(str, int, float, bool, type(None), Any),
    *(Literal["a", "b"], Literal[1, 2], Annotated[int, msgspec.Meta(ge=0, le=9)]),
    Annotated[str, at.Len(1, 3)],
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        inner.map(lambda kind: list[kind]),  # type: ignore[valid-type]  # made at run time
        inner.map(lambda kind: dict[str, kind]),  # type: ignore[valid-type]  # the same
        inner.map(lambda kind: tuple[kind, int]),  # type: ignore[valid-type]  # the same
        inner.map(lambda kind: Optional[kind]),  # noqa: UP045  `|` cannot take every type
        st.tuples(inner, inner).map(lambda kinds: Union[kinds]),  # noqa: UP007  the same
    )


hints = st.recursive(st.sampled_from([*PLAIN, *CLASSES]), larger, max_leaves=4)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 12)
    | st.sampled_from([0.5, 1.0, -2.5])
    | st.sampled_from(["a", "b", "red", "5", "true", "null", "[1]", "x" * 5, ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["x", "y", "size", "name", "deep", "count", "tags"]), inner
        )
    ),
    max_leaves=6,
)


def taking(hint: Any) -> FunctionTool[..., Any]:
    def give(value: Any) -> Any:
        return value

    give.__annotations__["value"] = hint
    try:
        return tool(give)
    except TypeError:
        # msgspec takes no union of two kinds of object, say.
        assume(condition=False)
        raise


@settings(max_examples=300)
@example(Model | None, {"count": "5"})
@given(hints, values)
def test_the_schema_takes_what_the_function_is_given(hint: Any, value: Any) -> None:
    """What fits the schema is decoded; what does not is refused, once it was mended."""
    made = taking(hint)
    schema = Draft202012Validator(made.parameters)
    written = {"value": value}

    fits = schema.is_valid(written)
    may_fit = schema.is_valid(mended(made.parameters, written))
    try:
        made.execute(written)
    except ToolArgumentsInvalid as error:
        assert not may_fit
        assert error.message.startswith("invalid arguments: ")
    else:
        assert may_fit
    assert may_fit or not fits


typed: st.SearchStrategy[tuple[Any, Any]] = st.one_of(
    *(
        st.tuples(st.just(hint), made)
        for hint, made in [
            (int, st.integers(-(2**63), 2**64 - 1)),
            (float, st.floats(allow_nan=False, allow_infinity=False)),
            (str, st.text()),
            (bool, st.booleans()),
            (Colour, st.sampled_from(Colour)),
            (Point, st.builds(Point, st.integers(0, 9), st.floats(0, 1))),
            (Box, st.builds(Box, st.integers(1, 9), st.none() | st.text())),
            (list[Point], st.lists(st.builds(Point, st.integers(0, 9), st.floats(0, 1)))),
            (dict[str, Box], st.dictionaries(st.text(), st.builds(Box, st.integers(1, 9)))),
            (dict[int, bool], st.dictionaries(st.integers(0, 9), st.booleans())),
            (tuple[int, ...], st.lists(st.integers(0, 9)).map(tuple)),
            (frozenset[str], st.frozensets(st.text())),
            (int | str | None, st.none() | st.text() | st.integers(0, 9)),
            (Model, st.builds(Model, count=st.integers(0, 9), tags=st.lists(st.text()))),
        ]
    )
)


@given(typed)
def test_arguments_make_the_round_trip(drawn: tuple[Any, Any]) -> None:
    """A value written as JSON comes back as itself, of its own type."""
    hint, value = drawn
    text = msgspec.json.encode(
        {"value": value}, enc_hook=lambda model: model.model_dump(mode="json")
    )

    found = taking(hint).execute(msgspec.json.decode(text))

    assert value == found
    assert type(value) is type(found)
