"""Sessions for tests: entries in short, and any sequence of them for property tests."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import strategies as st

from loom.agent.session import Begun, Condensed, Entry, Said, Withdrawn
from loom.core.messages import Message, RawPart, TextPart, ToolCall
from loom.core.response import Usage


def user(text: str = "Hello") -> Said:
    """Give a turn of the user."""
    return Said(message=Message.user(text))


def answer(text: str | None = "Hi.", *calls: str, cost: str | None = "0.001") -> Said:
    """Give a turn of the assistant that calls tools by these ids."""
    return Said(
        message=Message.assistant(text, tool_calls=tuple(ToolCall(i, f"tool_{i}") for i in calls)),
        model="model-1",
        usage=Usage(
            input_tokens=10, output_tokens=5, cost_usd=None if cost is None else Decimal(cost)
        ),
    )


def calling(*calls: str) -> Said:
    """Give a turn of the assistant that only calls tools."""
    return answer(None, *calls)


def result(call_id: str, text: str = "done") -> Said:
    """Give a tool's result."""
    return Said(message=Message.tool(call_id, text))


def begun(call_id: str, position: int = 0) -> Begun:
    """Say that a tool began."""
    return Begun(call_id=call_id, name=f"tool_{call_id}", position=position)


_IDS = st.sampled_from(["a", "b", "call_of_another_vendor", ""])
_TEXTS = st.sampled_from(["", "one", "two words"])
_CONTENT = (
    st.none()
    | _TEXTS
    | st.lists(st.builds(TextPart, _TEXTS) | st.just(RawPart("x", {"type": 1})), max_size=2).map(
        tuple
    )
)
_CALLS = st.lists(st.builds(ToolCall, _IDS, st.sampled_from(["look", "book"])), max_size=3)
_SAID = st.one_of(
    st.builds(Message.user, _TEXTS),
    st.builds(
        lambda content, calls, prefix: Message.assistant(
            content, tool_calls=tuple(calls), prefix=prefix
        ),
        _CONTENT,
        _CALLS,
        st.booleans(),
    ),
    st.builds(Message.tool, _IDS, _TEXTS),
    st.builds(Message.system, _TEXTS),
).map(lambda message: Said(message=message))

ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    _SAID,
    _SAID,
    st.builds(Begun, call_id=_IDS, name=st.just("look"), position=st.integers(-1, 3)),
    st.builds(Condensed, until=st.integers(-2, 12), summary=_TEXTS),
    st.builds(Withdrawn, since=st.integers(-2, 12)),
)
STORIES: st.SearchStrategy[Sequence[Entry]] = st.lists(ENTRIES, max_size=14).map(tuple)
