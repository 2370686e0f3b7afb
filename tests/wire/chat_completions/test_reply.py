"""Answers of OpenAI, and of servers that speak like it, in every form that was seen."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from tests.wire.chat_completions.drawn import chunk

from loom.core.errors import (
    ContentBlocked,
    LoomError,
    MalformedReply,
    RateLimited,
    ServiceUnavailable,
    StreamTruncated,
)
from loom.core.events import (
    Finished,
    PartReceived,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import RawPart, TextPart, ThinkingPart
from loom.core.response import LLMResponse
from loom.wire.chat_completions.dialect import ChatCompletionsDialect
from loom.wire.chat_completions.reply import ChatCompletionsDecoder

DIALECT = ChatCompletionsDialect()
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
DONE = b"data: [DONE]\n\n"


def read(*pieces: bytes, choices: int = 1) -> tuple[ChatCompletionsDecoder, list[Any]]:
    decoder = DIALECT.decoder({}, choices)
    return decoder, [event for data in pieces for event in decoder.feed(data)]


def plain(message: dict[str, Any], reason: str = "stop", **more: Any) -> LLMResponse:
    choice = {"index": 0, "finish_reason": reason, "message": message}
    body = {"id": "chatcmpl-1", "model": "m", "usage": USAGE, "choices": [choice], **more}
    return DIALECT.decode_response(json.dumps(body).encode(), {})


def call(index: Any, id_: Any, name: Any, arguments: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if id_ is not None:
        made |= {"id": id_, "type": "function"}
    if index is not None:
        made["index"] = index
    return made


def calls_of(response: LLMResponse) -> list[tuple[str, str, dict[str, Any]]]:
    return [(made.id, made.name, made.input) for made in response.tool_calls]


def test_events_of_a_stream_and_its_usage_chunk() -> None:
    """The finish reason ends the answer; the usage comes after it, without choices."""
    decoder, events = read(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hel"}, obfuscation="abc"),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
    )
    assert decoder.finished
    assert not decoder.complete

    events += decoder.feed(chunk(usage=USAGE, service_tier="priority"))

    assert decoder.complete
    kinds = [type(event) for event in events]
    assert [TextDelta, TextDelta, Finished, UsageReported] == kinds
    response = decoder.finish()
    assert ("Hello", "stop", "priority") == (
        response.content,
        response.finish_reason,
        response.usage.service_tier,
    )
    assert (3, 4, 7) == (
        response.usage.input_tokens,
        response.usage.output_tokens,
        response.usage.total_tokens,
    )


def test_done_ends_a_stream_without_usage() -> None:
    """A server that was not asked for usage, or knows none: the tokens are marked."""
    decoder, _ = read(chunk({"content": "a"}), chunk({}, "stop"), DONE)
    assert decoder.complete
    assert decoder.finish().usage.estimated


def test_a_stream_without_an_end_is_truncated() -> None:
    """Neither reason nor `[DONE]`: an error that holds what came."""
    decoder, _ = read(chunk({"content": "Hel"}))
    with pytest.raises(StreamTruncated) as caught:
        decoder.finish()
    assert caught.value.partial is not None
    assert "Hel" == caught.value.partial.text


def test_fragments_of_calls_are_joined_by_index() -> None:
    """Id and name come once, arguments in pieces, two calls in turns and in one delta."""
    decoder, events = read(
        chunk({"tool_calls": [call(0, "call_a", "look", ""), call(1, "call_b", "hear", "")]}),
        chunk({"tool_calls": [call(0, None, None, '{"a":')]}),
        chunk({"tool_calls": [call(1, None, None, "{}"), call(0, None, None, "1}")]}),
        chunk({}, "tool_calls"),
    )
    assert [("call_a", "look", {"a": 1}), ("call_b", "hear", {})] == calls_of(decoder.finish())
    indices = [event.index for event in events if isinstance(event, ToolCallDelta)]
    assert [0, 1, 0, 1, 0] == indices


@pytest.mark.parametrize("index", [None, 0])
def test_whole_calls_with_a_wrong_or_missing_index_stay_apart(index: int | None) -> None:
    """Two calls with ids of their own are two, whatever the index says."""
    decoder, _ = read(
        chunk({"tool_calls": [call(index, "call_a", "look", '{"a":1}')]}),
        chunk({"tool_calls": [call(index, "call_b", "look", '{"a":2}')]}, "tool_calls"),
    )
    assert [("call_a", "look", {"a": 1}), ("call_b", "look", {"a": 2})] == calls_of(
        decoder.finish()
    )


def test_a_call_without_an_id_is_given_one() -> None:
    """Some servers name none: it is made from the answer, equal for an equal one."""
    made = {"tool_calls": [call(None, None, "look", {"a": 1})]}
    ids = {plain(made, "tool_calls").tool_calls[0].id for _ in range(2)}
    assert 1 == len(ids)
    assert 9 == len(ids.pop())


def test_the_old_form_of_a_call_is_read() -> None:
    """`function_call` is a call without an id, and its finish reason is ours."""
    decoder, _ = read(
        chunk({"function_call": {"name": "look", "arguments": ""}}),
        chunk({"function_call": {"arguments": '{"a":1}'}}),
        chunk({}, "function_call"),
    )
    response = decoder.finish()
    assert ("look", {"a": 1}) == calls_of(response)[0][1:]
    assert "tool_calls" == response.finish_reason


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_of_compatible_servers_comes_apart(field: str) -> None:
    """Both names that are in use are thoughts, streamed and plain, with text in one delta too."""
    decoder, events = read(
        chunk({"role": "assistant", "content": None, field: "h"}),
        chunk({"content": "", field: "m"}),
        chunk({"content": "So", field: None}),
        chunk({"content": " it is"}, "stop"),
    )
    response = decoder.finish()
    expected = (ThinkingPart((TextPart("hm"),)), TextPart("So it is"))
    assert expected == response.message.content
    assert ["h", "m"] == [e.text for e in events if isinstance(e, ThinkingDelta)]
    assert expected == plain({"content": "So it is", field: "hm"}).message.content


def test_thinking_under_both_names_is_taken_once() -> None:
    """A relay between two versions sends the same text twice."""
    response = plain({"content": "So", "reasoning_content": "hm", "reasoning": "hm"})
    assert "hm" == response.thinking


def test_a_refusal_is_text_with_an_ending_of_its_own() -> None:
    """A person reads it as the answer, and a program can tell."""
    decoder, events = read(
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"refusal": "I cannot"}),
        chunk({"refusal": " do that."}),
        chunk({}, "stop"),
    )
    response = decoder.finish()
    assert ("I cannot do that.", "refusal") == (response.content, response.finish_reason)
    assert response.finish_reason_known
    assert Finished("refusal") == events[-1]
    whole = plain({"content": None, "refusal": "I cannot do that."})
    assert ("I cannot do that.", "refusal") == (whole.content, whole.finish_reason)


def test_an_answer_that_the_filter_cut_says_so() -> None:
    """`content_filter` is a known ending; the text so far is kept."""
    decoder, _ = read(chunk({"content": "a"}), chunk({}, "content_filter"))
    response = decoder.finish()
    assert ("a", "content_filter", True) == (
        response.content,
        response.finish_reason,
        response.finish_reason_known,
    )


def test_details_of_usage() -> None:
    """Cached, thought and heard tokens have fields of their own; sound stands beside the text."""
    usage = plain(
        {"content": "a"},
        usage={
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 10},
            "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 0},
        },
        service_tier="default",
    ).usage
    assert (90, 50, 150, 64, 10, 30, "default") == (
        usage.input_tokens,
        usage.output_tokens,
        usage.total_tokens,
        usage.cached_tokens,
        usage.audio_tokens,
        usage.reasoning_tokens,
        usage.service_tier,
    )


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": 1},
     {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": 10**12}],
)  # fmt: skip
def test_absent_or_absurd_usage_is_marked(usage: Any) -> None:
    """Garbage is not billed: it is marked as estimated."""
    assert plain({"content": "a"}, usage=usage).usage.estimated


def test_zero_usage_is_a_count_and_bad_details_cost_only_themselves() -> None:
    """0 is not "missing"; details that cannot be read do not take the counts with them."""
    zero = plain({"content": "a"}, usage={"prompt_tokens": 0, "completion_tokens": 0}).usage
    assert (False, 0) == (zero.estimated, zero.total_tokens)
    odd = {**USAGE, "prompt_tokens_details": {"cached_tokens": -5}}
    assert (3, 0) == (
        plain({"content": "a"}, usage=odd).usage.input_tokens,
        plain({"content": "a"}, usage=odd).usage.cached_tokens,
    )


def test_chunks_of_a_content_list_are_read() -> None:
    """A relay of another vendor may send a list: texts are text, the rest is kept whole."""
    content = [{"type": "text", "text": "As said"}, {"type": "reference", "reference_ids": [0]}]
    decoder, events = read(chunk({"content": content}), chunk({}, "stop"))
    part = RawPart("reference", {"reference_ids": [0]})
    assert (TextPart("As said"), part) == decoder.finish().message.content
    assert PartReceived(part) in events
    refused = plain({"content": [{"type": "refusal", "refusal": "No."}]})
    assert ("No.", "refusal") == (refused.content, refused.finish_reason)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "x", "type": "server_error", "code": None}, ServiceUnavailable),
        ({"message": "x", "type": "tokens", "code": "rate_limit_exceeded"}, RateLimited),
        ({"message": "x", "code": 429}, RateLimited),
        ({"message": "x", "code": "content_filter"}, ContentBlocked),
        ("boom", ServiceUnavailable),
    ],
)
def test_an_error_inside_a_stream_is_raised(error: Any, kind: type[LoomError]) -> None:
    """An error event of a 200 stream is the class of its status, with what came before."""
    decoder, _ = read(chunk({"content": "Hel"}))
    with pytest.raises(kind) as caught:
        decoder.feed(b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    assert caught.value.partial is not None
    assert "Hel" == caught.value.partial.text
    with pytest.raises(kind):
        DIALECT.decode_response(json.dumps({"error": error}).encode(), {})


def test_an_event_that_cannot_be_read_is_refused_or_skipped() -> None:
    """With `skip_bad_events` it is left out and counted."""
    decoder, _ = read(chunk({"content": "Hel"}))
    lenient = copy.copy(decoder)
    lenient.skip_bad_events = True
    with pytest.raises(MalformedReply):
        decoder.feed(b"data: {nonsense\n\n")
    lenient.feed(b"data: {nonsense\n\n" + chunk({"content": "lo"}, "stop") + DONE)
    assert "Hello" == lenient.finish().content
    assert 1 == lenient.finish().metadata["skipped_events"]


def test_fields_of_another_type_do_not_fail_the_call() -> None:
    """What is not needed may be anything; what was said is kept."""
    response = plain({"content": "a", "reasoning": "hm", "refusal": 7, "tool_calls": [3]}, id=7)
    assert ("a", "hm") == (response.content, response.thinking)
    decoder, _ = read(chunk({"content": "b", "reasoning_content": ["x"]}, "stop", index=None))
    assert "b" == decoder.finish().content


def test_a_stream_for_a_plain_request_is_read() -> None:
    """A body of events is an answer all the same."""
    body = chunk({"content": "a"}) + chunk({}, "stop") + chunk(usage=USAGE) + DONE
    response = DIALECT.decode_response(body, {"x-request-id": "req_1"})
    assert ("a", "req_1") == (response.content, response.request_id)


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1]", b'{"choices": []}', b"[" * 100_000,
     b'{"choices":[{"message":{"content":[1]}}]}'])  # fmt: skip
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    """Truncated, nested or wrong: one typed error."""
    with pytest.raises(MalformedReply):
        DIALECT.decode_response(body, {})
