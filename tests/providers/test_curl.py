"""A command that repeats a call and that anyone may see."""

from __future__ import annotations

import json
import shlex

from hypothesis import given
from hypothesis import strategies as st

from loom.core.secret import Secret
from loom.providers.curl import redacted_curl
from loom.transport.contract import HttpRequest

CANARY = "canary-not-a-real-key"
PROMPT = "my secret prompt"


def command(body: bytes) -> str:
    return redacted_curl(
        HttpRequest(
            url="https://api.mistral.ai/v1/chat/completions",
            headers={
                "content-type": "application/json",
                "authorization": Secret(f"Bearer {CANARY}"),
                "x-team": "blue-secret",
            },
            body=body,
        )
    )


def body_of(text: str) -> object:
    words = shlex.split(text.replace("\\\n", " "))
    return json.loads(words[words.index("--data") + 1])


def test_shape_and_sizes_stay_texts_and_keys_go() -> None:
    """What decides about an error is there; what is nobody's business is not."""
    body = {
        "model": "mistral-small-latest",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0.5,
        "stop": ["END OF IT"],
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}],
        "metadata": {"model": "a secret with blanks"},
    }
    text = command(json.dumps(body).encode())
    assert CANARY not in text
    assert PROMPT not in text
    assert "blue-secret" not in text
    assert '-H "authorization: Bearer $MISTRAL_API_KEY"' in text
    assert {
        "model": "mistral-small-latest",
        "messages": [{"role": "user", "content": "(16 characters)"}],
        "temperature": 0.5,
        "stop": ["(9 characters)"],
        "tools": [{"type": "function", "function": {"name": "(11 characters)", "parameters": {}}}],
        "metadata": {"model": "(20 characters)"},
    } == body_of(text)


def test_what_cannot_be_read_is_named_by_its_size() -> None:
    """Not JSON, nested too deeply, or too long for a terminal."""
    deep = b"[" * 2000 + b"]" * 2000
    for body in (b"not JSON", deep, b'"' + b"x" * 300_000 + b'"'):
        assert f"({len(body)} bytes)" in command(body)


@given(st.text(min_size=1))
def test_a_shell_reads_one_command(content: str) -> None:
    """Whatever a text holds, quotes and dollars too."""
    body = json.dumps({"messages": [{"role": "user", "content": content}]}).encode()
    assert {"messages": [{"role": "user", "content": f"({len(content)} characters)"}]} == body_of(
        command(body)
    )
