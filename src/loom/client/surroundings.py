"""What stands around a client, as callers write it: retries, routes, limits, money."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from loom.config.surroundings import Surroundings
from loom.core.ambient import Clock
from loom.core.errors import ConfigInvalid
from loom.core.provider import LLMProvider
from loom.core.route import Fallback, Route
from loom.layers.breaker import Breaker
from loom.layers.limit_rate import RateLimit
from loom.layers.limiter import Limiter
from loom.layers.retry_policy import RetryPolicy
from loom.layers.trace import Telemetry
from loom.ledger.budgets import Budget
from loom.ledger.contract import Ledger

__all__ = [
    "SURROUNDING",
    "changed_surroundings",
    "checked_surroundings",
]


def checked_surroundings(given: Mapping[str, Any], clock: Clock) -> Surroundings:
    """
    What stands around a client, from its arguments.

    Args:
        given: By the names of the arguments: `retry`, `breaker`, `rate_limit`, `fallback`,
            `rescue`, `budget`, `ledger`, `client_name`, `telemetry`.
        clock: Dates the rows of a ledger.

    Returns:
        The value.

    Raises:
        ConfigInvalid: If one is of another type, or `rescue` has no route to go to.
    """
    for name, kind, how in _KINDS:
        value = given[name]
        if value is not None and not isinstance(value, kind):
            raise ConfigInvalid(f"'{name}' must be {how} or None, not {_kind(value)}")
    fallback = _fallback(given["fallback"])
    if fallback is None and given["rescue"]:
        raise ConfigInvalid(
            "rescue=True begins an answer anew on another route: name one with fallback=[...]"
        )
    budgets = _budgets(given["budget"])
    ledger, owned = _ledger(given["ledger"], clock, needed=bool(budgets))
    limit = given["rate_limit"]
    return Surroundings(
        retry=given["retry"],
        breaker=given["breaker"],
        limiter=Limiter(limit) if isinstance(limit, RateLimit) else limit,
        fallback=fallback,
        rescue=bool(given["rescue"]),
        ledger=ledger,
        budgets=budgets,
        client=given["client_name"],
        owned=owned,
        telemetry=given["telemetry"],
    )


def changed_surroundings(
    surroundings: Surroundings, changes: Mapping[str, Any], clock: Clock
) -> Surroundings:
    """
    What stands around a client, some of it replaced; limits and ledger are shared.

    Args:
        surroundings: The first client's.
        changes: By the names of the arguments.
        clock: Dates the rows of a ledger.

    Returns:
        The value.

    Raises:
        ConfigInvalid: As `checked_surroundings`.
    """
    kept = {
        "retry": surroundings.retry,
        "breaker": surroundings.breaker,
        "rate_limit": surroundings.limiter,
        "fallback": surroundings.fallback,
        "rescue": surroundings.rescue,
        "budget": surroundings.budgets or None,
        "ledger": surroundings.ledger,
        "client_name": surroundings.client,
        "telemetry": surroundings.telemetry,
    }
    return checked_surroundings({**kept, **changes}, clock)


SURROUNDING = (
    "retry", "breaker", "rate_limit", "fallback", "rescue", "budget", "ledger", "client_name",
    "telemetry",
)  # fmt: skip
"""The arguments that `checked_surroundings` reads."""

_KINDS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("retry", RetryPolicy, "a RetryPolicy"),
    ("breaker", Breaker, "a Breaker"),
    ("rate_limit", (RateLimit, Limiter), "a RateLimit, a Limiter"),
    ("client_name", str, "a string"),
    ("telemetry", Telemetry, "a Telemetry, as in telemetry=Telemetry(),"),
)


def _budgets(given: Any) -> tuple[Budget, ...]:
    if given is None:
        return ()
    each = (given,) if isinstance(given, Budget | str | int | Decimal | float) else tuple(given)
    # An amount alone is the plainest budget there is.
    return tuple(one if isinstance(one, Budget) else Budget(limit_usd=one) for one in each)


def _ledger(given: Any, clock: Clock, *, needed: bool) -> tuple[Ledger | None, bool]:
    if given is None and not needed:
        return None, False
    from loom.ledger.open import open_ledger  # noqa: PLC0415 - only who keeps one pays

    if given is None:
        return open_ledger("memory:", clock=clock), True
    if isinstance(given, str | Path):
        return open_ledger(given, clock=clock), True
    if Ledger not in type(given).__mro__:
        raise ConfigInvalid(
            f"'ledger' must be 'sqlite:///FILE', a path or a ledger, not {_kind(given)}"
        )
    return given, False


def _fallback(given: Any) -> Fallback | None:
    if given is None or isinstance(given, Fallback):
        return given
    if isinstance(given, str | Route | LLMProvider):
        return Fallback([given])
    if not isinstance(given, Iterable):
        raise ConfigInvalid(f"'fallback' must be a route or a list of them, not {_kind(given)}")
    return Fallback(given)


def _kind(value: object) -> str:
    return type(value).__name__
