"""What OpenAI's callers are sent: chunks in OpenAI's order, usage on wish, vectors."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse

from loom.core.embeddings import EmbeddingsRequest, EmbeddingsResponse
from loom.core.errors import InvalidRequest, ServiceUnavailable
from loom.core.events import (
    Completed,
    Finished,
    PartReceived,
    Sending,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from loom.core.messages import Message, ReferencePart, ThinkingPart, ToolCall
from loom.core.request import ChatRequest, Sampling
from loom.core.response import Choice, LLMResponse, Usage
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.chat_completions.embeddings import embedding_size

DIALECT = ChatCompletionsDialect()
USAGE = Usage(input_tokens=3, output_tokens=4, total_tokens=7)


def answered(message: Message, reason: str | None = "stop") -> LLMResponse:
    choice = Choice(message=message, finish_reason=reason)
    return LLMResponse(choices=(choice,), usage=USAGE, model="m", id="chatcmpl-1", created=1)


def streamed(*events: StreamEvent, count: int = 1, **extra: Any) -> list[dict[str, Any]]:
    request = ChatRequest(model="m", messages=(), sampling=Sampling(n=count), extra=extra)
    encoder = DIALECT.encoder(request, "chatcmpl-1", 1)
    body = (encoder.start() + b"".join(encoder.encode(event) for event in events)).decode()
    whole = body.removesuffix("data: [DONE]\n\n")
    return [json.loads(each.removeprefix("data: ")) for each in whole.split("\n\n") if each]


def deltas(chunks: list[dict[str, Any]]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def test_the_role_comes_first_and_the_usage_last() -> None:
    """One opening chunk, text, an empty delta with the reason, usage without choices."""
    response = answered(Message.assistant("Hi"))
    events: list[StreamEvent] = [Sending(), TextDelta("Hi"), Finished("stop"), Completed(response)]
    chunks = streamed(*events, stream_options={"include_usage": True})
    opening = {"role": "assistant", "content": "", "refusal": None}
    assert [opening, {"content": "Hi"}, {}] == deltas(chunks)
    assert "stop" == chunks[-2]["choices"][0]["finish_reason"]
    assert [] == chunks[-1]["choices"]
    assert 7 == chunks[-1]["usage"]["total_tokens"]
    assert [None] * 3 == [chunk["usage"] for chunk in chunks[:-1]]


def test_usage_is_not_told_unless_it_was_asked_for() -> None:
    """Neither a last chunk nor a null field."""
    response = answered(Message.assistant("Hi"))
    events: list[StreamEvent] = [TextDelta("Hi"), Finished("stop"), Completed(response)]
    chunks = streamed(*events, stream_options={"include_usage": False})
    assert 3 == len(chunks)
    assert not any("usage" in chunk for chunk in chunks)


def test_calls_go_out_in_pieces() -> None:
    """Id, type and name once, then arguments; each piece under the call's index."""
    arguments = '{"city": "Paris"}'
    call = ToolCallDelta(0, "call_1", "look", arguments[:9])
    rest = ToolCallDelta(0, "", "", arguments[9:])
    response = answered(Message.assistant(None), "tool_calls")
    chunks = streamed(call, rest, Finished("tool_calls"), Completed(response))
    pieces = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    function = {"name": "look", "arguments": ""}
    first = {"index": 0, "id": "call_1", "type": "function", "function": function}
    assert first == pieces[0]
    assert {"index", "function"} == set(pieces[1])
    assert arguments == "".join(piece["function"]["arguments"] for piece in pieces)


def test_thoughts_have_the_field_of_compatible_servers_and_references_none() -> None:
    """`reasoning_content` for thoughts; what OpenAI has no place for is left out."""
    chunks = streamed(
        ThinkingDelta("hm"), PartReceived(ReferencePart((0,))), TextDelta("a"), Finished("stop")
    )
    assert [{"reasoning_content": "hm"}, {"content": "a"}, {}] == deltas(chunks)[1:]


def test_an_answer_that_says_no_reason_still_ends() -> None:
    """Clients wait for a finish reason: each answer gets one, and only one."""
    choices = (
        Choice(index=0, message=Message.assistant("a"), finish_reason="length"),
        Choice(index=1, message=Message.assistant("b")),
    )
    response = LLMResponse(choices=choices, usage=USAGE, model="m")
    chunks = streamed(
        TextDelta("a"), TextDelta("b", 1), Finished("length"), Completed(response), count=2
    )
    reasons = [
        (choice["index"], choice["finish_reason"])
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"]
    ]
    assert [(0, "length"), (1, "stop")] == reasons


@pytest.mark.parametrize(
    ("reason", "expected"),
    [("model_length", "length"), ("error", "stop"), ("refusal", "stop"), (None, "stop")],
)
def test_reasons_are_those_that_clients_know(reason: str | None, expected: str) -> None:
    """The SDK knows five words; others of ours become the nearest."""
    body = json.loads(DIALECT.encode_response(answered(Message.assistant("a"), reason)))
    assert expected == body["choices"][0]["finish_reason"]


def test_plain_answers_have_openai_shape() -> None:
    """No text beside calls is null, a refusal has its field, thoughts their own."""
    call = ToolCall("call_1", "look", arguments="")
    cut = answered(Message.assistant("", tool_calls=(call,)), "length")
    said = json.loads(DIALECT.encode_response(cut))["choices"][0]["message"]
    assert (None, "") == (said["content"], said["tool_calls"][0]["function"]["arguments"])
    refused = answered(Message.assistant("No."), "refusal")
    said = json.loads(DIALECT.encode_response(refused))["choices"][0]["message"]
    assert (None, "No.") == (said["content"], said["refusal"])
    again = DIALECT.decode_response(DIALECT.encode_response(refused), {})
    assert ("No.", "refusal") == (again.content, again.finish_reason)
    thought = answered(Message.assistant((ThinkingPart(()),)))
    assert "" == json.loads(DIALECT.encode_response(thought))["choices"][0]["message"]["content"]


def test_an_error_ends_a_stream() -> None:
    """Its body is one event, and nothing follows."""
    encoder = DIALECT.encoder(ChatRequest(model="m", messages=()), "chatcmpl-1", 1)
    event = encoder.error(ServiceUnavailable("Service unavailable.", http_status=500))
    body = {"message": "Service unavailable.", "type": "server_error", "param": None, "code": None}
    assert {"error": body} == json.loads(event.removeprefix(b"data: "))


def embeddings(**fields: Any) -> EmbeddingsRequest:
    body = {"model": "text-embedding-3-small", "input": ["a", "b"], **fields}
    return DIALECT.decode_embeddings_request(json.dumps(body).encode())


def test_vectors_are_written_as_asked() -> None:
    """Numbers, or base64 of little-endian floats; the SDK's model takes both answers."""
    response = EmbeddingsResponse(vectors=[[0.5, -1.0]], model="m", id="x", usage=USAGE)
    plain = DIALECT.encode_embeddings(response, embeddings())
    packed = DIALECT.encode_embeddings(response, embeddings(encoding_format="base64"))
    parsed = CreateEmbeddingResponse.model_validate_json(plain)
    assert ([0.5, -1.0], 3) == (parsed.data[0].embedding, parsed.usage.prompt_tokens)
    text = json.loads(packed)["data"][0]["embedding"]
    assert (0.5, -1.0) == struct.unpack("<2f", base64.b64decode(text))


def test_sizes_of_vectors() -> None:
    """Each model has its own, which a request does not name; `dimensions` chooses another."""
    names = ("text-embedding-3-small", "text-embedding-3-large", "other")
    assert [1536, 3072, 1536] == [embedding_size(name) for name in names]
    assert (None, 64) == (embeddings().dimension, embeddings(dimensions=64).dimension)
    assert ("a",) == embeddings(input="a", user="u").texts


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "cannot be an empty string"),
        ({"input": [[1, 2], [3]]}, "lists of tokens are not taken"),
        ({"input": ["x"] * 2049}, "input"),
        ({"model": None}, "model parameter"),
        ({"dimensions": 0}, "greater than 0"),
        ({"encoding_format": "int8"}, "'float' and 'base64'"),
        ({"output_dtype": "int8"}, "Unrecognized request argument supplied: output_dtype"),
    ],
)
def test_requests_for_vectors_that_openai_refuses(fields: dict[str, Any], said: str) -> None:
    """400, with the field's name."""
    with pytest.raises(InvalidRequest, match=said):
        embeddings(**fields)
