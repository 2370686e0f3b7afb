"""One exchange as ASGI messages."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from loom.core.errors import RequestTooLarge
from loom.server.line import CallerGone, Line, Receive, read_body, until_gone
from loom.testing.cancel import cancel_everywhere
from loom.testing.turns import turn

pytestmark = pytest.mark.anyio


def saying(*messages: dict[str, Any]) -> Receive:
    left = list(messages)

    async def receive() -> MutableMapping[str, Any]:
        if left:
            return left.pop(0)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]  # never comes

    return receive


async def test_a_body_comes_in_pieces() -> None:
    """The pieces of a body are joined."""
    receive = saying(
        {"type": "http.request", "body": b"a", "more_body": True},
        {"type": "http.request", "body": b"b"},
    )

    assert b"ab" == await read_body(receive, 2)


async def test_a_body_has_a_limit() -> None:
    """One byte too many is refused before the rest is read."""
    receive = saying({"type": "http.request", "body": b"abc", "more_body": True})

    with pytest.raises(RequestTooLarge, match="more than 2 bytes"):
        await read_body(receive, 2)


async def test_a_caller_may_go_while_sending() -> None:
    """A disconnect in the body ends the reading."""
    receive = saying(
        {"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}
    )

    with pytest.raises(CallerGone):
        await read_body(receive, 2)


async def test_work_ends_with_its_error() -> None:
    """What the work raises comes out."""

    async def work() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await until_gone(saying(), work())


async def test_work_is_cancelled_when_the_caller_goes() -> None:
    """A disconnect cancels the work and is no error; other messages do not matter."""
    cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()

    await until_gone(saying({"type": "http.request"}, {"type": "http.disconnect"}), work())

    assert cancelled.is_set()


async def test_cancelling_the_exchange_cancels_the_work() -> None:
    """Nothing is left behind when the server itself drops the request."""
    begun = asyncio.Event()
    ended = asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    before = asyncio.all_tasks()
    exchange = asyncio.ensure_future(until_gone(saying(), work()))
    await begun.wait()
    exchange.cancel()

    with pytest.raises(asyncio.CancelledError):
        await exchange
    assert ended.is_set()
    assert before == asyncio.all_tasks()


async def test_nothing_is_left_wherever_the_exchange_is_cancelled() -> None:
    """Cancelled at any suspension, once or twice, the work is ended with the exchange."""
    working = 0

    async def work() -> None:
        nonlocal working
        working += 1
        try:
            await turn(3)
        finally:
            working -= 1

    async def exchange() -> None:
        await until_gone(saying(), work())

    survey = await cancel_everywhere(exchange, probes={"working": lambda: working})

    assert survey.suspensions


async def test_a_whole_answer_says_its_length() -> None:
    """Status, headers and body go out as ASGI wants them."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    line = Line(send)
    await line.whole(200, {"x": "y"}, b"abc")

    assert line.started
    assert [(b"x", b"y"), (b"content-length", b"3")] == sent[0]["headers"]
    assert (b"abc", False) == (sent[1]["body"], sent[1]["more_body"])
