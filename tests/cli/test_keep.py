"""What `looms chat` and `looms ping` write into the ledger, and what they may spend."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loom.cli import keep
from loom.ledger.budgets import Budget, parse_budget
from loom.ledger.entry import Opening
from loom.ledger.sqlite.store import SqliteLedger

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

Serve = Callable[..., object]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder of its own."""
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def calls(looms: Run, *words: str) -> list[dict[str, object]]:
    """Give the rows of a ledger, the newest first."""
    return [json.loads(line) for line in looms("cost", "rows", "--json", *words).out.splitlines()]


def test_a_call_has_a_row(data: Path, looms: Run, serve: Serve) -> None:
    """Model, tokens, cost, session and tags stand in the ledger of the data folder."""
    serve()
    words = ("--session", "ann", "--tag", "project=shop", "--tag", "team=web")
    assert 0 == looms("chat", "Say hello", *words).code
    assert 0 == looms("ping").code
    ping, chat = calls(looms)
    assert ("settled", "looms", "ann") == (chat["state"], chat["client"], chat["session"])
    assert {"project": "shop", "team": "web"} == chat["tags"]
    assert (2, "mistral-small-latest") == (chat["output_tokens"], ping["asked_model"])
    assert (data / "ledger.db").exists()
    assert "Say hello" not in (data / "ledger.db").read_bytes().decode("latin-1")


@pytest.mark.parametrize(
    "words",
    [
        ("chat", "--sim", "hi"),
        ("ping", "--sim"),
        ("chat", "--dry-run", "hi"),
        ("chat", "--no-ledger", "hi"),
        ("quote", "hi"),
    ],
)
def test_what_costs_nothing_leaves_nothing(
    words: tuple[str, ...], data: Path, looms: Run, serve: Serve
) -> None:
    """The simulator, what sends nothing, and who says so: no file is made."""
    serve()
    assert 0 == looms(*words).code
    assert not data.exists()


def test_the_setting_sim_leaves_nothing(
    data: Path, looms: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LOOM_SIM=true` is as good as the flag; a budget is kept in memory then."""
    monkeypatch.setenv("LOOM_SIM", "true")
    assert 0 == looms("chat", "hi", "--budget", "1").code
    assert 4 == looms("chat", "hi", "--budget", "0.000001").code
    assert not data.exists()


def test_another_file(data: Path, looms: Run) -> None:
    """`--ledger` writes there, calls of the simulator too."""
    assert 0 == looms("chat", "--sim", "hi", "--ledger", "mine.db").code
    assert 1 == len(calls(looms, "--ledger", "mine.db"))
    assert not data.exists()


def test_a_budget_counts_all_calls_of_the_command_line(
    data: Path, looms: Run, serve: Serve
) -> None:
    """What earlier commands cost is part of it; a call that does not fit is not sent."""
    del data
    serve()
    assert 0 == looms("chat", "hi", "--budget", "0.01/month").code
    code, out, err = looms("chat", "hi", "--budget", "0.001/month")
    assert (4, "") == (code, out)
    assert "the budget of the client 'looms' (0.001 USD a month)" in err
    assert 1 == len(calls(looms))


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("5", Budget(limit_usd=5)),
        ("$0.50/day", Budget(limit_usd="0.50", period="day")),
        (".5/week", Budget(limit_usd=".5", period="week")),
        ("5/month", Budget(limit_usd=5, period="month")),
        ("5/year", None),
        ("-5", None),
        ("five", None),
        ("1e9", None),
        ("", None),
    ],
)
def test_budgets(text: str, budget: Budget | None) -> None:
    """An amount, for all time or for a period."""
    assert budget == parse_budget(text)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--budget", "5/year"), "USD/month"),
        (("--rate-limit", "huge"), "RPM/TPM"),
        (("--rate-limit", "0/5"), "RPM/TPM"),
        (("--tag", "shop"), "NAME=VALUE"),
        (("--no-ledger", "--budget", "5"), "--budget needs a ledger"),
        (("--no-ledger", "--ledger", "x.db"), "--ledger needs a ledger"),
    ],
)
def test_wrong_words(words: tuple[str, ...], part: str, looms: Run) -> None:
    """What was meant is named."""
    code, out, err = looms("chat", "hi", *words)
    assert (2, "") == (code, out)
    assert part in err


@pytest.mark.parametrize("limit", ["free", "starter", "pro", "60/500000", "60", "/500000"])
def test_limits_are_kept(limit: str, looms: Run) -> None:
    """A plan or numbers; one call alone never waits."""
    assert 0 == looms("chat", "--sim", "hi", "--rate-limit", limit).code


def test_a_ledger_in_use_does_not_stop_a_call(
    data: Path, looms: Run, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program writes the file: a warning, and the row comes in afterwards."""
    serve()
    monkeypatch.setattr(keep, "PATIENCE_S", 0.05)
    monkeypatch.setattr(keep, "BUDGET_PATIENCE_S", 0.05)
    ledger = SqliteLedger(data / "ledger.db")
    asyncio.run(_take(ledger))
    code, out, err = looms("chat", "Say hello")
    assert (0, "hello\n") == (code, out)
    assert "warning: the ledger" in err
    assert f"is written by process {os.getpid()}" in err
    code, out, err = looms("chat", "Say hello", "--budget", "5")
    assert (75, "") == (code, out)
    assert "ERR_LEDGER_UNAVAILABLE" in err
    asyncio.run(ledger.aclose())
    assert 0 == looms("chat", "Say hello").code
    assert ["settled", "settled", "uncertain"] == [row["state"] for row in calls(looms)]


async def _take(ledger: SqliteLedger) -> None:
    await ledger.reserve(Opening(provider="mistral", asked_model="some-model"))


def test_many_commands_at_once(data: Path, start: Start, looms: Run, serve: Serve) -> None:
    """Eight programs at once share a ledger and a budget: no row is lost, nobody fails."""
    del data
    serve()
    running = [start("chat", "-q", "Say hello", "--budget", "1/day") for _ in range(8)]
    ended = [(process.communicate(timeout=60), process.returncode) for process in running]
    assert [((b"hello\n", b""), 0)] * 8 == ended
    total = json.loads(looms("cost", "--json").out)["all"]
    assert (8, 0, "0") == (total["calls"], total["failed"], total["uncertain_usd"])
    assert 0 == looms("cost", "check").code


def test_a_budget_holds_between_commands(
    data: Path, start: Start, looms: Run, serve: Serve
) -> None:
    """Of several programs at once those pass whose worst cases fit together."""
    del data
    serve(words_per_second=4)
    # Each may cost 4,096 answer tokens: a little more than half a cent.
    running = [start("chat", "-q", "Say hello", "--budget", "0.0130") for _ in range(5)]
    codes = sorted(process.wait(60) for process in running)
    assert {0, 4} == set(codes)
    assert 2 <= codes.count(0)
    assert Decimal(json.loads(looms("cost", "--json").out)["all"]["cost_usd"]) < Decimal("0.013")


def test_ctrl_c_is_written_down(data: Path, start: Start, looms: Run, serve: Serve) -> None:
    """What was seen of a broken answer is an estimate in the ledger."""
    del data
    serve(words_per_second=10)
    process = start("chat", "Tell me a story about a loom")
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 4096)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    (row,) = calls(looms)
    assert (130, "estimated", "cancelled") == (process.returncode, row["state"], row["code"])
    assert row["cost_usd"]


def test_a_killed_command_leaves_its_worst_case(
    data: Path, start: Start, looms: Run, serve: Serve
) -> None:
    """kill -9 in the middle of an answer: the row is uncertain, and budgets count it."""
    del data
    serve(words_per_second=10)
    process = start("chat", "Tell me a story about a loom")
    assert process.stdout is not None
    os.read(process.stdout.fileno(), 4096)
    process.kill()
    process.communicate(timeout=60)
    (row,) = calls(looms)
    assert ("uncertain", None) == (row["state"], row["cost_usd"])
    assert 4 == looms("chat", "hi", "--budget", str(row["reserved_usd"])).code
