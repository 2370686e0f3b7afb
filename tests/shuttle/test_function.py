"""`@tool`: what becomes a tool, what the model is told of it, what its function is given."""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import annotated_types as at
import msgspec
import pydantic
import pytest
from jsonschema import Draft202012Validator

from loom.core.errors import ToolArgumentsInvalid
from loom.shuttle.function import FunctionTool, tool
from loom.shuttle.tool import Tool, tool_spec


@tool
def uses_later(later: Later) -> Later:
    return later


class Unit(enum.Enum):
    C = "c"
    F = "f"


class Place(msgspec.Struct):
    lat: float
    lon: float = 0.0


@dataclasses.dataclass
class Box:
    size: int
    tags: list[str] = dataclasses.field(default_factory=list)


class Options(TypedDict, total=False):
    deep: bool


class Pair(NamedTuple):
    first: int
    second: str


class Model(pydantic.BaseModel):
    count: int
    name: str = "x"


class Weekday(pydantic.BaseModel):
    day: str

    @pydantic.field_validator("day")
    @classmethod
    def known(cls, value: str) -> str:
        if value not in ("mon", "tue"):
            raise ValueError("must be mon or tue")
        return value


class Even(msgspec.Struct):
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("n must be even")


KINDS: list[tuple[Any, Any, Any]] = [
    (str, "a", "a"),
    (int, 5, 5),
    (float, 5, 5.0),
    (bool, True, True),
    (None, None, None),
    (int | None, None, None),
    (int | str, "5", "5"),
    (Literal["a", "b"], "b", "b"),
    (Unit, "f", Unit.F),
    (list[int], [1], [1]),
    (dict[str, float], {"a": 1}, {"a": 1.0}),
    (dict[int, str], {"1": "a"}, {1: "a"}),
    (tuple[int, str], [1, "a"], (1, "a")),
    (set[int], [1, 2], {1, 2}),
    (Place, {"lat": 1.5}, Place(1.5)),
    (Box, {"size": 1, "tags": ["x"]}, Box(1, ["x"])),
    (Options, {"deep": True}, {"deep": True}),
    (Pair, [1, "a"], Pair(1, "a")),
    (Model, {"count": 1}, Model(count=1)),
    (list[Model], [{"count": 1}], [Model(count=1)]),
    (date, "2024-11-15", date(2024, 11, 15)),
    (datetime, "2024-11-15T12:00:00Z", datetime(2024, 11, 15, 12, tzinfo=UTC)),
    (
        UUID,
        "12345678-1234-5678-1234-567812345678",
        UUID("12345678-1234-5678-1234-567812345678"),
    ),
    (Decimal, "1.50", Decimal("1.50")),
    (Any, {"x": [None]}, {"x": [None]}),
    (object, [1], [1]),
]


def taking(hint: Any, default: Any = ...) -> FunctionTool[..., Any]:
    """Make a tool whose one parameter has a type."""

    def give(value: Any) -> Any:
        return value

    give.__annotations__["value"] = hint
    if default is not ...:
        give.__defaults__ = (default,)
    return tool(give)


@pytest.mark.parametrize(("hint", "written", "given"), KINDS, ids=lambda kind: str(kind)[:40])
def test_a_function_gets_the_type_it_asks_for(hint: Any, written: Any, given: Any) -> None:
    """What a model writes comes as the annotated type, and the schema takes what it wrote."""
    made = taking(hint)

    value = made.execute({"value": written})

    assert given == value
    assert type(given) is type(value)
    Draft202012Validator.check_schema(made.parameters)
    Draft202012Validator(made.parameters).validate({"value": written})


def test_the_model_is_told_everything() -> None:
    """Name, description, types, descriptions, limits, defaults and what is required are told."""

    @tool
    def search(  # type: ignore[no-untyped-def]  # one without a type is the test
        text: str,
        where: Place | None = None,
        *,
        limit: Annotated[int, at.Interval(ge=1, le=50)] = 10,
        unit: Annotated[Unit, "Of the answer."] = Unit.C,
        anything=None,
    ) -> str:
        """
        Search the archive.

        It is large.

        Args:
            text: What to look for.
            limit: How many at most.
            unit: Not this, but what stands in the annotation.

        Returns:
            Nothing that the model need know.
        """
        return text

    assert "search" == search.name
    assert "Search the archive.\n\nIt is large." == search.description
    assert {
        "type": "object",
        "properties": {
            "text": {"description": "What to look for.", "type": "string"},
            "where": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}], "default": None},
            "limit": {
                "description": "How many at most.",
                "type": "integer",
                "minimum": 1,
                "maximum": 50,
                "default": 10,
            },
            "unit": {"$ref": "#/$defs/Unit", "description": "Of the answer.", "default": "c"},
            "anything": {"default": None},
        },
        "required": ["text"],
        "additionalProperties": False,
        "$defs": {
            "Place": {
                "title": "Place",
                "type": "object",
                "properties": {
                    "lat": {"type": "number"},
                    "lon": {"type": "number", "default": 0.0},
                },
                "required": ["lat"],
            },
            "Unit": {"title": "Unit", "enum": ["c", "f"]},
        },
    } == search.parameters


GOOGLE = """
Do it.

Args:
    x: The x.
"""
NUMPY = """
Do it.

Parameters
----------
x : int
    The x.
"""
SPHINX = """
Do it.

:param x: The x.
"""


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_three_forms_of_docstring_are_read(docstring: str) -> None:
    """What a docstring says of a parameter is told, in each of the three forms."""

    def do(x: int) -> int:
        return x

    do.__doc__ = docstring

    assert "Do it." == tool(do).description
    assert {"description": "The x.", "type": "integer"} == tool(do).parameters["properties"]["x"]


def test_a_default_holds_when_an_argument_is_left_out() -> None:
    """The function's own default is used, to the object; what JSON cannot say is not told."""
    nothing = object()

    def give(value: Any = nothing, other: float = float("inf")) -> Any:
        return value, other

    made = tool(give)

    assert (nothing, float("inf")) == made.execute({})
    assert {} == made.parameters["properties"]["value"]
    assert {"type": "number"} == made.parameters["properties"]["other"]
    assert [] == made.parameters["required"]


def test_strict_closes_every_object() -> None:
    """With `strict`, all objects are closed, all properties required, and the spec says so."""

    def give(place: Place, n: int = 3) -> Any:
        return place, n

    strict, plain = tool(give, strict=True), tool(give)

    assert ["place", "n"] == strict.parameters["required"]
    assert ["lat", "lon"] == strict.parameters["$defs"]["Place"]["required"]
    assert strict.parameters["$defs"]["Place"]["additionalProperties"] is False
    assert (True, None) == (tool_spec(strict).strict, tool_spec(plain).strict)
    assert (Place(1.0), 3) == strict.execute({"place": {"lat": 1}})


def test_a_tool_is_called_like_its_function() -> None:
    """Called, it is the function; name, docstring and module are the function's."""

    @tool
    def add(a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    assert 3 == add(1, b=2)
    assert ("add", "Add.", __name__) == (add.__name__, add.__doc__, add.__module__)
    assert "<tool add(a, b)>" == repr(add)
    assert isinstance(add, Tool)


def test_options_are_kept() -> None:
    """A name, a description and the wishes of a tool are what was given."""

    @tool(name="look-up", description="Finds.", timeout_s=2.5, approval="ask", repeatable=True)
    async def f() -> None:
        """Not this."""

    assert ("look-up", "Finds.") == (f.name, f.description)
    assert (2.5, "ask", True, False, True) == (
        f.timeout_s,
        f.approval,
        f.repeatable,
        f.strict,
        f.is_async,
    )


class Shop:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @tool
    def price(self, item: int) -> int:
        """Price of an item."""
        return item * self.factor

    def stock(self, item: int) -> int:
        """Count what is left."""
        return item + self.factor

    def __call__(self, item: int) -> int:
        """Order an item."""
        return item - self.factor

    @staticmethod
    @tool
    def motto(n: int) -> int:
        return n


def test_methods_and_callable_objects_are_tools() -> None:
    """A decorated method, a bound one, a callable object, a static one: each without `self`."""
    shop, other = Shop(3), Shop(5)

    assert [6, 10, 6] == [
        shop.price.execute({"item": 2}),
        other.price.execute({"item": 2}),
        shop.price(2),
    ]
    assert ["item"] == list(shop.price.parameters["properties"])
    assert 5 == tool(shop.stock).execute({"item": 2})
    assert "Count what is left." == tool(shop.stock).description
    assert -1 == tool(shop, name="order").execute({"item": 2})
    assert "Order an item." == tool(shop, name="order").description
    assert 4 == shop.motto.execute({"n": 4})
    with pytest.raises(TypeError, match="price is a method: take the tool of an instance"):
        Shop.price.execute({"item": 2})


def test_what_partial_has_bound_is_not_told() -> None:
    """An argument that `functools.partial` fills in is neither told nor can it be given."""

    def ask(database: object, question: str, limit: int = 5) -> Any:
        """Ask."""
        return database, question, limit

    made = tool(functools.partial(ask, database="db", limit=1))

    assert ("ask", "Ask.") == (made.name, made.description)
    assert ["question"] == list(made.parameters["properties"])
    assert ("db", "why", 1) == made.execute({"question": "why"})
    with pytest.raises(ToolArgumentsInvalid, match="`database` is not an argument"):
        made.execute({"question": "why", "database": "other"})


def test_local_and_later_classes_are_found() -> None:
    """Annotations that are texts find classes beside the tool, and ones that come later."""

    class Local(msgspec.Struct):
        n: int

    @tool
    def f(local: Local, later: Later, many: list[Local] | None = None) -> Missing:  # type: ignore[name-defined]  # noqa: F821  the return type is nobody's business
        return local, later, many

    assert (Local(1), Later(2), [Local(3)]) == f.execute(
        {"local": {"n": 1}, "later": {"n": 2}, "many": [{"n": 3}]}
    )


class Later(msgspec.Struct):
    n: int


def test_a_class_further_down_is_found_at_the_first_use() -> None:
    """A tool that stands above the class that it needs is a tool all the same."""
    assert Later(1) == uses_later.execute({"later": {"n": 1}})


def test_a_method_finds_what_stands_around_its_class() -> None:
    """In a class within a function, annotations find what both of them define."""

    class Around(msgspec.Struct):
        n: int

    class Holder:
        Inside = dict[str, int]

        @tool
        def f(self, around: Around, inside: Inside) -> object:
            return around, inside

    assert (Around(1), {"a": 2}) == Holder().f.execute({"around": {"n": 1}, "inside": {"a": 2}})


def test_a_name_that_is_nowhere_is_told_when_it_is_needed() -> None:
    """An annotation that cannot be read is named, with what to do."""

    @tool
    def f(x: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821  that is the test
        pass

    with pytest.raises(TypeError, match="f: an annotation cannot be read, name 'Nowhere' is not"):
        _ = f.parameters


def test_two_classes_of_one_name_keep_their_schemas() -> None:
    """Classes that share a name stand beside each other in `$defs`."""

    def of(kind: type) -> Any:
        return pydantic.create_model("Item", value=(kind, ...))

    first, second = of(int), of(str)

    def f(a: Any, b: Any) -> Any:
        return a, b

    f.__annotations__ |= {
        "a": types.GenericAlias(list, first),
        "b": types.GenericAlias(list, second),
    }

    schema = tool(f).parameters
    assert {"Item", "Item2"} == set(schema["$defs"])
    Draft202012Validator(schema).validate({"a": [{"value": 1}], "b": [{"value": "x"}]})
    assert not Draft202012Validator(schema).is_valid({"a": [{"value": "x"}], "b": []})


def positional(a: int, /) -> None: ...
def stars(*many: int) -> None: ...
def named_stars(**many: int) -> None: ...
def anything(cls: Any) -> None: ...
def odd(x: int, callback: Callable[[], None]) -> None: ...
def deep(x: list[dict[str, range]]) -> None: ...
def numbers() -> Any:
    yield 1


async def later_numbers() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: x, "a lambda has no annotations"),
        (Place, "Place is a class"),
        (5, "a int cannot be called"),
        (positional, "positional: the parameter `a` is positional-only"),
        (stars, r"stars: the parameter `\*many` takes any number of arguments"),
        (named_stars, r"named_stars: the parameter `\*\*many` takes arguments of any name"),
        (odd, "odd: the parameter `callback`: Callable"),
        (deep, "deep: the parameter `x`: list.dict.str, range.*: range cannot be written"),
        (numbers, "numbers is a generator: return a list"),
        (later_numbers, "later_numbers is a generator"),
        (max, "max has no signature"),
        (classmethod(anything), "put @tool below @classmethod"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_a_tool_is_refused_at_once(function: Any, words: str) -> None:
    """A function that no model could call is refused where it is defined, with the reason."""
    with pytest.raises(TypeError, match=words):
        tool(function)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "a b"}, "'a b' must be 1 to 64"),
        ({"timeout_s": 0}, "timeout_s must be above 0, not 0"),
        ({"approval": "perhaps"}, "approval must be allow, deny or ask, not 'perhaps'"),
    ],
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any], words: str) -> None:
    """An option that makes no sense is refused where it is given."""

    def f() -> None: ...

    with pytest.raises(ValueError, match=words):
        tool(f, **options)


def test_a_tool_may_change_what_it_is_given() -> None:
    """What a tool does to its arguments does not reach the call that they came from."""

    def spoil(any: Any, named: dict[str, Any], many: list[int]) -> None:  # noqa: A002  any is a fine name
        any["x"].append(1)
        named["x"].append(1)
        many.append(1)

    written: dict[str, Any] = {"any": {"x": []}, "named": {"x": []}, "many": []}
    tool(spoil).execute(written)

    assert {"any": {"x": []}, "named": {"x": []}, "many": []} == written


@pytest.mark.parametrize(
    ("hint", "written", "given"),
    [
        (int, "5", 5),
        (int, 5.0, 5),
        (float, "1.5", 1.5),
        (bool, "true", True),
        (bool, "False", False),
        (int | None, "null", None),
        (list[int], "[1, 2]", [1, 2]),
        (list[int], ["1", 2.0], [1, 2]),
        (Place, '{"lat": 1}', Place(1.0)),
        (Place | None, {"lat": "1"}, Place(1.0)),
        (Model, {"count": "3"}, Model(count=3)),
    ],
    ids=str,
)
def test_what_can_be_read_in_one_way_is_read(hint: Any, written: Any, given: Any) -> None:
    """A text that is the JSON of what is asked for, and 5.0 for 5, are taken."""
    assert given == taking(hint).execute({"value": written})


@pytest.mark.parametrize(
    ("hint", "written", "words"),
    [
        (int, 5.5, "`value`: expected an integer, got a number"),
        (int, "five", "`value`: expected an integer, got a text"),
        (int, True, "`value`: expected an integer, got true or false"),
        (int, None, "`value`: expected an integer, got null"),
        (str, 7, "`value`: expected a text, got an integer"),
        (bool, 1, "`value`: expected true or false, got an integer"),
        (bool, "yes", "`value`: expected true or false, got a text"),
        (list[int], 1, "`value`: expected a list, got an integer"),
        (list[int], [1, "x"], "`value[1]`: expected an integer, got a text"),
        (Literal["red", "blue"], "bleu", 'expected one of "blue", "red", got another value, did'),
        (Place, {"lon": 1}, "`value.lat` is missing"),
        (Place | None, {"lat": "x"}, "`value.lat`: expected a number, got a text"),
        (Annotated[int, at.Ge(1)], 0, "`value`: expected a number at least 1"),
        (list[Annotated[str, at.MaxLen(2)]], ["abc"], "`value[0]`: expected at most 2 characters"),
        (datetime, "tomorrow", "`value`: invalid RFC3339 encoded datetime"),
        (Even, {"n": 3}, "`value`: n must be even"),
        (Weekday, {"day": "sun"}, "`value.day`: Value error, must be mon or tue"),
        (Model, {"count": True}, "`value.count`: expected an integer, got true or false"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_told_to_the_model(hint: Any, written: Any, words: str) -> None:
    """The message names the argument, what was expected, and the kind of what came."""
    with pytest.raises(ToolArgumentsInvalid) as caught:
        taking(hint).execute({"value": written})

    assert caught.value.message.startswith("invalid arguments: ")
    assert words in caught.value.message
    assert caught.value.message.endswith("; the arguments are: value (required)")


def test_all_problems_are_told_at_once() -> None:
    """A misspelt name, a wrong type and a missing argument are told in one message."""

    @tool
    def f(location: str, unit: Literal["c", "f"] = "c", days: int = 1) -> None: ...

    with pytest.raises(ToolArgumentsInvalid) as caught:
        f.execute({"locaton": "Oslo", "unit": "k", "days": []})

    assert (
        "invalid arguments: `locaton` is not an argument, did you mean `location`?;"
        ' `unit`: expected one of "c", "f", got another value; `days`: expected an integer,'
        " got a list; `location` is missing; the arguments are: location (required), unit, days"
    ) == caught.value.message


def test_null_for_what_may_be_left_out_is_left_out() -> None:
    """`null` for an argument that has a default and is never null means its default."""
    assert 3 == taking(int, 3).execute({"value": None})
    assert taking(int | None, 3).execute({"value": None}) is None


def test_a_message_never_holds_the_value() -> None:
    """Long and hostile names are cut and cleaned; values are not told at all."""
    with pytest.raises(ToolArgumentsInvalid) as caught:
        taking(int).execute({"value": "s3cret " * 50, "\x1b[31m" + "n" * 500: 1})

    assert "s3cret" not in caught.value.message
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 250


def test_no_arguments_are_taken_by_a_tool_without_parameters() -> None:
    """A tool without parameters takes an empty object and says so."""

    @tool
    def now() -> int:
        return 1

    assert {"type": "object", "properties": {}, "required": [], "additionalProperties": False} == (
        now.parameters
    )
    assert 1 == now.execute({})
    with pytest.raises(ToolArgumentsInvalid, match="it takes no arguments"):
        now.execute({"x": 1})


def test_what_is_no_object_or_too_deep_is_refused() -> None:
    """A list for the arguments, and nesting beyond measure, are told as other mistakes are."""
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]

    with pytest.raises(ToolArgumentsInvalid, match="invalid arguments: expected an object"):
        taking(int).execute([1])  # type: ignore[arg-type]  # a model wrote it
    with pytest.raises(ToolArgumentsInvalid, match="they are nested too deeply"):
        taking(Any).execute({"value": deep})


class Limited(msgspec.Struct):
    text: Annotated[str, pydantic.Field(pattern="(a+)+b|(a|b)*c")]


def test_what_the_check_let_pass_is_still_refused() -> None:
    """A limit that is too dear for the check of schemas holds when the value is decoded."""
    assert Limited("c") == taking(Limited).execute({"value": {"text": "c"}})
    with pytest.raises(ToolArgumentsInvalid, match="expected text that matches"):
        taking(Limited).execute({"value": {"text": "x"}})


def test_a_limit_that_no_schema_holds_is_refused() -> None:
    """A limit that JSON cannot say is named with its parameter."""

    def f(day: Annotated[date, at.Gt(date(2024, 1, 1))]) -> None: ...

    with pytest.raises(TypeError, match="f: the parameter `day`"):
        tool(f)


def test_a_default_of_any_kind_is_told_as_json() -> None:
    """A pydantic model and an enum as defaults are told as what a model would write."""

    def f(model: Model = Model(count=1), unit: Unit = Unit.F) -> Any:  # noqa: B008  a value
        return model, unit

    properties = tool(f).parameters["properties"]

    assert [{"count": 1, "name": "x"}, "f"] == [
        properties["model"]["default"],
        properties["unit"]["default"],
    ]
    assert (Model(count=1), Unit.F) == tool(f).execute({})
