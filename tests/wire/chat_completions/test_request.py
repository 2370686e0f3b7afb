"""Requests to OpenAI, and what OpenAI's callers send: each option, each form, each refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import InvalidRequest
from loom.core.messages import ImagePart, Message, RawPart, TextPart, ThinkingPart
from loom.core.request import ChatRequest, NamedTool, Sampling, ToolSpec
from loom.wire.chat_completions.dialect import ChatCompletionsDialect

DIALECT = ChatCompletionsDialect()
USER = Message.user("u")
TOOL = ToolSpec(name="look", parameters={"type": "object"})
BODY: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "u"}]}


def sent(**options: Any) -> dict[str, Any]:
    request = ChatRequest(model="m", messages=(USER,), **options)
    body: dict[str, Any] = json.loads(DIALECT.encode_request(request).body)
    return body


def came(**fields: Any) -> ChatRequest:
    return DIALECT.decode_request(json.dumps({**BODY, **fields}).encode())


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        came(**fields)
    assert 400 == caught.value.http_status
    return caught.value


def wire_of(error: InvalidRequest) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(DIALECT.encode_error(error).body)["error"]
    return body


def test_options_have_openai_names() -> None:
    """The seed and the limit are called otherwise, "any" is "required", usage is asked for."""
    body = sent(
        sampling=Sampling(max_tokens=7, random_seed=3, stop=("a", "b")),
        tools=(TOOL,),
        tool_choice="any",
        stream=True,
    )
    assert (7, 3, ["a", "b"], "required", {"include_usage": True}) == (
        body["max_completion_tokens"],
        body["seed"],
        body["stop"],
        body["tool_choice"],
        body["stream_options"],
    )
    assert not {"max_tokens", "random_seed"} & set(body)


def test_the_old_limit_can_be_chosen() -> None:
    """For servers that know only `max_tokens`."""
    request = ChatRequest(model="m", messages=(USER,), sampling=Sampling(max_tokens=7))
    old = ChatCompletionsDialect(limit_field="max_tokens")
    assert 7 == json.loads(old.encode_request(request).body)["max_tokens"]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_tokens", 1), ("top_k", 5), ("repetition_penalty", 1.1), ("prompt_mode", "reasoning"),
        ("guardrails", ({},)), ("safe_prompt", False),
    ],
)  # fmt: skip
def test_options_that_openai_does_not_have_are_refused(option: str, value: Any) -> None:
    """The message names the option and the way to a server that knows it."""
    options = {option: value}
    if option in Sampling.__struct_fields__:
        options = {"sampling": Sampling(**options)}
    with pytest.raises(InvalidRequest, match=f"OpenAI has no option '{option}'.*extra="):
        sent(**options)


def test_extra_fields_go_out_as_they_are_and_none_takes_one_out() -> None:
    """A server that refuses `stream_options` is not sent it; what it knows more, it gets."""
    body = sent(stream=True, extra={"top_k": 5, "stream_options": None})
    assert 5 == body["top_k"]
    assert "stream_options" not in body


def test_words_about_tools_are_left_out_where_there_are_none() -> None:
    """OpenAI refuses them there, and they say nothing; a wish that cannot be is not hidden."""
    assert not {"tool_choice", "parallel_tool_calls"} & set(
        sent(tool_choice="none", parallel_tool_calls=False)
    )
    assert "required" == sent(tool_choice="required")["tool_choice"]


def test_what_is_no_json_is_refused() -> None:
    """One error with the reason, before anything is sent."""
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        sent(metadata={"a": object()})


def test_callers_fields_are_read() -> None:
    """What has no name of ours goes through `extra`; null counts as absent."""
    request = came(
        seed=3,
        max_tokens=9,
        stop=["a"],
        user="u1",
        store=True,
        logprobs=True,
        top_logprobs=2,
        temperature=None,
        prediction={"type": "content", "content": [{"type": "text", "text": "abc"}]},
        tools=[{"type": "function", "function": {"name": "look"}}],
        tool_choice={"type": "function", "function": {"name": "look"}},
    )
    assert Sampling(random_seed=3, max_tokens=9, stop=("a",)) == request.sampling
    assert {"user": "u1", "store": True, "logprobs": True, "top_logprobs": 2} == request.extra
    assert ("abc", NamedTool("look")) == (request.prediction, request.tool_choice)
    assert (ToolSpec(name="look"),) == request.tools


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, {"stream_options": {"include_usage": False}}),
        ({"include_usage": True}, {}),
        ({"include_usage": True, "include_obfuscation": False},
         {"stream_options": {"include_usage": True, "include_obfuscation": False}}),
    ],
)  # fmt: skip
def test_whether_usage_is_wanted_is_kept(options: Any, expected: dict[str, Any]) -> None:
    """OpenAI's callers get usage only when they ask; ours always ask."""
    assert expected == came(stream=True, stream_options=options).extra


def test_roles_and_parts_of_callers_are_read() -> None:
    """`developer` is the system; thoughts and refusals of an answer come back as parts."""
    request = came(
        messages=[
            {"role": "developer", "content": [{"type": "text", "text": "s"}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "image_url", "image_url": "x"},
                {"type": "text", "text": "t", "prompt_cache_breakpoint": {"mode": "explicit"}},
            ]},
            {"role": "assistant", "content": "a", "reasoning_content": "hm", "annotations": []},
            {"role": "assistant", "content": None, "refusal": "no"},
            {"role": "user", "content": "u"},
        ]
    )  # fmt: skip
    system, user, answer, refused, _ = request.messages
    assert ("system", (TextPart("s"),)) == (system.role, system.content)
    mark = {"text": "t", "prompt_cache_breakpoint": {"mode": "explicit"}}
    assert ("ann", (ImagePart("x"), RawPart("text", mark))) == (user.name, user.content)
    assert (ThinkingPart((TextPart("hm"),)), TextPart("a")) == answer.content
    assert (TextPart("no"),) == refused.content


def test_functions_of_before_2023_are_read() -> None:
    """They are tools, their calls have ids, and their results find them."""
    request = came(
        functions=[{"name": "look", "parameters": {}}],
        function_call={"name": "look"},
        messages=[
            {"role": "user", "content": "u"},
            {"role": "assistant", "content": None,
             "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "r"},
        ],
    )  # fmt: skip
    assert (("look",), NamedTool("look")) == (
        tuple(tool.name for tool in request.tools),
        request.tool_choice,
    )
    _, called, result = request.messages
    assert called.tool_calls[0].id == result.tool_call_id
    assert "auto" == came(functions=[{"name": "look"}], function_call="auto").tool_choice
    assert (
        "without the call"
        in refusal(messages=[{"role": "function", "name": "look", "content": "r"}]).message
    )


CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLED = {"role": "assistant", "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("fields", "message", "param", "code"),
    [
        ({"top_k": 1}, "Unrecognized request argument supplied: top_k", None, None),
        ({"a": 1, "b": 1}, "Unrecognized request arguments supplied: a, b", None, None),
        ({"model": None}, "you must provide a model parameter", None, None),
        (
            {"messages": None},
            "Missing required parameter: 'messages'.",
            "messages",
            "missing_required_parameter",
        ),
        (
            {"messages": []},
            (
                "Invalid 'messages': empty array. Expected an array with minimum length"
                " 1, but got an empty array instead."
            ),
            "messages",
            "empty_array",
        ),
        (
            {"max_tokens": 1.5},
            (
                "Invalid type for 'max_tokens': expected an integer, but got a"
                " decimal number instead."
            ),
            "max_tokens",
            "invalid_type",
        ),
        (
            {"temperature": "hot"},
            ("Invalid type for 'temperature': expected a decimal, but got a string instead."),
            "temperature",
            "invalid_type",
        ),
        (
            {"stop": ["a", 1]},
            ("Invalid type for 'stop[1]': expected a string, but got an integer instead."),
            "stop[1]",
            "invalid_type",
        ),
        (
            {"stream": {}},
            ("Invalid type for 'stream': expected a boolean, but got an object instead."),
            "stream",
            "invalid_type",
        ),
        (
            {"n": 130},
            (
                "Invalid 'n': integer above maximum value. Expected a value <= 128, but got"
                " 130 instead."
            ),
            "n",
            "integer_above_max_value",
        ),
        (
            {"temperature": -0.5},
            (
                "Invalid 'temperature': decimal below minimum value. Expected a"
                " value >= 0, but got -0.5 instead."
            ),
            "temperature",
            "decimal_below_min_value",
        ),
        (
            {"stop": ["a"] * 5},
            (
                "Invalid 'stop': array too long. Expected an array with maximum"
                " length 4, but got an array with length 5 instead."
            ),
            "stop",
            "array_above_max_length",
        ),
        (
            {"stream_options": {"include_usage": True}},
            ("The 'stream_options' parameter is only allowed when 'stream' is enabled."),
            "stream_options",
            None,
        ),
        (
            {"max_tokens": 1, "max_completion_tokens": 1},
            ("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."),
            None,
            "invalid_parameter_combination",
        ),
        (
            {"parallel_tool_calls": True},
            (
                "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed"
                " when 'tools' are specified."
            ),
            "parallel_tool_calls",
            None,
        ),
        (
            {"tool_choice": "auto"},
            (
                "Invalid value for 'tool_choice': 'tool_choice' is only allowed"
                " when 'tools' are specified."
            ),
            "tool_choice",
            None,
        ),
        (
            {"top_logprobs": 1},
            ("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."),
            "top_logprobs",
            None,
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            (
                "Invalid"
                " 'tools[0].function.name': string does not match pattern. Expected a"
                " string that matches"
                " the pattern '^[a-zA-Z0-9_-]+$'."
            ),
            "tools[0].function.name",
            "invalid_value",
        ),
        (
            {"tools": [{"function": {"name": "look"}}], "tool_choice": "any"},
            ("Invalid value: 'any'. Supported values are: 'none', 'auto', and 'required'."),
            "tool_choice",
            "invalid_value",
        ),
        (
            {"tools": [{"function": {"name": "look"}}], "tool_choice": {"type": "allowed_tools"}},
            "a 'tool_choice' of type 'allowed_tools' is not taken here",
            "tool_choice",
            None,
        ),
        (
            {"response_format": {"type": "xml"}},
            ("'response_format' must have the type text, json_object or json_schema"),
            None,
            None,
        ),
        (
            {"messages": [{"role": "king", "content": "x"}]},
            (
                "Invalid value: 'king'. Supported values"
                " are: 'system', 'developer', 'user', 'assistant', 'tool', 'function'."
            ),
            "messages[0].role",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "age": 1}]},
            ("Unknown parameter: 'messages[0].age'."),
            "messages[0].age",
            "unknown_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            ("Missing required parameter: 'messages[0].content[0].text'."),
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {"messages": ["x"]},
            "Invalid type for 'messages[0]': expected an object.",
            "messages[0]",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "user", "content": 1}]},
            ("Invalid type for 'messages[0].content': expected a string or an array."),
            "messages[0].content",
            None,
        ),
        (
            {"messages": [{"role": "tool", "content": "r", "tool_call_id": "call_1"}]},
            (
                "Invalid"
                " parameter: messages with role 'tool' must be a response to a"
                " preceeding message with"
                " 'tool_calls'."
            ),
            "messages.[0].role",
            None,
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [CALL]},
                    {"role": "user", "content": ""},
                ]
            },
            (
                "An assistant message with 'tool_calls' must be followed by tool"
                " messages responding to"
                " each 'tool_call_id'. The following tool_call_ids did not have"
                " response messages: call_1"
            ),
            "messages.[1].role",
            None,
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "id": "x" * 53}]}]},
            (
                "Invalid"
                " 'messages[0].tool_calls[0].id': string too long. Expected a string"
                " with maximum length"
                " 40, but got a string with length 53 instead."
            ),
            "messages[0].tool_calls[0].id",
            "string_above_max_length",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "look"}}]}]},
            "Missing required parameter: 'messages[0].tool_calls[0].id'.",
            "messages[0].tool_calls[0].id",
            "missing_required_parameter",
        ),
    ],
)
def test_what_openai_refuses_is_refused_in_its_words(
    fields: dict[str, Any], message: str, param: str | None, code: str | None
) -> None:
    """Message, param and code are OpenAI's."""
    body = wire_of(refusal(**fields))
    expected = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    assert expected == body


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    """Not JSON, or no object: 400."""
    for decode in (DIALECT.decode_request, DIALECT.decode_embeddings_request):
        with pytest.raises(InvalidRequest) as caught:
            decode(body)
        assert 400 == caught.value.http_status


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = [
    "model", "messages", "stream", "stop", "tools", "functions", "tool_choice", "function_call",
    "response_format", "prediction", "metadata", "n", "seed", "stream_options", "max_tokens",
]  # fmt: skip
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "x"])
MESSAGE_FIELDS = ["content", "tool_calls", "tool_call_id", "name", "function_call", "refusal"]
MESSAGES = st.builds(
    lambda role, rest: {"role": role, **rest},
    ROLES,
    st.dictionaries(st.sampled_from(MESSAGE_FIELDS), JSON | st.just([CALL]), max_size=3),
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON), st.lists(MESSAGES | JSON, max_size=3))
def test_any_json_is_a_request_or_one_error(fields: dict[str, Any], messages: list[Any]) -> None:
    """Whatever a caller sends: a request, or `InvalidRequest`, never another exception."""
    for body in (fields, {**BODY, **fields}, {**BODY, **fields, "messages": messages}):
        try:
            DIALECT.decode_request(json.dumps(body).encode())
        except InvalidRequest as error:
            assert 400 == error.http_status


def test_filling_in_is_refused() -> None:
    """OpenAI has no such request."""
    with pytest.raises(InvalidRequest, match="fill in the middle") as caught:
        DIALECT.decode_infill_request(b"{}")
    assert 404 == caught.value.http_status


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "assistant", "tool_calls": "x"}, "must be a list of tool calls"),
        ({"role": "assistant", "function_call": {}}, "a 'function' with a 'name'"),
        ({"role": "user", "content": "x", "name": 7}, "must be a string, not int"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": ""}}]},
            "must be a string that is not empty",
        ),
        ({"role": "user", "content": [{"type": "file", "file": 7}]}, "expected an object"),
        ({"role": "user", "content": ["x"]}, "Missing required parameter"),
    ],
)
def test_messages_that_cannot_be_read_are_refused(message: dict[str, Any], said: str) -> None:
    """400 with the place, whatever is wrong with it."""
    error = refusal(messages=[message])
    assert said in error.message
    assert "messages[0]" in error.message
