"""Repeated beginnings of prompts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import loom.server.prefixes
from loom.core.messages import ImagePart, Message, TextPart, ToolCall
from loom.core.request import ChatRequest, ToolSpec
from loom.server.prefixes import PrefixMemory

LONG = "one two three four five six seven eight nine ten eleven twelve " * 10


def request(*messages: Message, **more: Any) -> ChatRequest:
    return ChatRequest(model="m", messages=messages or (Message.user(LONG),), **more)


def cached(memory: PrefixMemory, asked: ChatRequest, caller: str = "a", tokens: int = 1000) -> int:
    return memory.cached_tokens(caller, asked, tokens)


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(Message.user(TextPart(LONG), ImagePart("https://example.com/a.png"))),
        request(Message.system(LONG), Message.user("x")),
        request(tools=(ToolSpec(name="f", description=LONG),)),
        request(
            Message.user("x"),
            Message.assistant(tool_calls=(ToolCall("abcDEF123", "f", arguments=f'"{LONG}"'),)),
            Message.tool("abcDEF123", "1"),
        ),
    ],
    ids=["text", "image", "system", "tools", "calls"],
)
def test_the_second_time_is_cached(asked: ChatRequest) -> None:
    """Nothing the first time, a multiple of 16 the second."""
    memory = PrefixMemory()

    assert 0 == cached(memory, asked)
    again = cached(memory, asked)
    assert again > 0
    assert again % 16 == 0


def test_callers_models_and_keys_do_not_share() -> None:
    """Another caller, model or cache key begins anew."""
    memory = PrefixMemory()
    cached(memory, request())

    assert 0 == cached(memory, request(), caller="b")
    assert 0 == cached(memory, request(prompt_cache_key="k"))
    assert 0 == memory.cached_tokens(
        "a", ChatRequest(model="n", messages=(Message.user(LONG),)), 1000
    )
    assert 0 < cached(memory, request())


def test_a_change_ends_the_prefix() -> None:
    """What stands behind the first difference is new, also where it is the same again."""
    memory = PrefixMemory()
    whole = cached(memory, request()) or cached(memory, request())
    changed = cached(memory, request(Message.user("zero " + LONG)))
    half = cached(memory, request(Message.user(LONG[: len(LONG) // 2] + "no " + LONG)))

    assert 0 == changed
    assert 0 < half < whole


@given(st.integers(0, 200))
def test_one_token_is_always_new(tokens: int) -> None:
    """A prompt is never cached whole: its end has to be read for an answer."""
    memory = PrefixMemory()
    cached(memory, request())

    assert cached(memory, request(), tokens=tokens) in range(0, max(1, tokens), 16)


def test_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory has a size; what was not asked for longest goes."""
    monkeypatch.setattr(loom.server.prefixes, "_MOST_BLOCKS", 12)
    memory = PrefixMemory()
    cached(memory, request())
    for number in range(5):
        cached(memory, request(Message.user(f"{number} {LONG}")))

    assert 0 == cached(memory, request())
