"""OpenAI's dialect reads what it writes, in both roles, and the SDK's own types take all of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter, ValidationError
from tests.wire.chat_completions.drawn import requests, responses

from loom.core.errors import StreamTruncated
from loom.core.events import Completed, StreamEvent
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse
from loom.providers.whole import events_of
from loom.wire.chat_completions.dialect import ChatCompletionsDialect

DIALECT = ChatCompletionsDialect()
OLD = ChatCompletionsDialect(limit_field="max_tokens")
PLAIN: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
STREAMED: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)


def emptied(value: Any) -> Any:
    """The value with what pydantic reads lazily (`Iterable` fields) read: it checks those then."""
    if isinstance(value, dict):
        return {name: emptied(each) for name, each in value.items()}
    if isinstance(value, str | int | float | None):
        return value
    return [emptied(each) for each in value] if isinstance(value, Iterator | list) else value


def told(response: LLMResponse) -> LLMResponse:
    """What the wire tells of a response."""
    return msgspec.structs.replace(response, raw_body=None)


def streamed(response: LLMResponse) -> bytes:
    """The response as OpenAI streams it."""
    request = ChatRequest(
        model=response.model,
        messages=(),
        sampling=msgspec.structs.replace(ChatRequest(model="", messages=()).sampling, n=None),
        stream=True,
    )
    encoder = DIALECT.encoder(request, response.id, response.created or 0)
    events: list[StreamEvent] = [*events_of(response), Completed(response)]
    return encoder.start() + b"".join(encoder.encode(event) for event in events)


def chunks(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream but for its end."""
    events = body.decode().split("\n\n")
    assert ["data: [DONE]", ""] == events[-2:]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


@given(requests())
def test_a_request_is_read_as_it_was_written(request: ChatRequest) -> None:
    """decode(encode(x)) == x, whatever the limit's field is called."""
    for dialect in (DIALECT, OLD):
        encoded = dialect.encode_request(request)
        assert () == encoded.repairs
        assert request == dialect.decode_request(encoded.body)


@given(requests())
def test_the_sdk_types_take_every_request(request: ChatRequest) -> None:
    """What goes out fits the parameters of the official SDK, field by field."""
    body = json.loads(DIALECT.encode_request(request).body)
    adapter = STREAMED if request.stream else PLAIN
    checked = emptied(adapter.validate_python(body))
    # Nothing that the types do not know: they drop it.
    assert set(body) == set(checked)


def test_the_sdk_types_refuse_what_is_none() -> None:
    """The check above would notice: a part of an unknown kind does not fit."""
    part = {"type": "thinking", "thinking": []}
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    with pytest.raises(ValidationError):
        emptied(PLAIN.validate_python(body))


@given(responses())
def test_an_answer_is_read_as_it_was_written(response: LLMResponse) -> None:
    """decode(encode(x)) == x for plain answers, and the SDK's model takes them."""
    body = DIALECT.encode_response(response)
    assert response == told(DIALECT.decode_response(body, {}))
    ChatCompletion.model_validate_json(body, strict=True)


@given(responses())
def test_a_streamed_answer_is_read_as_it_was_written(response: LLMResponse) -> None:
    """The same answer comes out of its stream, and the SDK's model takes each chunk."""
    body = streamed(response)
    decoder = DIALECT.decoder({}, len(response.choices))
    decoder.feed(body)
    assert response == told(decoder.finish())
    for each in chunks(body):
        ChatCompletionChunk.model_validate(each, strict=True)


@given(responses(), st.data())
def test_any_cut_gives_the_same_events(response: LLMResponse, data: st.DataObject) -> None:
    """The bytes of a stream mean the same however they are cut."""
    body = streamed(response)
    whole = DIALECT.decoder({}, len(response.choices))
    expected = whole.feed(body)
    places = data.draw(st.lists(st.integers(0, len(body)), max_size=8).map(sorted))
    decoder = DIALECT.decoder({}, len(response.choices))
    edges = [0, *places, len(body)]
    events: list[StreamEvent] = []
    for start, end in itertools.pairwise(edges):
        events += decoder.feed(body[start:end])
    assert expected == events
    assert whole.finish() == decoder.finish()


def test_a_stream_cut_at_any_byte_is_whole_or_truncated() -> None:
    """Whatever is missing at the end: the answer is complete, or the error holds what came."""
    body = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {
                    "content": "Grüße",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "call_1", "function": {"name": "look", "arguments": '{"a": 1}'}}
                    ],
                },
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    response = DIALECT.decode_response(json.dumps(body).encode(), {})
    stream = streamed(response)
    outcomes = set()
    for end in range(len(stream) + 1):
        decoder = DIALECT.decoder({})
        decoder.feed(stream[:end])
        try:
            answer = decoder.finish()
        except StreamTruncated as error:
            outcomes.add("cut")
            assert error.partial is not None
            assert "Grüße".startswith(error.partial.text)
        else:
            outcomes.add("whole" if not answer.usage.estimated else "whole without usage")
            assert response.message == answer.message
    assert {"cut", "whole", "whole without usage"} == outcomes
