"""What the server role refuses, and the words and shapes of each refusal."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import observed_errors

from loom.core.errors import (
    ContextTooLong,
    InvalidRequest,
    LoomError,
    ModelNotFound,
)
from loom.core.model import ModelCard
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.mistral.errors import decode_error_reply, encode_error_reply
from loom.wire.mistral.request import REQUEST_FIELDS
from loom.wire.mistral.schema import CHAT_FIELDS
from loom.wire.mistral.strict import (
    MOST_INPUTS,
    check_embeddings_request,
    check_fim_request,
    check_request,
    check_window,
)

HELLO = {"role": "user", "content": "Hello"}
SMALL = ModelCard(
    id="mistral-small-2603",
    context_window=262_144,
    abilities=frozenset({"chat"}),
    reasoning_efforts=("none", "high"),
)
LARGE = ModelCard(id="mistral-large-2512", context_window=262_144, abilities=frozenset({"chat"}))
GLM = ModelCard(id="zai-glm-5-2", reasoning_efforts=("low", "high", "max"))
OLD = ModelCard(id="mistral-medium-2505", context_window=131_072)
EMBED = ModelCard(id="mistral-embed-2312", abilities=frozenset({"embeddings"}))
CODE_EMBED = ModelCard(id="codestral-embed-2505", abilities=frozenset({"embeddings"}))
CODESTRAL = ModelCard(id="codestral-2508", abilities=frozenset({"chat", "fim"}))
CARDS = {
    "small": SMALL,
    "large": LARGE,
    "glm": GLM,
    "old": OLD,
    "mistral-embed": EMBED,
    "codestral-embed": CODE_EMBED,
    "codestral": CODESTRAL,
}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [HELLO], **more}


def refusal(body: Any, check: Callable[..., None] = check_request, **more: Any) -> LoomError:
    with pytest.raises(LoomError) as caught:
        check(body, find=CARDS.get, **more)
    return caught.value


def reply_of(error: LoomError) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode_error_reply(error).body)
    return body


def places(body: Any) -> list[tuple[str, list[str | int]]]:
    error = refusal(body)
    assert 422 == error.http_status
    return [(each["type"], each["loc"]) for each in error.detail or ()]


def said(*contents: Any) -> dict[str, Any]:
    return chat(messages=list(contents))


LAST_ROLE = (
    "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant"
)
CALL = {"id": "abcDEF123", "function": {"name": "weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"temperature": 0, "top_p": 1, "max_tokens": 0, "stop": None, "random_seed": 7},
        {"temperature": None, "n": 2, "stop": ["a", "b"], "metadata": {"run": 1}},
        {"tools": None, "tool_choice": "any", "parallel_tool_calls": False},
        {"tools": [{"function": {"name": "f", "parameters": {}}}], "tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}},
        {"presence_penalty": -2, "frequency_penalty": 2.0, "prediction": {"content": "Hi"}},
        {"stream": True, "stream_options": {"include_usage": True, "stream_tool_calls": True}},
        {"reasoning_effort": "high", "prompt_mode": "reasoning", "service_tier": "auto"},
        {"safe_prompt": True, "guardrails": [{"block_on_error": True}], "prompt_cache_key": "k"},
        {"logprobs": False, "top_logprobs": None},
    ],
)
def test_a_good_request_passes(more: dict[str, Any]) -> None:
    """What the contract allows is let through, with and without a catalogue."""
    check_request(chat(**more), find=CARDS.get)
    check_request(chat(**more))


@pytest.mark.parametrize(
    "content",
    [
        "Hello",
        None,
        [],
        [{"type": "text", "text": "Hello"}],
        [{"type": "image_url", "image_url": "data:image/png;base64,AA"}],
        [{"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}],
        [{"type": "document_url", "document_url": "https://example.com/a.pdf"}],
        [{"type": "document_url", "document_url": "https://x.de/a.pdf", "document_name": "a"}],
        [{"type": "input_audio", "input_audio": "AAAA"}],
        [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
        [{"type": "file", "file_id": "1"}],
        [{"type": "reference", "reference_ids": [1, "2"]}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}], "closed": True}],
        [{"type": "resource", "uri": "x", "content": {"type": "text", "text": "y"}}],
    ],
)
def test_every_chunk_passes(content: Any) -> None:
    """Images, documents, sound, files, references and thoughts are accepted."""
    check_request(said({"role": "user", "content": content}))


def test_the_tables_name_the_fields_that_the_client_knows() -> None:
    """Two tables of fields are one: whatever our own client may send is checked."""
    assert set(CHAT_FIELDS) == set(REQUEST_FIELDS)


@pytest.mark.parametrize(
    "field",
    ["max_completion_tokens", "seed", "user", "store", "chat_template_kwargs", "functions", ""],
)
def test_an_unknown_field_is_refused_by_name(field: str) -> None:
    """Nothing unknown is ignored; the recorded entry comes back to the letter."""
    error = refusal(chat(**{field: 1}))

    assert error.http_status == 422
    assert error.detail == [
        {
            "type": "extra_forbidden",
            "loc": ["body", field],
            "msg": "Extra inputs are not permitted",
            "input": 1,
        }
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, [("missing", ["body", "model"]), ("missing", ["body", "messages"])]),
        (said({"role": "user", "content": "x", "name": "Ada"}),
         [("extra_forbidden", ["body", "messages", 0, "user", "name"])]),
        (said({"role": "user", "content": "x", "tool_calls": []}),
         [("extra_forbidden", ["body", "messages", 0, "user", "tool_calls"])]),
        (said(HELLO, {"role": "assistant", "content": "", "reasoning_content": "\n"}),
         [("extra_forbidden", ["body", "messages", 1, "assistant", "reasoning_content"])]),
        (said({"role": "developer", "content": "x"}),
         [("union_tag_invalid", ["body", "messages", 0])]),
        (said({"content": "x"}), [("union_tag_not_found", ["body", "messages", 0])]),
        (said("Hello"), [("model_attributes_type", ["body", "messages", 0])]),
        (said({"role": "user"}), [("missing", ["body", "messages", 0, "user", "content"])]),
        (said({"role": "system", "content": None}),
         [("string_type", ["body", "messages", 0, "system", "content", "str"]),
          ("list_type", ["body", "messages", 0, "system", "content",
                         "list[tagged-union[TextChunk,ThinkChunk]]"])]),
        (chat(messages="Hello"), [("list_type", ["body", "messages"])]),
        (chat(messages={}), [("list_type", ["body", "messages"])]),
        (chat(model=1), [("string_type", ["body", "model"])]),
        (chat(model=None), [("string_type", ["body", "model"])]),
        (chat(temperature=2), [("less_than_equal", ["body", "temperature"])]),
        (chat(temperature=-0.1), [("greater_than_equal", ["body", "temperature"])]),
        (chat(temperature="hot"), [("float_parsing", ["body", "temperature"])]),
        (chat(top_p=1.1), [("less_than_equal", ["body", "top_p"])]),
        (chat(top_p=0), [("greater_than", ["body", "top_p"])]),
        (chat(max_tokens=-1), [("greater_than_equal", ["body", "max_tokens"])]),
        (chat(max_tokens=1.5), [("int_from_float", ["body", "max_tokens"])]),
        (chat(n=0), [("greater_than_equal", ["body", "n"])]),
        (chat(random_seed=-1), [("greater_than_equal", ["body", "random_seed"])]),
        (chat(presence_penalty=2.5), [("less_than_equal", ["body", "presence_penalty"])]),
        (chat(frequency_penalty=-3), [("greater_than_equal", ["body", "frequency_penalty"])]),
        (chat(stream="yes"), [("bool_type", ["body", "stream"])]),
        (chat(reasoning_effort="very"), [("literal_error", ["body", "reasoning_effort"])]),
        (chat(prompt_mode="other"), [("literal_error", ["body", "prompt_mode"])]),
        (chat(service_tier="fast"), [("literal_error", ["body", "service_tier"])]),
        (chat(stop=1), [("string_type", ["body", "stop", "str"]),
                        ("list_type", ["body", "stop", "list[str]"])]),
        (chat(tools={}), [("list_type", ["body", "tools"])]),
        (chat(tools=[{"type": "function"}]), [("missing", ["body", "tools", 0, "function"])]),
        (chat(tools=[{"function": {"name": "f"}}]),
         [("missing", ["body", "tools", 0, "function", "parameters"])]),
        (chat(tools=[{"type": "web", "function": {"name": "f", "parameters": {}}}]),
         [("literal_error", ["body", "tools", 0, "type"])]),
        (chat(tools=[{"function": {"name": "f", "parameters": {}, "x": 1}, "cache_control": {}}]),
         [("extra_forbidden", ["body", "tools", 0, "function", "x"]),
          ("extra_forbidden", ["body", "tools", 0, "cache_control"])]),
        (chat(tools=[{"function": {"name": "f", "parameters": {}}}] * 129),
         [("too_long", ["body", "tools"])]),
        (chat(response_format={"type": "xml"}),
         [("literal_error", ["body", "response_format", "type"])]),
        (chat(response_format={"type": "json_schema"}),
         [("missing", ["body", "response_format", "json_schema"])]),
        (chat(response_format={"type": "json_schema", "json_schema": {"name": "a"}}),
         [("missing", ["body", "response_format", "json_schema", "schema"])]),
        (chat(tool_choice="sometimes"),
         [("literal_error", ["body", "tool_choice", "ToolChoiceEnum"]),
          ("model_attributes_type", ["body", "tool_choice", "ToolChoice"])]),
        (chat(seed=1, user="u"),
         [("extra_forbidden", ["body", "seed"]), ("extra_forbidden", ["body", "user"])]),
        ([], [("model_attributes_type", ["body"])]),
        (None, [("model_attributes_type", ["body"])]),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_refused_at_its_place(
    body: Any, expected: list[tuple[str, list[str | int]]]
) -> None:
    """Each problem is named, with the role behind the message's number; the order is fixed."""
    assert expected == places(body)


def test_a_chunk_with_an_unknown_field_is_refused() -> None:
    """Markers of other vendors' caches are unknown fields; the recorded entry comes first."""
    chunk = {"type": "text", "text": "...", "cache_control": {"type": "ephemeral"}}
    error = refusal(said({"role": "system", "content": [chunk]}, HELLO))
    first, second = error.detail or [{}, {}]

    assert first == {
        "type": "string_type",
        "loc": ["body", "messages", 0, "system", "content", "str"],
        "msg": "Input should be a valid string",
        "input": [chunk],
    }
    assert (second["type"], second["loc"][-3:]) == (
        "extra_forbidden", [0, "text", "cache_control"],
    )  # fmt: skip


def test_the_developer_role_is_told_the_roles() -> None:
    """The entry names the tag and all tags that exist."""
    (entry,) = refusal(said({"role": "developer", "content": "x"})).detail or [{}]

    assert entry["msg"].startswith(
        "Input tag 'developer' found using 'role' does not match any of the expected tags"
    )
    assert entry["ctx"] == {
        "discriminator": "'role'",
        "tag": "developer",
        "expected_tags": "'system', 'user', 'assistant', 'tool'",
    }


def test_a_422_has_two_shapes() -> None:
    """The list stands in the envelope, or alone; a test can ask for either."""
    error = refusal(chat(seed=1))

    enveloped, bare = encode_error_reply(error), encode_error_reply(error, bare_detail=True)

    assert (422, 422) == (enveloped.status, bare.status)
    assert json.loads(enveloped.body) == {
        "object": "error",
        "message": {"detail": error.detail},
        "type": "invalid_request_error",
        "param": None,
        "code": None,
        "raw_status_code": 422,
    }
    assert json.loads(bare.body) == {"detail": error.detail}


@pytest.mark.parametrize("bare", [False, True])
def test_a_client_never_takes_over_what_was_sent(bare: bool) -> None:  # noqa: FBT001 - pytest gives it by name
    """The reply quotes the request; the client's error has place and sentence, not the quote."""
    error = refusal(said({"role": "user", "content": "x", "name": "a secret name"}))
    reply = encode_error_reply(error, bare_detail=bare)

    heard = decode_error_reply(reply.status, reply.headers, reply.body)

    assert type(heard) is InvalidRequest
    assert heard.message == (
        "Mistral API error (422): body.messages.0.user.name: Extra inputs are not permitted"
    )
    assert heard.detail is None
    assert "secret" not in repr(vars(heard))


def test_a_value_too_deep_to_be_quoted_is_left_out() -> None:
    """A 422 goes out although what was sent cannot be written again."""
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]
    try:
        error = InvalidRequest("x", http_status=422, detail=[{"type": "t", "input": deep}])
        assert reply_of(error)["message"] == {"detail": [{"type": "t", "input": None}]}
    finally:
        while deep:  # taking it apart at once would overflow the interpreter's own stack
            deep = deep[0]


@pytest.mark.parametrize(
    ("messages", "kind", "code", "sentence"),
    [
        ([HELLO, {"role": "assistant", "content": "Hi"}], "invalid_request_message_order", "3230",
         LAST_ROLE),
        ([{"role": "system", "content": "x"}, {"role": "tool", "content": "1"}],
         "invalid_request_message_order", "3230", "Unexpected role 'tool' after role 'system'"),
        ([HELLO, {"role": "tool", "content": "1", "tool_call_id": "abcDEF123"}],
         "invalid_request_message_order", "3230", "Unexpected role 'tool' after role 'user'"),
        ([HELLO, {"role": "assistant", "tool_calls": [CALL]},
          {"role": "tool", "content": "1", "tool_call_id": "abcDEF123"},
          {"role": "system", "content": "x"}, HELLO],
         "invalid_request_message_order", "3230", "Unexpected role 'system' after role 'tool'"),
        ([HELLO, {"role": "assistant", "tool_calls": [CALL]}, HELLO],
         "invalid_request_message_order", "3230",
         "Not the same number of function calls and responses"),
        ([HELLO, {"role": "assistant", "content": ""}, HELLO],
         "invalid_request_assistant_message", "3240",
         "Assistant message must have either content or tool_calls, but not none."),
        ([HELLO, {"role": "assistant", "tool_calls": [{**CALL, "id": "call_0fypS1hVX"}]},
          {"role": "tool", "content": "1", "tool_call_id": "call_0fypS1hVX"}],
         "invalid_function_call", "3280",
         "Tool call id was call_0fypS1hVX but must be a-z, A-Z, 0-9, with a length of 9."),
    ],
)  # fmt: skip
def test_an_illegal_history_gets_the_recorded_words(
    messages: list[dict[str, Any]], kind: str, code: str, sentence: str
) -> None:
    """Type, code and sentence are those that were quoted from the API."""
    assert reply_of(refusal(said(*messages))) == {
        "object": "error",
        "message": sentence,
        "type": kind,
        "param": None,
        "code": code,
        "raw_status_code": 400,
    }


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (lambda: refusal(chat(model="mistral-does-not-exist")), "Invalid model"),
        (lambda: refusal(chat(logprobs=True)), "Logprobs"),
        (lambda: refusal(chat(top_logprobs=3)), "Logprobs are not"),
        (lambda: refusal(chat(model="large", reasoning_effort="high")), "reasoning_effort is not"),
        (lambda: refusal(chat(reasoning_effort="medium")), "reasoning_effort='medium'"),
        (lambda: refusal(chat(model="glm", reasoning_effort="medium")), "reasoning_effort 'medium"),
        (lambda: refusal(chat(), prompt_tokens=264_620), "Prompt 264620"),
        (lambda: _old_window(159_202), "Prompt contains 159202"),
        (lambda: refusal({"model": "mistral-embed", "input": ["x"] * (MOST_INPUTS + 1)},
                         check_embeddings_request), "Too many inputs"),
        (lambda: refusal({"model": "mistral-embed", "input": "x", "output_dimension": 64},
                         check_embeddings_request), "This model does not support output_dim"),
    ],
)  # fmt: skip
def test_a_refusal_by_model_is_the_observed_body(error: Callable[[], LoomError], row: str) -> None:
    """The body is the recorded one, `raw_status_code` added where it is older."""
    observed = [
        each["body"]
        for each in observed_errors()
        if isinstance(each["body"], dict) and str(each["body"].get("message", "")).startswith(row)
    ]
    if not observed:
        pytest.skip("needs shared/fixtures")
    reply = reply_of(error())

    assert {**observed[0], "raw_status_code": 400} == reply
    assert list(reply) == ["object", "message", "type", "param", "code", "raw_status_code"]


def _old_window(tokens: int) -> LoomError:
    with pytest.raises(ContextTooLong) as caught:
        check_window(chat(), OLD, tokens, engine="old")
    return caught.value


def test_the_window_counts_prompt_and_answer() -> None:
    """Both numbers travel; a prompt that fits alone is refused with its `max_tokens`."""
    window = SMALL.context_window or 0
    check_request(chat(max_tokens=100), find=CARDS.get, prompt_tokens=window - 100)
    error = refusal(chat(max_tokens=101), prompt_tokens=window - 100)
    reply = encode_error_reply(error)
    heard = decode_error_reply(reply.status, reply.headers, reply.body)

    assert isinstance(error, ContextTooLong)
    assert (422, window - 100, window) == (error.http_status, error.tokens, error.limit)
    assert isinstance(heard, ContextTooLong)
    assert window == heard.limit


def test_an_unknown_window_refuses_nothing() -> None:
    """Without a number there is nothing to compare."""
    check_window(chat(), GLM, 10**9)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        # Schema, model, order, arguments: each body has every later fault too.
        (chat(model="nobody", seed=1, messages=[], logprobs=True), 422),
        (chat(model="nobody", messages=[], logprobs=True), "1500"),
        (chat(messages=[], logprobs=True), "3230"),
        (chat(logprobs=True, reasoning_effort="low"), "3051"),
    ],
)
def test_checks_run_in_the_order_of_the_api(body: dict[str, Any], status: Any) -> None:
    """The first refusal is the answer."""
    error = refusal(body)

    assert status in (error.http_status, error.vendor_code)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"model": "codestral"}, InvalidRequest, 422),
        ({"model": "codestral", "prompt": "x", "n": 1}, InvalidRequest, 422),
        ({"model": "codestral", "prompt": "x", "suffix": 1}, InvalidRequest, 422),
        ({"model": "nobody", "prompt": "x"}, ModelNotFound, "1500"),
        ({"model": "large", "prompt": "x"}, InvalidRequest, "3051"),
    ],
)
def test_fim_is_as_strict(body: Any, kind: type[LoomError], code: Any) -> None:
    """Unknown fields, wrong types and models that do not fill gaps are refused."""
    error = refusal(body, check_fim_request)

    assert type(error) is kind
    assert code in (error.http_status, error.vendor_code)


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ({"model": "mistral-embed"}, InvalidRequest, 422),
        ({"model": "mistral-embed", "input": [1]}, InvalidRequest, 422),
        ({"model": "mistral-embed", "inputs": "x"}, InvalidRequest, 422),
        ({"model": "mistral-embed", "input": "x", "dimensions": 8}, InvalidRequest, 422),
        ({"model": "mistral-embed", "input": "x", "encoding_format": "hex"}, InvalidRequest, 422),
        ({"model": "codestral-embed", "input": "x", "output_dimension": 0}, InvalidRequest, 422),
        ({"model": "codestral-embed", "input": "x", "output_dimension": 4000}, InvalidRequest,
         "3051"),
        ({"model": "nobody", "input": "x"}, ModelNotFound, "1500"),
        ({"model": "large", "input": "x"}, ModelNotFound, "1500"),
    ],
)  # fmt: skip
def test_embeddings_are_as_strict(body: Any, kind: type[LoomError], code: Any) -> None:
    """Unknown fields, wrong types, dimensions and models are refused."""
    error = refusal(body, check_embeddings_request)

    assert type(error) is kind
    assert code in (error.http_status, error.vendor_code)


@pytest.mark.parametrize(
    ("check", "body"),
    [
        (check_fim_request, {"model": "codestral", "prompt": "def f():", "suffix": None}),
        (check_embeddings_request, {"model": "mistral-embed", "input": ["x"] * MOST_INPUTS}),
        (
            check_embeddings_request,
            {"model": "codestral-embed", "input": "x", "output_dimension": 64},
        ),
    ],
)
def test_other_endpoints_take_good_requests(check: Callable[..., None], body: Any) -> None:
    """What is right passes, with and without a catalogue."""
    check(body, find=CARDS.get)
    check(body)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"3", b"null"])
def test_a_body_that_is_no_object_is_a_422(body: bytes) -> None:
    """What is not JSON, and JSON of another kind, gets a list as every 422 does."""
    for decode in (
        MistralDialect(strict=True).decode_request,
        MistralDialect().decode_infill_request,
        MistralDialect().decode_embeddings_request,
    ):
        with pytest.raises(InvalidRequest) as caught:
            decode(body)
        assert (422, 1) == (caught.value.http_status, len(caught.value.detail or ()))


def test_a_dialect_is_strict_when_it_is_told_to_be() -> None:
    """A gateway's dialect takes what its own tables take; a strict one asks the checks first."""
    body = msgspec.json.encode(chat(messages=[HELLO, {"role": "assistant", "content": "Hi"}]))

    assert 2 == len(MistralDialect().decode_request(body).messages)
    with pytest.raises(InvalidRequest, match="Expected last role"):
        MistralDialect(strict=True).decode_request(body)
    with pytest.raises(ModelNotFound):
        MistralDialect(strict=True, find=lambda _: None).decode_request(msgspec.json.encode(chat()))
    error = InvalidRequest("x", http_status=422, detail=[])
    assert b'{"detail":[]}' == MistralDialect(bare_detail=True).encode_error(error).body


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer"]) | JSON},
    optional={
        "content": st.text(max_size=3) | st.lists(st.just({"type": "text", "text": "a"})) | JSON,
        "tool_calls": st.lists(st.just(CALL), max_size=2) | JSON,
        "tool_call_id": st.just("abcDEF123") | JSON,
        "prefix": st.booleans() | JSON,
        "name": JSON,
    },
)
BODY = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("small") | JSON,
        "messages": st.lists(MESSAGE, max_size=4) | JSON,
        **dict.fromkeys(sorted(set(CHAT_FIELDS) - {"model", "messages"}), JSON),
        "unknown": JSON,
    },
)


@given(BODY | JSON)
def test_any_body_passes_or_is_refused(body: Any) -> None:
    """Whatever the JSON, there is an answer: a typed refusal that can be written, or none."""
    before = copy.deepcopy(body)
    for check in (check_request, check_fim_request, check_embeddings_request):
        try:
            check(body, find=CARDS.get)
        except LoomError as error:
            reply = encode_error_reply(error)
            assert reply.status in (400, 422)
            assert json.loads(reply.body)["raw_status_code"] == reply.status
    assert before == body
