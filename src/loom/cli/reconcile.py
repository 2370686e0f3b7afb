"""`looms reconcile`: the ledger against the vendor's invoice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from textwrap import fill
from typing import Any

import msgspec
import rich_click as click

from loom.catalog.dates import parse_as_of
from loom.cli.book import TAG, ledger_path, opened, period_options, rows_of, selected
from loom.cli.clean import cleaned
from loom.cli.options import common_options, pass_terminal
from loom.cli.sums import usd_text
from loom.cli.terminal import Terminal
from loom.config.assemble import load_catalog
from loom.core.ambient import SystemClock
from loom.ledger.contract import Query
from loom.ledger.invoice import COLUMNS, InvoiceLine, InvoiceUnreadable, read_invoice
from loom.ledger.money import total
from loom.ledger.reconcile import Finding, Side
from loom.ledger.reconcile import reconcile as compared

__all__ = ["reconcile"]

_EPILOG = (
    "The invoice is a CSV file with a line for each model and day, or month: a model and an amount"
    " in US dollars, and a date, input and output tokens and requests where it has them. Columns"
    " are found by their usual names; `--map amount='Total charge'` names one that is not"
    f" ({', '.join(COLUMNS)})."
    " Exit code 0: every difference is explained; 1: somebody has to look."
)
_WORDS = {
    "same": "same",
    "rounding": "rounding",
    "uncertain": "uncertain calls",
    "unpriced": "unpriced calls",
    "other_key": "another key",
    "other_day": "another day",
    "price_differs": "PRICE DIFFERS",
    "tokens_differ": "TOKENS DIFFER",
    "missing_in_ledger": "NOT IN LEDGER",
    "missing_in_invoice": "NOT IN INVOICE",
}


@click.command(epilog=_EPILOG)
@click.argument("invoice", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--map",
    "named",
    type=TAG,
    multiple=True,
    metavar="NAME=COLUMN",
    help="The header of a column that is not found; may be given several times.",
)
@period_options
@click.option(
    "--provider", default="mistral", show_default=True, metavar="NAME", help="Whose invoice it is."
)
@click.option("--all", "every", is_flag=True, help="Show lines without a difference too.")
@common_options
@pass_terminal
@click.pass_context
def reconcile(context: click.RichContext, terminal: Terminal, /, **given: Any) -> None:
    """Compare the ledger with the vendor's invoice, and classify each difference."""
    path: Path = given["invoice"]
    lines = _read(path, dict(given["named"]))
    query = msgspec.structs.replace(selected(given), provider=given["provider"])
    lines, query = _in_time(lines, query)
    ledger = opened(terminal, given["ledger"])
    if ledger is None:
        raise click.UsageError(f"there is no ledger yet: it would be {ledger_path(None)}")
    found = compared(lines, rows_of(ledger, query), _namer(given["provider"]))
    if terminal.json:
        terminal.write_json(_object(path, ledger_path(given["ledger"]), found))
    else:
        _show(terminal, path, found, every=given["every"])
    if not all(finding.explained for finding in found):
        context.exit(1)


def _read(path: Path, named: Mapping[str, str]) -> tuple[InvoiceLine, ...]:
    unknown = [name for name in named if name not in COLUMNS]
    if unknown:
        raise click.UsageError(f"--map knows {', '.join(COLUMNS)}, not {unknown[0]!r}")
    try:
        with path.open("rb") as file:
            return read_invoice(file.read(_LARGEST + 1), named)
    except OSError as error:
        raise click.UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except InvoiceUnreadable as error:
        raise click.UsageError(f"{str(path)!r}: {error}") from None


# One byte more than `read_invoice` takes: it says what is wrong.
_LARGEST = 16 << 20


def _in_time(lines: Sequence[InvoiceLine], query: Query) -> tuple[tuple[InvoiceLine, ...], Query]:
    """Bring invoice and ledger to one time: that of the invoice, or what the flags leave of it."""
    if lines[0].period:
        first, last = (edge(line.period for line in lines) for edge in (min, max))
        since, until = _start(first), _end(last)
        query = msgspec.structs.replace(
            query, since=query.since or since, until=query.until or until
        )
    kept = tuple(
        line
        for line in lines
        if not line.period
        or (
            (query.since is None or _start(line.period) >= query.since)
            and (query.until is None or _end(line.period) <= query.until)
        )
    )
    if not kept:
        raise click.UsageError("no line of the invoice lies in that time")
    return kept, query


def _start(period: str) -> datetime:
    day = date.fromisoformat(f"{period}-01" if period.count("-") == 1 else period)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _end(period: str) -> datetime:
    day = parse_as_of(period) + timedelta(days=1)
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _namer(provider: str) -> Callable[[str, str], str]:
    """Give models one name: an invoice may say an alias, or what the alias stands for."""
    catalog, today = load_catalog(), SystemClock().now().date()

    def name(model: str, period: str) -> str:
        plain = model.strip().lower().replace(" ", "-")
        card = catalog.find(plain, parse_as_of(period) if period else today, provider=provider)
        return plain if card is None else card.id

    return name


def _show(terminal: Terminal, path: Path, found: Sequence[Finding], *, every: bool) -> None:
    shown = [finding for finding in found if every or finding.kind != "same"]
    if shown:
        left_out = terminal.table(
            f"{path.name} against the ledger",
            ("Period", "Model", "Invoice", "Ledger", "Difference", "What", "Note"),
            [_cells(finding) for finding in shown],
            drop=("Note", "Ledger", "Invoice"),
            fold={"Note"},
            right={"Invoice", "Ledger", "Difference"},
        )
        if "Note" in left_out:
            for finding in shown:
                if finding.note:
                    text = f"{finding.period} {finding.model}: {finding.note}".strip()
                    terminal.write(f"{_filled(terminal, text)}\n")
            terminal.write("\n")
    for line in _sums(found):
        terminal.write(f"{_filled(terminal, line)}\n")


def _filled(terminal: Terminal, text: str) -> str:
    return fill(cleaned(text), terminal.out.width, subsequent_indent="  ")


def _cells(finding: Finding) -> tuple[str, ...]:
    return (
        finding.period,
        cleaned(finding.model) or "(none)",
        _amount(finding.invoice),
        _amount(finding.ledger),
        _signed(finding.difference_usd),
        _WORDS[finding.kind],
        cleaned(finding.note),
    )


def _sums(found: Sequence[Finding]) -> list[str]:
    open_ones = [finding for finding in found if not finding.explained]
    same = sum(finding.kind == "same" for finding in found)
    sums = _totals(found)
    whole = (
        f"invoice {usd_text(sums['invoice_usd'])} · ledger {usd_text(sums['ledger_usd'])}"
        f" · difference {_signed(sums['difference_usd'])}: {_signed(sums['explained_usd'])}"
        f" explained, {_signed(sums['unexplained_usd'])} unexplained"
    )
    if open_ones:
        return [whole, f"{len(open_ones):,} of {len(found):,} lines are unexplained."]
    return [whole, f"Everything is explained; {same:,} of {len(found):,} lines are the same."]


def _totals(found: Sequence[Finding]) -> dict[str, Decimal]:
    # Plain sums: an invoice may hold credits, which no ledger does.
    billed = sum((one.invoice.amount_usd for one in found if one.invoice), Decimal(0))
    explained = sum((one.difference_usd for one in found if one.explained), Decimal(0))
    unexplained = sum((one.difference_usd for one in found if not one.explained), Decimal(0))
    return {
        "invoice_usd": billed,
        "ledger_usd": total(one.ledger.amount_usd for one in found if one.ledger),
        "difference_usd": explained + unexplained,
        "explained_usd": explained,
        "unexplained_usd": unexplained,
    }


def _object(path: Path, ledger: Path, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        "invoice": str(path),
        "ledger": str(ledger),
        "explained": all(finding.explained for finding in found),
        **{name: f"{amount:f}" for name, amount in _totals(found).items()},
        "lines": [
            {
                "period": finding.period,
                "model": finding.model,
                "kind": finding.kind,
                "explained": finding.explained,
                "difference_usd": f"{finding.difference_usd:f}",
                "invoice": _side(finding.invoice),
                "ledger": _side(finding.ledger),
                "invoice_lines": finding.lines,
                "price_ids": finding.price_ids,
                "uncertain_usd": f"{finding.uncertain_usd:f}",
                "note": finding.note,
            }
            for finding in found
        ],
    }


def _side(side: Side | None) -> dict[str, Any] | None:
    if side is None:
        return None
    return {**msgspec.structs.asdict(side), "amount_usd": f"{side.amount_usd:f}"}


def _amount(side: Side | None) -> str:
    return "-" if side is None else usd_text(side.amount_usd)


def _signed(amount: Decimal) -> str:
    return f"+{usd_text(amount)}" if amount > 0 else usd_text(amount)
