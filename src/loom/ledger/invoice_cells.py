"""Cells of an invoice: amounts, counts and dates as they are written in several countries."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import date
from decimal import Decimal
from typing import Literal, TypeAlias

__all__ = [
    "DateOrder",
    "InvoiceUnreadable",
    "date_order",
    "period_of",
    "read_amount",
    "read_count",
]

DateOrder: TypeAlias = Literal["dmy", "mdy"]
"""What comes first in 05/11/2026."""

_SPACES = str.maketrans("", "", " \u00a0\u202f\u2009'\u2019_")
_DOLLAR = re.compile(r"^(?:us\$|usd|\$)|(?:us\$|usd|\$)$", re.IGNORECASE)
_FORMULA = ("=", "@")
_GROUPED = re.compile(r"[0-9]{1,3}(?:([.,])[0-9]{3})(?:\1[0-9]{3})*")
_PLAIN = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+\.")
_DIGITS = 30
_FIRST_YEAR, _LAST_YEAR = 2000, 2100

_ISO = re.compile(r"([0-9]{4})[-/.]([0-9]{1,2})(?:[-/.]([0-9]{1,2})(?:[T ].*)?)?")
_LOCAL = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})(?: .*)?")
_MONTH = re.compile(r"([0-9]{1,2})[-/.]([0-9]{4})")
_NAMED = re.compile(r"(?:([0-9]{1,2})\.? )?([A-Za-z]{3,9})\.?,? (?:([0-9]{1,2}), )?([0-9]{4})")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip


class InvoiceUnreadable(ValueError):
    """An invoice that cannot be read for certain."""


def read_amount(text: str) -> Decimal:
    """
    An amount of US dollars.

    Args:
        text: For example `$1,234.56`, `1.234,56`, `(2.00)` or `-2.00`; a comma with three digits
            behind it parts thousands unless a 0 stands before it.

    Returns:
        The amount; below 0 for a credit.

    Raises:
        InvoiceUnreadable: If it is none.
    """
    _refuse_formula(text)
    plain = text.translate(_SPACES)
    negative = (plain.startswith("(") and plain.endswith(")")) or plain.startswith("-")
    plain = plain.strip("()").lstrip("+-")
    plain = _DOLLAR.sub("", _DOLLAR.sub("", plain))
    number = _pointed(plain)
    if len(number) > _DIGITS or _PLAIN.fullmatch(number) is None:
        raise InvoiceUnreadable(f"{text!r} is not an amount in US dollars")
    amount = Decimal(number)
    return amount.copy_negate() if negative and amount else amount


def read_count(text: str) -> int:
    """
    A number of tokens or calls.

    Args:
        text: For example `1234567`, `1,234,567`, `1.234.567`, `1 234 567` or `1234.0`.

    Returns:
        The number, at least 0.

    Raises:
        InvoiceUnreadable: If it is no whole number.
    """
    _refuse_formula(text)
    plain = text.translate(_SPACES)
    if _GROUPED.fullmatch(plain):
        plain = plain.replace(",", "").replace(".", "")
    plain = re.sub(r"[.,]0+$", "", plain)
    if not plain.isascii() or not plain.isdigit() or len(plain) > _DIGITS:
        raise InvoiceUnreadable(f"{text!r} is not a whole number")
    return int(plain)


def date_order(texts: Iterable[str]) -> DateOrder | None:
    """
    What comes first in the dates of a column.

    Args:
        texts: The column.

    Returns:
        The order; None where it does not show.
    """
    for text in texts:
        match = _LOCAL.fullmatch(text.strip())
        if match is None:
            continue
        if match[2] == "." or int(match[1]) > 12:
            return "dmy"
        if int(match[3]) > 12:
            return "mdy"
    return None


def period_of(text: str, order: DateOrder | None) -> str:
    """
    The day or month that a cell names.

    Args:
        text: For example `2026-11-05`, `2026-11-05T00:00:00Z`, `05.11.2026`, `11/05/2026`,
            `2026-11`, `11/2026`, `Nov 2026` or `Nov 5, 2026`.
        order: What comes first in 05/11/2026.

    Returns:
        `2026-11-05` or `2026-11`.

    Raises:
        InvoiceUnreadable: If it names none, or may name two.
    """
    _refuse_formula(text)
    plain = text.strip()
    if _LOCAL.fullmatch(plain) and order is None and not _same(plain):
        raise InvoiceUnreadable(
            f"{text!r} is a day in one country and another in the next: write it as 2026-11-05"
        )
    with suppress(ValueError):
        if match := _ISO.fullmatch(plain):
            return _period(match[1], match[2], match[3])
        if match := _MONTH.fullmatch(plain):
            return _period(match[2], match[1], None)
        if match := _LOCAL.fullmatch(plain):
            first, second = match[1], match[3]
            day, month = (second, first) if order == "mdy" else (first, second)
            return _period(match[4], month, day)
        if match := _NAMED.fullmatch(plain):
            return _period(match[4], _month_number(match[2]), match[1] or match[3])
    raise InvoiceUnreadable(f"{text!r} is neither a day nor a month")


def _same(text: str) -> bool:
    match = _LOCAL.fullmatch(text)
    return match is not None and int(match[1]) == int(match[3])


def _pointed(text: str) -> str:
    """A number with a point before its fraction, and nothing between its thousands."""
    comma, point = text.rfind(","), text.rfind(".")
    if comma >= 0 and point >= 0:
        # Of both, the last one stands before the fraction.
        grouping = "." if comma > point else ","
        return text.replace(grouping, "").replace(",", ".")
    if point >= 0 and text.count(".") > 1:
        return text.replace(".", "") if _GROUPED.fullmatch(text) else text
    if comma < 0:
        return text
    if _GROUPED.fullmatch(text) and not text.startswith("0"):
        return text.replace(",", "")
    return text.replace(",", ".")


def _refuse_formula(text: str) -> None:
    if text.lstrip("'").startswith(_FORMULA):
        raise InvoiceUnreadable(f"{text[:40]!r} is a formula: save the file with its values")


def _period(year: str, month: str, day: str | None) -> str:
    if not _FIRST_YEAR <= int(year) <= _LAST_YEAR:
        raise ValueError(year)
    when = date(int(year), int(month), int(day or 1))
    return f"{when:%Y-%m}" if day is None else when.isoformat()


def _month_number(name: str) -> str:
    word = name.lower()
    found = [i for i, month in enumerate(_MONTHS, 1) if month.startswith(word)]
    return str(found[0] if len(found) == 1 else 0)
