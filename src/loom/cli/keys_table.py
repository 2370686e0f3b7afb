"""Virtual keys as tables and objects, with what their calls cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from loom.cli.book import wait_for
from loom.cli.terminal import dollars
from loom.ledger.budgets import Period, period_start
from loom.ledger.contract import Ledger, Query, Total
from loom.ledger.money import add

if TYPE_CHECKING:
    from loom.cli.terminal import Terminal
    from loom.server.gateway.keys import VirtualKey
    from loom.server.gateway.keys_rows import Audit

__all__ = ["Spent", "key_object", "show_audit", "show_keys", "spent_by", "terms_line"]

_UNBOUND: Period = "month"
"""The period that is shown of a key without a budget."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a key's calls cost.

    Attributes:
        usd: US dollars, and the worst cases of calls that may have been billed.
        calls: How many.
        period: In which period; None: in all time.
    """

    usd: Decimal
    calls: int
    period: Period | None


def spent_by(
    ledger: Ledger | None, keys: Sequence[VirtualKey], now: datetime
) -> Mapping[str, Spent]:
    """
    What was spent in each key's period: its budget's, or the month.

    Args:
        ledger: Whose rows; None: there is none.
        keys: Which keys.
        now: UTC.

    Returns:
        By the key's id; empty without a ledger.
    """
    if ledger is None:
        return {}
    found = {}
    for period in {_period(key) for key in keys}:
        since = None if period is None else period_start(period, now)
        totals = wait_for(ledger.totals(Query(since=since), "tenant"))
        sums = {total.group: total for total in totals}
        for key in keys:
            if _period(key) == period:
                total = sums.get(key.id, Total(group=key.id))
                usd = add(total.cost_usd, total.uncertain_usd)
                found[key.id] = Spent(usd=usd, calls=total.calls, period=period)
    return found


def key_object(key: VirtualKey, now: datetime, spent: Spent | None = None) -> dict[str, Any]:
    """
    A key as an object for programs; never the secret.

    Args:
        key: The key.
        now: UTC.
        spent: What its calls cost; None leaves it out.

    Returns:
        Its fields; the hash as its first eight hex digits.
    """
    budget = key.budget
    return {
        "id": key.id,
        "name": key.name,
        "fingerprint": key.fingerprint,
        "state": key.state(now),
        "models": key.models,
        "rpm": key.rpm,
        "tpm": key.tpm,
        "budget": None if budget is None else {"limit_usd": budget.limit, "period": budget.period},
        "max_tokens": key.max_tokens,
        "concurrency": key.concurrency,
        "expires_at": key.expires_at,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "tags": key.tags,
        **({} if spent is None else {"spent": spent}),
    }


def terms_line(key: VirtualKey) -> str:
    """
    What a key allows, in words.

    Args:
        key: The key.

    Returns:
        For example "mistral-* · 60 requests/min · 20 USD/month".
    """
    budget = _budget(key)
    parts = [
        ", ".join(key.models) or "every model",
        f"{key.rpm:,} requests/min" if key.rpm else "",
        f"{key.tpm:,} tokens/min" if key.tpm else "",
        f"{budget} USD" if budget and "/" not in budget else budget.replace("/", " USD/"),
        f"{key.max_tokens:,} tokens/answer" if key.max_tokens else "",
        f"{key.concurrency:,} at once" if key.concurrency else "",
        f"until {key.expires_at:%Y-%m-%d %H:%M} UTC" if key.expires_at else "",
    ]
    return " · ".join(part for part in parts if part)


def show_keys(
    terminal: Terminal, keys: Iterable[VirtualKey], spent: Mapping[str, Spent], now: datetime
) -> None:
    """
    Put a table of keys on standard output.

    Args:
        terminal: Where to.
        keys: Which ones.
        spent: As `spent_by` gives it.
        now: UTC.
    """
    rows = [
        (
            key.name,
            key.id,
            key.state(now),
            ", ".join(key.models) or "every",
            _number(key.rpm),
            _number(key.tpm),
            _budget(key),
            _spent(spent.get(key.id)),
            "" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}",
        )
        for key in keys
    ]
    terminal.table(
        "Virtual keys",
        ("Name", "Id", "State", "Models", "RPM", "TPM", "Budget", "Spent", "Expires (UTC)"),
        rows,
        drop=("Expires (UTC)", "TPM", "RPM", "Id", "Spent"),
        fold=("Models",),
        right=("RPM", "TPM", "Budget", "Spent"),
    )


def show_audit(terminal: Terminal, rows: Iterable[Audit]) -> None:
    """
    Put a table of what was done on standard output.

    Args:
        terminal: Where to.
        rows: What was done, the newest first.
    """
    terminal.table(
        "What was done to keys",
        ("When (UTC)", "Who", "What", "Name", "Id", "Fingerprint", "Change"),
        [
            (
                f"{row.at:%Y-%m-%d %H:%M:%S}",
                row.actor,
                row.action,
                row.name,
                row.id,
                row.hash[:8],
                "; ".join(_change(name, *values) for name, values in row.change.items()),
            )
            for row in rows
        ],
        drop=("Fingerprint", "Id"),
        fold=("Change",),
    )


def _period(key: VirtualKey) -> Period | None:
    return _UNBOUND if key.budget is None else key.budget.period


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _budget(key: VirtualKey) -> str:
    budget = key.budget
    if budget is None:
        return ""
    return f"{budget.limit:f}" + ("" if budget.period is None else f"/{budget.period}")


def _spent(spent: Spent | None) -> str:
    if spent is None:
        return ""
    return dollars(spent.usd) + ("" if spent.period is None else f" this {spent.period}")


def _change(name: str, before: Any, after: Any) -> str:
    return f"{name} {_said(before)} -> {_said(after)}"


def _said(value: Any) -> str:
    match value:
        case None:
            return "none"
        case {"limit_usd": limit, **rest}:
            period = rest.get("period")
            return f"{limit}/{period}" if period else str(limit)
        case dict():
            return ",".join(f"{name}={label}" for name, label in value.items())
        case list() | tuple():
            return ",".join(map(str, value))
        case _:
            return str(value)
