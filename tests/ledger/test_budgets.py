"""The policy of budgets: amounts, scopes, periods, messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom.core.errors import ConfigInvalid
from loom.ledger.budgets import Budget, Scope, Standing, period_end, period_start
from loom.ledger.entry import Entry
from loom.ledger.money import add, less, total, usd

AT = datetime(2024, 11, 15, 12, tzinfo=UTC)  # a Friday

moments = st.datetimes(timezones=st.just(UTC), min_value=datetime(1971, 1, 1))  # noqa: DTZ001 - hypothesis adds the zone
amounts = st.decimals(0, 10**12, places=18, allow_nan=False, allow_infinity=False)


def entry(**fields: Any) -> Entry:
    return Entry(id="0", at=AT, provider="mistral", asked_model="model-1", **fields)


@pytest.mark.parametrize("value", ["5", 5, Decimal(5)], ids=type)
def test_an_amount_may_be_text_or_whole(value: Any) -> None:
    """A budget holds the same exact amount, whichever way it was given."""
    budget = Budget(limit_usd=value, warn_usd=value)

    assert (Decimal(5), Decimal(5)) == (budget.limit, budget.warning)
    assert budget == Budget(limit_usd="5", warn_usd="5")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"limit_usd": 0.1}, 'limit_usd is 0.1: give a Decimal or text like "0.10"'),
        ({"limit_usd": True}, "limit_usd is True"),
        ({"limit_usd": "much"}, "limit_usd is 'much'"),
        ({"limit_usd": "-1"}, "at least 0"),
        ({"limit_usd": "NaN"}, "finite"),
        ({"limit_usd": "1e-99"}, "more digits than any price"),
        ({"limit_usd": 1, "warn_usd": 0.1}, "warn_usd is 0.1"),
        ({"limit_usd": 1, "per": "user"}, "'client', 'session', 'key', 'tenant' or 'tag:NAME'"),
        ({"limit_usd": 1, "per": "tag:"}, "'tag:NAME'"),
        ({"limit_usd": 1, "period": "year"}, "day, week, month or None"),
        ({"limit_usd": 1, "on_unknown_price": "guess"}, "'refuse' or 'allow'"),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], why: str) -> None:
    """The message says which setting, and what it may be."""
    with pytest.raises(ConfigInvalid, match=why):
        Budget(**fields)


@pytest.mark.parametrize(
    ("per", "value"),
    [
        ("client", "c"),
        ("session", "s"),
        ("key", "k"),
        ("tenant", "t"),
        ("tag:project", "p"),
        ("tag:other", ""),
    ],
)
def test_a_scope_is_read_off_the_row(per: str, value: str) -> None:
    """Each kind of budget sums over what its name says."""
    row = entry(client="c", session="s", key="k", tenant="t", tags={"project": "p"})

    assert Scope(per, value, None, None) == Budget(limit_usd=1, per=per).scope(row)


@given(moments)
def test_periods_tile_the_calendar(at: datetime) -> None:
    """A moment lies in its period, the period after it begins at its end, both in UTC."""
    for period in ("day", "week", "month"):
        budget = Budget(limit_usd=1, period=period)
        scope = budget.scope(entry())
        start = period_start(period, at)
        scope = scope._replace(start=start)
        end = period_end(scope)
        assert start <= at < end
        assert end == period_start(period, end)
        assert start == period_start(period, end - timedelta(microseconds=1))


def test_periods_begin_where_people_think() -> None:
    """Days at midnight UTC, weeks on Monday, months on the first, whatever the zone of the time."""
    tokyo = datetime(2024, 12, 1, 8, tzinfo=timezone(timedelta(hours=9)))  # still November in UTC

    assert datetime(2024, 11, 30, tzinfo=UTC) == period_start("day", tokyo)
    assert datetime(2024, 11, 25, tzinfo=UTC) == period_start("week", tokyo)
    assert datetime(2024, 11, 1, tzinfo=UTC) == period_start("month", tokyo)


def test_all_time_has_no_end() -> None:
    """Asking for it is a mistake."""
    with pytest.raises(ValueError, match="no end"):
        period_end(Scope("client", "", None, None))


@given(spent=amounts, reserved=amounts, worst=amounts, limit=amounts)
def test_a_call_passes_exactly_when_it_fits(
    spent: Decimal, reserved: Decimal, worst: Decimal, limit: Decimal
) -> None:
    """Settled, reserved and worst together are at most the limit, to the last digit."""
    budget = Budget(limit_usd=limit)
    standing = budget.standing(budget.scope(entry()), spent, reserved)

    passes = budget.refusal(standing, worst, AT) is None

    assert passes == (total([spent, reserved, worst]) <= limit)
    assert passes == (worst <= less(limit, add(spent, reserved)))
    assert standing.left_usd >= 0


def test_a_refusal_tells_all() -> None:
    """Whose budget, how much of it is gone, when it begins anew; and a key's fingerprint only."""
    budget = Budget(limit_usd="5", per="session", period="day")
    standing = budget.standing(budget.scope(entry(session="abc")), Decimal("4.90"), Decimal("0.05"))

    refusal = budget.refusal(standing, Decimal("0.10"), AT)

    assert refusal is not None
    assert (
        "a call of up to 0.10 USD does not fit into the budget of the session 'abc'"
        " (5 USD a day): 4.90 USD spent, 0.05 reserved; anew at 2024-11-16 00:00 UTC"
    ) == str(refusal)
    assert (12 * 3600, 402, 4, 0) == (
        refusal.retry_after_s,
        refusal.http_status,
        refusal.exit_code,
        refusal.attempts,
    )


def test_what_is_left_is_exact() -> None:
    """To the last digit, whatever the caller's precision is."""
    budget = Budget(limit_usd="1000000000")
    standing = budget.standing(budget.scope(entry()), Decimal("1e-24"), Decimal(0))

    assert Decimal("999999999.999999999999999999999999") == standing.left_usd


def test_what_is_left_is_never_negative() -> None:
    """When the truth was dearer than its worst case, nothing is left."""
    budget = Budget(limit_usd=1)
    standing = Standing(
        budget=budget, value="", spent_usd=Decimal(2), reserved_usd=Decimal(0), resets_at=None
    )

    assert Decimal(0) == standing.left_usd
    assert "the budget of the client (1 USD): 2 USD spent, 0 reserved" == str(standing)


@given(st.lists(amounts))
def test_sums_do_not_round(parts: list[Decimal]) -> None:
    """A sum of amounts is that of their fractions."""
    assert sum(map(Fraction, parts)) == Fraction(total(parts))


def test_an_amount_needs_no_context() -> None:
    """A caller's precision does not round our money."""
    assert Decimal("1234567.000000000000000001") == usd("1234567.000000000000000001")
