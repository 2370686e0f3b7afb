"""One answer, put together from its deltas."""

from __future__ import annotations

import msgspec

from loom.core.messages import (
    Message,
    Part,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.response import Choice
from loom.wire.tool_ids import hashed_id

__all__ = ["Answer"]


class _Slot(msgspec.Struct):
    """A tool call whose arguments may still be coming."""

    id: str
    name: str
    index: int | None
    arguments: tuple[str, ...]


class Answer:
    """
    Text, thoughts and calls of one answer, in the order in which they came.

    Args:
        index: Which answer, from 0.
    """

    __slots__ = (
        "_closed", "_parts", "_slots", "_texts", "_thoughts", "finish_reason", "index", "refused",
    )  # fmt: skip

    def __init__(self, index: int) -> None:
        self.index = index
        # Whether some of the text is the model's refusal, where the vendor tells it apart.
        self.refused = False
        self.finish_reason: str | None = None
        # The text since the last part that is no text. Most answers are nothing else.
        self._texts: list[str] = []
        # The thoughts since the last part that is no thought; joined once, as they may be long.
        self._thoughts: list[str] = []
        self._closed: bool | None = None
        self._parts: list[Part] = []
        self._slots: list[_Slot] = []

    def copy(self) -> Answer:
        """An independent answer in the same state."""
        twin = Answer(self.index)
        twin.finish_reason = self.finish_reason
        twin.refused = self.refused
        twin._texts = self._texts[:]
        twin._thoughts = self._thoughts[:]
        twin._closed = self._closed
        twin._parts = self._parts[:]
        # A slot grows in place; the copy needs its own.
        twin._slots = [_Slot(s.id, s.name, s.index, s.arguments) for s in self._slots]
        return twin

    def add_text(self, text: str) -> None:
        """The next piece of text."""
        if self._thoughts:
            self._flush()
        self._texts.append(text)

    def add_part(self, part: Part) -> None:
        """The next chunk of a content list; pieces of one thought become one part."""
        match part:
            case TextPart(text=text):
                self.add_text(text)
            case ThinkingPart(parts=(TextPart(text=text),), closed=closed, extra=extra) if (
                not extra
            ):
                if self._texts:
                    self._flush()
                self._thoughts.append(text)
                self._closed = self._closed if closed is None else closed
            case _:
                self._flush()
                self._parts.append(part)

    def add_call(self, index: int | None, call_id: str, name: str, arguments: str) -> int:
        """
        A tool call, whole or a fragment.

        Fragments are joined by `index`; where it is missing, by id, and a piece without an id
        belongs to the last call. A new id under a known index is another call: some relays
        count wrongly (reliability rule R-7).

        Args:
            index: As the vendor counts; None when it does not.
            call_id: Empty on later fragments.
            name: Empty on later fragments.
            arguments: The next piece of JSON text.

        Returns:
            The call's place in this answer, from 0.
        """
        for place in range(len(self._slots) - 1, -1, -1):
            slot = self._slots[place]
            same_id = not call_id or call_id == slot.id or not slot.id
            if same_id and (index is None or slot.index is None or index == slot.index):
                if call_id and call_id == slot.id and name and index is None:
                    break  # a second whole call with the same id, not a fragment
                slot.id = slot.id or call_id
                slot.name = slot.name or name
                slot.arguments += (arguments,)
                return place
        self._slots.append(_Slot(call_id, name, index, (arguments,)))
        return len(self._slots) - 1

    @property
    def twins(self) -> list[str]:
        """Ids that more than one call has, each once for every further call."""
        ids = [slot.id for slot in self._slots if slot.id]
        return [call_id for place, call_id in enumerate(ids) if call_id in ids[:place]]

    def choice(self, answer_id: str) -> Choice:
        """
        The answer as it stands.

        Args:
            answer_id: The vendor's id of the answer; ids that it forgot are made from it.

        Returns:
            Its message, and why it ended.
        """
        content: str | tuple[Part, ...] = "".join(self._texts)
        if self._parts or self._thoughts:
            content = (*self._parts, *self._open_run())
        calls: list[ToolCall] = []
        seen: set[str] = set()
        for place, slot in enumerate(self._slots):
            call_id = slot.id
            # Fault matrix, row 42: a tool runs once for each call, never twice for an id.
            if not call_id or call_id in seen:
                call_id = hashed_id(f"{answer_id}/{self.index}/{place}")
            seen.add(call_id)
            calls.append(ToolCall(call_id, slot.name, arguments="".join(slot.arguments)))
        message = Message(role="assistant", content=content, tool_calls=tuple(calls))
        return Choice(index=self.index, message=message, finish_reason=self.finish_reason)

    def _flush(self) -> None:
        self._parts.extend(self._open_run())
        self._texts, self._thoughts, self._closed = [], [], None

    def _open_run(self) -> tuple[Part, ...]:
        if self._thoughts:
            return (ThinkingPart((TextPart("".join(self._thoughts)),), self._closed),)
        text = "".join(self._texts)
        return (TextPart(text),) if text else ()
