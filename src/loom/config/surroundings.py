"""What stands around a provider, as one value; `config/assemble.py` makes layers of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from loom.layers.retry_policy import RetryPolicy

if TYPE_CHECKING:
    from loom.core.route import Fallback
    from loom.layers.breaker import Breaker
    from loom.layers.limiter import Limiter
    from loom.layers.trace import Telemetry
    from loom.ledger.budgets import Budget
    from loom.ledger.contract import Ledger

__all__ = ["Surroundings"]


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """
    What stands around a provider: what keeps it up, and its money together.

    Attributes:
        retry: When a failed attempt is followed by another; None: never.
        breaker: Stops asking who fails; None: nobody does.
        limiter: Lets calls wait for their turn; None: there are no limits of ours.
        fallback: Other routes; None: there are none.
        rescue: Whether a route is left in the middle of its answer too.
        ledger: Where each call has a row; None: nowhere.
        budgets: What every call must fit into.
        client: The client's name in the ledger.
        owned: Whether the ledger is closed with the provider.
        telemetry: Where spans and metrics go; None: nowhere.
    """

    retry: RetryPolicy | None = RetryPolicy()
    breaker: Breaker | None = None
    limiter: Limiter | None = None
    fallback: Fallback | None = None
    rescue: bool = False
    ledger: Ledger | None = None
    budgets: tuple[Budget, ...] = ()
    client: str = ""
    owned: bool = False
    telemetry: Telemetry | None = None
