"""Tools in any form become specs, or an error that names what is wrong."""

from __future__ import annotations

import copy
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import chat_exchanges

from loom.core.errors import InvalidRequest
from loom.core.request import ToolSpec
from loom.shuttle.tool import Tool, tool_spec, tool_specs

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SPEC = ToolSpec(name="weather", description="The weather.", parameters=SCHEMA)


class Weather(Tool):
    """A tool by inheritance."""

    @property
    def name(self) -> str:
        return "weather"

    @property
    def description(self) -> str:
        return "The weather."

    @property
    def parameters(self) -> dict[str, Any]:
        return SCHEMA

    def execute(self, input: dict[str, Any]) -> str:  # noqa: A002 - the protocol's name
        return f"sunny in {input['city']}"


class WithMethods:
    """A tool in the manner of Go: everything is a method."""

    def name(self) -> str:
        return "weather"

    def description(self) -> str:
        return "The weather."

    def parameters(self) -> MappingProxyType[str, Any]:
        return MappingProxyType(SCHEMA)


class Greedy(WithMethods):
    def __repr__(self) -> str:
        return "Greedy()"  # part of the test's name, which is the same in each process

    def name(self, language: str = "") -> str:
        return language

    def description(self, language: str) -> str:  # type: ignore[override]  # that is the test
        return language


FUNCTION = {"name": "weather", "description": "The weather.", "parameters": SCHEMA}


@pytest.mark.parametrize(
    "tool",
    [
        SPEC,
        {"type": "function", "function": FUNCTION},
        {"function": FUNCTION},
        MappingProxyType({"function": MappingProxyType(FUNCTION)}),
        Weather(),
        WithMethods(),
        SimpleNamespace(**FUNCTION),
    ],
    ids=["spec", "wire", "wire without type", "read-only", "protocol", "methods", "attributes"],
)
def test_each_form_gives_the_same_spec(tool: Any) -> None:
    """A spec, a wire dict and an object say the same."""
    assert SPEC == tool_spec(tool)


def test_strict_and_missing_parts() -> None:
    """What a wire dict leaves out stays open; `strict` is kept, false too."""
    assert ToolSpec(name="now") == tool_spec({"function": {"name": "now"}})
    assert tool_spec({"function": {"name": "now", "strict": False}}).strict is False
    assert tool_spec(ToolSpec(name="now", strict=True)).strict is True


def test_parameters_are_a_copy() -> None:
    """The caller's schema is not edited, and a later edit of it changes nothing."""
    schema = copy.deepcopy(SCHEMA)
    spec = tool_spec({"function": {"name": "weather", "parameters": schema}})
    assert SCHEMA == schema
    schema["properties"]["city"]["type"] = "integer"  # type: ignore[index]  # a dict in a dict
    assert SCHEMA == spec.parameters


def _function(**changed: Any) -> dict[str, Any]:
    return {"type": "function", "function": FUNCTION | changed}


_cycle: dict[str, Any] = {}
_cycle["self"] = _cycle


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        (3, r"^tools\[2\] is a int without name, description, parameters: give a ToolSpec"),
        (None, r"^tools\[2\] is a NoneType without"),
        ("weather", r"^tools\[2\] is a str without"),
        (SimpleNamespace(name="a"), r"^tools\[2\] is a SimpleNamespace without desc.*, parameters"),
        (Weather, r"^tools\[2\] is the class Weather: give an instance"),
        (Greedy(), r"^tools\[2\]: Greedy\.description cannot be called without arguments$"),
        ({"type": "web_search"}, r"^tools\[2\]: type is 'web_search'; only 'function' is known$"),
        (FUNCTION, r'^tools\[2\]: "function" is missing; a tool is \{"type"'),
        ({"function": "weather"}, r'^tools\[2\]: "function" is a str; a tool is'),
        (_function(parmeters={}), r"^tools\[2\]: function has unknown fields 'parmeters'; known"),
        (_function(name=""), r"^tools\[2\]: name '' must be 1 to 64 of A-Z a-z 0-9 _ -$"),
        (_function(name="a b"), r"^tools\[2\]: name 'a b' must"),
        (_function(name="wetter\n"), r"^tools\[2\]: name 'wetter\\n' must"),
        (_function(name="größe"), r"^tools\[2\]: name 'größe' must"),
        (_function(name="a" * 65), r"^tools\[2\]: name 'a+' must"),
        (_function(name=None), r"^tools\[2\]: name None must"),
        (_function(description=3), r"^tools\[2\] \(weather\): description is a int, not a string$"),
        (_function(strict="yes"), r"^tools\[2\] \(weather\): strict is 'yes', not true or false$"),
        (_function(parameters=[]), r"^tools\[2\] \(weather\): parameters is a list; a JSON schema"),
        (_function(parameters={"a": {1}}), r"\): parameters\.a is a set, which JSON does not know"),
        (_function(parameters={"a": [1, object]}), r"\): parameters\.a\[1\] is a type, which"),
        (_function(parameters={"a": float("nan")}), r"\): parameters\.a is nan, which JSON has no"),
        (_function(parameters={"a": {1: 2}}), r"\): parameters\.a has the key 1, which is not"),
        (_function(parameters=_cycle), r"\): parameters contain themselves$"),
        (ToolSpec(name="a.b"), r"^tools\[2\]: name 'a\.b' must"),
    ],
    ids=str,
)
def test_what_is_no_tool_is_named(tool: Any, said: str) -> None:
    """The error names the position and the part that is wrong."""
    with pytest.raises(InvalidRequest, match=said):
        tool_spec(tool, position=2)


def test_a_list_of_tools() -> None:
    """Tools keep their order; the position of a bad one, and of a second of one name, is said."""
    other = ToolSpec(name="now")
    assert (SPEC, other) == tool_specs([Weather(), other])
    with pytest.raises(InvalidRequest, match=r"^tools\[1\] is a int"):
        tool_specs([SPEC, 3])
    with pytest.raises(
        InvalidRequest, match=r"^tools\[2\] has the same name as tools\[0\]: 'weather'"
    ):
        tool_specs([SPEC, other, Weather()])


def test_the_protocol_is_recognised() -> None:
    """An object with all four parts is a `Tool`, inherited from it or not."""
    assert isinstance(Weather(), Tool)
    assert isinstance(SimpleNamespace(**FUNCTION, execute=print), Tool)
    assert not isinstance(SimpleNamespace(**FUNCTION), Tool)
    assert "sunny in Rome" == Weather().execute({"city": "Rome"})


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(0.5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    st.none() | st.text(),
    st.dictionaries(st.text(max_size=5), _json, max_size=4),
)
def test_any_legal_tool_passes_unchanged(
    name: str, description: str | None, parameters: dict[str, Any]
) -> None:
    """Legal parts come out as they went in."""
    function = {"name": name, "description": description, "parameters": parameters}
    spec = tool_spec({"function": function})
    assert (name, description, parameters) == (spec.name, spec.description, spec.parameters)


RECORDED = [
    exchange
    for exchange in chat_exchanges()
    if exchange.status == 200 and (exchange.request or {}).get("tools")
]


@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_recorded_tools_are_tools(exchange: Any) -> None:
    """Whatever Mistral took as tools, we take."""
    tools = exchange.request["tools"]
    assert [tool["function"]["name"] for tool in tools] == [
        tool_spec(tool, position=index).name for index, tool in enumerate(tools)
    ]
