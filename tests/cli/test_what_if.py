"""`looms what-if`: calls of a ledger through other limits, budgets, models and prices."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cli.ledgers import SOME, Call, write

from loom.cli.replay import Scene, replay
from loom.core.response import Usage
from loom.layers.limit_rate import RateLimit
from loom.ledger.budgets import Budget
from loom.ledger.entry import Entry, Sent

if TYPE_CHECKING:
    from tests.cli.conftest import Run

START = datetime(2026, 11, 20, 9, tzinfo=UTC)


def entries(count: int, every_s: float = 0.0, **fields: Any) -> list[Entry]:
    """Give calls of 1,000 and 100 tokens that come one after the other."""
    given = {"input_tokens": 1000, "output_tokens": 100, "latency_s": 1.0, **fields}
    return [
        Entry(
            id=f"{number:028x}",
            at=START + timedelta(seconds=number * every_s),
            state="settled",
            provider="mistral",
            model="some-model",
            asked_model="some-model",
            cost_usd=Decimal("0.01"),
            **given,
        )
        for number in range(count)
    ]


def a_cent(usage: Usage, *_: object) -> Usage:
    """Price nothing anew."""
    return usage


def no_card(*_: object) -> None:
    """Know no model."""


def waits(calls: list[Entry], **scene: Any) -> list[float | None]:
    outcomes = replay(calls, Scene(**scene), a_cent, no_card)
    assert [call.id for call in calls] == [outcome.entry.id for outcome in outcomes]
    return [None if one.wait_s is None else round(one.wait_s, 1) for one in outcomes]


def test_without_limits_nobody_waits() -> None:
    """Nothing is otherwise: nothing happens."""
    assert [0.0] * 50 == waits(entries(50))
    assert [] == waits([])


def test_calls_wait_for_each_other() -> None:
    """Six calls at once, one a second and a tenth for the way: each waits so much more."""
    limit = RateLimit(requests_per_second=1)
    assert [0.0, 1.1, 2.2, 3.3, 4.4, 5.5] == waits(entries(6), rate_limit=limit)
    assert [0.0] * 6 == waits(entries(6, every_s=1.5), rate_limit=limit)


def test_a_minute_s_quota_is_kept() -> None:
    """Of eight calls at once, five a minute: in no minute more than five leave."""
    limit = RateLimit(requests_per_minute=5, burst_s=60)
    found = waits(entries(8), rate_limit=limit)
    assert 5 == sum(wait_s == 0 for wait_s in found)
    assert all(wait_s is not None and 60 <= wait_s < 63 for wait_s in found[5:])


def test_keys_and_models_have_limits_of_their_own() -> None:
    """Two keys use twice as much."""
    limit = RateLimit(requests_per_second=1)
    calls = [*entries(2, key="a"), *entries(2, key="b")]
    assert [0.0, 1.1, 0.0, 1.1] == waits(calls, rate_limit=limit)


def test_what_would_wait_too_long_is_refused() -> None:
    """A deadline of 2.5 seconds leaves the first three."""
    limit = RateLimit(requests_per_second=1)
    found = waits(entries(6), rate_limit=limit, deadline_s=2.5)
    assert [0.0, 1.1, 2.2, None, None, None] == found


def test_concurrency_counts_how_long_calls_took() -> None:
    """One at a time: the second waits for the first, by its attempts and without its own waits."""
    limit = RateLimit(concurrency=1)
    sent = Sent(provider="mistral", model="some-model", sent_s=5.0, ended_s=8.0)
    calls = entries(3, attempts=(sent,), latency_s=8.0)
    assert [0.0, 3.0, 6.0] == waits(calls, rate_limit=limit)


def test_a_budget_refuses() -> None:
    """A price of nobody knows is refused, as it would be."""
    outcomes = replay(entries(2), Scene(budget=Budget(limit_usd=1)), a_cent, no_card)
    assert ["budget", "budget"] == [outcome.refused for outcome in outcomes]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Write a burst of thirty calls, a second apart."""
    calls = [
        Call(at=f"2026-11-20T09:00:{second:02}", cost="0.00021", used=(1000, 100))
        for second in range(30)
    ]
    write(tmp_path / "calls.db", calls)
    return tmp_path / "calls.db"


def asked(looms: Run, *words: str) -> dict[str, Any]:
    code, out, err = looms("what-if", "calls.db", "--json", *words)
    assert (0, "") == (code, err)
    value: dict[str, Any] = json.loads(out)
    return value


@pytest.mark.usefixtures("ledger")
def test_another_plan(looms: Run) -> None:
    """The free plan lets five a minute go: all others wait, an hour's line says for how long."""
    value = asked(looms, "--rate-limit", "free", "--max-tokens", "100")
    assert (30, 30) == (value["calls"], value["answered"])
    assert value["waited"] >= 25
    assert 60 < value["wait_s"]["p50"] < value["wait_s"]["max"] < 420
    assert Decimal(value["was_usd"]) == Decimal(value["would_be_usd"])
    (hour,) = value["hours"]
    assert ("2026-11-20T09:00:00Z", 30) == (hour["hour"], hour["calls"])
    assert value["wait_s"]["max"] == hour["max_s"]
    assert 0 == asked(looms, "--rate-limit", "pro")["refused"]["limit"]
    assert 0 < asked(looms, "--rate-limit", "free", "--deadline", "30")["refused"]["limit"]


@pytest.mark.usefixtures("ledger")
def test_another_model_and_other_prices(looms: Run) -> None:
    """Tokens at another price, to the last digit; what did not fit its window is said."""
    value = asked(looms, "--model", "mistral-large-latest")
    assert Decimal("0.0063") == Decimal(value["was_usd"])
    # $0.50 and $1.50 per million tokens.
    assert 30 * Decimal("0.00065") == Decimal(value["would_be_usd"])
    then = asked(looms, "--model", "mistral-large-latest", "--as-of", "2024-11")
    assert 30 * Decimal("0.0052") == Decimal(then["would_be_usd"])
    # Another vendor's, which the rows do not name: $0.40 and $1.60.
    other = asked(looms, "--model", "openai:gpt-4.1-mini")
    assert 30 * Decimal("0.00056") == Decimal(other["would_be_usd"])
    assert other["would_be_usd"] == asked(looms, "--model", "gpt-4.1-mini")["would_be_usd"]
    write(Path("long.db"), [Call(at="2026-11-20T09:00:00", used=(100_000, 10))])
    words = ("what-if", "long.db", "--model", "mistral-large-latest", "--as-of", "2024-11")
    assert {"limit": 0, "budget": 0, "window": 1} == json.loads(looms(*words, "--json").out)[
        "refused"
    ]


@pytest.mark.usefixtures("ledger")
def test_another_budget(looms: Run) -> None:
    """Worst cases are kept free as they are in a call: what does not fit is refused."""
    value = asked(looms, "--budget", "0.006/day", "--max-tokens", "1000")
    assert 0 < value["refused"]["budget"] < 30
    assert Decimal(value["would_be_usd"]) <= Decimal("0.006")
    assert 30 == value["answered"] + value["refused"]["budget"]


@pytest.mark.usefixtures("ledger")
def test_what_is_shown(looms: Run) -> None:
    """A plot of the hours in which somebody waits, then calls, waits and costs."""
    code, out, err = looms(
        "what-if", "calls.db", "--rate-limit", "free", "--deadline", "60", "-m",
        "mistral-large-latest",
    )  # fmt: skip
    assert (0, "Another model counts other tokens, and takes another time.\n") == (code, err)
    assert "Waits by hour (UTC)" in out
    assert "2026-11-20 09:00" in out
    assert "refused: no room before the deadline" in out
    assert "would wait · p50 " in out
    assert "cost: $0.006300 as written" in out
    out = looms("what-if", "calls.db", "--rate-limit", "600/5000000").out
    assert out.startswith("30 calls · 30 answered\n0 would wait")


def test_rows_of_every_kind(looms: Run) -> None:
    """Uncertain and unpriced calls are calls too; what has no price is said."""
    write(Path("some.db"), SOME)
    out = looms("what-if", "some.db", "--rate-limit", "starter").out
    assert "5 calls · 5 answered" in out
    assert "1 calls have no price then: it cost more than that" in out


def test_days_are_plotted_when_there_are_many(looms: Run) -> None:
    """Beyond two days of hours the lines are days."""
    calls = [
        Call(at=f"2026-11-{day:02}T{hour:02}:00:0{second}")
        for day in range(1, 5)
        for hour in range(24)
        for second in (0, 0)
    ]
    write(Path("many.db"), calls)
    out = looms("what-if", "many.db", "--rate-limit", "1").out
    assert "Waits by day (UTC)" in out
    assert "2026-11-04" in out


def test_nothing_to_replay(looms: Run) -> None:
    """No ledger and no calls are no error; a file that was named must be there."""
    assert (0, "", "No calls match.\n") == looms("what-if", "--rate-limit", "free")
    assert 0 == json.loads(looms("what-if", "--json").out)["calls"]
    assert 2 == looms("what-if", "missing.db").code


@pytest.mark.usefixtures("ledger")
def test_wrong_words(looms: Run) -> None:
    """An unknown model is one that nobody can price; a plan is named or counted."""
    code, out, err = looms("what-if", "calls.db", "--model", "mistral-smal-latest")
    assert (6, "") == (code, out)
    assert "did you mean 'mistral-small-latest'" in err
    assert 2 == looms("what-if", "calls.db", "--rate-limit", "huge").code
