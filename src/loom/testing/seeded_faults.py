"""
Everything that a vendor in memory does wrong, as scripts: a table of name, weight and script.

A script is a generator: it writes to the connection and yields the seconds until it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from email.utils import format_datetime
from typing import Literal, NamedTuple, Protocol, TypeAlias

from loom.core.ambient import Clock
from loom.testing.chance import Chance
from loom.testing.seeded_answers import (
    DONE,
    END,
    STREAM,
    Piece,
    chunked,
    error_body,
    event,
    http_head,
    plain_body,
)

__all__ = ["FAULTS", "FOR_EVER_S", "Fault", "Script", "Serving", "good"]

FOR_EVER_S = float("inf")
"""What a script yields when it does nothing more."""

_JSON = {"content-type": "application/json"}
_HTML = {"content-type": "text/html"}
# Names of errors: contract/mistral.md, section 6.
_KINDS = {429: ("rate_limited", "1300"), 500: ("internal_server_error", "1000")}


class Serving(Protocol):
    """A request that is being answered."""

    chance: Chance
    clock: Clock
    stream: bool
    head: Mapping[str, str]
    pieces: Sequence[Piece]

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def whole(self) -> None:
        """Take note that a client which got everything so far has the whole answer."""

    def status(self, status: int, retry_after_s: float | None) -> None:
        """Take note of an error status, and of the wait that is asked for."""

    def close(self) -> None:
        """End the connection."""

    def reset(self) -> None:
        """Break the connection."""


Script: TypeAlias = Iterator[float]

_Waits: TypeAlias = tuple[Sequence[tuple[str, str]], float | None]
"""Headers, and the seconds that a client shall read in them."""


class Fault(NamedTuple):
    """
    One row of the table.

    Attributes:
        weight: How often it is drawn, beside the others.
        asked: The kind of request that it is for; "any" for both.
        script: What is done.
    """

    weight: float
    asked: Literal["any", "stream", "plain"]
    script: Callable[[Serving], Script]


def good(s: Serving) -> Script:
    """
    Answer as asked.

    Args:
        s: The request.
    """
    yield from _streamed(s) if s.stream else _plain(s)


def _finish(s: Serving) -> str:
    return "stop" if isinstance(s.pieces[-1], str) else "tool_calls"


def _think(s: Serving) -> float:
    return s.chance.between(0.0, 0.6)


def _plain(s: Serving) -> Script:
    yield _think(s)
    body = plain_body(s.head, s.pieces)
    form = s.chance.pick(("length", "length", "chunked", "unframed"))
    if form == "length":
        s.write(http_head(200, {**_JSON, "content-length": str(len(body))}) + body)
    elif form == "chunked":
        s.write(http_head(200, {**_JSON, "transfer-encoding": "chunked"}))
        cut = s.chance.whole(1, len(body) - 1)
        s.write(chunked(body[:cut]))
        yield s.chance.between(0.0, 0.2)
        s.write(chunked(body[cut:]) + END)
    else:
        s.write(http_head(200, {**_JSON, "connection": "close"}) + body)
        s.close()
    s.whole()


def _some(s: Serving, most: int | None = None) -> Script:
    """Begin a stream: its headers and some of its events."""
    yield _think(s)
    s.write(http_head(200, STREAM))
    gap_s = s.chance.pick((0.0, 0.0, 0.05, 0.4))
    for piece in s.pieces[:most]:
        s.write(chunked(event(s.head, piece)))
        if gap_s:
            yield s.chance.between(0.0, 2 * gap_s)


def _part(s: Serving) -> Script:
    """Begin a stream and leave it before its last event."""
    yield from _some(s, s.chance.whole(0, len(s.pieces) - 1))


def _streamed(s: Serving) -> Script:
    yield from _some(s)
    s.write(chunked(event(s.head, "", finish=_finish(s), usage=True) + DONE) + END)
    s.whole()


def _ending(tail: Callable[[Serving], bytes], *, whole: bool) -> Callable[[Serving], Script]:
    """Make a script that sends all pieces, then an odd end."""

    def script(s: Serving) -> Script:
        yield from _some(s)
        last = tail(s)
        s.write(last)
        if whole:
            s.whole()
        if not last.endswith(END):
            yield FOR_EVER_S

    return script


def _last(s: Serving) -> bytes:
    return event(s.head, "", finish=_finish(s), usage=True)


def _cut(s: Serving) -> Script:
    yield from _part(s)
    s.close()


def _unframed_cut(s: Serving) -> Script:
    yield _think(s)
    s.write(http_head(200, {"content-type": "text/event-stream"}))
    for piece in s.pieces[:-1]:
        s.write(event(s.head, piece))
    s.close()


def _reset(s: Serving) -> Script:
    yield from _part(s)
    s.reset()


def _stall(s: Serving) -> Script:
    yield from _part(s)
    yield FOR_EVER_S


def _no_finish(s: Serving) -> Script:
    yield from _part(s)
    s.write(END)


def _half_event(s: Serving) -> Script:
    yield from _part(s)
    s.write(chunked(event(s.head, s.pieces[-1])[:-9]) + END)


def _bad_event(s: Serving) -> Script:
    sent = s.chance.whole(0, len(s.pieces))
    yield from _some(s, sent)
    s.write(chunked(b'data: {"id": "broken, "choices"\n\n'))
    yield 0.01
    rest = b"".join(event(s.head, piece) for piece in s.pieces[sent:])
    s.write(chunked(rest + _last(s) + DONE) + END)
    s.whole()  # for who leaves the broken event out


def _error_event(s: Serving) -> Script:
    yield from _part(s)
    status = s.chance.pick((500, 503, 429))
    kind, code = _KINDS.get(status, ("internal_server_error", None))
    s.write(chunked(b"data: %s\n\n" % error_body(status, "no more", kind, code)) + END)


def _comments(s: Serving) -> Script:
    yield from _part(s)
    while True:
        s.write(chunked(b": still here\n\n"))
        yield 0.9


def _json_instead(s: Serving) -> Script:
    yield from _plain(s)


def _stream_instead(s: Serving) -> Script:
    yield from _streamed(s)


def _silence(_s: Serving) -> Script:
    yield FOR_EVER_S


def _close_first(s: Serving) -> Script:
    yield _think(s)
    s.close()


def _reset_first(s: Serving) -> Script:
    yield _think(s)
    s.reset()


def _slow(s: Serving) -> Script:
    yield s.chance.between(0.5, 8.0)
    yield from good(s)


def _garbage(s: Serving) -> Script:
    yield _think(s)
    s.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
    s.close()


def _short(s: Serving) -> Script:
    yield _think(s)
    body = plain_body(s.head, s.pieces)
    s.write(http_head(200, {**_JSON, "content-length": str(len(body) + 40)}) + body[:-20])
    s.close()


def _broken_body(end: Callable[[Serving], object]) -> Callable[[Serving], Script]:
    def script(s: Serving) -> Script:
        yield _think(s)
        body = plain_body(s.head, s.pieces)
        head = http_head(200, {**_JSON, "content-length": str(len(body))})
        s.write(head + body[: s.chance.whole(0, len(body) - 1)])
        end(s)
        yield FOR_EVER_S

    return script


def _said(
    headers: Mapping[str, str], body: bytes, status: int = 200
) -> Callable[[Serving], Script]:
    def script(s: Serving) -> Script:
        yield _think(s)
        if status != 200:
            s.status(status, None)
        s.write(http_head(status, {**headers, "content-length": str(len(body))}) + body)

    return script


def _half_json(s: Serving) -> Script:
    yield _think(s)
    body = plain_body(s.head, s.pieces)[:-30]
    s.write(http_head(200, {**_JSON, "content-length": str(len(body))}) + body)


def _refusal(
    status: int,
    waits: Callable[[Serving], tuple[Sequence[tuple[str, str]], float | None]] = lambda _: (
        (),
        None,
    ),
    *,
    code: str | None = None,
) -> Callable[[Serving], Script]:
    """Make a script that answers with an error status."""

    def script(s: Serving) -> Script:
        yield _think(s)
        more, asked_s = waits(s)
        s.status(status, asked_s)
        kind, known = _KINDS.get(status, ("", None))
        body = error_body(status, f"refused with {status}", kind, code or known)
        pairs = [*_JSON.items(), *more, ("content-length", str(len(body)))]
        s.write(http_head(status, pairs) + body)

    return script


def _seconds(s: Serving) -> _Waits:
    asked_s = s.chance.whole(0, 6)
    return [("Retry-After", str(asked_s))], asked_s


def _milliseconds(s: Serving) -> _Waits:
    asked_ms = s.chance.whole(1, 4000)
    # The seconds are for clients that do not know the other header.
    return [("retry-after-ms", str(asked_ms)), ("Retry-After", "9")], asked_ms / 1000


def _huge(_s: Serving) -> _Waits:
    return [("Retry-After", "86400")], 86400.0


def _date(s: Serving) -> _Waits:
    asked_s = s.chance.whole(0, 5)
    # The vendor's clock is an hour ahead of ours: its own `date` tells.
    now = (s.clock.now() + timedelta(hours=1)).replace(microsecond=0)
    until = now + timedelta(seconds=asked_s)
    dates = [("date", format_datetime(now, usegmt=True))]
    return [*dates, ("Retry-After", format_datetime(until, usegmt=True))], asked_s


def _junk(s: Serving) -> _Waits:
    word = s.chance.pick(("soon", "-5", "NaN", "1e3", ""))
    return [("Retry-After", word)], None


def _twice(_s: Serving) -> _Waits:
    return [("Retry-After", "1"), ("Retry-After", "30")], None


def _no_plan(_s: Serving) -> _Waits:
    return [("x-ratelimit-limit-req-minute", "0")], None


FAULTS: dict[str, Fault] = {
    "slow": Fault(3, "any", _slow),
    "silence": Fault(2, "any", _silence),
    "closed first": Fault(2, "any", _close_first),
    "reset first": Fault(2, "any", _reset_first),
    "not http": Fault(1, "any", _garbage),
    "html": Fault(1, "any", _said(_HTML, b"<html><title>Welcome</title></html>")),
    "empty": Fault(1, "any", _said(_JSON, b"")),
    "bad json": Fault(1, "any", _said(_JSON, b'{"choices": [}')),
    "redirect": Fault(0.5, "any", _said({"location": "http://127.0.0.9/"}, b"", 302)),
    "400": Fault(1, "any", _refusal(400)),
    "401": Fault(1, "any", _refusal(401)),
    "403": Fault(0.5, "any", _refusal(403)),
    "404": Fault(0.5, "any", _refusal(404)),
    "422": Fault(0.5, "any", _refusal(422)),
    "408": Fault(0.5, "any", _refusal(408)),
    "409": Fault(0.5, "any", _refusal(409)),
    "425": Fault(0.5, "any", _refusal(425)),
    "429": Fault(1, "any", _refusal(429)),
    "429 seconds": Fault(2, "any", _refusal(429, _seconds)),
    "429 ms": Fault(1, "any", _refusal(429, _milliseconds)),
    "429 date": Fault(1, "any", _refusal(429, _date)),
    "429 huge": Fault(0.5, "any", _refusal(429, _huge)),
    "429 junk": Fault(0.5, "any", _refusal(429, _junk)),
    "429 twice": Fault(0.5, "any", _refusal(429, _twice)),
    "429 not in plan": Fault(0.5, "any", _refusal(429, _no_plan)),
    "429 capacity": Fault(1, "any", _refusal(429, code="3505")),
    "500": Fault(2, "any", _refusal(500)),
    "502 html": Fault(1, "any", _said(_HTML, b"<html><title>Bad gateway</title></html>", 502)),
    "503": Fault(2, "any", _refusal(503)),
    "503 seconds": Fault(1, "any", _refusal(503, _seconds)),
    "504": Fault(1, "any", _refusal(504)),
    "529": Fault(0.5, "any", _refusal(529)),
    "cut": Fault(3, "stream", _cut),
    "cut unframed": Fault(1, "stream", _unframed_cut),
    "reset": Fault(3, "stream", _reset),
    "stall": Fault(2, "stream", _stall),
    "no finish": Fault(2, "stream", _no_finish),
    "half event": Fault(1, "stream", _half_event),
    "bad event": Fault(2, "stream", _bad_event),
    "error event": Fault(2, "stream", _error_event),
    "comments": Fault(1, "stream", _comments),
    "json": Fault(0.5, "stream", _json_instead),
    "no done": Fault(1, "stream", _ending(lambda s: chunked(_last(s)) + END, whole=True)),
    "no done, open": Fault(1, "stream", _ending(lambda s: chunked(_last(s)), whole=True)),
    "done, open": Fault(1, "stream", _ending(lambda s: chunked(_last(s) + DONE), whole=True)),
    "no usage": Fault(
        1,
        "stream",
        _ending(lambda s: chunked(event(s.head, "", finish=_finish(s)) + DONE) + END, whole=True),
    ),
    "no usage, open": Fault(
        1, "stream", _ending(lambda s: chunked(event(s.head, "", finish=_finish(s))), whole=True)
    ),
    "more after done": Fault(
        0.5,
        "stream",
        _ending(lambda s: chunked(_last(s) + DONE + event(s.head, " more")) + END, whole=True),
    ),
    "short": Fault(1, "plain", _short),
    "half json": Fault(1, "plain", _half_json),
    "body cut": Fault(1, "plain", _broken_body(lambda s: s.close())),
    "body reset": Fault(1, "plain", _broken_body(lambda s: s.reset())),
    "body stall": Fault(1, "plain", _broken_body(lambda _: None)),
    "stream instead": Fault(0.5, "plain", _stream_instead),
}  # fmt: skip
"""Every fault by name; the ways to fail before a request stand in `SeededVendor`."""
