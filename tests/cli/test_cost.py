"""`looms cost`: sums, rows, prices of other days, damage, pruning, export."""

from __future__ import annotations

import csv
import io
import json
import stat
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.cli.ledgers import SOME, Call, write

from loom.cli.sums import bar
from loom.ledger.entry import Entry
from loom.ledger.sqlite.file import lock_for_writing
from loom.ledger.sqlite.rows import encode
from loom.ledger.sqlite.spill import Spill

if TYPE_CHECKING:
    from tests.cli.conftest import Run

WHOLE = (
    "5 calls, 1 failed · 5,000 in, 800 out · $0.002170 · up to $0.010000 uncertain"
    " · 1 without a price, so it cost more than that\n"
)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a data folder of its own."""
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def ledger(data: Path) -> Path:
    """Write some calls into the data folder's ledger."""
    path = data / "ledger.db"
    write(path, SOME)
    return path


@pytest.mark.usefixtures("ledger")
def test_days_are_summed_with_bars(looms: Run) -> None:
    """Each day has a line, the one without a call too; the dearest day has the longest bar."""
    code, out, err = looms("cost")
    lines = out.splitlines()
    assert (0, "") == (code, err)
    assert "Cost by day" == lines[0]
    assert ["2026-11-20", "2026-11-21", "2026-11-22"] == [line[2:12] for line in lines[4:7]]
    assert "█" * 40 in lines[4]
    assert "█" not in lines[5]
    assert out.endswith(f"\n{WHOLE}")


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("model", ["mistral-large-2512", "mistral-small-2603", "(none)", "unheard-of"]),
        ("session", ["bob", "ann", "(none)"]),
        ("tag:project", ["(none)", "shop", "web"]),
        ("code", ["(none)", "timeout"]),
        ("state", ["settled", "uncertain"]),
        ("month", ["2026-11"]),
        ("week", ["2026-11-16"]),
        ("key", ["a1b2c3d4"]),
        ("client", ["looms"]),
        ("all", ["all"]),
    ],
)
def test_anything_is_a_group(by: str, groups: list[str], looms: Run) -> None:
    """The dearest group comes first, and every grouping sums up to the same."""
    _, out, _ = looms("cost", "--by", by)
    lines = out.splitlines()[4:-2]
    assert groups == [line.split()[0] for line in lines]
    assert out.endswith(WHOLE)


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(
    ("words", "calls"),
    [
        (("--since", "2026-11-22"), 3),
        (("--since", "2026-11-22T12:00"), 2),
        (("--since", "2026-11-22T13:00+01:00"), 2),
        (("--until", "2026-11-20"), 2),
        (("--since", "2026-11", "--until", "2026-11"), 5),
        (("--model", "mistral-small-2603"), 2),
        (("--session", "ann"), 2),
        (("--tag", "project=web"), 1),
        (("--key", "a1b2c3d4", "--client", "looms"), 5),
        (("--tenant", "nobody"), 0),
        (("--since", "1h"), 0),
        (("--until", "99999d"), 0),
    ],
)
def test_calls_are_chosen(words: tuple[str, ...], calls: int, looms: Run) -> None:
    """Times, models, sessions and tags choose calls; a day as an end counts wholly."""
    code, out, err = looms("cost", *words, "--json")
    assert (0, calls) == (code, json.loads(out)["all"]["calls"])
    assert ("" if calls else "No calls match.\n") == err


def test_json_is_exact(ledger: Path, looms: Run) -> None:
    """One object with the sums by group and over all; amounts are texts to the last digit."""
    _, out, _ = looms("cost", "--by", "model", "--json", "--until", "2026-11-20")
    value = json.loads(out)
    assert 1 == out.count("\n")
    assert str(ledger) == value["ledger"]
    assert ("model", True, None) == (value["by"], value["exists"], value["since"])
    assert "2026-11-21T00:00:00Z" == value["until"]
    assert {"mistral-large-2512": "0.00175", "mistral-small-2603": "0.00021"} == {
        total["group"]: total["cost_usd"] for total in value["totals"]
    }
    assert (2, "0.00196") == (value["all"]["calls"], value["all"]["cost_usd"])


@pytest.mark.usefixtures("ledger")
def test_csv_is_a_table(looms: Run) -> None:
    """`--csv` prints a line for each group."""
    _, out, _ = looms("cost", "--by", "session", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert ["", "ann", "bob"] == [row["session"] for row in rows]
    assert ["0", "0.00042", "0.00175"] == [row["cost_usd"] for row in rows]
    assert ["1", "0", "0"] == [row["unpriced"] for row in rows]


@pytest.mark.usefixtures("ledger")
def test_sums_by_the_prices_of_a_day(looms: Run) -> None:
    """`--as-of` prices each call anew; what had no price then is said."""
    _, out, _ = looms("cost", "--as-of", "2024-11", "--by", "all")
    # Reference page: small $1 and $3, large $4 and $12 per million tokens.
    assert "Cost by all · by the prices of 2024-11-30" in out
    assert "$0.016600" in out  # 2 * (1000 * 1 + 100 * 3) + 2000 * 4 + 500 * 12, by a million
    assert "1 without a price" in out


@pytest.mark.usefixtures("ledger")
def test_pricing_again_shows_the_difference(looms: Run) -> None:
    """What was written, what that day's prices say, and the difference, by model."""
    code, out, err = looms("cost", "reprice", "--as-of", "2024-11")
    assert 0 == code
    assert "Cost by the prices of 2024-11-30" in out
    large, small, unheard = (line.split() for line in out.splitlines()[4:7])
    assert ["mistral-large-2512", "1", "$0.001750", "$0.014000", "+$0.012250"] == large
    assert ["mistral-small-2603", "2", "$0.000420", "$0.002600", "+$0.002180"] == small
    assert ["unheard-of", "1"] == unheard[:2]
    assert "+$0.014430 in 3 of 4 calls" in out
    assert "The rows stay as they are" in err
    assert looms("cost").out.endswith(WHOLE)


@pytest.mark.usefixtures("ledger")
def test_pricing_again_by_the_day_of_each_call_changes_nothing(looms: Run) -> None:
    """The catalogue says what the rows say, and the journal is empty."""
    value = json.loads(looms("cost", "reprice", "--json").out)
    assert 0 == Decimal(value["all"]["difference_usd"])
    assert 0 == value["all"]["changed"]
    assert 1 == value["all"]["unpriced"]
    journal = list(csv.reader(io.StringIO(looms("cost", "reprice", "--csv").out)))
    assert 1 == len(journal)


@pytest.mark.usefixtures("ledger")
def test_the_journal_of_corrections(looms: Run) -> None:
    """A line for each row that differs, with both price rows: entries, not edits."""
    rows = list(
        csv.DictReader(io.StringIO(looms("cost", "reprice", "--as-of", "2024-11", "--csv").out))
    )
    assert ["0.00109", "0.01225", "0.00109"] == [
        f"{Decimal(row['difference_usd']).normalize():f}" for row in rows
    ]
    assert all("mistral-" in row["new_price_id"] for row in rows)
    assert "some-price" == rows[0]["old_price_id"]


@pytest.mark.usefixtures("ledger")
def test_rows_are_listed_newest_first(looms: Run) -> None:
    """Each call has a line; with --json an object, with --csv every column."""
    _, out, _ = looms("cost", "rows", "--limit", "2")
    lines = out.splitlines()[4:]
    assert "unheard-of" in lines[0]
    assert "unknown" in lines[0]
    assert "≤ $0.010000" in lines[1]
    assert "timeout" in lines[1]
    objects = [json.loads(line) for line in looms("cost", "rows", "--json").out.splitlines()]
    assert ["2026-11-22T13:00:00Z", 5] == [objects[0]["at"], len(objects)]
    table = list(csv.DictReader(io.StringIO(looms("cost", "rows", "--csv").out)))
    assert ["unheard-of", ""] == [row["model"] for row in table[:2]]
    assert "No calls match.\n" == looms("cost", "rows", "--session", "zoe").err


def test_a_sound_ledger_is_ok(ledger: Path, looms: Run) -> None:
    """`check` says so, and how many calls there are; the file may stand alone as a word."""
    assert (0, f"ok · 5 calls · {ledger}\n", "") == looms("cost", "check")
    assert 0 == looms("cost", "check", str(ledger)).code
    assert [] == json.loads(looms("cost", "check", "--json").out)["damage"]


def test_a_damaged_ledger_is_told_of(ledger: Path, looms: Run) -> None:
    """A broken file ends with 1, and every command names the check."""
    content = bytearray(ledger.read_bytes())
    content[100:8000] = b"\x00" * 7900
    ledger.write_bytes(content)
    code, out, _ = looms("cost", "check")
    assert (1, True) == (code, bool(out.strip()))
    code, out, err = looms("cost")
    assert (1, "") == (code, out) or code == 75
    assert f"looms cost check {ledger}" in err


@pytest.mark.usefixtures("ledger")
def test_old_rows_are_pruned(looms: Run) -> None:
    """Without `--yes` it asks; nothing of this month goes."""
    code, _, err = looms("cost", "prune", "--before", "2026-11-21", stdin=b"n\n")
    assert (130, True) == (code, "leave" in err)
    assert 5 == json.loads(looms("cost", "--json").out)["all"]["calls"]
    code, out, _ = looms("cost", "prune", "--before", "2020-01", "--yes", "--json")
    assert (0, 0) == (code, json.loads(out)["pruned"])


@pytest.mark.usefixtures("data")
def test_pruning_says_how_many(tmp_path: Path, looms: Run) -> None:
    """Rows before the day go, and those of the day stay."""
    path = tmp_path / "data" / "ledger.db"
    write(path, [Call(at=f"2026-0{month}-10T09:00:00") for month in (1, 2, 3)])
    words = ("cost", "prune", "--before", "2026-02-10")
    assert (0, "1 rows went\n") == looms(*words, stdin=b"y\n")[:2]
    assert 2 == json.loads(looms("cost", "--json").out)["all"]["calls"]


@pytest.mark.usefixtures("ledger")
def test_rows_are_exported(tmp_path: Path, looms: Run) -> None:
    """A file of one's own, for its owner's eyes; it is not written over unless told to."""
    table, lines = tmp_path / "out.csv", tmp_path / "out.jsonl"
    assert (0, "", f"5 rows are in {table}\n") == looms("cost", "export", str(table))
    assert 0o600 == stat.S_IMODE(table.stat().st_mode)
    assert 5 == len(list(csv.DictReader(io.StringIO(table.read_text()))))
    assert (
        3
        == json.loads(looms("cost", "export", str(lines), "--since", "2026-11-22", "--json").out)[
            "rows"
        ]
    )
    assert 3 == len(lines.read_text().splitlines())
    assert "--force" in looms("cost", "export", str(table)).err
    assert 0 == looms("cost", "export", str(table), "--force").code
    assert 2 == looms("cost", "export", str(tmp_path / "out.xlsx")).code
    assert 2 == looms("cost", "export", str(tmp_path / "no" / "folder.csv")).code


def test_without_a_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looms: Run) -> None:
    """It says where it would be, and that is no error; a file that was named must be there."""
    monkeypatch.setenv("LOOM_DATA_DIR", str(tmp_path / "none"))
    where = str(tmp_path / "none" / "ledger.db")
    for words in ((), ("rows",), ("check",), ("reprice",), ("prune", "--before", "2026-01")):
        code, out, err = looms("cost", *words)
        assert (0, "") == (code, out)
        assert err
    assert where in looms("cost").err
    assert not json.loads(looms("cost", "--json").out)["exists"]
    code, out, err = looms("cost", "--ledger", "missing.db")
    assert (2, "") == (code, out)
    assert "there is no ledger 'missing.db'" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("where", ["other.db", "sqlite:///other.db"])
def test_another_ledger(where: str, looms: Run) -> None:
    """A path, or the words that a client takes."""
    write(Path("other.db"), SOME[:1])
    assert (
        "1 call · 1,000 in, 100 out · $0.000210\n"
        == looms("cost", "--ledger", where).out.splitlines(keepends=True)[-1]
    )


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--by", "colour"), "tag:NAME"),
        (("--since", "tomorrow"), "7d, 24h, 2026-11"),
        (("--until", "9999-12-31"), "7d, 24h, 2026-11"),
        (("--since", "0001-01-01T00:00+14:00"), "7d, 24h, 2026-11"),
        (("--tag", "project"), "NAME=VALUE"),
    ],
)
def test_wrong_words(words: tuple[str, ...], part: str, looms: Run) -> None:
    """What was meant is named."""
    code, out, err = looms("cost", *words)
    assert (2, "") == (code, out)
    assert part in err


def test_what_a_row_says_cannot_reach_the_terminal(looms: Run) -> None:
    """Escape sequences in a session's name are taken out of tables, and formulas out of CSV."""
    write(Path("evil.db"), [Call(at="2026-11-20T09:00:00", session="=1+1", key="\x1b[31mred")])
    out = looms("cost", "--ledger", "evil.db", "--by", "key").out
    assert "\x1b" not in out
    assert "'=1+1" in looms("cost", "--ledger", "evil.db", "--by", "session", "--csv").out


@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", ""), ("-1", ""), ("8", "█" * 8), ("4.5", "████▌"), ("0.001", "▏"), ("1", "█")],
)
def test_bars(value: str, shown: str) -> None:
    """A bar is true to an eighth of a column, and something is never nothing."""
    assert shown == bar(Decimal(value), Decimal(8), 8)
    assert "" == bar(Decimal(1), Decimal(0), 8)
    assert "" == bar(Decimal(1), Decimal(1), 0)


@pytest.mark.usefixtures("ledger")
def test_a_narrow_window_leaves_out_columns(looms: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars come before details: what has no room is named, and nothing is cut."""
    monkeypatch.setattr("loom.cli.terminal._PIPE_WIDTH", 80)
    _, out, err = looms("cost", "--by", "model")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "█" in out
    assert "Uncertain" not in out.splitlines()[2]
    assert "Left out for room: Failed, Uncertain (widen the window" in err
    assert "up to $0.010000 uncertain" in " ".join(out.split())


def test_months_follow_each_other(looms: Run) -> None:
    """A month, a week or a day without a call has its line; beyond 400 only what happened has."""
    calls = [
        Call(at="2024-12-30T09:00:00"),
        Call(at="2026-11-20T09:00:00", cost="200"),
        Call(at="2026-11-20T09:00:01", cost="20000"),
    ]
    write(Path("long.db"), calls)
    for by, count in (("month", 24), ("week", 99), ("day", 2)):
        out = looms("cost", "--ledger", "long.db", "--by", by).out
        assert count == len(out.splitlines()[4:-2])
    assert "$20,200.00" in out


def test_rows_that_wait_come_in_first(looms: Run) -> None:
    """A row beside the ledger is counted, or it is said that it is not."""
    write(Path("calls.db"), SOME[:1])
    beside = Spill(Path("calls.db"))
    entry = Entry(
        id="0" * 28,
        at=datetime(1970, 1, 1, tzinfo=UTC),
        state="settled",
        provider="mistral",
        asked_model="some-model",
        cost_usd=Decimal(1),
    )
    beside.leave("0" * 28, encode(entry))
    assert 1 == looms("cost", "check", "calls.db").code
    lock = lock_for_writing(Path("calls.db"))
    code, out, err = looms("cost", "--ledger", "calls.db", "--json")
    assert (0, 1) == (code, json.loads(out)["all"]["calls"])
    lock.close()
    assert 2 == json.loads(looms("cost", "--ledger", "calls.db", "--json").out)["all"]["calls"]
    code, out, err = looms("cost", "check", "calls.db")
    assert (0, "") == (code, err)
