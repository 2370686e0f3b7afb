"""`looms cost reprice`: what the ledger's calls would have cost by the prices of another day."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import rich_click as click

from loom.catalog.cost import price_usage
from loom.cli.book import opened, rows_of, selected, selection_options
from loom.cli.clean import cleaned
from loom.cli.options import DAY, common_options, pass_terminal
from loom.cli.sums import csv_text, usd_text
from loom.cli.terminal import Terminal
from loom.config.assemble import load_catalog
from loom.core.response import Usage
from loom.ledger.contract import Total
from loom.ledger.entry import Entry
from loom.ledger.money import ZERO, add, less
from loom.ledger.reprice import PriceOf, Repriced, repriced
from loom.ledger.totals import Tally, fact, group_by

__all__ = ["anew", "priced_again", "prices", "reprice", "show_rows"]

_EPILOG = (
    "Nothing is written: a row says what was known when its call ended, and stays as it is."
    " A model that there was not on that day is priced by the name that was asked for, for example"
    " mistral-large-latest. `--csv` prints one line for each row that differs, with both prices"
    " and the difference: entries for your books."
)
_JOURNAL = (
    "id", "at", "model", "old_price_id", "new_price_id", "old_cost_usd", "new_cost_usd",
    "difference_usd",
)  # fmt: skip


class _Change:
    """What changes for a model."""

    def __init__(self) -> None:
        self.calls = self.changed = self.unpriced = 0
        self.was = self.now = self.difference = ZERO

    def add(self, row: Repriced) -> None:
        self.calls += 1
        self.changed += row.changed
        self.unpriced += row.cost_usd is None and row.entry.state in ("settled", "estimated")
        was = row.entry.cost_usd or ZERO
        self.was = add(self.was, was)
        if row.cost_usd is not None:
            # What is not known now is no difference: it is counted as unpriced.
            self.now = add(self.now, row.cost_usd)
            self.difference = add(self.difference, less(row.cost_usd, was))


@click.command(epilog=_EPILOG)
@click.option(
    "--as-of",
    type=DAY,
    metavar="DAY",
    help="Whose prices, for example 2024-11; without it those of each call's own day.",
)
@selection_options
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: each row that differs.")
@common_options
@pass_terminal
def reprice(terminal: Terminal, /, **given: Any) -> None:
    """Price calls again, and show the difference by model."""
    as_of: date | None = given["as_of"]
    ledger = opened(terminal, given["ledger"])
    entries = () if ledger is None else rows_of(ledger, selected(given))
    price_of = prices()
    # A call that nobody answered has no price, then or now.
    priced = (entry for entry in entries if entry.cost_usd is not None or entry.unpriced)
    found = (priced_again(entry, price_of, as_of) for entry in priced)
    if given["as_csv"]:
        terminal.write(csv_text(_JOURNAL, (_journal(row) for row in found if row.changed)))
        return
    changes = _by_model(found)
    whole = _whole(changes.values())
    if terminal.json:
        models = {model: _object(change) for model, change in changes.items()}
        terminal.write_json({"as_of": as_of, "models": models, "all": _object(whole)})
    elif changes:
        _show(terminal, as_of, changes, whole)
    else:
        terminal.say("No calls match.")


def prices() -> PriceOf:
    """
    The catalogue, as what prices rows.

    Returns:
        A function that prices a usage of a provider and a model on a day.
    """
    catalog = load_catalog()

    def price_of(usage: Usage, provider: str, model: str, on: date) -> Usage:
        return price_usage(usage, catalog.find(model, on, provider=provider))

    return price_of


def priced_again(entry: Entry, price_of: PriceOf, on: date | None) -> Repriced:
    """
    A row by other prices; of a model that is newer than they are, by the name that was asked for.

    Args:
        entry: The row.
        price_of: The prices.
        on: Whose; None: those of the row's own day.

    Returns:
        The row with its new price.
    """
    row = repriced(entry, price_of, on)
    if row.cost_usd is not None or entry.cost_usd is None or entry.asked_model == entry.model:
        return row
    asked = msgspec.structs.replace(entry, model=entry.asked_model)
    return msgspec.structs.replace(repriced(asked, price_of, on), entry=entry)


def anew(entries: Iterable[Entry], by: str, on: date) -> tuple[Total, ...]:
    """
    Sums over rows by the prices of another day.

    Args:
        entries: The rows.
        by: What to group by.
        on: Whose prices.

    Returns:
        The sums; rows without a price on that day are counted as unpriced.
    """
    price_of, group, tally = prices(), group_by(by), Tally()
    for entry in entries:
        row = priced_again(entry, price_of, on)
        changed = msgspec.structs.replace(entry, cost_usd=row.cost_usd, price_id=row.price_id)
        tally.add(fact(changed, group))
    return tally.totals()


def show_rows(terminal: Terminal, entries: Sequence[Entry]) -> None:
    """
    Put rows on standard output as a table.

    Args:
        terminal: Where to.
        entries: The rows.
    """
    headers = (
        "When (UTC)", "Model", "State", "In", "Out", "Cost", "Took", "Code", "Session", "Tags",
        "Client", "Key", "ID",
    )  # fmt: skip
    terminal.table(
        "Calls",
        headers,
        [[cleaned(cell) for cell in _row_cells(entry)] for entry in entries],
        drop=("ID", "Key", "Client", "Took", "Tags", "Session", "In", "Out", "State"),
        right={"In", "Out", "Cost", "Took"},
    )


def _row_cells(entry: Entry) -> tuple[str, ...]:
    cost = "" if entry.cost_usd is None else usd_text(entry.cost_usd)
    if not cost and entry.reserved_usd is not None:
        cost = f"≤ {usd_text(entry.reserved_usd)}"
    return (
        f"{entry.at:%Y-%m-%d %H:%M:%S}",
        entry.model or entry.asked_model,
        entry.state,
        f"{entry.input_tokens:,}",
        f"{entry.output_tokens:,}",
        cost or "unknown",
        "" if entry.latency_s is None else f"{entry.latency_s:.1f} s",
        entry.code,
        entry.session or "",
        ", ".join(f"{name}={value}" for name, value in entry.tags.items()),
        entry.client,
        entry.key,
        entry.id,
    )


def _by_model(found: Iterable[Repriced]) -> dict[str, _Change]:
    changes: dict[str, _Change] = {}
    for row in found:
        model = row.entry.model or row.entry.asked_model
        changes.setdefault(model, _Change()).add(row)
    return dict(sorted(changes.items(), key=lambda item: (-abs(item[1].difference), item[0])))


def _whole(changes: Iterable[_Change]) -> _Change:
    whole = _Change()
    for change in changes:
        whole.calls += change.calls
        whole.changed += change.changed
        whole.unpriced += change.unpriced
        whole.was = add(whole.was, change.was)
        whole.now = add(whole.now, change.now)
        whole.difference = add(whole.difference, change.difference)
    return whole


def _show(
    terminal: Terminal, as_of: date | None, changes: dict[str, _Change], whole: _Change
) -> None:
    day = f"of {as_of}" if as_of else "of its own day"
    terminal.table(
        f"Cost by the prices {day}",
        ("Model", "Calls", "Written", "Priced again", "Difference", "Unpriced"),
        [
            (
                cleaned(model),
                f"{change.calls:,}",
                usd_text(change.was),
                usd_text(change.now),
                _signed(change.difference),
                f"{change.unpriced:,}" if change.unpriced else "",
            )
            for model, change in changes.items()
        ],
        drop=("Calls", "Unpriced"),
        right={"Calls", "Written", "Priced again", "Difference", "Unpriced"},
    )
    line = f"{usd_text(whole.was)} written · {usd_text(whole.now)} priced again"
    line += f" · {_signed(whole.difference)} in {whole.changed:,} of {whole.calls:,} calls"
    if whole.unpriced:
        line += f" · {whole.unpriced:,} without a price {day}: their cost is missing here"
    terminal.write(f"{line}\n")
    terminal.say("The rows stay as they are; --csv prints the differences for your books.")


def _signed(amount: Decimal) -> str:
    return f"+{usd_text(amount)}" if amount > 0 else usd_text(amount)


def _journal(row: Repriced) -> tuple[object, ...]:
    entry, old, new = row.entry, row.entry.cost_usd, row.cost_usd
    difference = None if old is None or new is None else less(new, old)
    moment = entry.at.isoformat()
    return entry.id, moment, entry.model, entry.price_id, row.price_id, old, new, difference


def _object(change: _Change) -> dict[str, Any]:
    return {
        "calls": change.calls,
        "changed": change.changed,
        "unpriced": change.unpriced,
        "written_usd": f"{change.was:f}",
        "repriced_usd": f"{change.now:f}",
        "difference_usd": f"{change.difference:f}",
    }
