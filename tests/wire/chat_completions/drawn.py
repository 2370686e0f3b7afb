"""Requests and answers that Hypothesis draws for OpenAI's dialect."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from loom.core.messages import (
    AudioPart,
    DocumentPart,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ThinkingPart,
    ToolCall,
)
from loom.core.request import ChatRequest, NamedTool, ResponseFormat, Sampling, ToolSpec
from loom.core.response import Choice, LLMResponse, Usage

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAID = TEXT.filter(bool)
NAMES = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(TEXT, VALUES, min_size=1, max_size=3)
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(NAMES, st.just({}))}
)
CALLS = st.lists(
    st.builds(ToolCall, IDS, NAMES, ARGUMENTS), min_size=1, max_size=3, unique_by=lambda c: c.id
)
USER_PARTS = st.one_of(
    st.builds(TextPart, TEXT),
    st.builds(ImagePart, SAID, st.none() | st.sampled_from(["low", "high", "auto"])),
    st.builds(AudioPart, st.just("UklGRg=="), st.sampled_from(["wav", "mp3"])),
    st.builds(DocumentPart, st.just("data:application/pdf;base64,JVBERi0="), SAID),
    st.builds(FilePart, SAID),
)
USERS = st.one_of(
    st.builds(Message.user, TEXT),
    st.lists(USER_PARTS, min_size=1, max_size=3).map(
        lambda parts: Message(role="user", content=tuple(parts))
    ),
    st.builds(lambda text, name: Message(role="user", content=text, name=name), TEXT, NAMES),
)
SYSTEMS = st.builds(Message.system, TEXT)


@st.composite
def turns(draw: st.DrawFn) -> list[Message]:
    """One legal stretch of a conversation."""
    kind = draw(st.sampled_from(["system", "user", "answer", "calls"]))
    if kind == "system":
        return [draw(SYSTEMS)]
    if kind == "user":
        return [draw(USERS)]
    if kind == "answer":
        return [Message.assistant(draw(SAID))]
    calls = draw(CALLS)
    said = draw(st.none() | TEXT)
    results = [Message.tool(call.id, draw(TEXT)) for call in calls]
    return [Message.assistant(said, tool_calls=tuple(calls)), *results]


HISTORIES = st.lists(turns(), max_size=4).flatmap(
    lambda before: USERS.map(lambda last: (*(m for turn in before for m in turn), last))
)
NUMBERS = st.floats(0, 1, allow_nan=False)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.none() | NUMBERS,
    top_p=st.none() | NUMBERS,
    max_tokens=st.none() | st.integers(1, 10**6),
    stop=st.none() | TEXT | st.lists(TEXT, min_size=1, max_size=4).map(tuple),
    random_seed=st.none() | st.integers(0, 2**31),
    presence_penalty=st.none() | NUMBERS,
    frequency_penalty=st.none() | NUMBERS,
    n=st.none() | st.integers(1, 4),
)
TOOLS = st.lists(
    st.builds(
        ToolSpec,
        name=NAMES,
        description=st.none() | TEXT,
        parameters=SCHEMAS,
        strict=st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
FORMS = st.one_of(
    st.builds(ResponseFormat, type=st.sampled_from(["text", "json_object"])),
    st.builds(
        ResponseFormat,
        type=st.just("json_schema"),
        name=NAMES,
        schema=SCHEMAS,
        description=st.none() | TEXT,
        strict=st.none() | st.booleans(),
    ),
)
STREAMED: dict[str, Any] = {"include_usage": False}
EXTRAS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"user": "u"}, {"logprobs": True, "top_logprobs": 3}]
)


@st.composite
def requests(draw: st.DrawFn) -> ChatRequest:
    """A request that OpenAI takes, whose meaning the wire keeps to the last field."""
    tools: dict[str, Any] = {}
    if draw(st.booleans()):
        choices = st.none() | st.sampled_from(["auto", "none", "required"])
        tools = {
            "tools": draw(TOOLS),
            "tool_choice": draw(choices | st.builds(NamedTool, NAMES)),
            "parallel_tool_calls": draw(st.none() | st.booleans()),
        }
    stream = draw(st.booleans())
    extra = draw(EXTRAS)
    if stream and draw(st.booleans()):
        extra = {**extra, "stream_options": STREAMED}
    efforts = st.none() | st.sampled_from(["none", "low", "high"])
    return ChatRequest(
        model=draw(SAID),
        messages=draw(HISTORIES),
        sampling=draw(SAMPLINGS),
        response_format=draw(st.none() | FORMS),
        prediction=draw(st.none() | TEXT),
        reasoning_effort=draw(efforts),
        prompt_cache_key=draw(st.none() | TEXT),
        service_tier=draw(st.none() | st.sampled_from(["auto", "flex", "priority"])),
        metadata=draw(st.none() | st.dictionaries(NAMES, TEXT, max_size=2)),
        stream=stream,
        extra=extra,
        **tools,
    )


COUNTS = st.integers(0, 10**6)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    """Usage as OpenAI could report it."""
    prompt, sound, answer = draw(COUNTS), draw(st.integers(0, 9)), draw(COUNTS)
    return Usage(
        input_tokens=prompt,
        output_tokens=answer,
        total_tokens=prompt + sound + answer,
        cached_tokens=draw(st.integers(0, prompt)),
        audio_tokens=sound,
        reasoning_tokens=draw(st.integers(0, answer)),
        service_tier=draw(st.sampled_from(["default", "flex", "priority"])),
    )


@st.composite
def answers(draw: st.DrawFn, index: int = 0) -> Choice:
    """One answer: text, thoughts before it, calls, or all of them."""
    text = draw(SAID)
    content: Any = text
    if draw(st.booleans()):
        content = (ThinkingPart((TextPart(draw(SAID)),)), TextPart(text))
    calls = tuple(draw(CALLS)) if draw(st.booleans()) else ()
    reasons = ["tool_calls"] if calls else ["stop", "length", "content_filter"]
    message = Message.assistant(content, tool_calls=calls)
    return Choice(index=index, message=message, finish_reason=draw(st.sampled_from(reasons)))


@st.composite
def responses(draw: st.DrawFn) -> LLMResponse:
    """A whole response, of one answer or two."""
    count = draw(st.integers(1, 2))
    return LLMResponse(
        choices=tuple(draw(answers(index)) for index in range(count)),
        usage=draw(usages()),
        model=draw(SAID),
        id=draw(SAID),
        created=draw(st.integers(0, 2**31)),
    )


def chunk(
    delta: dict[str, Any] | None = None,
    reason: str | None = None,
    usage: Any = None,
    index: Any = 0,
    **more: Any,
) -> bytes:
    """One event as a vendor writes it."""
    body: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1}
    body |= {"model": "m", "choices": [], **more}
    if delta is not None:
        body["choices"] = [{"index": index, "delta": delta, "finish_reason": reason}]
    if usage is not None:
        body["usage"] = usage
    return b"data: " + json.dumps(body).encode() + b"\n\n"
