"""
What a model is told of a session, and which calls of it have no result yet.

Pure: entries in, messages out. Laws:

1. Every call that is told has exactly one result, right behind its turn, in the order of the calls;
   only the calls of the last turn may be open, as long as nobody spoke after it (`open_calls`).
2. A result without its call is not told: its turn was withdrawn, or is told by a summary.
3. What was withdrawn stays withdrawn, and of two summaries the one that tells more counts.
4. Whether a tool began is a fact: withdrawing what was said does not undo it.

`messages_of(entries) + settled(entries)` can be sent, whatever the entries are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from loom.agent.session import Begun, Condensed, Entry, Said, Withdrawn
from loom.core.messages import Message, ToolCall

__all__ = ["SUMMARY_MARK", "ClosingWords", "OpenCall", "messages_of", "open_calls", "settled"]

SUMMARY_MARK = "Summary of the earlier conversation, which is left out here:"
"""How the message begins that stands for a condensed beginning."""


class OpenCall(msgspec.Struct, frozen=True, kw_only=True):
    """
    A call without a result.

    Attributes:
        call: What the model asked for.
        position: Its index in its assistant turn, from 0.
        begun: Whether the tool began to run: it may have been done.
    """

    call: ToolCall
    position: int
    begun: bool


class ClosingWords(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a model reads in the place of a result that never came.

    Attributes:
        begun: Of a call whose tool began to run.
        waiting: Of a call whose tool did not.
    """

    begun: str = (
        "error: interrupted: the program ended while this tool was running;"
        " it may or may not have been done"
    )
    waiting: str = "error: cancelled before it began"


_WORDS = ClosingWords()


class _Turn:
    """An assistant's turn that calls tools, and what came after it."""

    def __init__(self, entries: Sequence[Entry], place: int, calls: tuple[ToolCall, ...]) -> None:
        self.calls = calls
        self._entries = entries
        self._place = place
        self.results: dict[int, Message] = {}
        self.after: list[Message] = []

    def take(self, message: Message) -> None:
        """Keep a result of the first call of its id that has none; another is left out."""
        call_id = message.tool_call_id or ""
        for position, call in enumerate(self.calls):
            if call.id == call_id and position not in self.results:
                self.results[position] = message
                return

    def open(self) -> list[OpenCall]:
        if len(self.results) == len(self.calls):
            return []
        begun = _begun(self._entries, self._place, self.calls)
        return [
            OpenCall(call=call, position=position, begun=position in begun)
            for position, call in enumerate(self.calls)
            if position not in self.results
        ]

    def told(self, *, over: bool) -> Iterator[Message]:
        """Give the results in the order of the calls; once the turn is over, of every call."""
        missing = {each.position: each for each in self.open()} if over else {}
        for position in range(len(self.calls)):
            if position in self.results:
                yield self.results[position]
            elif position in missing:
                yield _closing(missing[position], _WORDS)
        yield from self.after


def messages_of(entries: Sequence[Entry]) -> tuple[Message, ...]:
    """
    What the model is to be told.

    A summary is a user's message and no system's: it was written by a model, perhaps from what a
    tool brought in, and must not become an instruction. System messages are told to the letter.

    Args:
        entries: The session's, the oldest first.

    Returns:
        The conversation; calls of its last turn may be open.
    """
    return _read(entries)[0] if entries else ()


def open_calls(entries: Sequence[Entry]) -> tuple[OpenCall, ...]:
    """
    The calls of the last assistant turn that have no result yet.

    Results are matched by id and order: ids may repeat in one turn.

    Args:
        entries: The session's, the oldest first.

    Returns:
        In the order of the calls; () when somebody spoke after the turn: it is over then.
    """
    return _read(entries)[1] if entries else ()


def settled(entries: Sequence[Entry], words: ClosingWords = _WORDS) -> tuple[Message, ...]:
    """
    Results that close the open calls.

    Args:
        entries: The session's, the oldest first.
        words: What the model reads.

    Returns:
        A tool's message for each of `open_calls`, in their order.
    """
    return tuple(_closing(each, words) for each in open_calls(entries))


def _closing(each: OpenCall, words: ClosingWords) -> Message:
    return Message.tool(each.call, words.begun if each.begun else words.waiting)


def _read(entries: Sequence[Entry]) -> tuple[tuple[Message, ...], tuple[OpenCall, ...]]:
    withdrawn = _withdrawn(entries)
    until, summary = _condensed(entries, withdrawn)
    told: list[Message] = []
    turn: _Turn | None = None
    for _, message in _said(entries, withdrawn, 0, until):
        if message.role == "system":
            told.append(message)
    if summary is not None:
        told.append(Message.user(f"{SUMMARY_MARK}\n\n{summary}"))
    for place, message in _said(entries, withdrawn, until, len(entries)):
        if message.role == "assistant":
            if turn is not None:
                told += turn.told(over=True)
            # A stored turn is over: nobody goes on from its text.
            told.append(
                msgspec.structs.replace(message, prefix=False) if message.prefix else message
            )
            calls = message.tool_calls
            turn = _Turn(entries, place, calls) if calls else None
        elif message.role == "tool":
            if turn is not None:
                turn.take(message)
        else:
            (told if turn is None else turn.after).append(message)
    if turn is None:
        return tuple(told), ()
    over = bool(turn.after)
    told += turn.told(over=over)
    return tuple(told), () if over else tuple(turn.open())


def _said(
    entries: Sequence[Entry], withdrawn: set[int], since: int, until: int
) -> Iterator[tuple[int, Message]]:
    for place in range(since, until):
        entry = entries[place]
        if isinstance(entry, Said) and place not in withdrawn:
            yield place, entry.message


def _withdrawn(entries: Sequence[Entry]) -> set[int]:
    gone: set[int] = set()
    for place, entry in enumerate(entries):
        if isinstance(entry, Withdrawn):
            gone.update(range(max(0, entry.since), place))
    return gone


def _condensed(entries: Sequence[Entry], withdrawn: set[int]) -> tuple[int, str | None]:
    until, summary = 0, None
    for place, entry in enumerate(entries):
        if isinstance(entry, Condensed) and place not in withdrawn:
            reach = min(entry.until, place)
            if reach > 0 and reach >= until:
                until, summary = reach, entry.summary
    return until, summary


def _begun(entries: Sequence[Entry], place: int, calls: tuple[ToolCall, ...]) -> frozenset[int]:
    """Give the positions of calls that began after the turn at `place`."""
    begun: set[int] = set()
    for after in range(place + 1, len(entries)):
        entry = entries[after]
        if isinstance(entry, Said) and entry.message.role == "assistant":
            break
        if isinstance(entry, Begun):
            same = [n for n, call in enumerate(calls) if call.id == entry.call_id]
            begun.update([entry.position] if entry.position in same else same)
    return frozenset(begun)
