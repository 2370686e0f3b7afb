"""
A stream that is handed on as it came, and read on the way.

Whole events leave unchanged, so that something of ours (an error, a note on costs) can always
follow them. The sentinel `[DONE]` does not leave: whoever hands the stream on ends it, when the
books are balanced. What is read on the way (usage, finish reasons, errors in the stream, how much
was said) comes out of the dialect's own decoder: there is no second reading of the format.
"""

from __future__ import annotations

import copy
import re

from loom.core.errors import LoomError
from loom.core.events import Relayed, StreamEvent, TextDelta, ThinkingDelta, ToolCallDelta
from loom.core.response import LLMResponse, Partial
from loom.wire.dialect import ChatDecoder

__all__ = ["RelayDecoder"]

_DONE = re.compile(rb"data: ?\[DONE\]\s*\Z")
# Two ends of lines, each of which may be LF, CRLF or CR (WHATWG HTML, "Parsing an event stream").
_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_EVENT = re.compile(rb".*?(?:\r\n|\n|\r(?!\n)){2}", re.DOTALL)


class RelayDecoder(ChatDecoder):
    """
    Decodes one streamed answer into its own bytes.

    Args:
        decoder: Reads it; not used by anybody else.
    """

    def __init__(self, decoder: ChatDecoder) -> None:
        self._decoder = decoder
        self._fresh = copy.copy(decoder)
        self._rest = b""
        self._answer: LLMResponse | None = None

    @property
    def complete(self) -> bool:  # type: ignore[override]  # a property stands for the attribute
        """Whether the answer is whole and its usage known: nothing more need be read."""
        return self._decoder.complete

    @property
    def finished(self) -> bool:  # type: ignore[override]  # a property stands for the attribute
        """Whether every answer has ended."""
        return self._decoder.finished

    @property
    def skip_bad_events(self) -> bool:
        """Whether what cannot be read is left out: it would be handed on all the same."""
        return self._decoder.skip_bad_events

    @skip_bad_events.setter
    def skip_bad_events(self, wanted: bool) -> None:
        self._decoder.skip_bad_events = wanted

    def feed(self, data: bytes) -> list[StreamEvent]:
        """
        Take the next bytes.

        Args:
            data: Any cut of the body.

        Returns:
            One `Relayed` with the whole events, or nothing.

        Raises:
            LoomError: As the dialect's decoder: with events before it, it is raised by `finish`.
        """
        read = self._decoder.feed(data)
        whole = self._rest + data if self._rest else data
        end = _end_of_events(whole)
        out, self._rest = whole[:end], whole[end:]
        if self._decoder.complete:
            out = self._ended(out)
        return [Relayed(out, _said(read))] if out else []

    def _ended(self, out: bytes) -> bytes:
        """The last events, without the sentinel, and without an error and what is behind it."""
        try:
            self._answer = self._decoder.finish()
        except LoomError:
            # `finish` raises it again, and it is told in the caller's words.
            out = self._before_error(out)
        sentinel = _DONE.search(out)
        return out if sentinel is None else out[: sentinel.start()]

    def _before_error(self, out: bytes) -> bytes:
        before = 0
        for event in _EVENT.finditer(out):
            try:
                self._fresh.feed(event[0])
            except LoomError:
                break
            before = event.end()
        return out[:before]

    def finish(self) -> LLMResponse:
        """
        The body ended: give the answer, as the dialect's decoder does.

        Returns:
            The whole answer.

        Raises:
            LoomError: What the stream said, or that it was cut.
        """
        return self._answer or self._decoder.finish()

    def partial(self) -> Partial:
        """What has arrived so far."""
        return self._decoder.partial()


def _end_of_events(data: bytes) -> int:
    """Where the last whole event ends; 0 without one."""
    marks = _ENDS if b"\r" in data else _ENDS[:1]
    return max((place + len(mark) for mark in marks if (place := data.rfind(mark)) >= 0), default=0)


def _said(events: list[StreamEvent]) -> int:
    said = 0
    for event in events:
        match event:
            case TextDelta(text=text) | ThinkingDelta(text=text):
                said += len(text)
            case ToolCallDelta(arguments=arguments):
                said += len(arguments)
            case _:
                pass
    return said
