"""What vendors do on the wire, and what a caller of the gateway sees of it, on real sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.recorded import chat_exchanges, needed
from tests.server.gateway.kit import Answer, Served, chat, request
from tests.server.gateway.vendor import (
    USAGE,
    Act,
    RawVendor,
    breaks,
    chunk,
    cut,
    event,
    plain,
    says,
    stream,
)

from loom.server.simulator import Simulator

OPENAI = {"x_loom_dialect": "openai"}
MISTRAL = {"x_loom_dialect": "mistral"}
DIALECTS = pytest.mark.parametrize("speaks", [OPENAI, MISTRAL], ids=["openai", "mistral"])
RECORDED = [
    each
    for each in chat_exchanges()
    if each.stream and each.status == 200 and each.choices == 1 and each.body.endswith(b"\n\n")
]


@contextmanager
def before(act: Act, **more: Any) -> Iterator[Served]:
    """Give a gateway before a vendor that does this."""
    with RawVendor(act) as vendor:
        client = {"base_url": vendor.base_url, "api_key": "vendor-key", **more}
        with Served(Simulator(), client=client) as served:
            yield served


def relayed(answer: Answer) -> bytes:
    """Give a stream's bytes without what the gateway put before its end."""
    body, note, end = answer.body.partition(b": loom ")
    assert note
    assert end.endswith(b"}\n\ndata: [DONE]\n\n")
    return body


# --- relayed to the byte ----------------------------------------


@pytest.mark.parametrize("exchange", RECORDED, ids=str)
def test_a_recorded_stream_is_relayed_to_the_byte(exchange: Any) -> None:
    """Cut after every tenth byte, the caller's bytes are the vendor's."""
    body = exchange.body
    pieces = [body[place : place + 10] for place in range(0, len(body), 10)]
    with before(says(*pieces)) as served:
        answer = served.ask(chat(stream=True), **MISTRAL)
        (row,) = served.rows()
    assert body.removesuffix(b"data: [DONE]\n\n") == relayed(answer)
    assert "settled" == row.state


def test_a_stream_cut_at_every_byte() -> None:
    """Wherever the network cuts, events leave whole and unchanged."""
    needed()
    body = RECORDED[0].body
    with before(says(*(bytes([each]) for each in body))) as served:
        answer = served.ask(chat(stream=True), **MISTRAL)
    assert body.removesuffix(b"data: [DONE]\n\n") == relayed(answer)


@pytest.mark.parametrize(
    "end", [b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"], ids=["crlf", "cr", "lf-crlf", "crlf-lf"]
)
@DIALECTS
def test_every_line_end_of_the_standard_ends_an_event(end: bytes, speaks: dict[str, str]) -> None:
    """A vendor that writes CRLF or CR is relayed as it writes, and is read."""
    with before(says(*stream(end=end))) as served:
        answer = served.ask(chat(stream=True), **speaks)
        (row,) = served.rows()
    if speaks is MISTRAL:
        assert b"".join(stream(end=end)[:-1]) == relayed(answer)
    else:
        assert "The sky is blue." == answer.text
    assert ("settled", 5) == (row.state, row.output_tokens)


def test_line_ends_may_be_mixed() -> None:
    """A proxy's comments end otherwise than the vendor's events."""
    events = stream(end=b"\r\n\r\n")
    body = b": ping\n\n" + b"".join(events)
    with before(says(body)) as served:
        answer = served.ask(chat(stream=True), **MISTRAL)
    assert body.removesuffix(events[-1]) == relayed(answer)


def test_a_sentinel_without_a_blank_is_one() -> None:
    """`data:[DONE]` ends a stream, and stands before no note of ours."""
    events = [*stream()[:-1], b"data:[DONE]\n\n"]
    with before(says(b"".join(events))) as served:
        answer = served.ask(chat(stream=True), **MISTRAL)
    assert b"".join(events[:-1]) == relayed(answer)


# --- the other way than it was asked ----------------------------------------


@DIALECTS
def test_a_vendor_that_answers_a_stream_with_json(speaks: dict[str, str]) -> None:
    """The caller gets the stream that it asked for."""
    with before(says(plain(), kind="application/json")) as served:
        answer = served.ask(chat(stream=True), **speaks)
        (row,) = served.rows()
    assert "text/event-stream; charset=utf-8" == answer.headers["content-type"]
    assert "The sky is blue." == answer.text
    assert "[DONE]" == answer.events[-1]
    assert ("settled", 5) == (row.state, row.output_tokens)


@pytest.mark.parametrize("last", [False, True], ids=["usual", "object last"])
@DIALECTS
def test_a_vendor_that_answers_json_with_a_stream(speaks: dict[str, str], last: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """The caller gets the answer that it asked for, wherever a chunk says that it is one."""
    events = stream()
    if last:
        whole = chunk("x" * 600, finish="stop", usage=USAGE)
        whole["object"] = whole.pop("object")
        events = [event(whole), event(b"[DONE]")]
    with before(says(*events)) as served:
        answer = served.ask(chat(), **speaks)
    assert "application/json" == answer.headers["content-type"]
    assert "chat.completion" == answer.json["object"]
    said = "x" * 600 if last else "The sky is blue."
    assert said == answer.json["choices"][0]["message"]["content"]


# --- errors in the middle ----------------------------------------

BROKEN = {"object": "error", "message": "it broke", "type": "x", "code": "1"}


@pytest.mark.parametrize("apart", [False, True], ids=["together", "apart"])
@DIALECTS
def test_a_vendors_error_event(speaks: dict[str, str], apart: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """G12: told once, in the caller's dialect, behind what came before it, and no sentinel."""
    pieces = [*stream()[:3], event(BROKEN)]
    with before(says(*pieces) if apart else says(b"".join(pieces))) as served:
        answer = served.ask(chat(stream=True), **speaks)
        (row,) = served.rows()
    assert "The sky " == answer.text
    last = json.loads(answer.events[-1])
    assert ("error" in last) is (speaks is OPENAI)
    assert "it broke" in answer.events[-1]
    assert 1 == answer.body.count(b"it broke")
    assert "estimated" == row.state
    assert answer.whole


@DIALECTS
def test_an_error_event_that_comes_first_has_a_status(speaks: dict[str, str]) -> None:
    """While nothing was sent, an error is a status and no event."""
    with before(says(event({**BROKEN, "type": "rate_limited"}))) as served:
        answer = served.ask(chat(stream=True), **speaks)
        assert 429 == answer.status
        assert "application/json" == answer.headers["content-type"]


@pytest.mark.parametrize("ends", ["cut", "reset"])
@DIALECTS
def test_a_vendor_that_leaves_in_the_middle(speaks: dict[str, str], ends: str) -> None:
    """G12: what came is handed on, then the error; the row is an estimate."""
    act = cut(*stream()[:3])
    with before(act if ends == "cut" else breaks(act)) as served:
        answer = served.ask(chat(stream=True), **speaks)
        (row,) = served.rows()
    assert answer.whole
    assert "[DONE]" not in answer.events
    assert "estimated" == row.state


# --- usage, choices, sizes ----------------------------------------


@DIALECTS
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_usage_that_is_missing_is_estimated_and_said_so(
    speaks: dict[str, str],
    streamed: bool,  # noqa: FBT001 - a parameter of pytest
) -> None:
    """The row is an estimate, and whoever reads its cost is told."""
    act = (
        says(*stream(usage=False)) if streamed else says(plain(usage=None), kind="application/json")
    )
    with before(act) as served:
        answer = served.ask(chat(stream=streamed), **speaks)
        (row,) = served.rows()
    assert "estimated" == row.state
    told = answer.note if streamed else answer.headers
    assert "estimated" == told["x-loom-usage"]


@DIALECTS
def test_two_answers_at_once(speaks: dict[str, str]) -> None:
    """Choices that take turns are told apart; the stream ends when both have."""
    opening = {"role": "assistant", "content": ""}
    values = [
        chunk(opening), chunk(opening, choice=1), chunk("one"), chunk("two", choice=1),
        chunk("", finish="stop"), chunk(" more", choice=1),
        chunk("", choice=1, finish="length", usage=USAGE),
    ]  # fmt: skip
    with before(says(*map(event, values), event(b"[DONE]"))) as served:
        answer = served.ask(chat(stream=True, n=2), **speaks)
        (row,) = served.rows()
    texts = ["", ""]
    ends: dict[int, str] = {}
    for each in answer.events[:-1]:
        for choice in json.loads(each)["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
            if choice["finish_reason"]:
                ends[choice["index"]] = choice["finish_reason"]
    assert ["one", "two more"] == texts
    assert {0: "stop", 1: "length"} == ends
    assert "settled" == row.state


@DIALECTS
def test_a_call_of_a_megabyte(speaks: dict[str, str]) -> None:
    """It arrives whole, and not in more than twice its bytes."""
    arguments = json.dumps({"text": "x" * 1_000_000})
    call = {"id": "abcdefgh1", "index": 0, "function": {"name": "write", "arguments": arguments}}
    values = [chunk({"role": "assistant", "content": ""}), chunk({"tool_calls": [call]})]
    values.append(chunk("", finish="tool_calls", usage=USAGE))
    with before(says(*map(event, values), event(b"[DONE]"))) as served:
        answer = served.ask(chat(stream=True), **speaks)
    calls = [
        call
        for each in answer.events[:-1]
        for choice in json.loads(each)["choices"]
        for call in choice["delta"].get("tool_calls") or ()
    ]
    assert arguments == "".join(each["function"]["arguments"] for each in calls)
    assert len(answer.body) < 2 * len(arguments)


# --- HTTP ----------------------------------------


def talk(served: Served, *data: bytes, shut: bool = False) -> bytes:
    """Send raw bytes, and read until the gateway closes."""
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        for piece in data:
            connection.sendall(piece)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        said = b""
        while piece := connection.recv(65536):
            said += piece
    return said


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as running:
        yield running


def kept(raw: bytes) -> bytes:
    return raw.replace(b"connection: close\r\n", b"")


def test_two_requests_in_one_segment(served: Served) -> None:
    """Pipelined requests are answered in order; a stream and a plain one."""
    count = len(served.rows())
    first = kept(request(chat(stream=True), **MISTRAL))
    said = talk(served, first + request(chat(), **OPENAI))
    assert 2 == said.count(b"HTTP/1.1 200 OK")
    assert said.index(b"data: [DONE]") < said.index(b'"object":"chat.completion"')
    assert 2 == len(served.rows()) - count


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/mistral-small-latest", "/health"])
def test_a_head_has_no_body(served: Served, path: str) -> None:
    """HEAD answers as GET does, without the body."""
    said = talk(served, request(None, path=path, method="HEAD"))
    answer = Answer(said)
    assert 200 == answer.status
    assert int(answer.headers["content-length"]) > 0
    assert b"" == answer.body


def test_a_head_of_a_path_that_takes_bodies_is_405(served: Served) -> None:
    """HEAD is no way to ask for a chat."""
    answer = Answer(talk(served, request(None, method="HEAD")))
    assert (405, "POST") == (answer.status, answer.headers["allow"])


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_model_is_only_looked_at(served: Served, method: str) -> None:
    """405, as on every other path that exists."""
    answer = served.ask({}, path="/v1/models/mistral-small-latest", method=method)
    assert (405, "GET") == (answer.status, answer.headers["allow"])


def test_a_caller_may_wait_for_100(served: Served) -> None:
    """`expect: 100-continue` is answered when the body is wanted."""
    raw = request(chat(), expect="100-continue")
    head, _, body = raw.partition(b"\r\n\r\n")
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        said = b""
        while piece := connection.recv(65536):
            said += piece
    assert 200 == Answer(said).status


def test_a_caller_that_says_it_is_done_leaves_one_row(served: Served) -> None:
    """A half-closed connection is one whose caller has left, as nearly every server reads it."""
    count = len(served.rows())
    talk(served, request(chat(stream=True), **MISTRAL), shut=True)
    served.wait(lambda: all(row.state != "open" for row in served.rows()))
    assert len(served.rows()) - count <= 1
    served.wait(lambda: served.gateway.relay.streams == 0)
