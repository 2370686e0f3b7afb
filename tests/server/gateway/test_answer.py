"""Answers on the wire: the bytes that uvicorn would write, in fewer packets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from loom.server.gateway.answer import Answer

pytestmark = pytest.mark.anyio

DATE = (b"date", b"Thu, 26 Nov 2026 10:00:00 GMT")
SIZED = ((b"content-type", b"application/json"), (b"content-length", b"6"))
EVENTS = ((b"content-type", b"text/event-stream"),)


class Packets(asyncio.Transport):
    """Keeps what is written, packet for packet."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.packets.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def cycle_on(line: Packets, method: str = "POST", *, keep_alive: bool = True) -> Any:
    quiet = logging.getLogger("tests.quiet")
    return RequestResponseCycle(
        scope=cast("Any", {"method": method, "type": "http"}),
        transport=line,
        flow=FlowControl(line),
        logger=quiet,
        access_logger=quiet,
        access_log=False,
        default_headers=[DATE],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep_alive,
        on_response=lambda: None,
    )


def start(status: int = 200, headers: Any = SIZED) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept", "closed"])
@pytest.mark.parametrize(
    ("method", "messages"),
    [
        ("POST", [start(), body(b"answer")]),
        ("POST", [start(), body(b"ans", more=True), body(b"wer")]),
        ("POST", [start(402, (*SIZED, (b"x-a", b"b"), (b"x-a", b"c"))), body(b"answer")]),
        ("POST", [start(200, EVENTS), body(b"data: 1\n\n", more=True), body(b"data: 2\n\n")]),
        ("POST", [start(200, EVENTS), body(b"", more=True), body(b"a", more=True), body(b"")]),
        ("POST", [start(200, EVENTS), body(b"")]),
        ("HEAD", [start(), body(b"")]),
        ("HEAD", [start(200, EVENTS), body(b"")]),
        ("GET", [start(204, ()), body(b"")]),
        ("GET", [start(200, ((b"content-length", b"0"),)), body(b"")]),
        ("GET", [start(200, ((b"connection", b"close"), *SIZED)), body(b"answer")]),
    ],
)
async def test_the_bytes_are_those_of_uvicorn(
    method: str, messages: list[dict[str, Any]], *, keep_alive: bool
) -> None:
    """The same head, the same body in the same chunks, the same state afterwards."""
    theirs, ours = Packets(), Packets()
    cycle = cycle_on(theirs, method, keep_alive=keep_alive)
    for message in messages:
        await cycle.send(message)
    other = cycle_on(ours, method, keep_alive=keep_alive)
    answer = Answer(other)
    for message in messages:
        await answer.send(message)
    said, told = b"".join(theirs.packets), b"".join(ours.packets)
    # Where `connection` stands among the headers says nothing.
    assert sorted(said.split(b"\r\n")) == sorted(told.split(b"\r\n"))
    assert said.partition(b"\r\n\r\n")[2] == told.partition(b"\r\n\r\n")[2]
    for name in ("response_started", "response_complete", "keep_alive"):
        assert getattr(cycle, name) == getattr(other, name)
    assert theirs.closed == ours.closed
    assert other.message_event.is_set()


async def test_a_plain_answer_is_one_packet() -> None:
    """The head waits for the body."""
    line = Packets()
    answer = Answer(cycle_on(line))
    await answer.send(start())
    assert [] == line.packets
    await answer.send(body(b"answer"))
    assert 1 == len(line.packets)


async def test_each_piece_of_a_stream_leaves_at_once() -> None:
    """The first with the head, every other by itself, when the application waits for the next."""
    line = Packets()
    answer = Answer(cycle_on(line))
    await answer.send(start(200, EVENTS))
    for number in range(1, 4):
        await answer.send(body(b"data: x\n\n", more=True))
        await asyncio.sleep(0)
        assert number == len(line.packets)
    assert line.packets[0].endswith(b"\r\n\r\n9\r\ndata: x\n\n\r\n")
    assert b"9\r\ndata: x\n\n\r\n" == line.packets[1]


async def test_pieces_of_one_turn_leave_together() -> None:
    """A hundred events that came in one packet are one packet, and all of them are there."""
    line = Packets()
    answer = Answer(cycle_on(line))
    await answer.send(start(200, EVENTS))
    for _ in range(100):
        await answer.send(body(b"data: x\n\n", more=True))
    assert [] == line.packets
    await asyncio.sleep(0)
    assert 1 == len(line.packets)
    assert 100 == line.packets[0].count(b"9\r\ndata: x\n\n\r\n")
    await answer.send(body(b""))
    assert [b"0\r\n\r\n"] == line.packets[1:]


async def test_no_more_is_kept_than_a_piece() -> None:
    """An application that never waits is held back by the socket, not by memory."""
    line = Packets()
    answer = Answer(cycle_on(line))
    await answer.send(start(200, EVENTS))
    for _ in range(64):
        await answer.send(body(b"x" * 8192, more=True))
    assert 5 < len(line.packets)
    assert max(len(packet) for packet in line.packets) < 80_000


async def test_what_was_kept_for_a_closed_socket_is_dropped() -> None:
    """A connection that ended in the same turn is not written to."""
    line = Packets()
    answer = Answer(cycle_on(line))
    await answer.send(start(200, EVENTS))
    await answer.send(body(b"data: x\n\n", more=True))
    line.close()
    await asyncio.sleep(0)
    assert [] == line.packets


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nb", b"a\rb", b"\r\n\r\n<html>"], ids=repr)
async def test_a_header_is_never_two(value: bytes) -> None:
    """G25: what was put into a header cannot end it; nothing is sent."""
    line = Packets()
    with pytest.raises(ValueError, match="end of a line"):
        await Answer(cycle_on(line)).send(start(200, ((b"x-model", value), *SIZED)))
    assert [] == line.packets


@pytest.mark.parametrize(
    "messages",
    [
        [body(b"answer")],
        [start(), start()],
        [start(), body(b"too long")],
        [start(), body(b"short")],
        [start(), body(b"answer"), body(b"more")],
        [start(), {"type": "http.response.trailers"}],
    ],
)
async def test_what_is_not_due_is_refused(messages: list[dict[str, Any]]) -> None:
    """An answer is as long as its head says, and is said once."""
    answer = Answer(cycle_on(Packets()))
    with pytest.raises(RuntimeError, match="answer"):
        for message in messages:
            await answer.send(message)


async def test_nothing_is_said_to_who_is_gone() -> None:
    """A caller that hung up hears nothing, and nobody is told."""
    line = Packets()
    cycle = cycle_on(line)
    cycle.disconnected = True
    await Answer(cycle).send(start())
    assert [] == line.packets


async def test_a_slow_reader_holds_the_answer_back() -> None:
    """While the socket takes nothing the application waits."""
    line = Packets()
    cycle = cycle_on(line)
    answer = Answer(cycle)
    await answer.send(start(200, EVENTS))
    cycle.flow.pause_writing()
    waiting = asyncio.ensure_future(answer.send(body(b"a", more=True)))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert [] == line.packets
    cycle.flow.resume_writing()
    await waiting
    await asyncio.sleep(0)
    assert 1 == len(line.packets)
