"""`looms reconcile`: every kind of difference between a ledger and an invoice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from tests.cli.ledgers import LARGE, SMALL, Call, write

if TYPE_CHECKING:
    from tests.cli.conftest import Run

HEAD = "date,model,input tokens,output tokens,requests,amount\n"
# A million and a hundred thousand tokens of small: 0.15 and 0.06 US dollars.
ONE = Call(at="2026-11-20T09:00:00", used=(1_000_000, 100_000), cost="0.21", price_id="row-1")
BILLED = f"2026-11-20,{SMALL},1000000,100000,1,0.21\n"


def later(call: Call, at: str, **changes: Any) -> Call:
    """Give the same call at another time."""
    return msgspec.structs.replace(call, at=at, **changes)


@pytest.fixture
def against(looms: Run, tmp_path: Path) -> Any:
    """Compare calls with lines of an invoice; give the exit code and what `--json` prints."""

    def compare(calls: list[Call], lines: str, *words: str) -> tuple[int, dict[str, Any]]:
        (tmp_path / "invoice.csv").write_text(HEAD + lines)
        write(tmp_path / "calls.db", calls)
        code, out, err = looms("reconcile", "invoice.csv", "--ledger", "calls.db", "--json", *words)
        assert "" == err
        return code, json.loads(out)

    return compare


def kinds(value: dict[str, Any]) -> list[str]:
    return [line["kind"] for line in value["lines"]]


@pytest.mark.parametrize(
    ("calls", "lines", "kind"),
    [
        ([ONE], BILLED, "same"),
        ([ONE], BILLED.replace(SMALL, "mistral-small-latest"), "same"),
        ([ONE], BILLED.replace(SMALL, "Mistral-Small-2603"), "same"),
        ([ONE], BILLED.replace(",1,0.21", ",1,0.2149"), "rounding"),
        ([ONE], BILLED.replace("1000000,100000,1,", ",,,"), "same"),
        (
            [ONE, later(ONE, "2026-11-20T10:00:00", model="", used=(0, 0), cost=None,
                        state="uncertain", worst="0.30")],
            BILLED.replace("1000000,100000,1,0.21", "2000000,200000,2,0.42"),
            "uncertain",
        ),
        (
            [ONE, later(ONE, "2026-11-20T10:00:00", state="estimated")],
            BILLED,
            "uncertain",
        ),
        ([later(ONE, "2026-11-20T10:00:00", cost=None, price_id="")], BILLED, "unpriced"),
        ([ONE, later(ONE, "2026-11-20T10:00:00", key="ffffffff")], BILLED, "other_key"),
    ],
)  # fmt: skip
def test_explained_differences(calls: list[Call], lines: str, kind: str, against: Any) -> None:
    """The ledger itself says where the difference comes from: 0."""
    code, value = against(calls, lines)
    assert (0, True, [kind]) == (code, value["explained"], kinds(value))
    assert "0" == value["unexplained_usd"]
    assert value["difference_usd"] == value["explained_usd"]


@pytest.mark.parametrize(
    ("calls", "lines", "kind", "note"),
    [
        ([ONE], BILLED.replace(",0.21", ",0.105"), "price_differs", "0.5 times, as for batch"),
        ([ONE], BILLED.replace(",0.21", ",0.3675"), "price_differs", "as for priority"),
        ([ONE], BILLED.replace(",0.21", ",0.42"), "price_differs", "row-1; the invoice asks 2 t"),
        (
            [ONE],
            BILLED.replace("1000000,100000,1,0.21", "1000500,100000,2,0.25"),
            "tokens_differ",
            "+1 calls, +500 in, +0 out",
        ),
        ([ONE], BILLED.replace("1000000,100000,1,0.21", ",,,0.25"), "tokens_differ", "no tokens"),
        ([ONE], BILLED + f"2026-11-20,{LARGE},1000,10,1,0.50\n", "missing_in_ledger", "no call"),
        (
            [ONE, later(ONE, "2026-11-20T10:00:00", model=LARGE)],
            BILLED,
            "missing_in_invoice",
            "1 call that nobody billed",
        ),
    ],
)
def test_unexplained_differences(
    calls: list[Call], lines: str, kind: str, note: str, against: Any
) -> None:
    """Somebody has to look, and is told what can be said: 1."""
    code, value = against(calls, lines)
    assert (1, False) == (code, value["explained"])
    (line,) = [line for line in value["lines"] if not line["explained"]]
    assert kind == line["kind"]
    assert note in line["note"]
    assert line["difference_usd"] == value["unexplained_usd"]


def test_days_of_another_time_zone(against: Any) -> None:
    """A call near midnight is billed on the other day: the sum of the days explains it."""
    calls = [ONE, later(ONE, "2026-11-20T23:30:00"), later(ONE, "2026-11-21T09:00:00")]
    lines = BILLED + BILLED.replace("11-20", "11-21").replace(
        "1000000,100000,1,0.21", "2000000,200000,2,0.42"
    )
    code, value = against(calls, lines)
    assert (0, ["other_day", "other_day"]) == (code, kinds(value))
    assert "0.00" == value["difference_usd"]


def test_days_apart_are_no_time_zone(against: Any) -> None:
    """The same tokens a week later are two differences: no midnight lies between them."""
    code, value = against([ONE], BILLED.replace("11-20", "11-27"), "--since", "2026-11-20")
    assert (1, ["missing_in_invoice", "missing_in_ledger"]) == (code, kinds(value))


def test_the_end_of_a_month_may_lie_elsewhere(against: Any) -> None:
    """An invoice by months has the same hours at its edges."""
    calls = [ONE, later(ONE, "2026-11-30T23:30:00")]
    lines = BILLED.replace("2026-11-20", "2026-11") + BILLED.replace("2026-11-20", "2026-12")
    code, value = against(calls, lines)
    assert (0, ["other_day", "other_day"]) == (code, kinds(value))


def test_a_narrow_window_has_its_notes_below(
    looms: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be known of a difference is never left out."""
    monkeypatch.setattr("loom.cli.terminal._PIPE_WIDTH", 80)
    (tmp_path / "invoice.csv").write_text(HEAD + BILLED.replace(",0.21", ",0.42"))
    write(tmp_path / "calls.db", [ONE])
    out = looms("reconcile", "invoice.csv", "--ledger", "calls.db").out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "the invoice asks 2 times" in " ".join(out.split())


def test_an_invoice_by_months(against: Any) -> None:
    """Months are compared with months; lines of one month and model are added up."""
    calls = [ONE, later(ONE, "2026-11-28T10:00:00"), later(ONE, "2026-12-01T10:00:00")]
    code, value = against(calls, 2 * BILLED.replace("2026-11-20", "Nov 2026"))
    assert (0, ["same"]) == (code, kinds(value))
    assert ("2026-11", [2, 3], 2) == (
        value["lines"][0]["period"],
        value["lines"][0]["invoice_lines"],
        value["lines"][0]["invoice"]["calls"],
    )


def test_only_a_part_of_the_time(against: Any) -> None:
    """`--since` and `--until` leave out lines and calls alike."""
    calls = [ONE, later(ONE, "2026-11-22T10:00:00")]
    lines = BILLED + BILLED.replace("11-20", "11-22").replace("0.21", "9.99")
    code, value = against(calls, lines, "--until", "2026-11-21")
    assert (0, ["same"]) == (code, kinds(value))


def test_other_providers_are_on_other_invoices(against: Any) -> None:
    """Only calls that the named provider answered count."""
    code, value = against([ONE], BILLED, "--provider", "openai")
    assert (1, ["missing_in_ledger"]) == (code, kinds(value))


def test_the_table(looms: Run, tmp_path: Path) -> None:
    """Each difference has a line and a note; both sums and what is unexplained end it."""
    (tmp_path / "invoice.csv").write_text(
        HEAD + BILLED + f"2026-11-20,{LARGE},1000,10,1,0.50\n2026-11-20,\x1b[31mx,1,1,1,0.001\n"
    )
    write(tmp_path / "calls.db", [ONE])
    code, out, err = looms("reconcile", "invoice.csv", "--ledger", "calls.db")
    assert (1, "") == (code, err)
    assert "\x1b" not in out
    assert f"2026-11-20   {LARGE}" in out
    assert "NOT IN LEDGER" in out
    assert SMALL not in out
    assert out.endswith(
        "invoice $0.711000 · ledger $0.210000 · difference +$0.501000: $0.000000 explained,"
        " +$0.501000 unexplained\n2 of 3 lines are unexplained.\n"
    )
    assert SMALL in looms("reconcile", "invoice.csv", "--ledger", "calls.db", "--all").out
    (tmp_path / "invoice.csv").write_text(HEAD + BILLED)
    code, out, _ = looms("reconcile", "invoice.csv", "--ledger", "calls.db")
    assert 0 == code
    assert "Everything is explained; 1 of 1 lines are the same." in out


@pytest.mark.parametrize(
    ("content", "words", "part"),
    [
        ("nothing", (), "needs columns"),
        ("model,amount\nsmall,=1\n", (), "line 2"),
        ("model,amount\nsmall,1\n", ("--map", "colour=x"), "--map knows date, model"),
        (HEAD + BILLED, ("--since", "2027-01-01"), "no line of the invoice"),
        (HEAD + BILLED, ("--ledger", "missing.db"), "there is no ledger"),
        (HEAD + BILLED, (), "there is no ledger yet"),
        (None, (), "cannot read"),
    ],
)
def test_wrong_words(content: str | None, words: tuple[str, ...], part: str, looms: Run) -> None:
    """What cannot be compared is refused with 2, and the place is named."""
    if content is not None:
        Path("invoice.csv").write_text(content)
    code, out, err = looms("reconcile", "invoice.csv", *words)
    assert (2, "") == (code, out)
    assert part in err


def test_columns_may_be_named(looms: Run, tmp_path: Path) -> None:
    """`--map` names what is not found."""
    (tmp_path / "invoice.csv").write_text(f"date,what,Rechnung\n2026-11-20,{SMALL},0.21\n")
    write(tmp_path / "calls.db", [ONE])
    words = ("--ledger", "calls.db", "--map", "model=what", "--map", "amount=Rechnung")
    assert 0 == looms("reconcile", "invoice.csv", *words).code
