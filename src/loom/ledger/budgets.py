"""
Budgets as pure policy: what a budget covers, when its period ends, whether a call fits.

The law: settled + reserved + worst <= limit, for every budget, before anything is sent.

Nothing here reads a clock or a store; `ledger/book.py` keeps the sums, stores keep the rows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple, TypeAlias, cast

import msgspec

from loom.core.errors import BudgetExceeded, ConfigInvalid
from loom.ledger.entry import Entry
from loom.ledger.money import ZERO, add, less, usd

__all__ = [
    "Amount",
    "Budget",
    "Crossing",
    "Period",
    "Scope",
    "Standing",
    "parse_budget",
    "period_end",
    "period_start",
    "scope_value",
]

Amount: TypeAlias = Decimal | str | int
"""US dollars as a caller may give them: exact, so no float."""

Period: TypeAlias = Literal["day", "week", "month"]
"""Calendar periods in UTC: days from midnight, weeks from Monday, months from the first."""

_BUDGET = re.compile(r"\$?([0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})(?:/(day|week|month))?")
_TAG = "tag:"
_PER = ("client", "session", "key", "tenant")


class Scope(NamedTuple):
    """
    Calls whose costs are summed: one value of one kind, in one period.

    Attributes:
        per: "client", "session", "key", "tenant" or "tag:NAME".
        value: Which client, session, key, tenant or value of the tag; empty for calls without one.
        period: The kind of period; None: all time.
        start: When the period began, UTC; None: all time.
    """

    per: str
    value: str
    period: Period | None
    start: datetime | None

    @property
    def end(self) -> datetime | None:
        """When the period is over, UTC; None: never."""
        return None if self.period is None or self.start is None else period_end(self)

    def covers(self, entry: Entry) -> bool:
        """
        Whether a call is summed here.

        Args:
            entry: Its row.

        Returns:
            True if it is.
        """
        start = None if self.period is None else period_start(self.period, entry.at)
        return self.start == start and self.value == scope_value(self.per, entry)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """
    Where a budget stands.

    Attributes:
        budget: Which one.
        value: Whose: the session, the key's fingerprint, ...
        spent_usd: What calls that are over cost.
        reserved_usd: What is kept free for calls on their way.
        resets_at: When the period is over, UTC; None: never.
    """

    budget: Budget
    value: str
    spent_usd: Decimal
    reserved_usd: Decimal
    resets_at: datetime | None

    @property
    def left_usd(self) -> Decimal:
        """What another call may cost; 0 when the truth was dearer than its worst case."""
        return max(ZERO, less(self.budget.limit, add(self.spent_usd, self.reserved_usd)))

    def __str__(self) -> str:
        """The figures in words."""
        anew = "" if self.resets_at is None else f"; anew at {self.resets_at:%Y-%m-%d %H:%M} UTC"
        return (
            f"{self.budget.title(self.value)}: {self.spent_usd:f} USD spent,"
            f" {self.reserved_usd:f} reserved{anew}"
        )


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """
    A limit of money that no call can pass.

    Before a call is sent its worst case is kept free; if it does not fit, the call is refused and
    nothing is sent. When the answer is there, the truth takes its place.

    Attributes:
        limit_usd: US dollars, as `Decimal`, text or a whole number; a float is refused.
        warn_usd: A sum at which to warn, once in each period; None: never.
        per: What has a limit of its own: each "client" (by its name), "session", "key", "tenant",
            or each value of a tag ("tag:project").
        period: When it begins anew, by the UTC calendar; None: never.
        on_unknown_price: What happens to a call whose price nobody knows: it is refused, or it
            passes and counts nothing.
    """

    limit_usd: Amount
    warn_usd: Amount | None = None
    per: str = "client"
    period: Period | None = None
    on_unknown_price: Literal["refuse", "allow"] = "refuse"

    def __post_init__(self) -> None:
        """Make the amounts exact, and refuse what makes no sense."""
        try:
            limit = usd(self.limit_usd, "limit_usd")
            warn = None if self.warn_usd is None else usd(self.warn_usd, "warn_usd")
        except (TypeError, ValueError) as error:
            raise ConfigInvalid(f"a budget's {error}") from None
        if self.per not in _PER and not (self.per.startswith(_TAG) and len(self.per) > len(_TAG)):
            raise ConfigInvalid(
                f"a budget is per {', '.join(map(repr, _PER))} or 'tag:NAME', not {self.per!r}"
            )
        if self.period not in (None, "day", "week", "month"):
            raise ConfigInvalid(f"a budget's period is day, week, month or None: {self.period!r}")
        if self.on_unknown_price not in ("refuse", "allow"):
            raise ConfigInvalid(
                f"on_unknown_price is 'refuse' or 'allow', not {self.on_unknown_price!r}"
            )
        msgspec.structs.force_setattr(self, "limit_usd", limit)
        msgspec.structs.force_setattr(self, "warn_usd", warn)

    @property
    def limit(self) -> Decimal:
        """The limit, exact."""
        return Decimal(self.limit_usd)

    @property
    def warning(self) -> Decimal | None:
        """The sum at which to warn, exact."""
        return None if self.warn_usd is None else Decimal(self.warn_usd)

    def scope(self, entry: Entry) -> Scope:
        """
        The calls that a call is summed with.

        Args:
            entry: The call's row.

        Returns:
            Their scope, in the period of the row.
        """
        start = None if self.period is None else period_start(self.period, entry.at)
        return Scope(self.per, scope_value(self.per, entry), self.period, start)

    def title(self, value: str) -> str:
        """
        The budget in words.

        Args:
            value: Whose it is.

        Returns:
            For example "the budget of the session 'abc' (5 USD a day)".
        """
        of = f" {value!r}" if value else ""
        each = f" a {self.period}" if self.period else ""
        return f"the budget of the {self.per}{of} ({self.limit:f} USD{each})"

    def standing(self, scope: Scope, spent_usd: Decimal, reserved_usd: Decimal) -> Standing:
        """
        Where this budget stands.

        Args:
            scope: Whose sums they are.
            spent_usd: What calls that are over cost.
            reserved_usd: What is kept free.

        Returns:
            The standing.
        """
        return Standing(
            budget=self,
            value=scope.value,
            spent_usd=spent_usd,
            reserved_usd=reserved_usd,
            resets_at=scope.end,
        )

    def refusal(
        self, standing: Standing, worst_usd: Decimal | None, now: datetime
    ) -> BudgetExceeded | None:
        """
        Why a call does not fit.

        Args:
            standing: Where the budget stands, without this call.
            worst_usd: The most that the call may cost; None when unknown.
            now: UTC.

        Returns:
            The error to raise; None when it fits.
        """
        if worst_usd is None:
            if self.on_unknown_price == "allow":
                return None
            return BudgetExceeded(
                f"{self.title(standing.value)} cannot be kept: the model's price is unknown",
                hint="Add the model's price to your catalogue, or set on_unknown_price='allow'.",
                attempts=0,
            )
        sum_usd = add(add(standing.spent_usd, standing.reserved_usd), worst_usd)
        if sum_usd <= self.limit:
            return None
        wait_s = None
        if standing.resets_at is not None:
            wait_s = max(0.0, (standing.resets_at - now).total_seconds())
        return BudgetExceeded(
            f"a call of up to {worst_usd:f} USD does not fit into {standing}",
            retry_after_s=wait_s,
            attempts=0,
        )


def parse_budget(text: str) -> Budget | None:
    """
    A budget as people write it.

    Args:
        text: For example "5", "0.50" or "5/month".

    Returns:
        The budget of the client; None if the text is none.
    """
    match = _BUDGET.fullmatch(text.strip())
    if match is None:
        return None
    return Budget(limit_usd=Decimal(match[1]), period=cast("Period | None", match[2]))


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """
    A sum that has passed the threshold of a budget; told once in each period.

    Attributes:
        standing: Where the budget stands now.
    """

    standing: Standing


def scope_value(per: str, entry: Entry) -> str:
    """
    Whose call it is.

    Args:
        per: As in `Scope`.
        entry: The call's row.

    Returns:
        The value; empty for calls without one, which share one sum: none is without a limit.
    """
    if per.startswith(_TAG):
        return entry.tags.get(per[len(_TAG) :], "")
    match per:
        case "session":
            return entry.session or ""
        case "key":
            return entry.key
        case "tenant":
            return entry.tenant
        case _:
            return entry.client


def period_start(period: Period, at: datetime) -> datetime:
    """
    When the period of a moment began.

    Args:
        period: The kind of period.
        at: The moment, with a time zone.

    Returns:
        UTC.
    """
    midnight = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case "day":
            return midnight
        case "week":
            return midnight - timedelta(days=midnight.weekday())
        case "month":
            return midnight.replace(day=1)


def period_end(scope: Scope) -> datetime:
    """
    When the period of a scope is over.

    Args:
        scope: One with a period.

    Returns:
        UTC: the next period begins.

    Raises:
        ValueError: If it has none.
    """
    if scope.start is None or scope.period is None:
        raise ValueError("all time has no end")
    match scope.period:
        case "day":
            return scope.start + timedelta(days=1)
        case "week":
            return scope.start + timedelta(days=7)
        case "month":
            return (scope.start + timedelta(days=32)).replace(day=1)
