"""
What each key may use of each model: limits of a minute, and credits.

Counted per key and model, as the vendor does. Without a tier everything is counted and nothing
refused, so that the headers of an answer say something true.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import msgspec

from loom.catalog.cost import price_usage
from loom.core.ambient import Clock
from loom.core.errors import CapacityExceeded, InsufficientCredits, RateLimited
from loom.core.response import RateLimitState
from loom.server.simulator.exchange import Exchange
from loom.server.simulator.limits import Window, new_window
from loom.server.simulator.options import SimulatorOptions, Tier

__all__ = ["Credits", "Limiter", "cost_of"]

# Recorded for mistral-small in August 2026 (contract, section 5): what the headers name when
# nothing is enforced.
_SEEN = Tier(requests_per_minute=100, tokens_per_minute=100_000)

# Observed on a 429 for a model outside the plan (contract, section 5).
_NOT_IN_PLAN = {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"}


class _Account(msgspec.Struct):
    requests: Window
    tokens: Window


class Limiter:
    """
    Requests and tokens of a minute.

    Args:
        options: The tier, the kind of window, when tokens are charged, which 429 is sent.
        clock: Tells the time.
        count: Estimates the tokens of a request's prompt.
    """

    def __init__(
        self, options: SimulatorOptions, *, clock: Clock, count: Callable[[Exchange], int]
    ) -> None:
        self._options = options
        self._tier = options.limits or _SEEN
        self._enforced = options.limits is not None
        self._clock = clock
        self._count = count
        self._accounts: dict[tuple[str, str], _Account] = {}

    def reset(self) -> None:
        """Forget what was used."""
        self._accounts = {}

    def check(self, exchange: Exchange) -> None:
        """
        Take a request's share, or refuse it.

        Args:
            exchange: The request; its `charged` and `taken_s` are set.

        Raises:
            RateLimited: If a window is full, or the model is not in the plan.
            CapacityExceeded: The same, if that is how this server refuses.
        """
        if self._outside(exchange):
            raise _refusal("rate", RateLimitState(headers=_NOT_IN_PLAN))
        now_s = self._now_s()
        account = self._account(exchange)
        upfront = 0
        if self._options.charge_at != "finish":
            upfront = self._count(exchange) + _most(exchange)
        if self._enforced:
            requests = account.requests.take(1, now_s)
            tokens: Window | None = account.tokens
            if upfront:
                tokens = account.tokens.take(upfront, now_s)
            elif not account.tokens.remaining(now_s):
                tokens = None
            if requests is None or tokens is None:
                raise _refusal(self._options.refusal)
        else:
            requests = account.requests.charge(1, now_s, now_s)
            tokens = account.tokens.charge(upfront, now_s, now_s) if upfront else account.tokens
        account.requests, account.tokens = requests, tokens
        exchange.taken_s, exchange.charged = now_s, upfront

    def settle(self, exchange: Exchange) -> None:
        """
        Charge what an answer really used, once.

        Args:
            exchange: The request, with its usage if it is known.
        """
        if exchange.taken_s is None or exchange.settled:
            return
        exchange.settled = True
        usage = exchange.usage
        cost = 0
        if usage is not None:
            # Recorded: 122 tokens in all, 16 of them cached, cost 106 (contract, section 5).
            cost = usage.input_tokens - usage.cached_tokens + usage.output_tokens
        exchange.query_cost = cost
        if self._options.charge_at == "arrival":
            return
        account, now_s = self._account(exchange), self._now_s()
        # A correction belongs to the time of what it corrects.
        at_s = exchange.taken_s if exchange.charged else now_s
        account.tokens = account.tokens.charge(cost - exchange.charged, at_s, now_s)
        exchange.charged = cost

    def end(self, exchange: Exchange) -> None:
        """
        Charge what was not charged yet.

        Args:
            exchange: The request, with its usage if it is known.
        """
        self.settle(exchange)

    def headers(self, exchange: Exchange) -> dict[str, str]:
        """
        The rate-limit headers of a plain answer, in the recorded order.

        Args:
            exchange: The request, settled.

        Returns:
            The family of 2026; names in lower case.
        """
        now_s = self._now_s()
        account = self._account(exchange)
        headers = {
            "x-ratelimit-limit-tokens-minute": str(self._tier.tokens_per_minute),
            "x-ratelimit-remaining-tokens-minute": str(account.tokens.remaining(now_s)),
            "x-ratelimit-tokens-query-cost": str(exchange.query_cost),
            "x-ratelimit-limit-req-minute": str(self._tier.requests_per_minute),
            "x-ratelimit-remaining-req-minute": str(account.requests.remaining(now_s)),
        }
        if exchange.asked.path == "/v1/embeddings":
            # Recorded: answers to embeddings name requests and the cost only.
            del headers["x-ratelimit-limit-tokens-minute"]
            del headers["x-ratelimit-remaining-tokens-minute"]
        return headers

    def _outside(self, exchange: Exchange) -> bool:
        names = {exchange.model, exchange.limited_model}
        return bool(names & set(self._options.not_in_plan)) or not self._tier.requests_per_minute

    def _account(self, exchange: Exchange) -> _Account:
        place = (exchange.key, exchange.limited_model)
        account = self._accounts.get(place)
        if account is None:
            kind = self._options.window
            account = self._accounts[place] = _Account(
                requests=new_window(kind, self._tier.requests_per_minute),
                tokens=new_window(kind, self._tier.tokens_per_minute),
            )
        return account

    def _now_s(self) -> float:
        if self._options.window == "calendar":
            return self._clock.now().timestamp()
        return self._clock.monotonic_s()


def _refusal(kind: str, state: RateLimitState | None = None) -> RateLimited:
    # The words and numbers of the wire (contract, section 6).
    if kind == "capacity":
        return CapacityExceeded("Service tier capacity exceeded for this model.")
    return RateLimited("Rate limit exceeded", rate_limit=state)


def _most(exchange: Exchange) -> int:
    fields = exchange.fields or {}
    # OpenAI's newer name for it; Mistral refuses it.
    most = fields.get("max_completion_tokens", fields.get("max_tokens"))
    return most if isinstance(most, int) and most > 0 else 0


class Credits:
    """
    What each key has left to spend.

    Args:
        start_usd: What it begins with.
    """

    def __init__(self, start_usd: Decimal) -> None:
        self._start_usd = start_usd
        self._spent_usd: dict[str, Decimal] = {}

    def reset(self) -> None:
        """Give everything back."""
        self._spent_usd = {}

    def check(self, exchange: Exchange) -> None:
        """
        Refuse a key that has nothing left.

        Args:
            exchange: The request.

        Raises:
            InsufficientCredits: 402, in the words of the reference page: no real body is known.
        """
        if self.left_usd(exchange.key) <= 0:
            raise InsufficientCredits(
                "Insufficient credits. Please add credits to your account.",
                vendor_type="insufficient_credits",
            )

    def end(self, exchange: Exchange) -> None:
        """
        Take what an answer cost; the last one may cost more than is left.

        Args:
            exchange: The request, with its usage.
        """
        cost_usd = cost_of(exchange)
        if cost_usd is not None:
            spent_usd = self._spent_usd.get(exchange.key, Decimal(0))
            self._spent_usd[exchange.key] = spent_usd + cost_usd

    def left_usd(self, key: str) -> Decimal:
        """
        What a key has left, in US dollars.

        Args:
            key: Its fingerprint.

        Returns:
            Below 0 when the last answer cost more than was left.
        """
        return self._start_usd - self._spent_usd.get(key, Decimal(0))


def cost_of(exchange: Exchange) -> Decimal | None:
    """
    What an answer costs.

    Args:
        exchange: The request, with its usage.

    Returns:
        US dollars; None without usage, or where the price is not known.
    """
    if exchange.usage is None:
        return None
    return price_usage(exchange.usage, exchange.card).cost_usd
