"""How much of a minute's limit is used: counted, not enforced."""

from __future__ import annotations

from collections import deque

__all__ = ["Meter"]

# Recorded for mistral-small in August 2026 (contract, section 5).
_REQUESTS_PER_MINUTE = 100
_TOKENS_PER_MINUTE = 100_000
_WINDOW_S = 60.0


class Meter:
    """
    Requests and tokens of the last minute, for one model.

    Args:
        requests_per_minute: The limit that the headers name.
        tokens_per_minute: Likewise.
    """

    def __init__(
        self,
        requests_per_minute: int = _REQUESTS_PER_MINUTE,
        tokens_per_minute: int = _TOKENS_PER_MINUTE,
    ) -> None:
        self.requests_per_minute = requests_per_minute
        self.tokens_per_minute = tokens_per_minute
        self._used: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, tokens: int) -> None:
        """
        Count a request.

        Args:
            now_s: The monotonic time, in seconds.
            tokens: What it is charged.
        """
        self._used.append((now_s, tokens))
        while self._used and self._used[0][0] <= now_s - _WINDOW_S:
            self._used.popleft()

    def headers(self, query_cost: int) -> dict[str, str]:
        """
        The rate-limit headers of a plain answer, in the recorded order.

        Args:
            query_cost: What this request was charged, in tokens.

        Returns:
            The family of 2026; names in lower case.
        """
        tokens = self.tokens_per_minute - sum(used for _, used in self._used)
        requests = self.requests_per_minute - len(self._used)
        return {
            "x-ratelimit-limit-tokens-minute": str(self.tokens_per_minute),
            "x-ratelimit-remaining-tokens-minute": str(max(0, tokens)),
            "x-ratelimit-tokens-query-cost": str(query_cost),
            "x-ratelimit-limit-req-minute": str(self.requests_per_minute),
            "x-ratelimit-remaining-req-minute": str(max(0, requests)),
        }
