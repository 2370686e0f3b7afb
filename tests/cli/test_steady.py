"""The flags that keep a call up, and the story of a call that failed."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.cli.conftest import Run

from loom.server.simulator import Simulator
from loom.testing import no_waits

KEY = "canary-not-a-real-key"
PROMPT = "a prompt that nobody else may read"


@pytest.fixture(autouse=True)
def simulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    with Simulator(any_key=True) as running, no_waits():
        monkeypatch.setenv("LOOM_BASE_URL", running.base_url)
        monkeypatch.setenv("MISTRAL_API_KEY", KEY)
        yield running


def test_attempts_are_counted_on_the_wire(looms: Run, simulator: Simulator) -> None:
    """`--attempts 2` sends twice, and says so on standard error."""
    code, out, err = looms("chat", "-m", "mistral-small-latest+503", "--attempts", "2", "Hi")
    assert (75, "", 2) == (code, out, len(simulator.journal))
    assert "warning: Request failed (attempt 1/2), retrying in " in err
    assert "max retries exceeded (2 attempts)" in err


def test_another_model_answers(looms: Run, simulator: Simulator) -> None:
    """`--fallback` is asked when the first one is done with failing."""
    words = ("-m", "mistral-large-latest+503", "--fallback", "mistral-small-latest")
    code, out, err = looms("chat", *words, "--attempts", "1", "Hi")
    assert (0, 2) == (code, len(simulator.journal))
    assert out
    assert "Falling back to mistral:mistral-small-latest" in err
    assert "mistral-small" in err.splitlines()[-1]


def test_a_broken_answer_begins_anew(looms: Run) -> None:
    """`--rescue`: what came is followed by the whole answer, and a line says so."""
    words = ("-m", "mistral-large-latest+15-reset:3", "--fallback", "mistral-small-latest")
    code, out, err = looms("chat", *words, "--rescue", "Hi")
    assert 0 == code
    assert "warning: the answer begins anew with mistral-small-latest" in err
    beginning, _, whole = out.partition("\n")
    assert beginning
    assert whole.startswith(beginning)


def test_a_wrong_flag_is_named(looms: Run) -> None:
    """Rescue without a route, a route to nobody, a deadline of nothing."""
    assert "name one with fallback" in looms("chat", "--sim", "--rescue", "Hi").err
    assert "unknown provider 'nobody'" in looms("chat", "--fallback", "nobody:x", "Hi").err
    assert "'deadline_s' must be" in looms("chat", "--deadline", "0", "Hi").err


def test_debug_tells_the_story(looms: Run) -> None:
    """Each attempt, what may be charged, what to do, and a command; no key and no prompt."""
    _, _, err = looms("chat", "-m", "mistral-small-latest+503;times=9", "--debug", PROMPT)
    for words in (
        "What happened:",
        "attempt 3: sent to mistral mistral-small-latest",
        "service_unavailable; nothing is charged",
        "What to do:",
        "curl -sS -X POST http://127.0.0.1",
        '-H "authorization: Bearer $MISTRAL_API_KEY"',
        "(34 characters)",
    ):
        assert words in err
    assert KEY not in err
    assert PROMPT not in err


def test_an_error_as_json_has_its_timeline(looms: Run) -> None:
    """One object on standard error, with each attempt; no other line."""
    _, out, err = looms("chat", "--json", "-m", "mistral-small-latest+503", "Hi")
    error = json.loads(err)["error"]
    assert ("", 3) == (out, error["attempts"])
    assert [503, 503, 503] == [attempt["status"] for attempt in error["timeline"]]
    assert ["released"] * 3 == [attempt["charge"] for attempt in error["timeline"]]
    assert 0 <= error["timeline"][0]["sent_s"] < error["timeline"][2]["sent_s"]


def test_an_answer_as_json_has_its_timeline(looms: Run) -> None:
    """Attempts that failed before it are told."""
    _, out, _ = looms("chat", "--json", "-m", "mistral-small-latest+503;times=1", "Hi")
    answer = json.loads(out)
    assert 2 == answer["attempts"]
    assert [503, 200] == [attempt["status"] for attempt in answer["timeline"]]


def test_ping_has_the_flags_too(looms: Run, simulator: Simulator) -> None:
    """The connection test can be told how patient to be."""
    assert 75 == looms("ping", "-m", "mistral-small-latest+503", "--attempts", "1").code
    assert 1 == len(simulator.journal)
