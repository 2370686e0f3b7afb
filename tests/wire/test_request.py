"""Requests read by the server role: right, or refused by name; never anything else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import InvalidRequest
from loom.core.messages import ImagePart, Message, TextPart, ThinkingPart, ToolCall
from loom.core.request import ChatRequest, NamedTool, ResponseFormat, Sampling, ToolSpec
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.mistral.request import REQUEST_FIELDS

DIALECT = MistralDialect()
LEAVES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False)
JSON = st.recursive(
    LEAVES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "role", "content", "text", "thinking", "function", "name", "arguments", "id",
             "tool_calls", "reference_ids", "image_url", "url", "json_schema", "schema", "detail"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
ROLES = st.sampled_from(["system", "user", "assistant", "tool", "wizard"])
KINDS = st.sampled_from(["text", "image_url", "thinking", "reference", "file", "input_audio", "x"])
CHUNKS = st.builds(lambda kind, rest: {**rest, "type": kind}, KINDS, st.dictionaries(
    st.sampled_from(["text", "thinking", "reference_ids", "image_url", "file_id", "closed"]), JSON
))  # fmt: skip
MESSAGES = st.builds(
    lambda role, content, rest: {**rest, "role": role, "content": content},
    ROLES,
    st.text(max_size=5) | st.lists(CHUNKS, max_size=3) | JSON,
    st.dictionaries(st.sampled_from(["tool_calls", "tool_call_id", "name", "prefix"]), JSON),
)


@given(st.dictionaries(st.sampled_from(sorted(REQUEST_FIELDS)), JSON), st.lists(MESSAGES | JSON))
def test_any_json_is_read_or_refused(body: dict[str, Any], messages: list[Any]) -> None:
    """No body of any shape raises anything but `InvalidRequest`."""
    raw = json.dumps({"model": "m", "messages": messages, **body}).encode()
    try:
        request = DIALECT.decode_request(raw)
        DIALECT.encode_request(request)
    except InvalidRequest as error:
        assert error.http_status in (400, 422)


@given(st.binary(max_size=50))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    """Nor do bytes that are no JSON."""
    with pytest.raises(InvalidRequest):
        DIALECT.decode_request(body)


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
REQUESTS = st.builds(
    ChatRequest,
    model=st.just("m"),
    messages=st.lists(
        st.builds(Message.user, TEXTS)
        | st.builds(lambda a, b: Message.user(a, ImagePart(b)), TEXTS, TEXTS),
        min_size=1,
        max_size=3,
    ).map(tuple),
    tools=st.lists(st.builds(ToolSpec, name=st.just("look"), description=TEXTS)).map(tuple),
    tool_choice=st.sampled_from([None, "auto", "none", "any", NamedTool("look")]),
    sampling=st.builds(
        Sampling,
        temperature=st.none() | st.floats(0, 2),
        max_tokens=st.none() | st.integers(1, 99),
        stop=st.none() | TEXTS | st.lists(TEXTS).map(tuple),
        n=st.none() | st.integers(1, 3),
    ),
    response_format=st.sampled_from(
        [
            None,
            ResponseFormat(type="json_object"),
            ResponseFormat(type="json_schema", name="a", schema={"type": "object"}, strict=True),
        ]
    ),
    prediction=st.none() | TEXTS,
    reasoning_effort=st.sampled_from([None, "high"]),
    safe_prompt=st.none() | st.booleans(),
    metadata=st.none() | st.dictionaries(TEXTS, TEXTS),
    guardrails=st.none() | st.just(({"block_on_error": True},)),
    stream=st.booleans(),
)


@given(REQUESTS)
def test_what_is_encoded_is_decoded_again(request: ChatRequest) -> None:
    """decode(encode(x)) == x, for every field."""
    assert request == DIALECT.decode_request(DIALECT.encode_request(request).body)


def test_assistant_turns_survive_both_roles() -> None:
    """Thinking, calls and results come back as they were."""
    thought = ThinkingPart((TextPart("hm"),), closed=True, extra={"signature": "s"})
    call = ToolCall("abcdefghi", "look", {"a": 1})
    said = (
        Message.user("x"),
        Message.assistant((thought, TextPart("so")), tool_calls=(call,)),
        Message.tool(call, "result"),
    )
    request = ChatRequest(model="m", messages=said)
    assert request == DIALECT.decode_request(DIALECT.encode_request(request).body)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("max_completion_tokens", 3, "did you mean"),
        ("seed", 1, "not known"),
        ("temperature", "hot", "wrong type"),
        ("temperature", True, "wrong type"),
        ("guardrails", 5, "wrong type"),
        ("tools", {}, "must be a list"),
        ("tools", [{"type": "web_search", "function": {"name": "x"}}], "only functions"),
        ("tools", [{"function": {"name": "x", "parameters": [1]}}], "JSON schema"),
        ("tools", [{"function": {"name": "x", "colour": 1}}], "colour"),
        ("messages", 3, "messages"),
        ("model", 3, "model"),
    ],
)
def test_a_bad_field_is_refused_by_name(field: str, value: Any, said: str) -> None:
    """Status 422, and the field's name in the message."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], field: value}
    with pytest.raises(InvalidRequest, match=said) as caught:
        DIALECT.decode_request(json.dumps(body).encode())
    assert 422 == caught.value.http_status
    assert field.split("[", maxsplit=1)[0] in caught.value.message
