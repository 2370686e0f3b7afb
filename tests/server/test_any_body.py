"""Whatever JSON comes, the offline API answers or refuses: it never fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.test_app import Caller
from tests.wire.test_json_schema import SCHEMAS

from loom.server.simulator import Simulator

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)
NUMBER = st.integers(0, 3) | st.floats(0, 1)
CALL = {"id": "abcDEF123", "function": {"name": "f", "arguments": "{}"}}
CHUNK = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=9)}),
    st.fixed_dictionaries(
        {
            "type": st.just("image_url"),
            "image_url": st.text(max_size=9) | st.fixed_dictionaries({"url": st.text(max_size=9)}),
        }
    ),
    st.fixed_dictionaries({"type": st.just("document_url"), "document_url": st.text(max_size=9)}),
    st.fixed_dictionaries({"type": st.just("input_audio"), "input_audio": st.text(max_size=9)}),
    st.fixed_dictionaries({"type": st.just("file"), "file_id": st.text(max_size=9)}),
    st.just({"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}),
    st.just({"type": "resource", "uri": "x"}),
)
CONTENT = st.text(min_size=1, max_size=20) | st.lists(CHUNK, min_size=1, max_size=2)
USER = st.fixed_dictionaries({"role": st.just("user"), "content": CONTENT})
MESSAGE = USER | st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]),
        "content": CONTENT | st.none() | JSON,
    },
    optional={
        "tool_calls": st.lists(st.just(CALL), max_size=2),
        "tool_call_id": st.just("abcDEF123"),
        "prefix": st.booleans(),
    },
)
TOOL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": st.just("f"), "parameters": SCHEMAS})}
)
FORM = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "json_object", "json_schema"])},
    optional={"json_schema": st.fixed_dictionaries({"name": st.just("a"), "schema": SCHEMAS})},
)
CHAT = st.fixed_dictionaries(
    {
        "model": st.just("mistral-small-latest") | st.just("mistral-large-latest"),
        "messages": st.lists(USER, min_size=1, max_size=2)
        | st.lists(MESSAGE, min_size=1, max_size=3),
    },
    optional={
        "temperature": NUMBER,
        "max_tokens": st.integers(0, 20) | st.integers(0, 2**66),
        "random_seed": st.integers(0, 2**70),
        "n": st.integers(1, 3) | st.just(2**65),
        "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=2),
        "stream": st.booleans(),
        "tools": st.lists(TOOL, max_size=2),
        "tool_choice": st.sampled_from(["auto", "any", "none"]),
        "response_format": FORM,
        "metadata": st.dictionaries(st.text(max_size=5), JSON),
        "prompt_cache_key": st.text(max_size=5),
    },
)
OTHER = st.fixed_dictionaries(
    {"model": st.sampled_from(["mistral-embed", "codestral-embed", "codestral-latest"])},
    optional={
        "input": st.text(max_size=9) | st.lists(st.text(max_size=9), max_size=3) | JSON,
        "prompt": st.text(max_size=9) | JSON,
        "suffix": st.text(max_size=9),
        "output_dimension": st.integers(1, 5000) | JSON,
        "encoding_format": st.sampled_from(["float", "base64"]),
        "output_dtype": st.sampled_from(["float", "int8", "binary", "ubinary"]),
        "max_tokens": st.integers(0, 9),
        "stream": st.booleans(),
    },
)
PATHS = ("/v1/chat/completions", "/v1/fim/completions", "/v1/embeddings")


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    with Simulator(tier="100000/1000000000") as simulator:
        yield Caller(simulator.base_url)


def answered(caller: Caller, path: str, body: bytes) -> None:
    answer = caller.send("POST", path, body)
    assert answer.status in (200, 400, 413, 422), (answer.status, answer.body)
    if answer.status != 200:
        reply = answer.json
        assert (answer.status, "error") == (reply["raw_status_code"], reply["object"])
        assert reply["type"]
        assert reply["message"]
    elif answer.headers["content-type"].startswith("text/event-stream"):
        assert answer.body.endswith(b"data: [DONE]\n\n")
    else:
        assert answer.json["object"] in ("chat.completion", "list")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PATHS), body=JSON)
def test_any_json_is_answered(caller: Caller, path: str, body: Any) -> None:
    """JSON of any kind gets a typed refusal."""
    answered(caller, path, json.dumps(body).encode())


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(body=CHAT)
def test_almost_any_chat_is_answered(caller: Caller, body: Any) -> None:
    """Bodies that are nearly right get an answer or a typed refusal."""
    answered(caller, PATHS[0], json.dumps(body).encode())


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(path=st.sampled_from(PATHS[1:]), body=OTHER)
def test_almost_any_other_request_is_answered(caller: Caller, path: str, body: Any) -> None:
    """So do bodies for the other endpoints."""
    answered(caller, path, json.dumps(body).encode())


DEEP = 900


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"\xff\xfe",
        b"null",
        b'{"model":"x","messages":NaN}',
        b"[" * 100_000,
        b'{"metadata":' * DEEP + b"1" + b"}" * DEEP,
        b'{"model":"mistral-small-latest","messages":[{"role":"user","content":"hi"}],"metadata":'
        + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
        b'{"model":"mistral-small-latest","messages":[{"role":"user","content":"hi"}],'
        b'"tool_choice":"any","tools":[{"function":{"name":"f","parameters":'
        + b'{"type":"object","required":["a"],"properties":{"a":' * (DEEP // 2)
        + b"{}" + b"}}" * (DEEP // 2) + b"}}]}",
        b'{"model":"mistral-small-latest","messages":' + b"[" * DEEP + b"]" * DEEP + b"}",
    ],
    ids=range(11),
)  # fmt: skip
@pytest.mark.parametrize("path", PATHS)
def test_a_body_at_the_edge_is_answered(caller: Caller, path: str, body: bytes) -> None:
    """What is no JSON, and what is nested to the interpreter's limit, is refused or answered."""
    answered(caller, path, body)
