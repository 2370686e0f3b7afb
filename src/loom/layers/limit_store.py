"""Where accounts are kept: a contract, and a store in memory."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Protocol

from loom.layers.limit_account import Account
from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import Ask, LimitKey, LimitState, Permit, Refused

__all__ = ["LimitStore", "MemoryStore"]


class LimitStore(Protocol):
    """
    Accounts by key; every method is one step that happens wholly or not at all.

    A store answers at once, on any thread. One that is shared by processes answers from what it
    leased, and gives a short wait while it asks for more.
    `loom.testing.limit_store_contract` puts a store to its laws.
    """

    @abstractmethod
    def take(self, key: LimitKey, permit: int, ask: Ask, now_s: float) -> float:
        """
        Grant a call, or nothing.

        Args:
            key: Whose limit.
            permit: A number of the call, never used before.
            ask: What it asks for.
            now_s: Seconds of a monotonic clock.

        Returns:
            0 if it was granted; else the seconds until it may be if nothing else happens,
            infinite if another call must end first.
        """

    @abstractmethod
    def settle(self, key: LimitKey, permit: int, tokens: int, now_s: float) -> None:
        """
        End a granted call; a second time, or after `release`, nothing happens.

        Args:
            key: Whose limit.
            permit: The call's number.
            tokens: What it used.
            now_s: Seconds of a monotonic clock.
        """

    @abstractmethod
    def release(self, key: LimitKey, permit: int, now_s: float) -> None:
        """
        Take back a grant for which nothing was sent; a second time nothing happens.

        Args:
            key: Whose limit.
            permit: The call's number.
            now_s: Seconds of a monotonic clock.
        """

    @abstractmethod
    def refuse(
        self, key: LimitKey, why: Refused, retry_after_s: float | None, now_s: float
    ) -> None:
        """
        Learn from a 429.

        Args:
            key: Whose limit.
            why: Quota or capacity.
            retry_after_s: What the server asked to wait; None if it did not.
            now_s: Seconds of a monotonic clock.
        """

    @abstractmethod
    def announce(
        self, key: LimitKey, requests: int | None, tokens: int | None, now_s: float
    ) -> None:
        """
        Lower the limits of a minute to what headers name.

        Args:
            key: Whose limit.
            requests: What they name; None if they do not.
            tokens: The same of tokens.
            now_s: Seconds of a monotonic clock.
        """

    @abstractmethod
    def state(self, key: LimitKey, now_s: float) -> LimitState:
        """
        Look at an account.

        Args:
            key: Whose limit.
            now_s: Seconds of a monotonic clock.

        Returns:
            It; nothing is queued in a store.
        """


class MemoryStore(LimitStore):
    """
    Accounts of one process, under one lock that is held for microseconds.

    Args:
        rules: The limits of each key.
    """

    def __init__(self, rules: RateLimit) -> None:
        self._new = Account.opened(rules)
        self._accounts: dict[LimitKey, Account] = {}
        self._permits: dict[tuple[LimitKey, int], Permit] = {}
        self._lock = threading.Lock()

    def take(self, key: LimitKey, permit: int, ask: Ask, now_s: float) -> float:
        """Grant a call, or nothing."""
        with self._lock:
            account = self._at(key, now_s)
            wait_s = account.wait_s(ask, now_s)
            if wait_s <= 0:
                account, self._permits[key, permit] = account.taken(ask, now_s)
            self._accounts[key] = account
        return wait_s

    def settle(self, key: LimitKey, permit: int, tokens: int, now_s: float) -> None:
        """End a granted call."""
        with self._lock:
            granted = self._permits.pop((key, permit), None)
            if granted is not None:
                self._accounts[key] = self._at(key, now_s).settled(granted, tokens, now_s)

    def release(self, key: LimitKey, permit: int, now_s: float) -> None:
        """Take a grant back."""
        with self._lock:
            granted = self._permits.pop((key, permit), None)
            if granted is not None:
                self._accounts[key] = self._at(key, now_s).released(granted)

    def refuse(
        self, key: LimitKey, why: Refused, retry_after_s: float | None, now_s: float
    ) -> None:
        """Learn from a 429."""
        with self._lock:
            self._accounts[key] = self._at(key, now_s).refused(why, retry_after_s, now_s)

    def announce(
        self, key: LimitKey, requests: int | None, tokens: int | None, now_s: float
    ) -> None:
        """Lower the limits."""
        with self._lock:
            self._accounts[key] = self._at(key, now_s).announced(requests, tokens)

    def state(self, key: LimitKey, now_s: float) -> LimitState:
        """Look at an account."""
        with self._lock:
            return self._at(key, now_s).state(now_s)

    def _at(self, key: LimitKey, now_s: float) -> Account:
        return self._accounts.get(key, self._new).at(now_s)
