"""The door to the vendor with a book of who passes: what was sent, as the transport saw it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

import msgspec

from loom.core.errors import LoomError
from loom.core.secret import Secret
from loom.testing.seeded_answers import who_asks
from loom.testing.seeded_loop import SeededLoop
from loom.transport.contract import HttpReply, HttpRequest, Transport

__all__ = ["Gate", "Trip"]


class Trip(msgspec.Struct, kw_only=True):
    """
    One request as the transport was asked for it.

    Attributes:
        call: Whose.
        step: Which request of it, from 0, not counting those that were sent again: an agent's turn
            has several.
        route: Address, model and key: who is asked, and as whom.
        order: Its place among everything that happened.
        opened_s: When, on the loop's clock.
        ended_s: When it was over.
        attempts: How often it was sent; None if it was cancelled before that was known.
        status: The reply's status, if headers came.
    """

    call: str
    step: int
    route: tuple[str, str, str]
    order: int
    opened_s: float
    ended_s: float = 0.0
    attempts: int | None = None
    status: int | None = None


class _Told(msgspec.Struct):
    messages: list[dict[str, Any]]
    model: str
    random_seed: int | None = None


class Gate(Transport):
    """
    A transport with a book of who passes; nothing else is changed.

    Args:
        inner: The real one.
        loop: The loop.
        tick: Gives the next place in the order of everything.
        trips: The book.
    """

    def __init__(
        self, inner: Transport, *, loop: SeededLoop, tick: Callable[[], int], trips: list[Trip]
    ) -> None:
        self._inner = inner
        self._loop = loop
        self._tick = tick
        self._trips = trips
        self._said: dict[str, list[list[dict[str, Any]]]] = {}

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpReply]:
        """Pass a request on, and take note of it."""
        told = msgspec.json.decode(request.body, type=_Told)
        call = who_asks(told.messages, told.random_seed)
        # What is sent again says the same; what a turn asks next says more.
        said = self._said.setdefault(call, [])
        if told.messages not in said:
            said.append(told.messages)
        trip = Trip(
            call=call,
            step=said.index(told.messages),
            route=(request.url, told.model, _key(request)),
            order=self._tick(),
            opened_s=self._loop.time(),
        )
        self._trips.append(trip)
        return _Passage(self._inner.open(request), trip, self._loop)

    async def aclose(self) -> None:
        """Close the real one."""
        await self._inner.aclose()


def _key(request: HttpRequest) -> str:
    given = request.headers.get("authorization", "")
    return (given.reveal() if isinstance(given, Secret) else given).removeprefix("Bearer ")


class _Passage(AbstractAsyncContextManager[HttpReply]):
    def __init__(
        self, inner: AbstractAsyncContextManager[HttpReply], trip: Trip, loop: SeededLoop
    ) -> None:
        self._inner = inner
        self._trip = trip
        self._loop = loop

    async def __aenter__(self) -> HttpReply:
        trip = self._trip
        try:
            reply = await self._inner.__aenter__()
        except BaseException as error:
            # Who was cancelled has a place in the books too.
            trip.ended_s = self._loop.time()
            if isinstance(error, LoomError):
                trip.attempts = error.attempts
            raise
        trip.attempts, trip.status = reply.attempts, reply.status
        return reply

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(kind, error, trace)
        finally:
            self._trip.ended_s = self._loop.time()
