"""One type of each kind, a value of it, and its schema to the letter."""

from __future__ import annotations

import dataclasses
import enum
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar
from uuid import UUID

import annotated_types
import msgspec
import pydantic

T = TypeVar("T")


class Colour(enum.Enum):
    """The colour of a thing."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Person:
    """
    Somebody.

    Attributes:
        name: As in the passport.
        age: In years.
    """

    name: str
    age: Annotated[int, msgspec.Meta(ge=0, le=150, description="At the last birthday.")]
    nick: str | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


class Point(msgspec.Struct, rename="camel"):
    """A point.

    Parameters
    ----------
    x_value : float
        To the right.
    y_value : float
        Upwards.
    """

    x_value: float
    y_value: float = 0.0


class Movie(TypedDict):
    """A film.

    :param title: On the poster.
    """

    title: str
    rating: Literal["good", "bad"]
    cast: NotRequired[list[Person]]


class Pair(NamedTuple):
    left: int
    right: str = "r"


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Row(msgspec.Struct, array_like=True, tag="row"):
    count: Annotated[int, annotated_types.Gt(0)]
    label: str


@dataclasses.dataclass
class Node:
    label: str
    children: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Box(Generic[T]):
    inside: T


@dataclasses.dataclass
class Limited:
    """Limits from outside of msgspec."""

    age: Annotated[int, annotated_types.Ge(0), "In years."]
    word: Annotated[str, annotated_types.Len(2, 4)] = "word"
    scores: list[Annotated[float, annotated_types.Interval(ge=0, lt=1)]] = dataclasses.field(
        default_factory=list
    )


class User(pydantic.BaseModel):
    """
    A user.

    Attributes:
        name: The login.
    """

    name: str = pydantic.Field(min_length=1)
    friend: User | None = None
    mood: Literal["good", "bad"] = "good"


class Account(pydantic.BaseModel):
    """Holds users."""

    owner: User
    size: float = 1.0


@pydantic.dataclasses.dataclass
class Checked:
    number: int


@dataclasses.dataclass
class Holder:
    user: User


# kind: (type, a value, its schema)
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "dataclass": (
        Person,
        Person("Ada", 36, None, ["maths"]),
        {
            "title": "Person",
            "description": "Somebody.",
            "type": "object",
            "properties": {
                "name": {"description": "As in the passport.", "type": "string"},
                "age": {
                    "description": "At the last birthday.",
                    "type": "integer",
                    "minimum": 0,
                    "maximum": 150,
                },
                "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["name", "age", "nick", "tags"],
            "additionalProperties": False,
        },
    ),
    "struct with other names": (
        Point,
        Point(1.5, -2.0),
        {
            "title": "Point",
            "description": "A point.",
            "type": "object",
            "properties": {
                "xValue": {"description": "To the right.", "type": "number"},
                "yValue": {"description": "Upwards.", "type": "number"},
            },
            "required": ["xValue", "yValue"],
            "additionalProperties": False,
        },
    ),
    "typed dict": (
        Movie,
        {"title": "M", "rating": "good", "cast": []},
        {
            "title": "Movie",
            "description": "A film.",
            "type": "object",
            "properties": {
                "title": {"description": "On the poster.", "type": "string"},
                "rating": {"enum": ["bad", "good"], "type": "string"},
                "cast": {"type": "array", "items": {"$ref": "#/$defs/Person"}},
            },
            "required": ["title", "rating", "cast"],
            "additionalProperties": False,
            "$defs": {
                "Person": {
                    "title": "Person",
                    "description": "Somebody.",
                    "type": "object",
                    "properties": {
                        "name": {"description": "As in the passport.", "type": "string"},
                        "age": {
                            "description": "At the last birthday.",
                            "type": "integer",
                            "minimum": 0,
                            "maximum": 150,
                        },
                        "nick": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                        "tags": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["name", "age", "nick", "tags"],
                    "additionalProperties": False,
                }
            },
        },
    ),
    "enum": (
        Colour,
        Colour.RED,
        {
            "title": "Colour",
            "description": "The colour of a thing.",
            "enum": ["blue", "red"],
            "type": "string",
        },
    ),
    "enum of numbers": (
        Level,
        Level.HIGH,
        {"title": "Level", "enum": [1, 2], "type": "integer"},
    ),
    "literal of several kinds": (Literal[1, "a"], 1, {"enum": [1, "a"]}),
    "named tuple": (
        Pair,
        Pair(1, "x"),
        {
            "title": "Pair",
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 1,
            "maxItems": 2,
        },
    ),
    "struct as an array": (
        Row,
        Row(3, "x"),
        {
            "title": "Row",
            "type": "array",
            "prefixItems": [
                {"enum": ["row"], "type": "string"},
                {"type": "integer", "exclusiveMinimum": 0},
                {"type": "string"},
            ],
            "minItems": 3,
        },
    ),
    "union of tagged structs": (
        Cat | Dog,
        Dog("Rex"),
        {
            "anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            "$defs": {
                "Cat": {
                    "title": "Cat",
                    "type": "object",
                    "properties": {
                        "type": {"enum": ["Cat"], "type": "string"},
                        "lives": {"type": "integer"},
                    },
                    "required": ["type", "lives"],
                    "additionalProperties": False,
                },
                "Dog": {
                    "title": "Dog",
                    "type": "object",
                    "properties": {
                        "type": {"enum": ["Dog"], "type": "string"},
                        "name": {"type": "string"},
                    },
                    "required": ["type", "name"],
                    "additionalProperties": False,
                },
            },
        },
    ),
    "a type within itself": (
        Node,
        Node("a", [Node("b")]),
        {
            "title": "Node",
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["label", "children"],
            "additionalProperties": False,
            "$defs": {
                "Node": {
                    "title": "Node",
                    "type": "object",
                    "properties": {
                        "label": {"type": "string"},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                    },
                    "required": ["label", "children"],
                    "additionalProperties": False,
                }
            },
        },
    ),
    "generic": (
        Box[int],
        Box(3),
        {
            "title": "Box[int]",
            "type": "object",
            "properties": {"inside": {"type": "integer"}},
            "required": ["inside"],
            "additionalProperties": False,
        },
    ),
    "limits from elsewhere": (
        Limited,
        Limited(3, "word", [0.5]),
        {
            "title": "Limited",
            "description": "Limits from outside of msgspec.",
            "type": "object",
            "properties": {
                "age": {"description": "In years.", "type": "integer", "minimum": 0},
                "word": {"type": "string", "minLength": 2, "maxLength": 4},
                "scores": {
                    "type": "array",
                    "items": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                },
            },
            "required": ["age", "word", "scores"],
            "additionalProperties": False,
        },
    ),
    "pydantic model": (
        User,
        User(name="ada", friend=User(name="bob")),
        {
            "title": "User",
            "description": "A user.",
            "type": "object",
            "properties": {
                "name": {
                    "title": "Name",
                    "description": "The login.",
                    "minLength": 1,
                    "type": "string",
                },
                "friend": {"anyOf": [{"$ref": "#/$defs/User"}, {"type": "null"}]},
                "mood": {"enum": ["good", "bad"], "title": "Mood", "type": "string"},
            },
            "required": ["name", "friend", "mood"],
            "additionalProperties": False,
            "$defs": {
                "User": {
                    "title": "User",
                    "description": "A user.",
                    "type": "object",
                    "properties": {
                        "name": {
                            "title": "Name",
                            "description": "The login.",
                            "minLength": 1,
                            "type": "string",
                        },
                        "friend": {"anyOf": [{"$ref": "#/$defs/User"}, {"type": "null"}]},
                        "mood": {"enum": ["good", "bad"], "title": "Mood", "type": "string"},
                    },
                    "required": ["name", "friend", "mood"],
                    "additionalProperties": False,
                }
            },
        },
    ),
    "pydantic dataclass": (
        Checked,
        Checked(number=3),
        {
            "title": "Checked",
            "type": "object",
            "properties": {"number": {"title": "Number", "type": "integer"}},
            "required": ["number"],
            "additionalProperties": False,
        },
    ),
    "integer": (int, 7, {"type": "integer"}),
    "none": (None, None, {"type": "null"}),
    "anything": (Any, [1, {"a": None}], {}),
    "list": (list[int], [1, 2], {"type": "array", "items": {"type": "integer"}}),
    "dict": (
        dict[str, float],
        {"a": 1.5},
        {"type": "object", "additionalProperties": {"type": "number"}},
    ),
    "dict without types": (dict, {"a": [1]}, {"type": "object"}),
    "tuple": (
        tuple[int, str],
        (1, "a"),
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "items": False,
            "minItems": 2,
            "maxItems": 2,
        },
    ),
    "set": (set[int], {1, 2}, {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
    "union of plain types": (
        int | list[str] | None,
        ["a"],
        {
            "anyOf": [
                {"type": "integer"},
                {"type": "array", "items": {"type": "string"}},
                {"type": "null"},
            ]
        },
    ),
    "decimal": (Decimal, Decimal("1.50"), {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}),
    "uuid": (UUID, UUID(int=1), {"type": "string", "format": "uuid"}),
    "annotated": (
        Annotated[str, msgspec.Meta(pattern="^[a-z]+$", examples=["a"])],
        "abc",
        {"type": "string", "pattern": "^[a-z]+$", "examples": ["a"]},
    ),
    "annotated by others": (
        Annotated[list[int], annotated_types.MinLen(1), "Some numbers."] | None,
        [1],
        {
            "anyOf": [
                {
                    "type": "array",
                    "items": {"type": "integer"},
                    "minItems": 1,
                    "description": "Some numbers.",
                },
                {"type": "null"},
            ]
        },
    ),
}
