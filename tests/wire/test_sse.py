"""Any cut of the bytes gives the same events, by the rules of the standard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ReplyTooLarge
from loom.wire.sse import SSEDecoder, encode_event

LINES = st.lists(
    st.sampled_from(
        [b"data: a", b"data:b", b"data", b"data:  c", b": ping", b"event: x", b"id: 1", b"", b"",
         b"retry: 5", b"datax: no", "data: é€".encode(), b'data: {"x":1}']
    ),
    max_size=14,
)  # fmt: skip
ENDS = st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=14, max_size=14)


def by_the_standard(raw: bytes) -> list[bytes]:
    """The standard's algorithm, written plainly: lines first, then fields."""
    text = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events, data = [], None
    for line in text.split(b"\n")[:-1]:
        if line == b"":
            if data is not None:
                events.append(b"\n".join(data))
            data = None
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            data = [*(data or []), value.removeprefix(b" ") if b":" in line else b""]
    return events


@given(LINES, ENDS, st.integers(0, 1), st.lists(st.integers(0, 200), max_size=8))
def test_every_cut_gives_the_events_of_the_standard(
    lines: list[bytes], ends: list[bytes], bom: int, cuts: list[int]
) -> None:
    """CR, LF, CRLF, comments, a BOM, several data lines: the same however the bytes are cut."""
    raw = b"".join(line + end for line, end in zip(lines, ends, strict=False))
    raw = b"\xef\xbb\xbf" * bom + raw
    decoder, events, start = SSEDecoder(), [], 0
    for cut in [*sorted(cuts), len(raw)]:
        events += decoder.feed(raw[start:cut])
        start = max(start, min(cut, len(raw)))
    # A CR that ends the whole stream may still be followed by LF; the event it ends is out.
    assert by_the_standard(raw) == events


@given(st.binary(max_size=60).filter(lambda raw: b"\r" not in raw))
def test_an_encoded_event_is_decoded_again(data: bytes) -> None:
    """What the server role frames, the client role unframes."""
    expected = b"\n".join(data.split(b"\n")) if not data.endswith(b"\n") else data[:-1]
    assert [expected] == SSEDecoder().feed(encode_event(data))


def test_bytes_one_by_one_give_the_same() -> None:
    """A stream that comes in single bytes is read as one that comes whole."""
    raw = b"\xef\xbb\xbfdata: 1\r\n\r\n:x\n\ndata: 2\ndata: 3\n\n"
    decoder = SSEDecoder()
    assert [b"1", b"2\n3"] == [e for i in range(len(raw)) for e in decoder.feed(raw[i : i + 1])]


def test_an_event_over_the_limit_is_refused() -> None:
    """A line without end does not fill the memory."""
    decoder = SSEDecoder(max_event_bytes=1000)
    with pytest.raises(ReplyTooLarge):
        for _ in range(200):
            decoder.feed(b"data: " + b"x" * 100)


def test_a_whole_event_over_the_limit_is_refused() -> None:
    """The limit holds for an event that comes in one piece as well."""
    with pytest.raises(ReplyTooLarge):
        SSEDecoder(max_event_bytes=1000).feed(b"data: " + b"x" * 2000 + b"\n\n")


def test_a_copy_is_independent() -> None:
    """What a copy is fed does not reach the original."""
    decoder = SSEDecoder()
    decoder.feed(b"data: a")
    twin = decoder.copy()
    assert [b"ab"] == twin.feed(b"b\n\n")
    assert [b"ac"] == decoder.feed(b"c\n\n")


def test_nothing_is_fed_without_harm() -> None:
    """An empty piece changes nothing, behind a CR either."""
    decoder = SSEDecoder()
    assert [] == decoder.feed(b"")
    assert [] == decoder.feed(b"data: a\r")
    assert [] == decoder.feed(b"")
    assert [b"a"] == decoder.feed(b"\n\r\n")
