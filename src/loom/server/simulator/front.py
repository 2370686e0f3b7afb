"""The simulator's desk: one key, the catalogue's models, the headers of the real edge."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loom.core.ambient import Clock, Dice
from loom.core.errors import InvalidAPIKey
from loom.core.model import ModelCard
from loom.server.desk import Desk, Outcome
from loom.server.simulator.exchange import CURRENT
from loom.server.simulator.quota import Limiter
from loom.server.simulator.rows import model_rows

__all__ = ["SimulatedEdge", "correlation_id"]

# Recorded proxy latencies lie between 6 and 27 ms.
_PROXY_MS = (6, 27)

_ALWAYS = {
    "cf-cache-status": "DYNAMIC",
    "strict-transport-security": "max-age=15552000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
}


def correlation_id(now_ms: int, dice: Dice) -> str:
    """
    An id as the edge makes them: UUID version 7.

    Args:
        now_ms: Unix time in milliseconds; ids sort by it.
        dice: Draws the rest.

    Returns:
        For example `019f8077-0e71-7008-9b70-0d51a165a44b`.

    Source: RFC 9562, section 5.7.
    """
    tail = int(dice.random() * 2**12) << 64 | int(dice.random() * 2**31) << 31
    tail |= int(dice.random() * 2**31)
    value = (now_ms & (2**48 - 1)) << 80 | 7 << 76 | 2 << 62 | tail
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class SimulatedEdge(Desk):
    """
    What stands before the real API, as far as its answers show it.

    Args:
        key: The key that is accepted; None accepts every key that is not empty.
        cards: What is known of the models; asked for each listing.
        seed: Makes ids repeat.
        clock: Tells the time.
        dice: Draws correlation ids and latencies.
        limiter: Knows what is left of a minute.
    """

    def __init__(
        self,
        *,
        key: str | None,
        cards: Callable[[], Sequence[ModelCard]],
        seed: int,
        clock: Clock,
        dice: Dice,
        limiter: Limiter,
    ) -> None:
        self._key = key
        self._cards = cards
        self._seed = seed
        self._clock = clock
        self._dice = dice
        self._count = itertools.count()
        self._limiter = limiter

    def admit(self, authorization: str | None) -> None:
        """
        Compare the key.

        Args:
            authorization: `Bearer <key>`.

        Raises:
            InvalidAPIKey: If it is another one; in the words of the wire.
        """
        scheme, _, key = (authorization or "").partition(" ")
        right = bool(key.strip()) if self._key is None else key.strip() == self._key
        if scheme.lower() != "bearer" or not right:
            raise InvalidAPIKey("Invalid API Key", provider="mistral")

    def models(self) -> Sequence[Mapping[str, Any]]:
        """One row for each id and alias."""
        return model_rows(self._cards(), int(self._clock.now().timestamp()))

    def new_id(self) -> str:
        """32 hex digits, by seed and number."""
        return hashlib.sha256(f"{self._seed}/{next(self._count)}".encode()).hexdigest()[:32]

    def headers(self, outcome: Outcome) -> Mapping[str, str]:
        """
        The headers of the recorded answers, in their order.

        Left out are those that would be untrue of a loopback server: `server: cloudflare`, and
        `alt-svc`, which sends clients to another port.

        Args:
            outcome: How the request ended.

        Returns:
            Names in lower case.
        """
        request_id = correlation_id(int(self._clock.now().timestamp() * 1000), self._dice)
        low, high = _PROXY_MS
        proxy_ms = low + int(self._dice.random() * (high - low + 1))
        exchange = CURRENT.get()
        elapsed_s = outcome.elapsed_s
        if exchange is not None:
            # The application does not see the latency before it.
            elapsed_s = self._clock.monotonic_s() - exchange.began_s
        upstream_ms = round(elapsed_s * 1000)
        headers = {"mistral-correlation-id": request_id, "x-kong-request-id": request_id}
        if outcome.admitted:
            headers["x-max-retry-attempts-reached"] = "false"
            if outcome.usage is not None and exchange is not None:
                exchange.usage = outcome.usage
                self._limiter.settle(exchange)
                headers |= self._limiter.headers(exchange)
            headers["x-envoy-upstream-service-time"] = str(upstream_ms)
        headers["server"] = "loom-simulator"
        headers["access-control-allow-origin"] = "*"
        if outcome.admitted:
            headers["x-kong-upstream-latency"] = str(upstream_ms)
            headers["x-kong-proxy-latency"] = str(proxy_ms)
        else:
            headers["x-kong-response-latency"] = str(proxy_ms)
        headers |= _ALWAYS
        return headers
