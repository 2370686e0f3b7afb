"""A stream is handed on as it came, in whole events, and read on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.recorded import chat_exchanges

from loom.core.errors import LoomError, StreamTruncated
from loom.core.events import Relayed
from loom.wire.mistral.dialect import MistralDialect
from loom.wire.relay import RelayDecoder

STREAMS = [each for each in chat_exchanges() if each.stream and each.status == 200]
DONE = b"data: [DONE]\n\n"


def relay(*pieces: bytes, choices: int = 1) -> tuple[bytes, RelayDecoder, int]:
    decoder = RelayDecoder(MistralDialect().decoder({}, choices))
    out, said = b"", 0
    for piece in pieces:
        for event in decoder.feed(piece):
            assert isinstance(event, Relayed)
            assert event.data.endswith((b"\n\n", b"\n\r\n", b"\r\r"))
            out += event.data
            said += event.said
    return out, decoder, said


@pytest.mark.parametrize("exchange", STREAMS, ids=str)
def test_a_recorded_stream_comes_out_as_it_went_in(exchange: object) -> None:
    """Every byte but the sentinel; and the answer that was read is the decoder's own."""
    body: bytes = exchange.body  # type: ignore[attr-defined]  # typed where it is made
    choices: int = exchange.choices  # type: ignore[attr-defined]  # the same
    out, decoder, said = relay(body, choices=choices)
    # Two recorders cut the blank line after it off.
    assert body.replace(DONE, b"").removesuffix(b"data: [DONE]") == out
    plain = MistralDialect().decoder({}, choices)
    plain.feed(body)
    answer = decoder.finish()
    assert plain.finish() == answer
    assert said >= len(answer.content)


@given(cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_any_cut_gives_the_same_bytes(cuts: list[int]) -> None:
    """Events leave whole, wherever the network cut them."""
    if not STREAMS:
        return
    body = STREAMS[0].body
    places = sorted({min(cut, len(body)) for cut in cuts})
    pieces = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    whole, _, said = relay(body)
    out, decoder, also = relay(*pieces)
    assert whole == out
    assert said == also
    assert decoder.complete


def test_half_an_event_stays_behind() -> None:
    """What is cut in the middle of an event is never handed on."""
    text = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    out, decoder, _ = relay(text + b"data: {")
    assert text == out
    with pytest.raises(StreamTruncated) as caught:
        decoder.finish()
    assert caught.value.partial is not None
    assert "a" == caught.value.partial.text


def test_an_error_in_the_stream_is_raised_and_not_handed_on() -> None:
    """The caller is told in his own dialect, once."""
    text = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    error = b'data: {"object": "error", "message": "broken", "type": "x", "code": 1}\n\n'
    for pieces in ((text, text + error + text), (text + text + error,)):
        out, decoder, _ = relay(*pieces)
        assert text + text == out
        with pytest.raises(LoomError, match="broken"):
            decoder.finish()


def test_an_error_behind_the_end_is_told_once() -> None:
    """The last word of the answer goes on, the error behind it does not."""
    chunk = b'{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}'
    text = b"data: " + chunk + b"\n\n"
    error = b'data: {"object": "error", "message": "broken", "type": "x", "code": 1}\n\n'
    out, decoder, _ = relay(text + error)
    assert text == out
    with pytest.raises(LoomError, match="broken"):
        decoder.finish()


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"])
def test_carriage_returns_end_events_too(end: bytes) -> None:
    """A relay that writes CRLF, or CR, is handed on as it writes, comments with LF before it."""
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}' + end
    out, _, said = relay(event[:20], event[20:] + b": ping\n\n" + event)
    assert event + b": ping\n\n" + event == out
    assert 2 == said
