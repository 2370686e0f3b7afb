"""Rows for other programs: CSV for spreadsheets, JSON lines for everything else."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from loom.ledger.entry import Entry

__all__ = ["CSV_FIELDS", "csv_lines", "guarded", "json_lines"]

CSV_FIELDS = (
    "id", "at", "state", "provider", "model", "asked_model", "kind", "stream", "key", "client",
    "session", "tenant", "tags", "input_tokens", "output_tokens", "cached_tokens", "audio_tokens",
    "audio_seconds", "service_tier", "price_id", "cost_usd", "reserved_usd", "attempts",
    "latency_s", "first_byte_s", "code", "request_id",
)  # fmt: skip
"""The columns, in their order."""

# What a spreadsheet takes for the beginning of a formula.
# Source: OWASP, "CSV Injection".
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """
    Rows as CSV: a line of names, then a line each.

    Tags are written as JSON, attempts as their number; what is unknown is empty. A cell that a
    spreadsheet would run as a formula gets an apostrophe before it.

    Args:
        entries: The rows.

    Yields:
        Lines that end with CR and LF.

    Source: RFC 4180.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    for row in _table(entries):
        writer.writerow(row)
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def json_lines(entries: Iterable[Entry]) -> Iterator[str]:
    """
    Rows as JSON, one a line; amounts are texts, so that no reader rounds them.

    Args:
        entries: The rows.

    Yields:
        Lines that end with LF.
    """
    for entry in entries:
        yield msgspec.json.encode(entry).decode() + "\n"


def guarded(cell: str) -> str:
    """
    A cell that no spreadsheet runs.

    Args:
        cell: Any text.

    Returns:
        The text, with an apostrophe before it where it would be taken for a formula.
    """
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _table(entries: Iterable[Entry]) -> Iterator[Iterable[str]]:
    yield CSV_FIELDS
    for entry in entries:
        yield (_cell(getattr(entry, name)) for name in CSV_FIELDS)


def _cell(value: Any) -> str:
    if value is None or value == {}:
        return ""
    match value:
        case bool() | dict():
            return msgspec.json.encode(value).decode()
        case Decimal():
            return f"{value:f}"
        case str():
            return guarded(value)
        case tuple():
            return str(len(value))
        case _:
            return str(value)
