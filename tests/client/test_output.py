"""Structured output: a type out as a form of answer, the answer back as a value."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal, TypedDict

import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import chat_exchanges
from tests.shuttle.kinds import CASES

from loom import Mistral
from loom.client.output import output_format, parse_output, parsed_response
from loom.core.errors import OutputInvalid
from loom.core.messages import Message, ToolCall
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, RateLimitState, Usage
from loom.shuttle.decode import decode_json
from loom.shuttle.strict import strict_schema
from loom.wire.mistral.dialect import MistralDialect

CANARY = "CANARY"


@dataclasses.dataclass
class Person:
    """Somebody."""

    name: str
    age: int


class City(msgspec.Struct):
    name: str


class Movie(TypedDict):
    title: str


class User(pydantic.BaseModel):
    name: str


class Größe(msgspec.Struct):  # noqa: PLC2401 - a name that Mistral does not take
    x: int


class ListOfUsers(pydantic.RootModel[list[User]]):
    pass


NAMED: list[tuple[Any, str]] = [
    (Person, "Person"),
    (list[Person], "list_Person"),
    (dict[str, int], "dict_str_int"),
    (Person | None, "Person_None"),
    (Literal["a", "b"], "Literal_a_b"),
    (Größe, "Gr_e"),
    (msgspec.defstruct("Ä", []), "output"),
    (msgspec.defstruct("L" * 70, []), "L" * 64),
]
VALUES: list[tuple[Any, Any]] = [
    (Person, Person("Ada", 36)),
    (City, City("Rome")),
    (Movie, {"title": "M"}),
    (User, User(name="ada")),
    (ListOfUsers, ListOfUsers([User(name="ada")])),
    (list[Person], [Person("Ada", 36)]),
    (list[User], [User(name="ada")]),
    (User | None, None),
    (dict[str, int], {"a": 1}),
    (int, 3),
    (Decimal, Decimal("0.10")),
    (City | None, City("Rome")),
    (Literal["a", "b"], "b"),
    (tuple[int, str], (1, "a")),
    (None, None),
    (Any, [1]),
]


@pytest.mark.parametrize(("type_", "name"), NAMED, ids=[name for _, name in NAMED])
def test_names_are_legal_and_always_the_same(type_: Any, name: str) -> None:
    """The form is named for its type, by Mistral's rule for names."""
    assert name == output_format(type_).name == output_format(type_).name
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)


@given(st.text(min_size=1).filter(lambda text: "\0" not in text))
def test_any_name_of_a_class_becomes_legal(name: str) -> None:
    """Whatever a class is called, the form's name is legal."""
    type_ = dataclasses.make_dataclass("C", [("x", int)])
    type_.__name__ = name
    given_name = output_format(type_).name
    assert given_name is not None
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", given_name)


def _written(type_: Any, value: Any, form_schema: Any) -> str:
    plain = json.loads(
        value.model_dump_json()
        if isinstance(value, pydantic.BaseModel)
        else msgspec.json.encode(value, enc_hook=lambda model: model.model_dump())
    )
    boxed = form_schema.get("title") == "Value"
    return json.dumps({"value": plain} if boxed else plain)


@pytest.mark.parametrize(("type_", "value"), VALUES, ids=[str(type_) for type_, _ in VALUES])
def test_value_travels_both_ways(type_: Any, value: Any) -> None:
    """The form's schema is an object, the value keeps to it, and reading gives the value back."""
    form = output_format(type_)
    assert ("json_schema", True) == (form.type, form.strict)
    assert form.schema is not None
    assert "object" == form.schema["type"]
    jsonschema.Draft202012Validator.check_schema(form.schema)
    text = _written(type_, value, form.schema)
    jsonschema.Draft202012Validator(form.schema).validate(json.loads(text))
    assert value == parse_output(type_, text)


def test_golden_form_of_a_boxed_type() -> None:
    """A list travels in an object, its definitions at the top."""
    assert {
        "title": "Value",
        "type": "object",
        "properties": {"value": {"type": "array", "items": {"$ref": "#/$defs/City"}}},
        "required": ["value"],
        "additionalProperties": False,
        "$defs": {
            "City": {
                "title": "City",
                "type": "object",
                "properties": {"name": {"type": "string"}},
                "required": ["name"],
                "additionalProperties": False,
            }
        },
    } == output_format(list[City]).schema


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Ada", "age": 36}',
        ' \n{"name": "Ada", "age": 36}\n\n',
        '```json\n{"name": "Ada", "age": 36}\n```',
        '```\n{"name": "Ada", "age": 36}\n```',
        '\n ```JSON \r\n{"name": "Ada",\n "age": 36}\r\n``` \n',
        '```json\n{"name": "Ada", "age": 36}```',
    ],
)
def test_white_space_and_fences_are_taken_off(text: str) -> None:
    """What models like to put around JSON does no harm."""
    assert Person("Ada", 36) == parse_output(Person, text)


def test_a_fence_within_the_value_stays() -> None:
    """Only a fence around everything is taken off."""
    assert City("```json\n{}\n```") == parse_output(City, '{"name": "```json\\n{}\\n```"}')


@pytest.mark.parametrize(
    ("type_", "text", "said"),
    [
        (Person, '{"name": "CANARY"}', "Person: `$`: object missing required field `age`"),
        (Person, '{"name": "CANARY", "age": "1"}', "Person: `$.age`: expected `int`, got `str`"),
        (list[City], '{"value": [{"name": 1}]}', r"list\[City\]: `\$.value\[0\].name`: exp"),
        (list[City], '[{"name": "CANARY"}]', r"list\[City\]: `\$`: expected `object`"),
        (User, '{"CANARY": 1}', "User: `$.name`: field required"),
        (list[User], '{"value": [{"name": 1}]}', r"list\[User\]: `\$.value\[0\].name`: input"),
        (Person, "I am sorry, CANARY", "Person: it is not JSON"),
        (Person, "``` CANARY ```", "Person: it is not JSON"),
        (Person, "```json\n{}\n``` CANARY", "Person: it is not JSON"),
        (Person, "", "Person: it is empty"),
        (Person, '{"name": "a", "age": NaN}', "Person: NaN and Infinity are not JSON"),
        (Person, '{"age": 1, "age": 2, "name": "a"}', "Person: an object gives one name twice"),
        (Person, "[" * 99_999, "Person: it is nested too deeply"),
        (Person, '{"name": "\\ud800", "age": 1}', "Person: it holds half of a surrogate pair"),
        (Person, '{"name": "\ud800", "age": 1}', "Person: it holds half of a surrogate pair"),
    ],
    ids=range(15),
)
def test_reply_that_does_not_fit(type_: Any, text: str, said: str) -> None:
    """The error says where and why without the model's words; `.text` holds them."""
    with pytest.raises(OutputInvalid) as caught:
        parse_output(type_, text)
    error = caught.value
    pattern = said if "\\" in said else re.escape(said)
    assert re.match(f"the answer is not a valid {pattern}", str(error))
    assert CANARY not in str(error)
    assert CANARY not in repr(error)
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert text == error.text
    assert text == pickle.loads(pickle.dumps(error)).text  # noqa: S301 - our own bytes


@pytest.mark.parametrize("reason", ["length", "model_length"])
def test_cut_answer_is_said_to_be_cut(reason: str) -> None:
    """An answer that was cut is not blamed on its JSON."""
    with pytest.raises(OutputInvalid, match="cut by max_tokens before its end") as caught:
        parse_output(Person, '{"name": "CAN', finish_reason=reason)
    assert '{"name": "CAN' == caught.value.text
    assert "Raise max_tokens" in caught.value.hint


def test_other_finish_reasons_do_not_matter() -> None:
    """An answer that ended by itself is read."""
    assert 3 == parse_output(int, '{"value": 3}', finish_reason="stop")


def test_type_without_schema_is_the_callers_mistake() -> None:
    """A type that cannot be asked for is a TypeError, out and back."""
    with pytest.raises(TypeError, match=r"^complex cannot be written"):
        output_format(complex)
    with pytest.raises(TypeError, match=r"^complex cannot be written"):
        parse_output(complex, "{}")


# --- responses -----------------------------------------------------------------------------


def _response(text: str, **changed: Any) -> LLMResponse:
    calls = changed.pop("calls", ())
    choice = Choice(
        message=Message.assistant(text, tool_calls=calls),
        finish_reason=changed.pop("finish_reason", "stop"),
    )
    return LLMResponse(
        choices=(choice,),
        usage=Usage(input_tokens=3, output_tokens=4, total_tokens=7),
        model="mistral-small-latest",
        request_id="r-1",
        attempts=2,
        rate_limit=RateLimitState(remaining_requests_minute=5),
        metadata={"provider": "mistral"},
        **changed,
    )


def test_response_gets_its_value() -> None:
    """The value stands in `parsed`; the rest of the response is as it was."""
    response = _response('{"name": "Ada", "age": 36}')
    parsed = parsed_response(response, Person)
    assert Person("Ada", 36) == parsed.parsed
    assert response == msgspec.structs.replace(parsed, parsed=None)
    assert response.parsed is None


def test_response_that_calls_tools_is_left() -> None:
    """A turn that calls tools is no answer yet."""
    response = _response("", calls=(ToolCall("a", "now"),), finish_reason="tool_calls")
    assert response is parsed_response(response, Person)


def test_error_knows_the_call() -> None:
    """The call was answered and billed: its ids, attempts and usage are on the error."""
    with pytest.raises(OutputInvalid) as caught:
        parsed_response(_response("CANARY"), Person)
    error = caught.value
    assert ("r-1", "mistral", "mistral-small-latest", 2) == (
        error.request_id,
        error.provider,
        error.model,
        error.attempts,
    )
    assert error.partial is not None
    assert error.partial.usage is not None
    assert ("CANARY", 7) == (error.partial.text, error.partial.usage.total_tokens)
    assert error.rate_limit == RateLimitState(remaining_requests_minute=5)
    with pytest.raises(OutputInvalid, match="cut by max_tokens"):
        parsed_response(_response("{", finish_reason="length"), Person)


# --- beside recorded exchanges -------------------------------------------------------------


class StructuredChecks(msgspec.Struct):
    compile: bool
    replay: bool


class StructuredReleasePlan(msgspec.Struct):
    lane: str
    checks: StructuredChecks
    risk: str


def _sent(type_: Any) -> dict[str, Any]:
    request = ChatRequest(
        model="mistral-small-latest",
        messages=(Message.user("Plan."),),
        response_format=output_format(type_),
    )
    body: dict[str, Any] = json.loads(MistralDialect().encode_request(request).body)
    sent: dict[str, Any] = body["response_format"]
    return sent


RECORDED = [
    exchange
    for exchange in chat_exchanges()
    if exchange.status == 200
    and ((exchange.request or {}).get("response_format") or {}).get("type") == "json_schema"
]


@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_our_form_has_the_recorded_shape(exchange: Any) -> None:
    """What we send is shaped like what Mistral took from others."""
    recorded, ours = exchange.request["response_format"], _sent(StructuredReleasePlan)
    assert set(recorded) == set(ours)
    assert {"name", "schema", "strict"} == set(ours["json_schema"])
    assert set(recorded["json_schema"]) <= {"name", "schema", "strict", "description"}
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", recorded["json_schema"]["name"])


@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_recorded_answers_fit_the_strict_form(exchange: Any) -> None:
    """An answer that a model gave to a schema keeps to that schema's strict form too."""
    wanted = exchange.request["response_format"]["json_schema"]
    if exchange.stream or not wanted.get("strict"):
        return
    choice = json.loads(exchange.body)["choices"][0]
    if choice["finish_reason"] == "stop" and not choice["message"].get("tool_calls"):
        value = decode_json(Any, choice["message"]["content"])
        jsonschema.Draft202012Validator(strict_schema(wanted["schema"])).validate(value)


def test_our_form_is_the_recorded_one() -> None:
    """The recorded plan, written as a type here, is sent as it was recorded."""
    for exchange in RECORDED:
        recorded = (exchange.request or {})["response_format"]["json_schema"]
        if recorded["name"] == "StructuredReleasePlan":
            ours = _sent(StructuredReleasePlan)["json_schema"]
            schema = recorded["schema"].copy()
            schema.pop("$schema", None)
            ours["schema"]["$defs"]["StructuredChecks"].pop("title")
            assert recorded | {"schema": schema} == ours


# --- a whole call --------------------------------------------------------------------------


# `output=None` means that no type is asked for.
@pytest.mark.parametrize("kind", [kind for kind in CASES if kind != "none"])
def test_a_call_gives_a_value_of_the_type(kind: str, offline: Mistral) -> None:
    """Each kind of type goes out with a chat request, and a value of it comes back."""
    type_, _, _ = CASES[kind]
    response = offline.chat("Make one up.", output=type_)
    assert response.content
    again = parse_output(type_, response.content)
    assert again == response.parsed


def test_a_stream_gives_a_value_too(offline: Mistral) -> None:
    """The response at the end of a stream holds the value."""
    with offline.stream("Name a city.", output=City) as stream:
        response = stream.final()
    assert isinstance(response.parsed, City)


def test_a_cut_call_is_an_error(offline: Mistral) -> None:
    """An answer that `max_tokens` cuts is an error that holds the text and what it cost."""
    with pytest.raises(OutputInvalid, match="cut by max_tokens") as caught:
        offline.chat("Count.", output=list[int], max_tokens=2)
    assert caught.value.text
    assert caught.value.partial is not None
    assert caught.value.partial.usage is not None


@pytest.fixture(scope="module")
def offline() -> Iterator[Mistral]:
    with Mistral(sim=True) as client:
        yield client
