"""Answers in every form that was seen or may come: read, or refused with what had arrived."""

import copy
import json
from typing import Any

import pytest

from loom.core.errors import (
    LoomError,
    MalformedReply,
    RateLimited,
    ReplyTooLarge,
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
from loom.core.messages import Message, RawPart, ReferencePart, TextPart, ThinkingPart
from loom.core.response import LLMResponse
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.mistral.reply import MistralDecoder

DIALECT = MistralDialect()
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def chunk(
    delta: dict[str, Any] | None = None,
    reason: str | None = None,
    usage: Any = None,
    index: Any = 0,
    **more: Any,
) -> bytes:
    """One event as a vendor writes it."""
    body: dict[str, Any] = {"id": "a1", "object": "chat.completion.chunk", "created": 1}
    body |= {"model": "m", "choices": [], **more}
    if delta is not None:
        body["choices"] = [{"index": index, "delta": delta, "finish_reason": reason}]
    if usage is not None:
        body["usage"] = usage
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def read(*chunks: bytes, choices: int = 1) -> tuple[MistralDecoder, list[Any]]:
    decoder = DIALECT.decoder({}, choices)
    return decoder, [event for data in chunks for event in decoder.feed(data)]


def call(index: Any, id_: Any, name: Any, arguments: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"function": {"name": name, "arguments": arguments}}
    if id_ is not None:
        made["id"] = id_
    if index is not None:
        made["index"] = index
    return {"tool_calls": [made]}


def calls_of(response: LLMResponse) -> list[tuple[str, dict[str, Any]]]:
    return [(made.name, made.input) for made in response.tool_calls]


def plain(message: dict[str, Any], **more: Any) -> LLMResponse:
    body = {"id": "a1", "model": "m", "usage": USAGE, "created": 1, **more}
    body.setdefault("choices", [{"index": 0, "finish_reason": "stop", "message": message}])
    return DIALECT.decode_response(json.dumps(body).encode(), {})


def test_events_of_a_text_stream() -> None:
    """Text, finish and usage are events; the opening empty text is none."""
    _, events = read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}, p="abc"),
        chunk({"content": "lo"}, "stop", USAGE),
        b"data: [DONE]\n\n",
    )
    kinds = [type(event) for event in events]
    assert [TextDelta, TextDelta, Finished, UsageReported] == kinds


def test_fragments_of_calls_are_joined_by_index() -> None:
    """OpenAI-style fragments (zai-glm): id and name first, then arguments, then the finish."""
    decoder, _ = read(
        chunk(call(0, "chatcmpl-tool-1", "look", "")),
        chunk(call(0, None, "", '{"a":')),
        chunk(call(1, "chatcmpl-tool-2", "hear", "{}")),
        chunk(call(0, "", None, "1}")),
        chunk({"content": ""}, "tool_calls", USAGE),
    )
    assert [("look", {"a": 1}), ("hear", {})] == calls_of(decoder.finish())


@pytest.mark.parametrize("index", [None, 0])
def test_whole_calls_with_a_wrong_or_missing_index_stay_apart(index: int | None) -> None:
    """Two calls with ids of their own are two, whatever the index says."""
    decoder, _ = read(
        chunk(call(index, "aaaaaaaaa", "look", '{"a":1}')),
        chunk(call(index, "bbbbbbbbb", "look", '{"a":2}'), "tool_calls", USAGE),
    )
    assert [("look", {"a": 1}), ("look", {"a": 2})] == calls_of(decoder.finish())


def test_fragment_without_index_and_id_belongs_to_the_last_call() -> None:
    """A relay that names nothing on later fragments is understood."""
    decoder, _ = read(
        chunk(call(None, "aaaaaaaaa", "look", '{"a":')),
        chunk(call(None, None, None, "1}"), "tool_calls", USAGE),
    )
    assert [("look", {"a": 1})] == calls_of(decoder.finish())


def test_two_whole_calls_with_one_id_get_two() -> None:
    """The second of two calls with one id is given another, so that results can be told apart."""
    made = [{"id": "null", "function": {"name": "look", "arguments": "{}"}}] * 2
    response = plain({"content": "", "tool_calls": made})
    one, two = response.tool_calls
    assert "null" == one.id
    assert one.id != two.id


def test_call_without_id_is_given_one() -> None:
    """A call always has an id; it is the same each time the same answer is read."""
    made = [{"function": {"name": "look", "arguments": "{}"}}]
    ids = {plain({"content": "", "tool_calls": made}).tool_calls[0].id for _ in range(2)}
    assert len(ids) == 1
    assert len(ids.pop()) == 9


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ("{}", {}), ({"a": 1}, {"a": 1}), (None, {}), ('{"a": 1}', {"a": 1})],
)
def test_arguments_in_each_form(arguments: Any, expected: dict[str, Any]) -> None:
    """Arguments come as a string, a dict, empty or not at all."""
    made = [{"id": "aaaaaaaaa", "function": {"name": "look", "arguments": arguments}}]
    response = plain({"content": "", "tool_calls": made})
    assert expected == response.tool_calls[0].input
    assert response.tool_calls[0].problem is None


def test_cut_arguments_keep_their_text() -> None:
    """A call cut by max_tokens keeps what came, and says that it is not whole."""
    made = [{"id": "aaaaaaaaa", "function": {"name": "look", "arguments": '{"a": "Par'}}]
    made_call = plain({"content": "", "tool_calls": made}).tool_calls[0]
    assert '{"a": "Par' == made_call.arguments
    assert {} == made_call.input
    assert "not valid JSON" in str(made_call.problem)


def test_thinking_comes_apart_from_text_and_goes_back_whole() -> None:
    """Thinking is a list of chunks; it is exposed apart, merged when streamed, and kept."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
    decoder, events = read(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]}),
        chunk({"content": [thought, {"type": "text", "text": "So"}]}),
        chunk({"content": " it is"}, "stop", USAGE),
    )
    response = decoder.finish()
    assert "ahm" == response.thinking
    assert "So it is" == response.content
    expected = (ThinkingPart((TextPart("ahm"),), closed=True), TextPart("So it is"))
    assert expected == response.message.content
    assert ["a", "hm"] == [e.text for e in events if isinstance(e, ThinkingDelta)]


def test_a_signature_on_a_thought_survives_the_round_trip() -> None:
    """Unknown fields of a thought and references in it go out as they came in."""
    thought = {
        "type": "thinking",
        "thinking": [
            {"type": "text", "text": "hm"},
            {"type": "reference", "reference_ids": [1, "b"]},
        ],
        "closed": True,
        "signature": "s3",
    }
    content = [thought, {"type": "text", "text": "So"}, {"type": "new_kind", "x": 1}]
    response = plain({"content": content})
    assert "hm" == response.thinking
    body = DIALECT.encode_response(response)
    assert content == json.loads(body)["choices"][0]["message"]["content"]


def test_a_reference_in_a_stream_is_an_event_and_a_part() -> None:
    """What is neither text nor thinking is handed on as a part."""
    decoder, events = read(
        chunk({"content": "As said"}),
        chunk({"content": [{"type": "reference", "reference_ids": [0]}, {"type": "x", "y": 1}]}),
        chunk({"content": "."}, "stop", USAGE),
    )
    parts = (TextPart("As said"), ReferencePart((0,)), RawPart("x", {"y": 1}), TextPart("."))
    assert parts == decoder.finish().message.content
    assert 2 == sum(isinstance(event, PartReceived) for event in events)


def test_several_answers_are_kept_apart() -> None:
    """n=2: chunks interleave; usage comes with the last; the stream is whole only then."""
    decoder, _ = read(
        chunk({"content": "a"}, index=1),
        chunk({"content": "b"}, index=0),
        chunk({"content": ""}, "stop", index=1),
        choices=2,
    )
    assert not decoder.finished
    with pytest.raises(StreamTruncated):
        copy.copy(decoder).finish()
    decoder.feed(chunk({"content": ""}, "length", USAGE, index=0))
    response = decoder.finish()
    assert ["b", "a"] == [choice.message.text for choice in response.choices]
    assert ["length", "stop"] == [choice.finish_reason for choice in response.choices]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            {"object": "error", "type": "rate_limited", "message": "Rate limit exceeded"},
            RateLimited,
        ),
        ({"object": "error", "message": "x", "raw_status_code": 503}, ServiceUnavailable),
        ({"error": {"message": "boom", "type": "server_error"}}, ServiceUnavailable),
        ({"error": "boom"}, ServiceUnavailable),
        ({"detail": "boom"}, ServiceUnavailable),
    ],
)
def test_an_error_inside_a_stream_is_raised(body: dict[str, Any], kind: type[LoomError]) -> None:
    """An error event of a 200 stream is the class of its status, with what came before."""
    decoder = DIALECT.decoder({})
    decoder.feed(chunk({"content": "Hel"}))
    with pytest.raises(kind) as caught:
        decoder.feed(b"data: " + json.dumps(body).encode() + b"\n\n")
    assert caught.value.partial is not None
    assert "Hel" == caught.value.partial.text


def test_events_before_an_error_are_handed_on_first() -> None:
    """Text and error in one piece of bytes: the text comes out, then the error."""
    decoder = DIALECT.decoder({})
    events = decoder.feed(chunk({"content": "Hel"}) + b'data: {"error": "boom"}\n\n')
    assert [TextDelta("Hel")] == events
    assert decoder.complete
    with pytest.raises(ServiceUnavailable) as caught:
        decoder.finish()
    assert caught.value.partial is not None
    assert "Hel" == caught.value.partial.text


def test_an_error_body_with_status_200_is_raised() -> None:
    """A plain 200 that holds an error is that error."""
    with pytest.raises(RateLimited):
        DIALECT.decode_response(b'{"object":"error","type":"rate_limited","message":"x"}', {})


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[1]", b'{"choices": []}', b'{"choices": 3}', b"[" * 100_000,
     b'{"choices":[{"message":{"content":"\xff"}}]}', b'{"choices":[{"message":{"content":[1]}}]}'],
)  # fmt: skip
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    """Truncated, nested, wrong or not UTF-8: one typed error."""
    with pytest.raises(MalformedReply):
        DIALECT.decode_response(body, {})


@pytest.mark.parametrize(
    "event", [b"{", b"[]", b'{"choices":[{"delta":{"content":"\xff"}}]}', b"[" * 100_000]
)
def test_a_malformed_event_is_refused_with_what_came(event: bytes) -> None:
    """A stream with a broken event ends in an error that holds the text so far."""
    decoder = DIALECT.decoder({})
    decoder.feed(chunk({"content": "Hel"}))
    with pytest.raises(MalformedReply) as caught:
        decoder.feed(b"data: " + event + b"\n\n")
    assert caught.value.partial is not None
    assert "Hel" == caught.value.partial.text


def test_an_event_too_large_is_refused() -> None:
    """More than 4 MiB in one event ends the stream."""
    decoder = DIALECT.decoder({})
    with pytest.raises(ReplyTooLarge):
        for _ in range(70):
            decoder.feed(b"data: " + b"x" * 65536)


def test_fields_of_another_type_do_not_fail_the_call() -> None:
    """What is not needed may be anything: ids, counts, indices, unknown finish reasons."""
    response = plain(
        {},
        id=7,
        created="yesterday",
        usage="none",
        choices=[{"index": "x", "finish_reason": "because", "message": {"content": "a"}}],
    )
    assert "a" == response.content
    assert "because" == response.finish_reason
    assert response.usage.estimated
    decoder, _ = read(chunk({"content": "b", "tool_calls": [7]}, "stop", [1], index=None, id=3))
    assert "b" == decoder.finish().content


@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": -1, "completion_tokens": 1}, {"prompt_tokens": 1e400},
     {"prompt_tokens": True, "completion_tokens": 1}, {"prompt_tokens": 10**12}],
)  # fmt: skip
def test_absent_or_absurd_usage_is_marked(usage: Any) -> None:
    """Garbage is not billed: it is marked as estimated."""
    assert plain({"content": "a"}, usage=usage).usage.estimated


def test_zero_usage_is_a_count() -> None:
    """0 is not "missing"."""
    usage = plain({"content": "a"}, usage={"prompt_tokens": 0, "completion_tokens": 0}).usage
    assert not usage.estimated
    assert 0 == usage.total_tokens


def test_nothing_after_done_is_read() -> None:
    """What follows `[DONE]` is ignored."""
    decoder, _ = read(chunk({"content": "a"}, "stop", USAGE), b"data: [DONE]\n\n")
    assert [] == decoder.feed(b"data: nonsense\n\n")
    assert "a" == decoder.finish().content


def test_a_usage_only_chunk_ends_the_answer() -> None:
    """OpenAI's family sends usage in a chunk of its own, without choices."""
    decoder, _ = read(chunk({"content": "a"}, "stop"))
    assert decoder.finished
    assert not decoder.complete
    decoder.feed(chunk(usage=USAGE))
    assert decoder.complete
    assert 7 == decoder.finish().usage.total_tokens


def test_a_stream_in_a_plain_reply_is_read() -> None:
    """A server that streams although it was not asked to is understood."""
    body = chunk({"content": "a"}, "stop", USAGE) + b"data: [DONE]\n\n"
    assert "a" == DIALECT.decode_response(body, {}).content


def test_done_without_any_chunk_is_no_answer() -> None:
    """A stream that holds only its end is truncated, not empty."""
    decoder, _ = read(b"data: [DONE]\n\n")
    with pytest.raises(StreamTruncated):
        decoder.finish()


def test_call_deltas_carry_the_place() -> None:
    """Events of calls count from 0, whatever the vendor's index."""
    _, events = read(chunk(call(None, "aaaaaaaaa", "look", "{}"), "tool_calls", USAGE))
    deltas = [event for event in events if isinstance(event, ToolCallDelta)]
    assert [(0, "aaaaaaaaa", "look", "{}")] == [
        (d.index, d.id, d.name, d.arguments) for d in deltas
    ]


def test_a_message_goes_back_as_history() -> None:
    """`response.message` can be appended to the history as it is."""
    response = plain({"content": "a"})
    assert Message.assistant("a") == response.message


def test_a_second_call_with_the_same_id_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """The log says that it was given another id, once and not with each look (row 42)."""
    one, other = (call(i, "same00000", "f", "{}") for i in (0, 1))
    decoder, _ = read(chunk(one), chunk(other, "tool_calls", USAGE))
    decoder.partial()
    first, second = decoder.finish().tool_calls
    assert "same00000" == first.id != second.id
    assert 1 == len(caplog.records)
    assert "'same00000'" in caplog.messages[0]


def test_a_new_finish_reason_is_known_to_be_new() -> None:
    """It is kept as it came, and `finish_reason_known` is False (row 45)."""
    new, _ = read(chunk({"content": "x"}, "paused", USAGE))
    old, _ = read(chunk({"content": "x"}, "length", USAGE))
    assert ("paused", False) == (new.finish().finish_reason, new.finish().finish_reason_known)
    assert ("length", True) == (old.finish().finish_reason, old.finish().finish_reason_known)


@pytest.mark.parametrize("status", [101, 204, 205])
def test_a_status_that_is_no_answer_is_not_asked_for_again(status: int) -> None:
    """The same would come the next time (row 41)."""
    error = DIALECT.decode_error(status, {}, b"")
    assert (MalformedReply, False) == (type(error), error.retryable)
