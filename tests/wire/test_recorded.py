"""Every recorded chat exchange through the dialect: answers, streams, requests, errors."""

import copy
import json
from typing import Any

import pytest
from tests.recorded import Exchange, chat_exchanges, observed_errors, truth_of

from loom.core.errors import LoomError, StreamTruncated
from loom.core.events import TextDelta, ThinkingDelta
from loom.core.response import LLMResponse
from loom.wire.mistral.dialect import MistralDialect

DIALECT = MistralDialect()

PLAIN = [e for e in chat_exchanges() if e.status == 200 and not e.stream]
STREAMED = [e for e in chat_exchanges() if e.status == 200 and e.stream]
ASKED = [e for e in chat_exchanges() if e.request is not None]


def told(response: LLMResponse) -> dict[str, Any]:
    """What an answer says, in the form of `truth_of`."""
    return {
        "choices": [
            {
                "index": choice.index,
                "text": choice.message.text,
                "thinking": choice.message.thinking,
                "calls": [(call.name, call.arguments) for call in choice.message.tool_calls],
                "finish_reason": choice.finish_reason,
            }
            for choice in response.choices
        ],
        "usage": [
            response.usage.input_tokens,
            response.usage.output_tokens,
            response.usage.total_tokens,
            response.usage.cached_tokens,
        ],
        "model": response.model,
    }


@pytest.mark.parametrize("exchange", PLAIN, ids=str)
def test_plain_answer_comes_out_as_recorded(exchange: Exchange) -> None:
    """Text, thinking, calls, finish reason, usage and model are the recording's."""
    response = DIALECT.decode_response(exchange.body, exchange.headers)
    assert truth_of(exchange) == told(response)


@pytest.mark.parametrize("exchange", STREAMED, ids=str)
def test_streamed_answer_comes_out_as_recorded(exchange: Exchange) -> None:
    """The same holds for a stream, fed whole."""
    decoder = DIALECT.decoder(exchange.headers, exchange.choices)
    events = decoder.feed(exchange.body)
    truth = truth_of(exchange)
    assert truth == told(decoder.finish())
    for choice in truth["choices"]:
        index = choice["index"]
        texts = [e.text for e in events if isinstance(e, TextDelta) and e.choice == index]
        thoughts = [e.text for e in events if isinstance(e, ThinkingDelta) and e.choice == index]
        assert choice["text"] == "".join(texts)
        assert choice["thinking"] == "".join(thoughts)


@pytest.mark.parametrize("exchange", STREAMED, ids=str)
def test_stream_cut_at_every_byte_is_whole_or_truncated(exchange: Exchange) -> None:
    """A stream cut at any byte is complete, or `StreamTruncated` with a prefix of the truth."""
    whole = truth_of(exchange)
    first = whole["choices"][0]
    decoder = DIALECT.decoder(exchange.headers, exchange.choices)
    for position in range(len(exchange.body)):
        decoder.feed(exchange.body[position : position + 1])
        twin = copy.copy(decoder)
        if twin.finished:
            assert whole == told(twin.finish())
            continue
        with pytest.raises(StreamTruncated) as caught:
            twin.finish()
        partial = caught.value.partial
        assert partial is not None
        assert first["text"].startswith(partial.text)
        assert first["thinking"].startswith(partial.thinking)
        for call, (name, arguments) in zip(partial.tool_calls, first["calls"], strict=False):
            assert name == call.name
            assert arguments.startswith(call.arguments)
    assert whole == told(decoder.finish())


@pytest.mark.parametrize("exchange", ASKED, ids=str)
def test_request_means_the_same_after_both_roles(exchange: Exchange) -> None:
    """A recorded request, read by the server role and written by the client role, is the same."""
    assert exchange.request is not None
    raw = json.dumps(exchange.request).encode()
    sent = json.loads(DIALECT.encode_request(DIALECT.decode_request(raw)).body)
    assert meaning(exchange.request) == meaning(sent)


def meaning(body: dict[str, Any]) -> dict[str, Any]:
    """A request without what says nothing: nulls, defaults, how ids are spelt, `type`."""
    kept = {name: value for name, value in body.items() if value is not None}
    if not kept.get("stream"):
        kept.pop("stream", None)
    if not kept.get("tools"):
        kept.pop("tools", None)
    order: dict[str, int] = {}
    messages = []
    for message in kept["messages"]:
        said = {name: value for name, value in message.items() if value not in (None, False)}
        said["tool_calls"] = [
            {
                "id": order.setdefault(call["id"], len(order)),
                "name": call["function"]["name"],
                "arguments": call["function"]["arguments"] or "{}",
            }
            for call in message.get("tool_calls") or []
        ]
        if "tool_call_id" in said:
            said["tool_call_id"] = order.setdefault(said["tool_call_id"], len(order))
        if isinstance(said.get("content"), list):
            said["content"] = [plain_part(part) for part in said["content"]]
        said.setdefault("content", "")
        messages.append(said)
    kept["messages"] = messages
    kept["tools"] = [tool["function"] for tool in kept.get("tools", [])]
    return kept


def plain_part(part: dict[str, Any]) -> dict[str, Any]:
    """An image by `{url}` and by the bare url are the same."""
    image = part.get("image_url")
    if isinstance(image, dict) and set(image) == {"url"}:
        return {**part, "image_url": image["url"]}
    return part


# Status first, then the vendor's words: what the project's error table says of each body.
def expected_code(status: int, body: Any) -> str:
    text = json.dumps(body)
    if '"1500"' in text:
        return "model_not_found"
    if "maximum context length" in text:
        return "context_length_exceeded"
    if status == 429 and "capacity exceeded" in text:
        return "capacity_exceeded"
    return {
        400: "invalid_request",
        401: "invalid_api_key",
        402: "insufficient_credits",
        403: "permission_denied",
        404: "model_not_found",
        413: "request_too_large",
        422: "invalid_request",
        429: "rate_limit_exceeded",
    }.get(status, "service_unavailable" if status >= 500 else "invalid_request")


@pytest.mark.parametrize(
    "observed",
    [pytest.param(row, id=f"{i}-{row['status']}") for i, row in enumerate(observed_errors())],
)
def test_observed_error_becomes_the_right_class(observed: dict[str, Any]) -> None:
    """Each error body that was ever seen becomes the class of the table, with its status."""
    body = observed["body"]
    raw = (
        b""
        if body is None
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    error = DIALECT.decode_error(observed["status"], observed["headers"], raw)
    assert expected_code(observed["status"], body) == error.code
    assert observed["status"] == error.http_status
    assert error.message.startswith(f"Mistral API error ({observed['status']}): ")


@pytest.mark.parametrize("exchange", [e for e in chat_exchanges() if e.status != 200], ids=str)
def test_recorded_error_becomes_the_right_class(exchange: Exchange) -> None:
    """Each recorded error reply becomes the class of the table."""
    error = DIALECT.decode_error(exchange.status, exchange.headers, exchange.body)
    assert isinstance(error, LoomError)
    assert expected_code(exchange.status, json.loads(exchange.body)) == error.code


@pytest.mark.parametrize("exchange", PLAIN, ids=str)
def test_answer_survives_the_server_role(exchange: Exchange) -> None:
    """An answer written by the server role and read again says the same."""
    response = DIALECT.decode_response(exchange.body, exchange.headers)
    again = DIALECT.decode_response(DIALECT.encode_response(response), {})
    mine, other = told(again), told(response)
    for choice in (*mine["choices"], *other["choices"]):
        choice["calls"] = [(name, arguments or "{}") for name, arguments in choice["calls"]]
    assert other == mine
