"""What stands around the shared provider for one caller: its limits, and its money."""

from __future__ import annotations

import msgspec

from loom.catalog.lookup import Catalog
from loom.core.ambient import Clock
from loom.core.provider import LLMProvider
from loom.layers.account import Accounting
from loom.layers.limit import Limiting
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import LimitState
from loom.layers.limiter import Limiter
from loom.ledger.budgets import Budget
from loom.ledger.contract import Ledger
from loom.server.gateway.dialects import DialectName
from loom.server.gateway.keys import VirtualKey

__all__ = ["Counter", "Counters", "KeyLimiters"]

# A caller is told to come back rather than kept waiting: only a wait that nobody notices is made.
_PATIENCE_S = 1.0
# A key has one limit for all models.
_ANY_MODEL = ""
_HEADERS: dict[DialectName, tuple[str, str]] = {
    "openai": ("requests", "tokens"),
    "mistral": ("req-minute", "tokens-minute"),
}


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """
    A caller's way to the models.

    Attributes:
        provider: The shared provider inside of the caller's budgets, and those of its limits.
        budgets: What its calls must fit into.
        limiter: Its limits; None: it has none.
        key: Whose it is; None: callers without a key.
    """

    provider: LLMProvider
    budgets: tuple[Budget, ...] = ()
    limiter: Limiter | None = None
    key: VirtualKey | None = None


class KeyLimiters:
    """Limits of keys: each outlives changes of its key's other terms, and of the application."""

    def __init__(self) -> None:
        self._by_key: dict[str, tuple[RateLimit, Limiter]] = {}

    def limiter(self, key: VirtualKey) -> Limiter | None:
        """
        A key's limits.

        Args:
            key: Whose.

        Returns:
            The same as long as the limits do not change; None without any.
        """
        limit = key.rate_limit
        if limit is None:
            return None
        found = self._by_key.get(key.id)
        if found is None or found[0] != limit:
            # A minute's allowance may be used at once: evenness is a matter between gateway and
            # vendor.
            burst = msgspec.structs.replace(limit, burst_s=limit.refill_interval_s)
            found = self._by_key[key.id] = (limit, Limiter(burst))
        return found[1]


class Counters:
    """
    Gives each caller a counter.

    Args:
        provider: Shared: routes, retries, breaker, the vendor's own limits, prices.
        ledger: One row for each call.
        catalog: Prices, for what may not be spent.
        clock: Tells the time.
        budgets: Of the whole gateway, beside each key's own.
        limiters: The keys' limits; None: new ones.
    """

    def __init__(
        self,
        provider: LLMProvider,
        *,
        ledger: Ledger,
        catalog: Catalog,
        clock: Clock,
        budgets: tuple[Budget, ...] = (),
        limiters: KeyLimiters | None = None,
    ) -> None:
        self._limiters = limiters or KeyLimiters()
        self._provider = provider
        self._ledger = ledger
        self._catalog = catalog
        self._clock = clock
        self._budgets = budgets
        self._by_key: dict[str, Counter] = {}
        self._open = self._made(None)

    def counter(self, key: VirtualKey | None) -> Counter:
        """
        A caller's counter.

        Args:
            key: Who calls; None: without a key.

        Returns:
            The same one, as long as the key's terms do not change.
        """
        if key is None:
            return self._open
        found = self._by_key.get(key.id)
        if found is None or found.key is not key:
            found = self._by_key[key.id] = self._made(key)
        return found

    def limits(self, key: VirtualKey | None, speaks: DialectName) -> dict[str, str]:
        """
        What a caller may still do in this minute, in the headers that its SDK knows.

        Args:
            key: Who calls.
            speaks: Its dialect.

        Returns:
            `x-ratelimit-...`; nothing for who has no such limit.

        Source: `wire/headers.py`, which reads the same names.
        """
        if key is None or (key.rpm is None and key.tpm is None):
            return {}
        limiter = self.counter(key).limiter
        state = LimitState() if limiter is None else limiter.state((*_scope(key), _ANY_MODEL))
        of_requests, of_tokens = _HEADERS[speaks]
        told: dict[str, str] = {}
        for name, limit, used in (
            (of_requests, key.rpm, state.used_requests),
            (of_tokens, key.tpm, state.used_tokens + state.held_tokens),
        ):
            if limit is not None:
                told[f"x-ratelimit-limit-{name}"] = str(limit)
                told[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - used))
        return told

    def _made(self, key: VirtualKey | None) -> Counter:
        budgets = self._budgets
        if key is not None and key.budget is not None:
            budgets = (*budgets, key.budget)
        provider: LLMProvider = Accounting(
            self._provider,
            ledger=self._ledger,
            budgets=budgets,
            catalog=self._catalog,
            clock=self._clock,
            scope=(lambda: ("", "")) if key is None else (lambda: ("", key.fingerprint)),
            client="gateway",
        )
        limiter = None if key is None else self._limiters.limiter(key)
        if limiter is not None and key is not None:
            who = _scope(key)
            # Outside: a call that is told to come back has no row, and costs the disk nothing.
            provider = Limiting(
                provider,
                limiter=limiter,
                clock=self._clock,
                scope=lambda: who,
                group=lambda _: _ANY_MODEL,
                patience_s=_PATIENCE_S,
                learns=False,
            )
        return Counter(provider=provider, budgets=budgets, limiter=limiter, key=key)


def _scope(key: VirtualKey) -> tuple[str, str]:
    """Whose limits a key's are, beside those of vendors."""
    return "gateway", key.id
