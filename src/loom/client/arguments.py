"""What a client may be made with, as one value; `client/constructors.py` explains each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from loom.core.request import Fit, Priority, Timeouts
from loom.core.route import Fallback, RouteLike
from loom.layers.retry_policy import RetryPolicy
from loom.ledger.budgets import Budget

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date, timedelta
    from pathlib import Path

    from loom.config.vendors import Vendor
    from loom.core.ambient import Clock, Dice
    from loom.layers.breaker import Breaker
    from loom.layers.limit_rate import RateLimit
    from loom.layers.limiter import Limiter
    from loom.layers.trace import Telemetry
    from loom.ledger.contract import Ledger
    from loom.providers.key import KeyLike
    from loom.transport.contract import Transport
    from loom.wire.dialect import Dialect

__all__ = ["Arguments", "BudgetLike", "Constructed", "FallbackLike"]

FallbackLike: TypeAlias = RouteLike | Iterable[RouteLike] | Fallback
"""Where else a call may go, as people write it."""

BudgetLike: TypeAlias = Budget | Decimal | str | int | Iterable[Budget | Decimal | str | int]
"""One budget or several; an amount alone limits all calls of the client."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a client may be made with, beside its key.

    Attributes are the arguments of `AsyncMistral`; what is None there is None here.
    """

    model: str | None = None
    max_tokens: int = 4096
    temperature: float | None = None
    timeout_s: float | timedelta = 60.0
    deadline_s: float | timedelta = 600.0
    timeouts: Timeouts | None = None
    fit: Fit = "error"
    base_url: str | None = None
    headers: Mapping[str, str] | None = None
    proxy: str | None = None
    sim: bool = False
    as_of: str | date | None = None
    max_connections: int = 1000
    retry: RetryPolicy | None = RetryPolicy()
    breaker: Breaker | None = None
    fallback: FallbackLike | None = None
    rescue: bool = False
    skip_bad_events: bool = False
    rate_limit: RateLimit | Limiter | None = None
    budget: BudgetLike | None = None
    ledger: str | Path | Ledger | None = None
    client_name: str = ""
    session: str | None = None
    tenant: str = ""
    priority: Priority = "normal"
    tags: Mapping[str, str] | None = None
    telemetry: Telemetry | None = None
    dice: Dice | None = None
    clock: Clock | None = None
    transport: Transport | None = None

    def surroundings(self) -> dict[str, Any]:
        """What stands around the client, by the names of the arguments."""
        return {
            "retry": self.retry, "breaker": self.breaker, "rate_limit": self.rate_limit,
            "fallback": self.fallback, "rescue": self.rescue, "budget": self.budget,
            "ledger": self.ledger, "client_name": self.client_name, "telemetry": self.telemetry,
        }  # fmt: skip


class Constructed(ABC):
    """A client of either kind, as the constructors of the vendors' clients see it."""

    @abstractmethod
    def _make(
        self,
        vendor: Vendor,
        api_key: KeyLike | None,
        arguments: Arguments,
        dialect: Dialect | None = None,
    ) -> None:
        """Become a client; the arguments are those of `AsyncClient`."""
