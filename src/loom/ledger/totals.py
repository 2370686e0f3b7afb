"""Sums over rows: what a row adds to which group. One code for every store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from loom.core.errors import InvalidRequest
from loom.ledger.contract import Query, Total
from loom.ledger.entry import Entry, State
from loom.ledger.money import ZERO, add

__all__ = [
    "COLUMNS",
    "Fact",
    "Grouping",
    "Tally",
    "asked_fields",
    "fact",
    "group_by",
    "matches",
    "require_zone",
]

COLUMNS = (
    "provider",
    "model",
    "asked_model",
    "key",
    "client",
    "session",
    "tenant",
    "state",
    "code",
    "price_id",
    "kind",
)
"""Fields of a row that totals may be grouped by."""

_TAG = "tag:"


class Fact(NamedTuple):
    """What a sum needs of a row."""

    group: str
    state: State
    code: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_usd: Decimal | None
    reserved_usd: Decimal | None


class Tally:
    """Sums by group."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sum] = {}

    def add(self, fact: Fact) -> None:
        """
        Count a row.

        Args:
            fact: The row.
        """
        found = self._sums.get(fact.group)
        if found is None:
            found = self._sums[fact.group] = _Sum()
        found.add(fact)

    def totals(self) -> tuple[Total, ...]:
        """The sums, in the order of the groups."""
        return tuple(self._sums[group].total(group) for group in sorted(self._sums))


class _Sum:
    __slots__ = (
        "cached", "calls", "cost", "failed", "input", "output", "reserved", "uncertain", "unpriced",
    )  # fmt: skip

    def __init__(self) -> None:
        self.calls = self.failed = self.unpriced = 0
        self.input = self.output = self.cached = 0
        self.cost = self.reserved = self.uncertain = ZERO

    def add(self, fact: Fact) -> None:
        self.calls += 1
        self.failed += bool(fact.code)
        self.input += fact.input_tokens
        self.output += fact.output_tokens
        self.cached += fact.cached_tokens
        if fact.state == "open":
            self.reserved = add(self.reserved, fact.reserved_usd or ZERO)
        elif fact.cost_usd is not None:
            self.cost = add(self.cost, fact.cost_usd)
        elif fact.state == "uncertain":
            self.uncertain = add(self.uncertain, fact.reserved_usd or ZERO)
        elif fact.state != "released":
            self.unpriced += 1

    def total(self, group: str) -> Total:
        return Total(
            group=group,
            calls=self.calls,
            failed=self.failed,
            input_tokens=self.input,
            output_tokens=self.output,
            cached_tokens=self.cached,
            cost_usd=self.cost,
            reserved_usd=self.reserved,
            uncertain_usd=self.uncertain,
            unpriced=self.unpriced,
        )


class Grouping(NamedTuple):
    """
    What a row is grouped under.

    Attributes:
        field: Which field of the row says it.
        name: The group's name, of that field.
    """

    field: str
    name: Callable[[Any], str]


def fact(entry: Entry, group: Grouping) -> Fact:
    """
    What a sum needs of a row.

    Args:
        entry: The row.
        group: What it is grouped under.

    Returns:
        The fact.
    """
    return Fact(
        group.name(getattr(entry, group.field)),
        entry.state,
        entry.code,
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_tokens,
        entry.cost_usd,
        entry.reserved_usd,
    )


def group_by(by: str) -> Grouping:
    """
    What rows are grouped under.

    Args:
        by: As in `contract.By`.

    Returns:
        The grouping; days are named by their date, weeks by their Monday's.

    Raises:
        InvalidRequest: If there is no such grouping.
    """
    if by in COLUMNS:
        return Grouping(by, lambda value: value or "")
    if by.startswith(_TAG) and len(by) > len(_TAG):
        return Grouping("tags", lambda tags: tags.get(by[len(_TAG) :], ""))
    match by:
        case "all":
            return Grouping("id", lambda _: "")
        case "day":
            return Grouping("at", lambda at: at.date().isoformat())
        case "week":
            return Grouping("at", _monday)
        case "month":
            return Grouping("at", lambda at: f"{at:%Y-%m}")
        case _:
            known = ", ".join(("all", "day", "week", "month", *COLUMNS, "tag:NAME"))
            raise InvalidRequest(f"totals are not grouped by {by!r}: use one of {known}")


def _monday(at: datetime) -> str:
    return (at.date() - timedelta(days=at.weekday())).isoformat()


def matches(entry: Entry, query: Query) -> bool:
    """
    Whether a row is wanted; `after` and `limit` do not count.

    Args:
        entry: The row.
        query: What is asked.

    Returns:
        True if it is.
    """
    return (
        (query.since is None or entry.at >= query.since)
        and (query.until is None or entry.at < query.until)
        and (query.states is None or entry.state in query.states)
        and (query.tag is None or entry.tags.get(query.tag[0], "") == query.tag[1])
        and all(asked == (getattr(entry, name) or "") for name, asked in asked_fields(query))
    )


def asked_fields(query: Query) -> list[tuple[str, str]]:
    """
    Which fields of a row must have which value.

    Args:
        query: What is asked.

    Returns:
        Names and values; an empty value also stands for none.
    """
    names = ("provider", "model", "key", "client", "session", "tenant")
    asked = ((name, getattr(query, name)) for name in names)
    return [(name, value) for name, value in asked if value is not None]


def require_zone(*moments: datetime | None) -> None:
    """
    Refuse a time whose zone nobody knows.

    Args:
        moments: Times.

    Raises:
        InvalidRequest: If one has no time zone.
    """
    for moment in moments:
        if moment is not None and moment.tzinfo is None:
            raise InvalidRequest(f"{moment} has no time zone: give it one, for example UTC")
