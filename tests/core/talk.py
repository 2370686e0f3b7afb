"""Any message, of any role and with any part, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RawPart,
    ReferencePart,
    TextPart,
    ThinkingPart,
    ToolCall,
)

WORDS = st.text(max_size=12)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.dictionaries(WORDS, JSON, max_size=3)

_TEXT = st.builds(TextPart, WORDS)
_REFERENCE = st.builds(
    ReferencePart, st.lists(st.integers(0, 2**60) | WORDS, max_size=3).map(tuple)
)
_RAW = st.builds(RawPart, WORDS, FIELDS)
_THINKING = st.builds(
    ThinkingPart,
    st.lists(_TEXT | _REFERENCE | _RAW, max_size=3).map(tuple),
    st.none() | st.booleans(),
    FIELDS,
)

PARTS: dict[str, st.SearchStrategy[Part]] = {
    "text": _TEXT,
    "image": st.builds(ImagePart, WORDS, st.none() | WORDS),
    "document": st.builds(DocumentPart, WORDS, st.none() | WORDS),
    "audio": st.builds(AudioPart, WORDS, st.none() | WORDS),
    "file": st.builds(FilePart, WORDS),
    "reference": _REFERENCE,
    "thinking": _THINKING,
    "raw": _RAW,
}
"""Strategies by the word that stands for the kind in JSON."""

CALLS = st.builds(ToolCall, WORDS, WORDS, FIELDS) | st.builds(
    ToolCall, WORDS, WORDS, st.just({}), WORDS
)
CONTENT = st.none() | WORDS | st.lists(st.one_of(*PARTS.values()), max_size=4).map(tuple)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=CONTENT,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    tool_call_id=st.none() | WORDS,
    name=st.none() | WORDS,
    prefix=st.booleans(),
)
