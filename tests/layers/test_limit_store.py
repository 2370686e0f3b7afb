"""Every law of a store, put to the one in memory; and that broken stores are found out."""

from __future__ import annotations

import pytest

from loom.layers.limit_rate import RateLimit
from loom.layers.limit_state import Ask, LimitKey
from loom.layers.limit_store import LimitStore, MemoryStore
from loom.testing import LIMIT_STORE_LAWS, LimitStoreLaw, limit_store_contract

KEY = ("https://x", "0123abcd", "m")


@pytest.mark.parametrize("law", LIMIT_STORE_LAWS, ids=lambda law: law.__name__)
def test_the_store_in_memory_keeps_the_law(law: LimitStoreLaw) -> None:
    """The contract of every store."""
    law(MemoryStore)


class _Forgetful(MemoryStore):
    """Gives a permit back when it is looked at."""

    def settle(self, key: LimitKey, permit: int, tokens: int, now_s: float) -> None:
        self.release(key, permit, now_s)


class _Deaf(MemoryStore):
    """Learns nothing from a refusal."""

    def refuse(self, *_refusal: object) -> None:
        """Do nothing."""


class _OneForAll(MemoryStore):
    """Has one account for everybody."""

    def take(self, key: LimitKey, permit: int, ask: Ask, now_s: float) -> float:
        return super().take(KEY, permit, ask, now_s)


@pytest.mark.parametrize("broken", [_Forgetful, _Deaf, _OneForAll])
def test_a_broken_store_is_found_out(broken: type[LimitStore]) -> None:
    """The contract fails for a store that breaks one law."""
    with pytest.raises(AssertionError):
        limit_store_contract(broken)


def test_another_months_tokens_are_not_counted() -> None:
    """A month that is full waits for its end, and begins anew."""
    store = MemoryStore(RateLimit(tokens_per_month=100))
    assert 0 == store.take(KEY, 1, Ask(100, 100, 100, month_end_s=5000.0), 1000.0)
    store.settle(KEY, 1, 100, 1000.0)
    assert 4000 == store.take(KEY, 2, Ask(1, 1, 1, month_end_s=5000.0), 1000.0)
    assert 100 == store.state(KEY, 1000.0).used_tokens_month
    assert 0 == store.take(KEY, 2, Ask(1, 1, 1, month_end_s=9000.0), 5000.0)
    assert 0 == store.state(KEY, 5000.0).used_tokens_month
