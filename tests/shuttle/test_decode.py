"""JSON of a model becomes a value exactly, or an error that quotes nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import traceback
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.shuttle.decode import NotFitting, decode_json

CANARY = "CANARY"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Thing:
    count: int = 0
    colour: Colour = Colour.RED
    word: Literal["a", "b"] = "a"
    short: Annotated[str, msgspec.Meta(max_length=3, pattern="^[a-z]*$")] = ""
    day: date | None = None
    price: Decimal | None = None
    names: dict[str, int] = dataclasses.field(default_factory=dict)
    things: list[Thing] = dataclasses.field(default_factory=list)


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    x: int = 0


class Cat(msgspec.Struct, tag=True):
    x: int = 0


class Dog(msgspec.Struct, tag=True):
    x: int = 0


@dataclasses.dataclass
class Proud:
    name: str

    def __post_init__(self) -> None:
        raise ValueError(f"Expected better than {self.name} - at `{self.name}`")


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    count: int = 0
    word: Literal["a", "b"] = "a"
    names: dict[str, int] = {}
    price: float = 0.0
    day: date | None = None
    inner: Model | None = None

    @pydantic.field_validator("word")
    @classmethod
    def _proud(cls, word: str) -> str:
        if word == "b":
            raise ValueError(f"{CANARY} {word}")
        return word


NOT_FITTING: list[tuple[Any, str, str]] = [
    # msgspec's types
    (Thing, '{"count": "CANARY"}', r"^`\$\.count`: expected `int`, got `str`$"),
    (Thing, '{"things": [{}, {"count": []}]}', r"^`\$\.things\[1\]\.count`: expected `int`"),
    (Thing, '{"names": {"CANARY": "CANARY"}}', r"^`\$\.names\[\.\.\.\]`: expected `int`"),
    (Thing, '{"colour": "CANARY"}', r"^`\$\.colour`: not one of the values that are allowed$"),
    (Thing, '{"word": "CANARY"}', r"^`\$\.word`: not one of the values"),
    (Thing, '{"short": "CANARY"}', r"^`\$\.short`: expected `str` of length <= 3$"),
    (Thing, '{"short": "C"}', r"^`\$\.short`: expected `str` matching regex"),
    (Thing, '{"day": "CANARY"}', r"^`\$\.day`: invalid RFC3339 encoded date$"),
    (Thing, '{"price": "CANARY"}', r"^`\$\.price`: invalid decimal string$"),
    (Closed, '{"CANARY": 1}', r"^`\$`: a field that the type does not have$"),
    (list[Closed], '[{"CANARY": 1}]', r"^`\$\[0\]`: a field that the type does not have$"),
    (Cat | Dog, '{"type": "CANARY"}', r"^`\$\.type`: not one of the values"),
    (Cat | Dog, "{}", r"^`\$`: object missing required field `type`$"),
    (Proud, '{"name": "CANARY"}', r"^`\$`: refused by the type's own check$"),
    (list[Proud], '[{"name": "CANARY"}]', r"^`\$\[0\]`: refused by the type's own check$"),
    # pydantic's types
    (Model, '{"count": "CANARY"}', r"^`\$\.count`: input should be a valid integer"),
    (Model, '{"count": []}', r"^`\$\.count`: input should be a valid integer$"),
    (Model, '{"inner": {"names": {"CANARY": "C"}}}', r"^`\$\.inner\.names\[\.\.\.\]`: input sh"),
    (Model, '{"word": "CANARY"}', r"^`\$\.word`: input should be 'a' or 'b'$"),
    (Model, '{"word": "b"}', r"^`\$\.word`: value error$"),
    (Model, '{"CANARY": 1}', r"^`\$\[\.\.\.\]`: extra inputs are not permitted$"),
    (Model, '{"day": "CANARY"}', r"^`\$\.day`: "),
    (list[Model], '[{"count": null}]', r"^`\$\[0\]\.count`: input should be a valid integer$"),
]
BAD_JSON = [
    ("", r"^it is empty \("),
    ("  \n", r"^it is empty \("),
    ("CANARY", r"^it is not JSON \(Expecting value at line 1, column 1\)$"),
    ('{"x": 1', r"^it is not JSON \(Expecting ',' delimiter at line 1, column 8\)$"),
    ('{"x": 1} CANARY', r"^it is not JSON \(Extra data at line 1, column 10\)$"),
    ("{'x': 1}", r"^it is not JSON"),
    ('{"x": 1,}', r"^it is not JSON"),
    ("\ufeff{}", r"^it is not JSON"),
    ('{"x": "a\nb"}', r"^it is not JSON"),
    ('{"x": NaN}', r"^NaN and Infinity are not JSON$"),
    ('{"x": -Infinity}', r"^NaN and Infinity are not JSON$"),
    ('{"x": 1e999}', r"^a number is too large$"),
    ('{"x": ' + "9" * 5000 + "}", r"^a number is too large$"),
    ('{"x": 1, "x": 1}', r"^an object gives one name twice$"),
    ('{"a": {"CANARY": 1, "CANARY": 2}}', r"^an object gives one name twice$"),
    (r'{"x": "\ud800"}', r"^it holds half of a surrogate pair$|^`\$"),
    ('{"x": "\ud800"}', r"^it holds half of a surrogate pair$"),
    ("[" * 100_000 + "]" * 100_000, r"^it is nested too deeply$"),
    ('{"x":' * 100_000 + "1" + "}" * 100_000, r"^it is nested too deeply$"),
]


class Any_(pydantic.BaseModel):  # noqa: N801 - beside typing.Any
    x: Any = None


@dataclasses.dataclass
class Open:
    x: Any = None


@pytest.mark.parametrize(("type_", "text", "reason"), NOT_FITTING)
def test_text_that_does_not_fit(type_: Any, text: str, reason: str) -> None:
    """The message says where and why; neither it nor its traceback quotes the text."""
    with pytest.raises(NotFitting, match=reason) as caught:
        decode_json(type_, text)
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    shown = "".join(traceback.format_exception(caught.value)).partition("NotFitting")[2]
    assert CANARY not in shown


@pytest.mark.parametrize(("text", "reason"), BAD_JSON, ids=range(len(BAD_JSON)))
@pytest.mark.parametrize("type_", [Open, Any_, dict[str, Any]])
def test_bad_json(type_: Any, text: str, reason: str) -> None:
    """What is no exact JSON is refused, whatever the type."""
    with pytest.raises(NotFitting, match=reason) as caught:
        decode_json(type_, text)
    assert CANARY not in str(caught.value)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json, st.booleans(), st.sampled_from([None, 2]))
def test_any_json_value_comes_back(value: Any, ascii_: bool, indent: int | None) -> None:  # noqa: FBT001 - hypothesis gives it
    """All JSON comes back as it was written, escaped or not, with any white space."""
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent)
    assert value == decode_json(Any, f" \n{text}\t")


@given(
    st.text() | _json.map(json.dumps).flatmap(lambda t: st.integers(0, len(t)).map(lambda n: t[:n]))
)
def test_any_text_is_a_value_or_not_fitting(text: str) -> None:
    """No text brings out any other error."""
    with contextlib.suppress(NotFitting):
        decode_json(Thing, text)


@given(_json)
def test_any_json_is_a_thing_or_not_fitting(value: Any) -> None:
    """No JSON of the wrong form brings out any other error, from either library."""
    for type_ in (Thing, Model, Proud, Cat | Dog, list[Model]):
        with contextlib.suppress(NotFitting):
            decode_json(type_, json.dumps(value))


def test_sentences_of_later_versions_are_not_trusted() -> None:
    """A sentence of msgspec that is not known here is not shown."""
    from loom.shuttle.decode import _msgspec_reason

    error = msgspec.ValidationError(f"Strange {CANARY} - at `$.x`")
    assert "`$.x`: it does not fit" == _msgspec_reason(error)
