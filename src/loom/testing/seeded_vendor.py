"""A vendor in memory: HTTP/1.1 over a `SeededLoop`'s network, good and bad by chance."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from loom.core.ambient import Clock
from loom.core.errors import InvalidRequest
from loom.testing.chance import Chance
from loom.testing.seeded_answers import Piece, text_of, text_pieces, who_asks
from loom.testing.seeded_faults import FAULTS, FOR_EVER_S, Script, Serving, good
from loom.testing.seeded_line import Line
from loom.testing.seeded_loop import SeededLoop
from loom.testing.seeded_mood import Mood
from loom.testing.seeded_network import Fate, Host

__all__ = ["Mood", "SeededVendor", "Served"]

if TYPE_CHECKING:
    from loom.testing.seeded_tools import Wishes


class Served(msgspec.Struct, kw_only=True):
    """
    A request as the vendor saw it.

    Attributes:
        number: Counted from 1.
        at_s: When it had arrived, on the loop's clock.
        connection: On which connection, counted from 1.
        call: The last message's text: who asked.
        model: Who was asked.
        stream: Whether a stream was asked for.
        fault: How it was answered; "good" for as it should be.
        text: The whole answer's text.
        key: The key that it brought.
        status: An error status, if it was answered with one.
        retry_after_s: The wait that was asked for, in seconds.
        whole: Whether all that makes an answer whole was sent.
        ended: How the connection ended before the answer did; empty if it did not.
        illegal: Why a strict Mistral would refuse it; empty if it would not, or nobody looked.
    """

    number: int
    at_s: float
    connection: int
    call: str
    model: str
    stream: bool
    fault: str
    text: str
    key: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    whole: bool = False
    ended: str = ""
    illegal: str = ""


class SeededVendor:
    """
    A vendor at an address of a loop's network.

    The last message of a request names its call: that text and the request's number are in the
    answer, so that no answer can be taken for another. Of an agent's turn a number tells it.

    Args:
        loop: The loop.
        clock: The wall clock, for dates in headers.
        chance: Draws what is done with each request.
        mood: How often what goes wrong.
        addresses: Where it listens.
        wishes: What it calls where tools are offered; None: nothing.

    Attributes:
        journal: Every request, in the order of arrival.
        counts: How often each fault before a request occurred.
    """

    def __init__(
        self,
        loop: SeededLoop,
        clock: Clock,
        chance: Chance,
        mood: Mood = Mood(),  # noqa: B008 - a frozen value
        addresses: Sequence[str] = ("127.0.0.2",),
        *,
        wishes: Wishes | None = None,
    ) -> None:
        self.journal: list[Served] = []
        self.counts: dict[str, int] = {}
        self.loop = loop
        self.clock = clock
        self.chance = chance
        self.mood = mood
        self.wishes = wishes
        self._doors: list[_Door] = []
        self._kinds = {
            asked: {
                name: fault.weight
                for name, fault in FAULTS.items()
                if fault.asked in ("any", asked) and name in (mood.kinds or FAULTS)
            }
            for asked in ("plain", "stream")
        }
        for address in addresses:
            loop.network.hosts[address] = Host(accept=self._accept, fate=self._fate)

    @property
    def busy(self) -> list[str]:
        """The requests that are still being answered."""
        return [door.busy for door in self._doors if door.busy]

    def wake(self) -> None:
        """Let every connection read on, so that it sees whether the client has gone."""
        for door in self._doors:
            door.line.resume_reading()

    def count(self, what: str) -> None:
        """
        Take note of a fault.

        Args:
            what: Its name.
        """
        self.counts[what] = self.counts.get(what, 0) + 1

    def draw(self, model: str, *, stream: bool) -> str:
        """
        Draw how a request is answered.

        Args:
            model: Who is asked.
            stream: Whether a stream is.

        Returns:
            A key of `FAULTS`, or "good".
        """
        rates = self.mood.faults
        kinds = self._kinds["stream" if stream else "plain"]
        if kinds and self.chance.happens(rates.get(model, rates.get("", 0.0))):
            return self.chance.weighted(kinds)
        return "good"

    def _fate(self) -> Fate:
        down_s = self.mood.down_s
        if down_s is not None and down_s[0] <= self.loop.time() < down_s[1]:
            self.count("down")
            return "refuse"
        if self.chance.happens(self.mood.refuses):
            self.count("refused")
            return "refuse"
        if self.chance.happens(self.mood.hangs):
            self.count("connect hangs")
            return "hang"
        return "accept"

    def _accept(self) -> asyncio.Protocol:
        door = _Door(self, self.loop.network.connections)
        self._doors.append(door)
        return door


class _Asked(msgspec.Struct):
    """What is read of a request's body."""

    messages: list[dict[str, Any]]
    model: str = ""
    stream: bool = False
    random_seed: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None


class _Door(asyncio.Protocol):
    """One connection."""

    line: Line

    def __init__(self, vendor: SeededVendor, number: int) -> None:
        self._vendor = vendor
        self._number = number
        self._buffer = b""
        self._answer: _Answer | None = None
        self._sleepy: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> str:
        """The request that is being answered; empty if there is none."""
        return "" if self._answer is None or self.line.lost else self._answer.name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Line)  # noqa: S101 - nothing else is in memory
        self.line = transport
        if self._vendor.chance.happens(self._vendor.mood.deaf):
            self._vendor.count("deaf")
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(_header(head, b"content-length"))
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        if self._sleepy is not None:
            self._sleepy.cancel()
        key = _header(head, b"authorization").decode().removeprefix("Bearer ")
        self._serve(rest[:size], key)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sleepy is not None:
            self._sleepy.cancel()
        if self._answer is not None:
            self._answer.stop("reset by the client" if exc else "closed by the client")

    def _serve(self, body: bytes, key: str) -> None:
        vendor = self._vendor
        asked = msgspec.json.decode(body, type=_Asked)
        number = len(vendor.journal) + 1
        call = who_asks(asked.messages, asked.random_seed)
        fault = vendor.draw(asked.model, stream=asked.stream)
        pieces: list[Piece] = [*text_pieces(call, number, vendor.chance.whole(0, 6))]
        if vendor.wishes is not None and asked.tools and asked.tool_choice != "none":
            pieces = vendor.wishes.pieces(call, pieces)
        served = Served(
            number=number,
            at_s=vendor.loop.time(),
            connection=self._number,
            call=call,
            model=asked.model,
            stream=asked.stream,
            fault=fault,
            text=text_of(pieces),
            key=key,
            illegal=_illegal(body) if asked.tools else "",
        )
        vendor.journal.append(served)
        vendor.loop.network.note(
            f"request {number} of {call} to {asked.model} on connection {self._number}: {fault}"
        )
        self._answer = _Answer(vendor, self, served, pieces)
        self._answer.go_on(FAULTS[fault].script if fault in FAULTS else good)

    def done(self) -> None:
        """An answer is sent: keep the connection, or lose patience."""
        self._answer = None
        vendor = self._vendor
        if not self.line.is_closing() and vendor.chance.happens(vendor.mood.restless):
            vendor.count("restless")
            after_s = vendor.chance.pick((0.0, vendor.chance.between(0.0, 6.0)))
            self._sleepy = vendor.loop.call_later(after_s, self.line.close)


def _illegal(body: bytes) -> str:
    """Why a strict Mistral would refuse a request."""
    from loom.wire.mistral.dialect import MistralDialect  # noqa: PLC0415 - brings the wire format

    try:
        MistralDialect(strict=True).decode_request(body)
    except InvalidRequest as error:
        return error.message
    return ""


def _header(head: bytes, name: bytes) -> bytes:
    start = head.lower().find(b"\r\n%s:" % name)
    return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip() if start >= 0 else b"0"


class _Answer(Serving):
    """An answer on its way."""

    def __init__(
        self, vendor: SeededVendor, door: _Door, served: Served, pieces: Sequence[Piece]
    ) -> None:
        self.chance = vendor.chance
        self.clock = vendor.clock
        self.stream = served.stream
        self.head = {"id": str(served.number), "model": served.model}
        self.pieces = pieces
        self._loop = vendor.loop
        self._door = door
        self._served = served
        self.name = f"request {served.number} of {served.call} is still being answered"
        self._script: Script = iter(())
        self._timer: asyncio.TimerHandle | None = None

    def go_on(self, script: object = None) -> None:
        """Do the next step of the script."""
        if callable(script):
            self._script = script(self)
        for pause_s in self._script:
            if pause_s < FOR_EVER_S:
                self._timer = self._loop.call_later(pause_s, self.go_on)
            return
        self._door.done()

    def stop(self, why: str) -> None:
        """Give up: the connection is gone."""
        self._served.ended = self._served.ended or why
        self._script = iter(())
        if self._timer is not None:
            self._timer.cancel()

    def write(self, data: bytes) -> None:
        self._door.line.write(data)

    def whole(self) -> None:
        self._served.whole = True

    def status(self, status: int, retry_after_s: float | None) -> None:
        self._served.status, self._served.retry_after_s = status, retry_after_s

    def close(self) -> None:
        self._served.ended = "closed by the vendor"
        self._door.line.close()

    def reset(self) -> None:
        self._served.ended = "reset by the vendor"
        self._door.line.reset()
