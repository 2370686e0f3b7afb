"""Sums of a ledger as people read them: tables with bars, a line of totals, CSV, JSON."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from loom.cli.clean import cleaned
from loom.cli.terminal import Terminal
from loom.ledger.contract import Total
from loom.ledger.export import guarded
from loom.ledger.money import add

__all__ = ["bar", "csv_text", "show_sums", "sum_of", "sums_line", "total_object", "usd_text"]

_PERIODS = ("day", "week", "month")
_BAR = 40  # a longer one says no more
_LEAST_BAR = 8
_LARGE = 10_000  # US dollars of which millionths say nothing
_FILLED = 400  # days without a call that are shown all the same
_EIGHTHS = " ▏▎▍▌▋▊▉"
_DROP = ("Cached", "Uncertain", "Failed", "In", "Out", "Calls")
_HEADERS = ("Calls", "Failed", "In", "Cached", "Out", "Cost", "Uncertain", "Unpriced", "Share")


def show_sums(terminal: Terminal, title: str, by: str, totals: Sequence[Total]) -> None:
    """
    Put a table of sums on standard output, with bars as wide as there is room for.

    Args:
        terminal: Where to.
        title: Stands above it.
        by: What they are grouped by.
        totals: The sums, at least one.
    """
    # Days follow each other; of everything else the dearest comes first.
    ordered = _filled(by, totals) if by in _PERIODS else sorted(totals, key=_dearest_first)
    most = max(total.cost_usd for total in ordered)
    head = by.removeprefix("tag:").replace("_", " ").capitalize()
    cells = [_cells(total, by, most) for total in ordered]
    headers = (head, *(name for name in _HEADERS if name != "Share"))
    room = terminal.out.width - _taken(headers, cells)
    left_out = [name for name in _DROP if name in headers]
    dropped: list[str] = []
    while room < _LEAST_BAR and left_out:
        dropped.append(left_out.pop(0))
        keep = [name for name in headers if name not in dropped]
        places = [headers.index(name) for name in keep]
        room = terminal.out.width - _taken(keep, [[row[i] for i in places] for row in cells])
    width = min(_BAR, room)
    bars = [bar(total.cost_usd, most, width) for total in ordered]
    kept = [name for name in headers if name not in dropped]
    rows = [
        (*(row[headers.index(name)] for name in kept), shown)
        for row, shown in zip(cells, bars, strict=True)
    ]
    terminal.table(title, (*kept, " "), rows, right={*kept} - {head})
    if dropped:
        empty = {name for name in dropped if not any(row[headers.index(name)] for row in cells)}
        if {*dropped} - empty:
            names = ", ".join(sorted({*dropped} - empty))
            terminal.say(f"Left out for room: {names} (widen the window, or add `| cat`).")


def bar(value: Decimal, most: Decimal, width: int) -> str:
    """
    A bar of text.

    Args:
        value: How much; nothing and less give no bar.
        most: What fills the width.
        width: In columns.

    Returns:
        Blocks, to an eighth of a column; `#` where the stream cannot show them.
    """
    if most <= 0 or value <= 0 or width < 1:
        return ""
    eighths = max(1, int(value * width * 8 / most))
    if not _shows_blocks():
        return "#" * max(1, eighths // 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def sum_of(totals: Iterable[Total]) -> Total:
    """
    The sum of sums.

    Args:
        totals: Of groups without a row in common.

    Returns:
        Their sum, of no group.
    """
    whole = Total(group="")
    for one in totals:
        whole = Total(
            group="",
            **{name: _plus(getattr(whole, name), getattr(one, name)) for name in _SUMMED},
        )
    return whole


def sums_line(whole: Total) -> str:
    """
    Everything on one line; what is not known is said, not left out.

    Args:
        whole: The sum.

    Returns:
        For example `12 calls · 3,400 in, 560 out · $0.004100`.
    """
    parts = [f"{whole.calls:,} call{'' if whole.calls == 1 else 's'}"]
    if whole.failed:
        parts[0] += f", {whole.failed:,} failed"
    cached = f" ({whole.cached_tokens:,} cached)" if whole.cached_tokens else ""
    parts.append(f"{whole.input_tokens:,} in{cached}, {whole.output_tokens:,} out")
    parts.append(usd_text(whole.cost_usd))
    if whole.reserved_usd:
        parts.append(f"up to {usd_text(whole.reserved_usd)} on its way")
    if whole.uncertain_usd:
        parts.append(f"up to {usd_text(whole.uncertain_usd)} uncertain")
    if whole.unpriced:
        parts.append(f"{whole.unpriced:,} without a price, so it cost more than that")
    return " · ".join(parts)


def total_object(total: Total) -> dict[str, Any]:
    """
    A sum as `--json` prints it.

    Args:
        total: The sum.

    Returns:
        Its fields; money as a decimal string.
    """
    return {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in msgspec.structs.asdict(total).items()
    }


def csv_text(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """
    A table as CSV; cells that a spreadsheet would run get an apostrophe.

    Args:
        headers: The first line.
        rows: Cells; None is empty, amounts are exact.

    Returns:
        Lines that end with CR and LF.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(headers)
    writer.writerows([_csv_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def usd_text(amount: Decimal) -> str:
    """
    An amount in as many digits as its size needs.

    Args:
        amount: US dollars.

    Returns:
        For example `$0.002800` or `$1,204.50`.
    """
    places = 6 if abs(amount) < _LARGE else 2
    sign = "-" if amount < 0 else ""
    return f"{sign}${abs(amount):,.{places}f}"


_SUMMED = tuple(name for name in Total.__struct_fields__ if name != "group")


def _cells(total: Total, by: str, most: Decimal) -> tuple[str, ...]:
    # The column has one form, that of its largest amount.
    places = 6 if most < _LARGE else 2
    return (
        cleaned(total.group).replace("\n", " ") or ("(none)" if by != "all" else "all"),
        f"{total.calls:,}",
        _count(total.failed),
        f"{total.input_tokens:,}",
        _count(total.cached_tokens),
        f"{total.output_tokens:,}",
        f"${total.cost_usd:,.{places}f}",
        f"${total.uncertain_usd:,.{places}f}" if total.uncertain_usd else "",
        _count(total.unpriced),
    )


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _taken(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> int:
    """How many columns of the window a table takes, the bar's own frame among them."""
    widths = [
        max(len(headers[i]), *(len(row[i]) for row in cells))
        for i in range(len(headers))
        if any(row[i] for row in cells)
    ]
    return sum(widths) + 3 * (len(widths) + 1) + 1


def _dearest_first(total: Total) -> tuple[Decimal, str]:
    return -total.cost_usd, total.group


def _filled(by: str, totals: Sequence[Total]) -> list[Total]:
    """Put in the days, weeks and months in which nothing happened."""
    known = {total.group: total for total in totals}
    names = [_period(by, total.group) for total in totals]
    day, last = min(names), max(names)
    every: list[Total] = []
    while day <= last and len(every) < _FILLED:
        name = f"{day:%Y-%m}" if by == "month" else day.isoformat()
        every.append(known.get(name) or Total(group=name))
        day = _next(by, day)
    return every if day > last else list(totals)


def _period(by: str, group: str) -> date:
    return date.fromisoformat(f"{group}-01" if by == "month" else group)


def _next(by: str, day: date) -> date:
    if by == "month":
        return (day + timedelta(days=32)).replace(day=1)
    return day + timedelta(days=7 if by == "week" else 1)


def _plus(one: Any, other: Any) -> Any:
    return add(one, other) if isinstance(one, Decimal) else one + other


def _csv_cell(cell: object) -> str:
    match cell:
        case None:
            return ""
        case Decimal():
            return f"{cell:f}"
        case str():
            return guarded(cell)
        case _:
            return str(cell)


def _shows_blocks() -> bool:
    try:
        _EIGHTHS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
