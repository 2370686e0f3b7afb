"""
Answers on their way to the caller: a stream whose every event leaves as it comes.

A stream is read only as fast as its caller takes it: the socket's own flow control holds the
reading of the vendor back. A caller that hangs up in the middle has its answer read to the end for
a while, so that the bill is known; when there are too many such, or it takes too long, the vendor
is left, and the bill is an estimate. Either way there is exactly one row in the ledger, because
the layers below write it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import TypeAlias

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import LoomError
from loom.core.events import NOTICES, Completed, Relayed, StreamEvent
from loom.core.response import LLMResponse
from loom.providers.whole import events_of
from loom.server.gateway.caller import Call
from loom.server.gateway.errors import log_unexpected, outward, unexpected
from loom.wire.dialect import ChatEncoder

__all__ = ["DRAINS_AT_ONCE", "DRAIN_S", "Relay", "Told"]

DRAIN_S = 10.0
"""How long an answer is read on without its caller, in seconds (reliability rule R-36)."""

DRAINS_AT_ONCE = 32
"""How many answers are read on without their callers at once (the same rule)."""

_DONE = b"data: [DONE]\n\n"
_EVENTS = {"content-type": "text/event-stream; charset=utf-8"}

Told: TypeAlias = Callable[[Call, LLMResponse | None], dict[str, str]]
"""Gives the headers of an answer; without a response: of one that has only begun."""


class Relay:
    """
    Sends streams.

    Args:
        told: Gives the headers of an answer.
        clock: Waits.
        rescue: Whether an answer that broke may begin anew elsewhere: it is then held back until
            it is whole, for nobody can take back what was sent.
    """

    def __init__(self, told: Told, clock: Clock, *, rescue: bool = False) -> None:
        self._clock = clock
        self._told = told
        self._rescue = rescue
        self.draining = 0
        self.streams = 0

    async def stream(
        self,
        call: Call,
        events: AsyncGenerator[StreamEvent, None],
        encoder: Callable[[], ChatEncoder],
    ) -> None:
        """
        Send a stream to its end, or until its caller hangs up.

        Args:
            call: Whose.
            events: The answer; closed in every case.
            encoder: Makes what writes it in the caller's dialect; a relayed stream needs none.

        Raises:
            LoomError: If the answer failed before anything of it was sent.
        """
        task = asyncio.current_task()
        passage = _Passage(call, encoder)
        watch = asyncio.ensure_future(self._watch(call, passage, task))
        self.streams += 1
        try:
            async with aclosing(events):
                await self._carry(passage, events)
        except asyncio.CancelledError:
            # The watch gave the answer up, unless somebody else wants the task to end as well.
            if not passage.given_up or task is None or task.uncancel():
                raise
        finally:
            self.streams -= 1
            watch.cancel()

    async def _carry(self, passage: _Passage, events: AsyncGenerator[StreamEvent, None]) -> None:
        call = passage.call
        try:
            async for event in events:
                if isinstance(event, Completed):
                    notes = self._told(call, event.response)
                    if not passage.begun:
                        await passage.begin(self._told(call, None))
                        await passage.whole(event.response)
                    await passage.end(event, notes)
                    return
                if type(event) in NOTICES or self._rescue:
                    continue
                if not passage.begun:
                    await passage.begin(self._told(call, None))
                await passage.piece(event)
        except LoomError as error:
            if not passage.begun:
                raise
            await passage.fail(outward(error))
        except Exception as error:
            if not passage.begun:
                raise
            log_unexpected(error, call.request_id)
            await passage.fail(unexpected())

    async def _watch(self, call: Call, passage: _Passage, task: asyncio.Task[None] | None) -> None:
        """Wait for the caller to hang up; then have the answer read on for a while."""
        while (await call.receive())["type"] != "http.disconnect":
            pass
        passage.gone = True
        drains = passage.begun and self.draining < DRAINS_AT_ONCE
        if drains:
            self.draining += 1
        try:
            if drains:
                # Cancelled when the answer is whole: then the bill is known.
                await self._clock.sleep(DRAIN_S)
            passage.given_up = True
            if task is not None:
                task.cancel()
        finally:
            self.draining -= drains


class _Passage:
    """One stream on its way."""

    def __init__(self, call: Call, encoder: Callable[[], ChatEncoder]) -> None:
        self.call = call
        self.begun = False
        self.gone = False
        self.given_up = False
        self._make = encoder
        self._encoder: ChatEncoder | None = None

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the head."""
        self.begun = True
        if not self.gone:
            await self.call.line.start(200, {**_EVENTS, **headers})

    async def piece(self, event: StreamEvent) -> None:
        """Send an event."""
        if self.gone:
            return
        if type(event) is Relayed:
            await self.call.line.piece(event.data)
            return
        data = self._written(event)
        if data:
            await self.call.line.piece(data)

    async def whole(self, response: LLMResponse) -> None:
        """Send an answer that came in one piece, as the stream that was asked for."""
        for event in events_of(response):
            await self.piece(event)

    async def end(self, event: Completed, notes: Mapping[str, str]) -> None:
        """Send what it cost, and the end."""
        if self.gone:
            return
        data = b"" if self._encoder is None else self._written(event)
        note = b": loom " + msgspec.json.encode(notes) + b"\n\n"
        await self.call.line.end(data.removesuffix(_DONE) + note + _DONE)

    async def fail(self, error: LoomError) -> None:
        """Send an error in the middle of the answer; no sentinel follows it."""
        if self.gone:
            return
        encoder = self._encoder or self._make()
        await self.call.line.end(encoder.error(error))

    def _written(self, event: StreamEvent) -> bytes:
        if self._encoder is None:
            self._encoder = self._make()
            return self._encoder.start() + self._encoder.encode(event)
        return self._encoder.encode(event)
