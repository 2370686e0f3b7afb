"""
A vendor's invoice as CSV: which column is what, and what its cells mean.

Vendors change their exports, and spreadsheets change them again. So headers are found by what they
usually say, numbers are read in the writing of several countries, and whatever cannot be read for
certain is an error that names the line: money is not guessed.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from loom.ledger.invoice_cells import (
    DateOrder,
    InvoiceUnreadable,
    date_order,
    period_of,
    read_amount,
    read_count,
)

__all__ = ["COLUMNS", "InvoiceLine", "InvoiceUnreadable", "read_invoice"]

_LARGEST_BYTES = 16 << 20
_MOST_LINES = 200_000
_PREFACE = 50  # lines of names and addresses that may stand above the headers

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "date": ("date", "day", "month", "period", "usagedate", "usageday", "usagemonth",
             "billingperiod", "billingmonth", "starttime", "startdate", "start", "timestamp",
             "time", "datum", "monat"),
    "model": ("model", "modelname", "modelid", "product", "productname", "sku", "item",
              "description", "service", "resource", "modell"),
    "input": ("inputtokens", "prompttokens", "tokensin", "input", "intokens", "inputtokencount",
              "prompttokencount", "ninputtokens", "nprompttokens", "contexttokens", "prompt"),
    "output": ("outputtokens", "completiontokens", "tokensout", "output", "outtokens",
               "outputtokencount", "completiontokencount", "generatedtokens", "noutputtokens",
               "ncompletiontokens", "completion"),
    "requests": ("requests", "calls", "requestcount", "numrequests", "nrequests", "numcalls",
                 "apicalls", "count"),
    "amount": ("amount", "cost", "total", "costusd", "amountusd", "totalusd", "usd", "charge",
               "charges", "totalcost", "totalamount", "netamount", "price", "spend", "betrag",
               "amountinusd", "costinusd", "subtotal"),
    "currency": ("currency", "currencycode", "waehrung"),
}  # fmt: skip
"""What the header of a column may say: small letters and digits, everything else left out."""

_NEEDED = ("model", "amount")
_SUMS = re.compile(r"(grand|sub|invoice)?\s*-?\s*(total|sum|summe)s?", re.IGNORECASE)
_DOLLARS = {"usd", "$", "us$", "us dollar", "us dollars", ""}


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the vendor charges for a model in a period.

    Attributes:
        line: Its line in the file, from 1.
        period: A day (2026-11-05), a month (2026-11), or empty: the file has no dates.
        model: The model as the vendor names it.
        input_tokens: Prompt tokens; None: the file does not say.
        output_tokens: Answer tokens; None: the file does not say.
        requests: Calls; None: the file does not say.
        amount_usd: US dollars; below 0 for a credit.
    """

    line: int
    period: str
    model: str
    input_tokens: int | None
    output_tokens: int | None
    requests: int | None
    amount_usd: Decimal


class _Row(NamedTuple):
    line: int
    cells: Mapping[str, str]


def read_invoice(content: bytes, named: Mapping[str, str] | None = None) -> tuple[InvoiceLine, ...]:
    """
    Read an invoice.

    Args:
        content: The file: UTF-8, UTF-16 with its mark, or Windows' Western letters; parted by
            commas, semicolons, tabs or bars.
        named: The headers of columns that are not found by themselves, by the names in `COLUMNS`.

    Returns:
        Its lines; those of sums are left out, lines of one period and model stay apart.

    Raises:
        InvoiceUnreadable: If it is no such file, or a cell cannot be read for certain.
    """
    rows = _rows(_text(content), named or {})
    order = date_order([row.cells.get("date", "") for row in rows])
    lines = [_line(row, order) for row in rows if not _is_sum(row.cells)]
    if not lines:
        raise InvoiceUnreadable("the invoice has no lines below its headers")
    periods = {len(line.period) for line in lines}
    if len(periods) > 1:
        # A file by days with one month in it: the coarser one is what can be compared.
        shortest = min(periods)
        lines = [msgspec.structs.replace(line, period=line.period[:shortest]) for line in lines]
    return tuple(lines)


def _text(content: bytes) -> str:
    if len(content) > _LARGEST_BYTES:
        raise InvoiceUnreadable(f"the invoice is larger than {_LARGEST_BYTES >> 20} MiB")
    marked = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        # What spreadsheets on Windows write in Western Europe; every byte has a meaning.
        text = content.decode("cp1252", "replace")
    if "\0" in text:
        raise InvoiceUnreadable("the invoice is not a text file: save it as CSV")
    return text


def _rows(text: str, named: Mapping[str, str]) -> list[_Row]:
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines[:_PREFACE]) if _headers_in(line, named)), None)
    if start is None:
        told = ", ".join(repr(cell) for cell in _split(lines[0])[:12]) if lines else "nothing"
        raise InvoiceUnreadable(
            "the invoice needs columns for a model and an amount; its first line has"
            f" {told}: name them, for example --map amount='Total charge'"
        )
    places = _headers_in(lines[start], named)
    reader = csv.reader(io.StringIO("\n".join(lines[start:])), delimiter=_delimiter(lines[start]))
    rows: list[_Row] = []
    try:
        for cells in reader:
            if reader.line_num == 1 or not any(cell.strip() for cell in cells):
                continue
            if len(rows) >= _MOST_LINES:
                raise InvoiceUnreadable(f"the invoice has more than {_MOST_LINES:,} lines")
            found = {name: cells[i].strip() for name, i in places.items() if i < len(cells)}
            rows.append(_Row(start + reader.line_num, found))
    except csv.Error as error:
        raise InvoiceUnreadable(f"line {start + reader.line_num}: {error}") from None
    return rows


def _headers_in(line: str, named: Mapping[str, str]) -> dict[str, int]:
    """Give the place of each column that is known; none unless all that are needed are there."""
    plain = [_plain(cell) for cell in _split(line)]
    places: dict[str, int] = {}
    for name, words in COLUMNS.items():
        wanted = (_plain(named[name]),) if name in named else words
        # The first word of the list counts most: "model" before "description".
        found = next((plain.index(word) for word in wanted if word in plain), None)
        if found is not None:
            places[name] = found
    return places if all(name in places for name in _NEEDED) else {}


def _split(line: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=_delimiter(line)), [])
    except csv.Error:
        return []


def _delimiter(line: str) -> str:
    return max(",;\t|", key=line.count)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower().replace("ä", "ae"))


def _is_sum(cells: Mapping[str, str]) -> bool:
    """Whether a line sums up others, and so must not be counted."""
    return any(_SUMS.fullmatch(cells.get(name, "").rstrip(": ")) for name in ("model", "date"))


def _line(row: _Row, order: DateOrder | None) -> InvoiceLine:
    cells = row.cells
    try:
        _check_amount(cells)
        return InvoiceLine(
            line=row.line,
            period=period_of(cells["date"], order) if cells.get("date") else "",
            model=cells.get("model", "").removeprefix("'"),
            input_tokens=_count(cells, "input"),
            output_tokens=_count(cells, "output"),
            requests=_count(cells, "requests"),
            amount_usd=read_amount(cells["amount"]),
        )
    except InvoiceUnreadable as error:
        raise InvoiceUnreadable(f"line {row.line}: {error}") from None


def _check_amount(cells: Mapping[str, str]) -> None:
    if cells.get("currency", "").strip().lower() not in _DOLLARS:
        raise InvoiceUnreadable(f"the amount is in {cells['currency']!r}, not in US dollars")
    if not cells.get("amount"):
        raise InvoiceUnreadable("there is no amount")


def _count(cells: Mapping[str, str], name: str) -> int | None:
    text = cells.get(name, "")
    return read_count(text) if text else None
