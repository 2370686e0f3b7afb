"""Both official TypeScript SDKs through the gateway: they read what they asked for, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sdk.conftest import node
from tests.server.gateway.kit import MODEL, Keys, Served
from tests.server.gateway.test_app import key

from loom.core.errors import (
    CapacityExceeded,
    ContentBlocked,
    ContextTooLong,
    InvalidAPIKey,
    LoomError,
    RateLimited,
    ServiceUnavailable,
)
from loom.ledger.budgets import Budget
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator

RING = Keys(
    good=key(),
    narrow=key("narrow", models=("codestral-*",)),
    poor=key("poor", budget=Budget(limit_usd="0.0000001")),
    slow=key("slow", rpm=1),
)
BROKEN: dict[str, LoomError] = {
    "rate limit": RateLimited("slow down", retry_after_s=7),
    "capacity": CapacityExceeded("full"),
    "down": ServiceUnavailable("down"),
    "too long": ContextTooLong("too long"),
    "blocked": ContentBlocked("no"),
    "their key": InvalidAPIKey("ours is wrong"),
}
# The class that a user of OpenAI's SDK catches, and the status that both SDKs show.
ERRORS = {
    "wrong": ("AuthenticationError", 401),
    "narrow": ("PermissionDeniedError", 403),
    "poor": ("APIError", 402),
    "slow": ("RateLimitError", 429),
    "rate limit": ("RateLimitError", 429),
    "capacity": ("RateLimitError", 429),
    "down": ("InternalServerError", 503),
    "too long": ("BadRequestError", 400),
    "blocked": ("UnprocessableEntityError", 422),
    "their key": ("InternalServerError", 502),
}
SAME: dict[str, Callable[[dict[str, Any]], bool]] = {
    "chat": lambda said: bool(said["text"]) and said["usage"] > 0,
    "stream": lambda said: said["streamedText"] == said["text"],
    "usage": lambda said: said["streamedUsage"] == said["usage"],
    "calls": lambda said: said["calls"] == [{"location": "Paris"}, {"location": "Rome"}],
    "streamed calls": lambda said: said["streamedCalls"] == said["calls"],
    "results": lambda said: "temperature 21" in said["told"],
    "schema": lambda said: said["person"] == {"name": "Anna", "age": 33},
    "embeddings": lambda said: said["vectors"] == 2,
    "models": lambda said: said["listed"],
}


@pytest.fixture(scope="session")
def said(installed: Path) -> dict[str, Any]:
    """What the SDKs read, one method after the other."""
    script = [error for error in BROKEN.values() for _ in range(4)]
    with (
        Served(ring=RING) as served,
        Served(Simulator(provider=ScriptedProvider(script, model=MODEL))) as broken,
    ):
        names = json.dumps(list(BROKEN))
        given = (served.address, broken.address, MODEL, names)
        done = node("gateway.mjs", *given, folder=installed, timeout_s=120)
    assert 0 == done.returncode, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("subject", SAME)
@pytest.mark.parametrize("speaks", ["openai", "mistral"])
def test_an_sdk_reads(said: dict[str, Any], speaks: str, subject: str) -> None:
    """What the official types made of the answers is what was asked for."""
    assert SAME[subject](said[speaks]), said[speaks]


def test_both_sdks_were_told_the_same(said: dict[str, Any]) -> None:
    """One vendor stands behind both dialects."""
    for name in ("text", "usage", "told", "person"):
        assert said["openai"][name] == said["mistral"][name]


def test_thoughts_are_chunks_for_one_and_no_content_for_the_other(said: dict[str, Any]) -> None:
    """A user of OpenAI's SDK reads a text, and a user of Mistral's what the model thought too."""
    assert "string" == said["openai"]["thought"]
    assert ["thinking", "text"] == said["mistral"]["thought"]


def test_an_sdk_can_read_what_it_cost(said: dict[str, Any]) -> None:
    """The header is there for who asks for the raw response."""
    assert float(said["openai"]["cost"]) > 0


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_the_sdks_own(said: dict[str, Any], name: str) -> None:
    """Each class of error is the one that a user of the SDK catches, plain and streamed."""
    kind, status = ERRORS[name]
    names = [name, f"{name} streamed"] if name in BROKEN else [name]
    for each in names:
        assert [kind, status] == said["errors"]["openai"][each]
        assert status == said["errors"]["mistral"][each][1]
