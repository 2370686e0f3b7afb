"""
Rules of a conversation that hold for every vendor, and what is repaired before sending.

Where the meaning is clear the history is repaired and each repair is reported; where it is not,
nothing is sent and the error names the position. What only one vendor wants stands with it, for
example in `mistral/history.py`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.messages import Message, ToolCall
from loom.wire.tool_ids import ToolIds, legal_name

__all__ = ["LegalHistory", "Repair"]


class LegalHistory(msgspec.Struct, frozen=True, kw_only=True):
    """
    A conversation that the vendor accepts.

    Attributes:
        messages: The turns, tool ids as they go out.
        repairs: What was changed, one sentence each, naming the position in the original.
        tool_ids: Ids on the wire, and the caller's ids that they stand for.
    """

    messages: tuple[Message, ...]
    repairs: tuple[str, ...] = ()
    tool_ids: dict[str, str] = {}


class Repair:
    """
    One pass over a conversation; positions are those of the original.

    Args:
        messages: The conversation, oldest first.
        keeps_id: Whether the vendor takes a call's id as it is.
        check_end: Refuses a last turn that the vendor does not answer, by its position.
        raises_system: Whether a system turn after an assistant or a tool moves up.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        *,
        keeps_id: Callable[[str], bool],
        check_end: Callable[[Message, int], None],
        raises_system: bool,
    ) -> None:
        self._turns = list(enumerate(messages))
        self._repairs: list[str] = []
        self._check_end = check_end
        self._raises_system = raises_system
        kept = (c.id for message in messages for c in message.tool_calls if keeps_id(c.id))
        self._ids = ToolIds(frozenset(kept), keeps_id)

    def run(self) -> LegalHistory:
        """
        Repair.

        Returns:
            The legal history with its repairs.

        Raises:
            InvalidRequest: If it cannot be made legal; the message names the position.
        """
        self._drop_empty()
        if self._raises_system:
            self._raise_system()
        placed = self._place_results()
        if not placed:
            raise InvalidRequest("messages hold nothing to answer: every turn in them is empty")
        for position, message in placed[:-1]:
            if message.prefix:
                raise InvalidRequest(
                    f"messages[{position}]: prefix=True is only for the last message"
                )
        self._check_end(placed[-1][1], placed[-1][0])
        return LegalHistory(
            messages=tuple(message for _, message in placed),
            repairs=tuple(self._repairs),
            tool_ids=self._ids.originals,
        )

    def _drop_empty(self) -> None:
        kept: list[tuple[int, Message]] = []
        for position, message in self._turns:
            if message.role == "assistant" and not message.content and not message.tool_calls:
                self._repairs.append(
                    f"messages[{position}]: left out an assistant turn without text and calls"
                )
            else:
                kept.append((position, message))
        self._turns = kept

    def _raise_system(self) -> None:
        opening = 0
        while opening < len(self._turns) and self._turns[opening][1].role == "system":
            opening += 1
        kept = self._turns[:opening]
        rest: list[tuple[int, Message]] = []
        for position, message in self._turns[opening:]:
            before = rest[-1][1].role if rest else "system"
            if message.role == "system" and before in ("assistant", "tool"):
                kept.append((position, message))
                self._repairs.append(
                    f"messages[{position}]: moved a system turn up, because it may not follow"
                    f" a turn of the {before}"
                )
            else:
                rest.append((position, message))
        self._turns = kept + rest

    def _place_results(self) -> list[tuple[int, Message]]:
        placed: list[tuple[int, Message]] = []
        turns = deque(self._turns)
        while turns:
            position, message = turns.popleft()
            if message.role == "tool":
                raise InvalidRequest(
                    f"messages[{position}]: tool result for {message.tool_call_id!r} has no call"
                    " before it; keep the assistant turn that made the call in the history"
                )
            if not message.tool_calls:
                placed.append((position, message))
                continue
            calls = self._renamed(message.tool_calls)
            placed.append((position, msgspec.structs.replace(message, tool_calls=calls)))
            placed.extend(self._results_of(position, message.tool_calls, calls, turns))
        return placed

    def _renamed(self, calls: tuple[ToolCall, ...]) -> tuple[ToolCall, ...]:
        seen: dict[str, int] = {}
        renamed: list[ToolCall] = []
        for call in calls:
            occurrence = seen.get(call.id, 0)
            seen[call.id] = occurrence + 1
            wire_id = self._ids.wire_id(call.id, occurrence)
            name = legal_name(call.name)
            if name != call.name:
                self._repairs.append(f"a call of a tool without a legal name goes out as {name!r}")
            if wire_id == call.id and name == call.name:
                renamed.append(call)
            else:
                renamed.append(ToolCall(wire_id, name, call.input, call.arguments))
        return tuple(renamed)

    def _results_of(
        self,
        position: int,
        asked: tuple[ToolCall, ...],
        renamed: tuple[ToolCall, ...],
        turns: deque[tuple[int, Message]],
    ) -> list[tuple[int, Message]]:
        """Take the results of one turn's calls out of what follows, in the calls' order."""
        waiting = self._take_results(asked, turns)
        results: list[tuple[int, Message]] = []
        for call, wire in zip(asked, renamed, strict=True):
            found = waiting.get(call.id)
            if not found:
                raise InvalidRequest(
                    f"messages[{position}]: the call {call.id!r} of {call.name!r} has no result;"
                    " add a tool message with its tool_call_id before the next assistant turn"
                )
            at, result = found.popleft()
            named = None if result.name is None else legal_name(result.name)
            results.append((at, msgspec.structs.replace(result, tool_call_id=wire.id, name=named)))
        self._check_spare(waiting, {m.tool_call_id: m for _, m in results}, renamed, asked)
        places = [at for at, _ in results]
        if places != list(range(position + 1, position + 1 + len(places))):
            self._repairs.append(
                f"messages[{position}]: put the results of its calls behind it, in their order"
            )
        return results

    def _take_results(
        self, asked: tuple[ToolCall, ...], turns: deque[tuple[int, Message]]
    ) -> dict[str, deque[tuple[int, Message]]]:
        ids = {call.id for call in asked}
        waiting: dict[str, deque[tuple[int, Message]]] = {}
        passed: list[tuple[int, Message]] = []
        while turns and turns[0][1].role != "assistant":
            turn = turns.popleft()
            result_of = turn[1].tool_call_id or ""
            if turn[1].role == "tool" and result_of in ids:
                waiting.setdefault(result_of, deque()).append(turn)
            else:
                passed.append(turn)
        turns.extendleft(reversed(passed))
        return waiting

    def _check_spare(
        self,
        waiting: dict[str, deque[tuple[int, Message]]],
        used: dict[str | None, Message],
        renamed: tuple[ToolCall, ...],
        asked: tuple[ToolCall, ...],
    ) -> None:
        wire_ids = {call.id: wire.id for call, wire in zip(asked, renamed, strict=True)}
        for call_id, spare in waiting.items():
            for at, message in spare:
                if message.content != used[wire_ids[call_id]].content:
                    raise InvalidRequest(
                        f"messages[{at}]: a second, different result for the call {call_id!r};"
                        " keep one"
                    )
                self._repairs.append(f"messages[{at}]: left out a repeated tool result")
