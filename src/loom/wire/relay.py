"""
A stream that is handed on as it came, and read on the way.

Whole events leave unchanged, so that something of ours (an error, a note on costs) can always
follow them. The sentinel `[DONE]` does not leave: whoever hands the stream on ends it, when the
books are balanced. What is read on the way (usage, finish reasons, errors in the stream, how much
was said) comes out of the dialect's own decoder: there is no second reading of the format.
"""

from __future__ import annotations

from loom.core.events import Relayed, StreamEvent, TextDelta, ThinkingDelta, ToolCallDelta
from loom.core.response import LLMResponse, Partial
from loom.wire.dialect import ChatDecoder

__all__ = ["RelayDecoder"]

_DONE = b"data: [DONE]"


class RelayDecoder(ChatDecoder):
    """
    Decodes one streamed answer into its own bytes.

    Args:
        decoder: Reads it; not used by anybody else.
    """

    def __init__(self, decoder: ChatDecoder) -> None:
        self._decoder = decoder
        self._rest = b""

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
            LoomError: As the dialect's decoder; whole events before it are lost with the stream.
        """
        read = self._decoder.feed(data)
        if self._decoder.complete and not self._decoder.finished:
            # The vendor sent an error: `finish` raises it, and it is told in the caller's words.
            return []
        whole = self._rest + data if self._rest else data
        end = whole.rfind(b"\n\n")
        if end < 0:
            end = whole.rfind(b"\r\n\r\n")
            size = 4
        else:
            size = 2
        if end < 0:
            self._rest = whole
            return []
        out, self._rest = whole[: end + size], whole[end + size :]
        done = out.rfind(_DONE)
        if done >= 0 and not out[done + len(_DONE) :].strip():
            out = out[:done]
        return [Relayed(out, _said(read))] if out else []

    def finish(self) -> LLMResponse:
        """
        The body ended: give the answer, as the dialect's decoder does.

        Returns:
            The whole answer.

        Raises:
            LoomError: What the stream said, or that it was cut.
        """
        return self._decoder.finish()

    def partial(self) -> Partial:
        """What has arrived so far."""
        return self._decoder.partial()


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


