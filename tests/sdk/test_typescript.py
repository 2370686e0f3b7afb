"""The official TypeScript SDK talks to the simulator, and its own parsers accept everything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import Served, node

MODEL = "mistral-small-latest"


@pytest.fixture(scope="session")
def said(installed: Path, served: Served) -> dict[str, Any]:
    """What the SDK read, one method after the other."""
    done = node("talk.mjs", served.root, served.api_key, MODEL, folder=installed, timeout_s=120)
    assert 0 == done.returncode, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def likeness(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "chat": lambda said: bool(said["text"]) and said["finish"] == "stop",
    "stream": lambda said: said["streamedText"] == said["text"],
    "usage": lambda said: (
        said["usage"]["totalTokens"]
        == said["usage"]["promptTokens"] + said["usage"]["completionTokens"]
        and said["usage"]["completionTokens"] == said["streamedUsage"]["completionTokens"]
    ),
    "parallel calls": lambda said: said["calls"] == [{"location": "Paris"}, {"location": "Rome"}],
    "results": lambda said: "get_weather (Rome): temperature 21" in said["told"],
    "streamed calls": lambda said: (
        said["streamedCalls"] == ["get_weather"] * 2 and said["streamedFinish"] == "tool_calls"
    ),
    "json_schema": lambda said: said["person"] == {"name": "Anna", "age": 33},
    "n": lambda said: said["choices"] == 2,
    "thinking": lambda said: said["thinking"] == ["thinking", "text"] and said["streamedThinking"],
    "fim": lambda said: bool(said["infill"]) and said["streamedInfill"] == said["infill"],
    "embeddings": lambda said: (
        likeness(said["vectors"][0], said["vectors"][1])
        > likeness(said["vectors"][0], said["vectors"][2])
    ),
    "models": lambda said: said["listed"] and said["card"] == MODEL,
    "errors": lambda said: said["errors"] == [401, 400, 422],
}


@pytest.mark.parametrize("subject", CHECKS)
def test_the_typescript_sdk_reads(said: dict[str, Any], subject: str) -> None:
    """What the official types made of the answers is what was asked for."""
    assert CHECKS[subject](said), said
