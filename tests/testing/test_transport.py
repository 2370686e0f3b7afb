"""The transport without a network."""

from __future__ import annotations

import pytest

from loom.core.errors import Unreachable
from loom.testing import FakeReply, FakeTransport, cancel_everywhere
from loom.transport.contract import HttpRequest

REQUEST = HttpRequest(url="https://example.test/v1/chat/completions", body=b"{}")


@pytest.mark.anyio
async def test_it_answers_what_it_was_given() -> None:
    """Status, headers and the pieces come as they were given; the request is kept."""
    transport = FakeTransport(FakeReply(status=429, headers={"a": "b"}, chunks=(b"x", b"y")))

    async with transport.open(REQUEST) as reply:
        assert (429, {"a": "b"}) == (reply.status, reply.headers)
        assert [b"x", b"y"] == [piece async for piece in reply.chunks()]
        assert 1 == transport.in_use

    assert [REQUEST] == transport.requests
    assert (1, 1, 0) == (transport.opened, transport.closed, transport.in_use)


@pytest.mark.anyio
async def test_replies_come_in_turn_and_the_last_stays() -> None:
    """Each request takes the next reply; the last one serves all that follow."""
    transport = FakeTransport(FakeReply.of(b"1"), FakeReply.of(b"2", status=500))
    seen = []
    for _ in range(3):
        async with transport.open(REQUEST) as reply:
            seen.append((reply.status, await reply.read()))

    assert [(200, b"1"), (500, b"2"), (500, b"2")] == seen


@pytest.mark.anyio
async def test_a_callable_answers_from_the_request() -> None:
    """`answer=` sees the request."""
    transport = FakeTransport(answer=lambda request: FakeReply.of(request.body))

    async with transport.open(REQUEST) as reply:
        assert b"{}" == await reply.read()


@pytest.mark.anyio
async def test_it_raises_instead_of_the_headers() -> None:
    """An exception among the replies is raised by `open`, and nothing stays open."""
    transport = FakeTransport(Unreachable("refused", phase="connect"))

    with pytest.raises(Unreachable):
        async with transport.open(REQUEST):
            pass

    assert (1, 1) == (transport.opened, transport.closed)


@pytest.mark.anyio
async def test_it_raises_in_the_middle_of_a_body() -> None:
    """An exception among the pieces is raised at its place."""
    transport = FakeTransport(FakeReply.sse(b"data: 1", Unreachable("cut", phase="reset")))

    async with transport.open(REQUEST) as reply:
        pieces = reply.chunks()
        assert b"data: 1" == await anext(pieces)
        with pytest.raises(Unreachable):
            await anext(pieces)

    assert 0 == transport.in_use


@pytest.mark.anyio
async def test_it_refuses_requests_once_closed() -> None:
    """After `aclose` a request is a RuntimeError, as with the real one."""
    transport = FakeTransport(FakeReply.of(b""))
    await transport.aclose()

    with pytest.raises(RuntimeError, match="closed"):
        async with transport.open(REQUEST):
            pass


def test_it_needs_something_to_answer() -> None:
    """Neither replies nor `answer=` is a mistake, and so are both."""
    with pytest.raises(TypeError, match="either"):
        FakeTransport()
    with pytest.raises(TypeError, match="either"):
        FakeTransport(FakeReply.of(b""), answer=lambda _: FakeReply.of(b""))


@pytest.mark.anyio
async def test_it_suspends_where_a_real_one_waits() -> None:
    """A cancellation can come before the headers, before each piece, at the end, and on leaving."""
    transport = FakeTransport(FakeReply.sse(b"1", b"2"))

    async def call() -> None:
        async with transport.open(REQUEST) as reply:
            await reply.read()

    survey = await cancel_everywhere(call, probes={"sockets": lambda: transport.in_use})

    assert 5 == survey.suspensions
