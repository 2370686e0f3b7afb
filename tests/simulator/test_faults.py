"""Faults as they are seen on the socket: statuses, bytes, ends and times."""

from __future__ import annotations

import gzip
import http.client
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from tests.simulator.socket_client import MODEL, Caller, SleepClock, seen

from loom.core.errors import ServiceUnavailable
from loom.core.events import TextDelta
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator
from loom.server.simulator.fault_wire import events_of
from loom.server.simulator.faults import fault_table

ROWS = fault_table().rows
REPLIES = [row for row in ROWS if row.act == "reply"]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(scope="module")
def healthy(simulator: Simulator) -> list[bytes]:
    return seen(simulator, stream=True).events


def chunk(event: bytes) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(event.removeprefix(b"data: "))
    return value


def said(events: list[bytes]) -> str:
    every = [chunk(e) for e in events if e.startswith(b"data: {")]
    return "".join(c["delta"].get("content", "") for each in every for c in each["choices"])


@pytest.mark.parametrize("row", REPLIES, ids=lambda row: row.id)
def test_a_reply_has_its_status_headers_and_body(simulator: Simulator, row: Any) -> None:
    """The same for a stream and a plain request, and whole: the server frames it."""
    status = row.settings.get("status", row.how.get("status"))
    for stream in (False, True):
        reply = seen(simulator, row.id, stream=stream)

        assert status == reply.status
        assert not reply.reset
        for name, value in row.how.get("headers", ()):
            filled = value.format(value=row.settings.get("value", ""))
            assert filled in reply.header(name)
        if "error" in row.how or "message" in row.how:
            envelope = json.loads(reply.body)
            assert ["object", "message", "type", "param", "code", "raw_status_code"] == list(
                envelope
            )
            assert (status, None) == (envelope["raw_status_code"], envelope["param"])


def test_the_named_bodies_are_those_of_the_wire(simulator: Simulator) -> None:
    """Types and codes are the recorded ones."""
    expected = {
        "33d-429": ("rate_limited", "1300"),
        "34-capacity": ("service_tier_capacity_exceeded", "3505"),
        "36-400": ("invalid_request_message_order", "3230"),
        "36b-context": ("invalid_request_invalid_args", "3051"),
        "40-503": ("internal_server_error", "1000"),
        "36-422": ("invalid_request_error", None),
    }

    bodies = {name: json.loads(seen(simulator, name).body) for name in expected}

    assert expected == {name: (body["type"], body["code"]) for name, body in bodies.items()}
    assert "extra_forbidden" == bodies["36-422"]["message"]["detail"][0]["type"]
    assert b'{"detail":"Invalid API Key"}' == seen(simulator, "37-401").body


def test_settings_of_a_header_are_obeyed(simulator: Simulator) -> None:
    """A main setting, and a setting by name."""
    assert ["17"] == seen(simulator, "retry-after:17").header("retry-after")
    assert 308 == seen(simulator, "28-redirect;status=308").status
    assert 524 == seen(simulator, "40-520:524").status
    assert ["1", "7"] == seen(simulator, "33e-two").header("retry-after")


def test_a_date_is_counted_from_the_replys_own() -> None:
    """Its `date` is the simulator's time, not the machine's; a past one too."""
    with Simulator(clock=SleepClock()) as simulator:
        replies = [seen(simulator, f"33b-date:{seconds}") for seconds in (90, -90)]

    for reply, expected in zip(replies, (90, -90), strict=True):
        (date,), (until,) = reply.header("date"), reply.header("retry-after")
        waits = parsedate_to_datetime(until) - parsedate_to_datetime(date)
        assert (429, expected) == (reply.status, waits.total_seconds())


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_comes_before_the_end(simulator: Simulator, stream: bool) -> None:  # noqa: FBT001 - a parameter
    """Closed or reset without a byte, or in the middle of the headers."""
    assert (b"", False) == seen(simulator, "9-closed-before-headers", stream=stream)
    assert (b"", True) == seen(simulator, "9-reset-before-headers", stream=stream)
    assert (b"HTTP/1.1 200 OK\r\nconten", False) == seen(simulator, "9-half-headers")


def test_what_is_not_http_comes_as_it_is(simulator: Simulator) -> None:
    """A greeting of another protocol, other protocols, early hints and no more."""
    assert b"220 mail.example.test ESMTP\r\n\r\n" == seen(simulator, "27-not-http").data
    assert 101 == seen(simulator, "41-101").status
    assert b"HTTP/1.1 103 Early Hints\r\n\r\n" == seen(simulator, "41-103").data


def test_silence_ends_with_the_usual_answer() -> None:
    """Not a byte comes before the time has passed."""
    clock = SleepClock()
    with Simulator(clock=clock) as simulator, Caller(simulator, "no-headers:30") as caller:
        clock.until_waiting()
        assert caller.quiet()
        simulator.clock.advance(29)
        assert caller.quiet()
        simulator.clock.advance(1)
        reply = caller.all()

    assert 200 == reply.status
    assert json.loads(reply.body)["choices"]


def test_silence_without_an_end_lasts_as_long_as_the_caller(simulator: Simulator) -> None:
    """The caller hangs up, and the next one is answered."""
    with Caller(simulator, "8-no-headers") as caller:
        assert caller.quiet()

    assert 200 == seen(simulator).status


def test_a_stall_holds_the_rest_back(healthy: list[bytes]) -> None:
    """So many events, an open connection, and after the time the rest to [DONE]."""
    clock = SleepClock()
    with (
        Simulator(clock=clock) as simulator,
        Caller(simulator, "stall:5;seconds=30", stream=True) as caller,
    ):
        clock.until_waiting()
        caller.until(b"\n\n\r\n")
        assert caller.quiet()
        before = caller.data.count(b"data: ")
        simulator.clock.advance(30)
        reply = caller.all()

    assert 5 == before
    assert said(healthy) == said(reply.events)
    assert b"data: [DONE]" == reply.events[-1]
    assert reply.ended


def test_a_stalled_plain_body_is_cut_where_asked() -> None:
    """So many bytes of the body, then the rest."""
    clock = SleepClock()
    with (
        Simulator(clock=clock) as simulator,
        Caller(simulator, "10-stall-body:20;seconds=5") as caller,
    ):
        clock.until_waiting()
        head, _, first = caller.until(b'{"id":"').partition(b"\r\n\r\n")
        simulator.clock.advance(5)
        reply = caller.all()

    assert head
    assert 20 == len(first)
    assert json.loads(reply.body)["choices"]


@pytest.mark.parametrize(
    ("fault", "reset", "ended"),
    [
        ("15-reset", True, False),
        ("15-close", False, False),
        ("16-clean-end", False, True),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_stream_ends_after_so_many_events(
    simulator: Simulator,
    healthy: list[bytes],
    *,
    fault: str,
    reset: bool,
    ended: bool,
    after: int,
) -> None:
    """Reset, closed or ended as if it were whole; the events before it are untouched."""
    reply = seen(simulator, f"{fault}:{after}", stream=True)

    assert (reset, ended) == (reply.reset, reply.ended)
    assert after == len(reply.events)
    assert said(healthy[:after]) == said(reply.events)


def test_a_cut_beyond_the_end_is_none(simulator: Simulator, healthy: list[bytes]) -> None:
    """An answer that is shorter is given whole."""
    reply = seen(simulator, "reset:1000", stream=True)

    assert len(healthy) == len(reply.events)
    assert reply.ended


def test_a_plain_body_ends_after_so_many_bytes(simulator: Simulator) -> None:
    """Its length says that there is more; or it is right, and the JSON is cut."""
    reset = seen(simulator, "reset-body:33")
    short = seen(simulator, "11-short-body:33")
    cut = seen(simulator, "12-cut-json:33")

    assert (33, True) == (len(reset.body), reset.reset)
    assert (33, False) == (len(short.body), short.reset)
    assert int(short.header("content-length")[0]) > 33
    assert (33, True) == (len(cut.body), cut.ended)


def test_a_body_may_be_longer_than_it_says(simulator: Simulator) -> None:
    """Ten bytes more than content-length."""
    reply = seen(simulator, "11-long-body")

    assert len(reply.rest) == 10 + int(reply.header("content-length")[0])


def test_a_chunk_may_have_no_size(simulator: Simulator) -> None:
    """What stands where the size should is no number."""
    reply = seen(simulator, "11-bad-chunk", stream=True)

    assert reply.rest.endswith(b"\r\nzz\r\nnot a chunk\r\n")


def test_the_end_of_a_stream_may_miss_its_mark(simulator: Simulator, healthy: list[bytes]) -> None:
    """Everything but [DONE]; or [DONE], and more after it."""
    without = seen(simulator, "17-no-done", stream=True)
    more = seen(simulator, "19-after-done", stream=True)

    assert len(healthy) - 1 == len(without.events)
    assert b"[DONE]" not in without.body
    assert without.ended
    assert b"data: [DONE]" == more.events[-2]
    assert "too late" == said(more.events[-1:])


@pytest.mark.parametrize("fault", ["18-open-after-done", "17-no-done-open"])
def test_the_connection_may_stay_open(simulator: Simulator, fault: str) -> None:
    """The answer came, the body has no end."""
    with Caller(simulator, fault, stream=True) as caller:
        data = caller.until(b'"usage"' if "no-done" in fault else b"[DONE]")
        assert caller.quiet()

    assert not data.endswith(b"0\r\n\r\n")


SPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "20-bom": lambda body: body.removeprefix(b"\xef\xbb\xbf"),
    "20-split": lambda body: body,
    "21-crlf": lambda body: body.replace(b"\r\n", b"\n"),
    "21-cr": lambda body: body.replace(b"\r", b"\n"),
    "21-mixed": lambda body: body.replace(b"\r\n", b"\n").replace(b"\r", b"\n"),
    "21-comments": lambda body: body.replace(b": still here\n\n", b""),
    "21-fields": lambda body: re.sub(rb"event: message\nid: \d+\nretry: 3000\n", b"", body),
    "21-lines": lambda body: body.replace(b",\ndata: ", b","),
    "21-no-space": lambda body: body.replace(b"data:", b"data: "),
}


@pytest.mark.parametrize("fault", SPELLINGS)
def test_a_spelling_changes_the_bytes_and_not_the_text(
    simulator: Simulator, healthy: list[bytes], fault: str
) -> None:
    """Undone, the events say what a healthy stream says."""
    reply = seen(simulator, fault, stream=True)
    events = [event for event in SPELLINGS[fault](reply.body).split(b"\n\n") if event]

    assert fault == "20-split" or reply.body != b"\n\n".join(healthy) + b"\n\n"
    assert len(healthy) == len(events)
    assert said(healthy) == said(events)
    if fault == "20-split":
        assert b"\r\n1\r\nd\r\n1\r\na\r\n" in reply.rest


def test_a_bad_event_stands_where_it_was_asked(simulator: Simulator, healthy: list[bytes]) -> None:
    """Not JSON, not UTF-8, or an error; the events around it are good."""
    bad = seen(simulator, "23-bad-event:4", stream=True).events
    encoded = seen(simulator, "22-bad-event-utf8:4", stream=True).events
    error = seen(simulator, "32-error-event:4", stream=True)

    assert len(healthy) + 1 == len(bad)
    with pytest.raises(ValueError, match="Unterminated"):
        chunk(bad[4])
    with pytest.raises(UnicodeDecodeError):
        encoded[4].decode()
    assert 5 == len(error.events)
    assert "internal_server_error" == chunk(error.events[4])["type"]
    assert error.ended


@pytest.mark.parametrize("fault", ["22-bad-event-utf8", "25-comments-only", "32-error-event"])
def test_a_fault_of_streams_leaves_a_plain_answer_alone(simulator: Simulator, fault: str) -> None:
    """It has no events."""
    reply = seen(simulator, fault)

    assert 200 == reply.status
    assert json.loads(reply.body)["choices"]


def test_an_event_may_be_huge(simulator: Simulator) -> None:
    """So many MiB in one event."""
    events = seen(simulator, "huge-event:2;mib=2", stream=True).events

    assert 2 * 1024 * 1024 + len(b"data: ") == len(events[2])


def test_a_line_may_have_no_end(simulator: Simulator) -> None:
    """So many MiB, no line feed, and the connection stays open."""
    with Caller(simulator, "endless-line:0;mib=1", stream=True) as caller:
        while len(caller.data) < 1024 * 1024:
            caller.data += caller.socket.recv(65536)
        assert b"\n\n" not in caller.data.partition(b"\r\n\r\n")[2]


def test_comments_come_without_end() -> None:
    """One each so many seconds, and no more events."""
    clock = SleepClock()
    with (
        Simulator(clock=clock) as simulator,
        Caller(simulator, "comments-only:2;seconds=7", stream=True) as caller,
    ):
        for _ in range(3):
            clock.until_waiting()
            simulator.clock.advance(7)
        clock.until_waiting()
        while caller.data.count(b": keep-alive\n\n") < 4:
            caller.data += caller.socket.recv(65536)
        assert caller.quiet()

    assert 2 == caller.data.count(b"data: ")


def test_a_bomb_is_small_and_inflates(simulator: Simulator) -> None:
    """A thousandth of what it becomes, with the header that says so."""
    reply = seen(simulator, "gzip-bomb:2")

    assert ["gzip"] == reply.header("content-encoding")
    assert len(reply.body) < 4096
    assert b" " * 2 * 1024 * 1024 == gzip.decompress(reply.body)


def test_headers_may_be_huge_or_many(simulator: Simulator) -> None:
    """One of so many KiB, or so many."""
    assert [80 * 1024] == [len(v) for v in seen(simulator, "huge-header").header("x-fill")]
    many = [name for name, _ in seen(simulator, "many-headers").headers if "x-fill" in name]
    assert 1000 == len(many)


def test_the_kind_of_the_answer_may_be_the_other(simulator: Simulator) -> None:
    """JSON where a stream was asked for, and the reverse."""
    plain = seen(simulator, "31-other-kind", stream=True)
    streamed = seen(simulator, "31-other-kind", stream=False)

    assert ["application/json"] == plain.header("content-type")
    assert json.loads(plain.body)["choices"]
    assert b"data: [DONE]" == streamed.events[-1]


def _both(simulator: Simulator, fault: str, **fields: Any) -> list[dict[str, Any]]:
    """Give the plain answer, and the chunk with the finish reason."""
    plain = json.loads(seen(simulator, fault, **fields).body)
    events = seen(simulator, fault, stream=True, **fields).events
    chunks = [chunk(event) for event in events if event != b"data: [DONE]"]
    last = [c for c in chunks if any(each["finish_reason"] for each in c["choices"])]
    return [plain, last[-1]]


def test_tool_calls_may_be_odd(simulator: Simulator) -> None:
    """Two with one id, arguments that are no object, a tool that was not offered."""
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]

    def calls(fault: str) -> list[list[dict[str, Any]]]:
        both = _both(simulator, fault, tools=tools)
        parts = [b["choices"][0].get("message") or b["choices"][0]["delta"] for b in both]
        return [part["tool_calls"] for part in parts]

    for first, second in calls("42-duplicate-ids"):
        assert first["id"] == second["id"]
        assert "get_weather" == first["function"]["name"]
    for (call,) in calls("43-bad-arguments"):
        with pytest.raises(ValueError, match="Unterminated"):
            json.loads(call["function"]["arguments"])
    assert ["Paris"] == json.loads(calls("43-wrong-type")[0][0]["function"]["arguments"])
    assert "nobody" == calls("43-unknown-tool:nobody")[1][0]["function"]["name"]


def test_usage_may_be_odd(simulator: Simulator) -> None:
    """Missing, zero, negative, NaN, huge."""
    for value in _both(simulator, "46-usage-missing"):
        assert "usage" not in value
    for name, number in (("zero", 0), ("negative", -5), ("huge", 10**18)):
        for value in _both(simulator, f"46-usage-{name}"):
            assert {number} == set(value["usage"].values())
    assert b'"prompt_tokens":NaN' in seen(simulator, "46-usage-nan").body


def test_an_answer_may_hold_what_nobody_knows(simulator: Simulator) -> None:
    """A finish reason, fields, a part, another model, a second choice, no choices."""
    for value in _both(simulator, "45-finish-reason:paused"):
        assert "paused" == value["choices"][0]["finish_reason"]
    for value in _both(simulator, "47-extra-fields"):
        assert "x_new" in value
        assert "x_new" in value["choices"][0]
    for value in _both(simulator, "50-model:other"):
        assert "other" == value["model"]
    for value in _both(simulator, "49-choices"):
        assert [1, 0] == [choice["index"] for choice in value["choices"]]
    plain, last = _both(simulator, "47-unknown-part")
    assert "hologram" == plain["choices"][0]["message"]["content"][-1]["type"]
    assert "hologram" == last["choices"][0]["delta"]["content"][-1]["type"]
    assert [] == json.loads(seen(simulator, "48-no-choices").body)["choices"]
    usage_only = chunk(seen(simulator, "48-no-choices", stream=True).events[-2])
    assert [] == usage_only["choices"]
    assert usage_only["usage"]


def test_an_edit_leaves_an_error_alone(simulator: Simulator) -> None:
    """An unknown model is refused as ever."""
    assert 400 == seen(simulator, "50-model", model="no-such-model").status


@pytest.mark.parametrize(
    ("fault", "waits"),
    [
        ("latency:2;jitter=0", [2.0]),
        ("latency:2;jitter=1", [1.5]),
        ("bandwidth:2000", [0.1]),
        ("slicer:100;seconds=0.5", [0.5]),
    ],
)
def test_what_is_late_comes_when_the_time_has_passed(fault: str, waits: list[float]) -> None:
    """Writes wait as long as the kind says; what comes is whole."""
    clock = SleepClock()
    with Simulator(clock=clock) as simulator, Caller(simulator, fault) as caller:
        for _ in range(2):
            clock.until_waiting()
            simulator.clock.advance(3)
        while not caller.data.endswith(b"]}"):
            if caller.quiet():
                simulator.clock.advance(3)
        reply = caller.all()

    assert clock.slept[0] == pytest.approx(waits[0], abs=0.51 if "jitter=1" in fault else 1e-9)
    assert json.loads(reply.body)["choices"]


def test_slices_and_limits_count_bytes(simulator: Simulator) -> None:
    """A limit counts the headers too; slices change nothing."""
    limited = seen(simulator, "limit_data:300")
    sliced = seen(simulator, "slicer:10;variation=5", stream=True)

    assert 300 == len(limited.data)
    assert sliced.ended


def test_an_end_may_come_late_or_without_anything_before_it() -> None:
    """A close, a reset and a timeout wait their seconds."""
    clock = SleepClock()
    with Simulator(clock=clock) as simulator:
        replies = []
        for fault in ("slow_close:4", "timeout:4", "reset_peer:4"):
            with Caller(simulator, fault) as caller:
                clock.until_waiting()
                came = caller.until(b"]}") if fault == "slow_close:4" else b""
                assert caller.quiet()
                simulator.clock.advance(4)
                replies.append((len(came) > 0, caller.all().reset))

    assert [(True, False), (False, False), (False, True)] == replies


def test_an_unread_body_stops_the_caller() -> None:
    """A large request cannot be sent whole; then the connection is reset."""
    clock = SleepClock()
    text = "x" * 30_000_000
    with Simulator(clock=clock) as simulator:
        caller = Caller(simulator, "unread", messages=[{"role": "user", "content": text}])
        caller.socket.settimeout(0)
        sent = 0
        while sent < 1000:
            sent += caller.socket.send(caller.request[sent : sent + 1000])
        clock.until_waiting()
        with pytest.raises(BlockingIOError):
            while sent < len(caller.request):
                sent += caller.socket.send(caller.request[sent : sent + 1_000_000])
        caller.socket.settimeout(20)
        simulator.clock.advance(120)
        with caller.socket:
            caller.socket.sendall(caller.request[sent:])
            assert caller.all().reset

    assert 1000 <= sent < len(caller.request)


def test_a_suffix_of_the_model_is_a_fault(simulator: Simulator) -> None:
    """It is cut off before the model is looked up, and the answer names the model."""
    events = seen(simulator, stream=True, model=f"{MODEL}+clean-end:3").events
    whole = json.loads(seen(simulator, model=f"{MODEL}+503;nth=2").body)
    unknown = seen(simulator, model="no-such-model+slicer")

    assert 3 == len(events)
    assert MODEL == chunk(events[0])["model"]
    assert MODEL == whole["model"]
    assert "Invalid model: no-such-model" == json.loads(unknown.body)["message"]


def test_an_unknown_fault_is_a_400_that_names_the_known(simulator: Simulator) -> None:
    """In the header and in the model's name, before the key is looked at."""
    for reply in (seen(simulator, "stal"), seen(simulator, model=f"{MODEL}+stal")):
        body = json.loads(reply.body)

        assert (400, "invalid_request_error") == (reply.status, body["type"])
        assert "unknown fault 'stal' (did you mean 'stall'?)" in body["message"]
        assert "40-503" in body["message"]
    assert 400 == seen(simulator, "unread:x").status


def test_chance_strikes_the_same_requests_again() -> None:
    """Equal seeds give equal statuses; other paths than the API's get none."""

    def statuses() -> list[int]:
        with Simulator(seed=3, faults={"503": 0.5}) as simulator:
            return [seen(simulator).status for _ in range(12)]

    first = statuses()

    assert first == statuses()
    assert {200, 503} == set(first)


def test_the_server_lives_after_every_fault() -> None:
    """A hundred faults later the next request is answered, and the thread ends."""
    with Simulator() as simulator:
        for row in ROWS:
            if row.act in ("bomb", "unread"):
                continue
            with Caller(simulator, row.id, stream=True):
                pass
        assert 200 == seen(simulator).status


@pytest.mark.parametrize("status", [204, 205, 304, 418, 599])
def test_a_status_may_be_any(simulator: Simulator, status: int) -> None:
    """Those that have no body get none."""
    reply = seen(simulator, f"29-html:{status}")

    assert status == reply.status
    assert (b"" == reply.body) == (status in (204, 304))


def test_the_smallest_cuts_leave_nothing(simulator: Simulator) -> None:
    """No byte of the body, or no byte at all."""
    assert b"" == seen(simulator, "reset-body:0").rest
    assert b"" == seen(simulator, "limit_data:0").data


def test_only_the_api_has_faults() -> None:
    """Whether the server is there can be asked under any chance; a reset counts anew."""
    with Simulator(faults={"503": 1.0}) as simulator:
        connection = http.client.HTTPConnection(simulator.base_url.split("/")[2], timeout=20)
        connection.request("GET", "/health", headers={"x-loom-fault": "502"})
        assert 200 == connection.getresponse().status
        connection.close()
        assert 200 == seen(simulator, "503;nth=2").status
        simulator.reset()
        assert 200 == seen(simulator, "503;nth=2").status


def test_a_word_in_a_setting_is_no_fault(simulator: Simulator) -> None:
    """The name counts, not what stands behind it."""
    assert ["unread"] == seen(simulator, "28-redirect;value=unread").header("location")


def test_a_caller_may_leave_before_the_answer_that_would_be_cut() -> None:
    """Nothing is left over, and the next caller is served."""
    clock = SleepClock()
    with (
        Simulator(clock=clock, words_per_second=1) as simulator,
        Caller(simulator, "15-reset"),
    ):
        clock.until_waiting()
    clock = SleepClock()
    with Simulator(clock=clock, latency_s=60) as simulator:
        with Caller(simulator, "15-reset"):
            clock.until_waiting()
        with Caller(simulator, "15-reset") as caller:
            clock.until_waiting()
            simulator.clock.advance(60)
            assert caller.all().reset


def test_comments_end_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long after every caller has given up."""
    monkeypatch.setattr("loom.server.simulator.fault_acts._MOST_COMMENTS", 2)
    with Simulator() as simulator:
        reply = seen(simulator, "comments-only:1;seconds=0", stream=True)

    assert [b": keep-alive"] * 2 == reply.events[1:]
    assert not reply.ended


@pytest.mark.anyio
async def test_what_is_left_of_a_stream_is_a_piece_too() -> None:
    """Events are cut at empty lines, wherever the pieces are."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        for piece in (b"data: 1\n", b"\ndata: 2\n\nda", b"ta: 3"):
            yield piece

    events = [event async for event in events_of(pieces())]

    assert [b"data: 1\n\n", b"data: 2\n\n", b"data: 3"] == events


def test_every_fault_is_quiet_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """What goes wrong on purpose is no error of the server; on every path and for any body."""
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/v1/models", {}),
        ("POST", "/v1/embeddings", {"model": "mistral-embed", "input": "a"}),
        ("POST", "/v1/chat/completions", {"model": MODEL, "messages": "not a list"}),
    ]
    with Simulator() as simulator:
        for row in ROWS:
            slow = row.settings.get("seconds") or row.settings.get("rate")
            if slow or row.act in ("bomb", "unread"):
                continue
            for method, path, fields in asked:
                with Caller(simulator, row.id, method=method, path=path, **fields) as caller:
                    if row.how.get("end") == "open":
                        caller.until(b"HTTP/1.1 ")
                    else:
                        caller.all()
        assert 200 == seen(simulator).status

    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= 40]


def test_an_odd_edit_leaves_other_answers_alone(simulator: Simulator) -> None:
    """An error in the middle of a stream, and a body that is no object."""
    failing = ScriptedProvider([[TextDelta("One"), ServiceUnavailable("Down.")]])
    with Simulator(provider=failing) as broken:
        events = seen(broken, "45-finish-reason", stream=True).events

    assert b'"object":"error"' in events[-1]
    assert 400 <= seen(simulator, "31-other-kind", messages=7).status < 500
