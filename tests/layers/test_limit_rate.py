"""What a plan may be, and what the named ones are."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loom.core.errors import ConfigInvalid
from loom.layers.limit_rate import RateLimit
from loom.server.simulator.options import TIERS


@pytest.mark.parametrize("name", TIERS)
def test_the_named_plans_are_those_of_the_simulator(name: str) -> None:
    """Free, starter and pro mean the same on both sides."""
    limit: RateLimit = getattr(RateLimit, name)()
    tier = TIERS[name]
    assert (tier.requests_per_minute, tier.tokens_per_minute) == (
        limit.requests_per_minute, limit.tokens_per_minute
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests_per_minute", 0),
        ("requests_per_minute", 1.5),
        ("tokens_per_minute", -1),
        ("tokens_per_minute", True),
        ("tokens_per_month", 0),
        ("concurrency", 0),
        ("requests_per_second", 0),
        ("requests_per_second", "1"),
        ("requests_per_second", math.nan),
        ("refill_interval_s", 0.5),
        ("refill_interval_s", 61),
        ("refill_interval_s", None),
        ("burst_s", -1),
        ("guard_s", 0.1),
        ("guard_s", True),
        ("reserve", "little"),
    ],
)
def test_a_number_out_of_its_range_is_refused(field: str, value: Any) -> None:
    """The message names the field."""
    with pytest.raises(ConfigInvalid, match=f"'{field}'"):
        RateLimit(**{field: value})


def test_an_interval_in_which_nothing_fits_is_refused() -> None:
    """Five a minute are none in ten seconds."""
    with pytest.raises(ConfigInvalid, match="less than one"):
        RateLimit(requests_per_minute=5, refill_interval_s=10)
    assert 1 == RateLimit(requests_per_minute=6, refill_interval_s=10).per_interval(6)
