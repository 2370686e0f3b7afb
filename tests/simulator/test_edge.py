"""What stands before the simulated API: limits that count, ids that sort, rows."""

from __future__ import annotations

from datetime import date

from loom.core.model import ModelCard
from loom.server.simulator.front import correlation_id
from loom.server.simulator.meter import Meter
from loom.server.simulator.rows import model_rows
from loom.testing.clock import FakeDice


def test_a_meter_counts_the_last_minute() -> None:
    """What is older than a minute is free again; nothing goes below zero."""
    meter = Meter(requests_per_minute=2, tokens_per_minute=100)
    meter.add(0.0, 60)
    meter.add(30.0, 70)

    full = meter.headers(70)
    meter.add(60.0, 5)
    later = meter.headers(5)

    assert ("0", "0") == (
        full["x-ratelimit-remaining-tokens-minute"],
        full["x-ratelimit-remaining-req-minute"],
    )
    assert ("25", "0", "5") == (
        later["x-ratelimit-remaining-tokens-minute"],
        later["x-ratelimit-remaining-req-minute"],
        later["x-ratelimit-tokens-query-cost"],
    )


def test_correlation_ids_sort_by_time() -> None:
    """The time stands first, the version and the variant where RFC 9562 has them."""
    ids = [
        correlation_id(now_ms, FakeDice(draws))
        for now_ms, draws in ((1, [0.9, 0.9, 0.9]), (2, [0.0, 0.0, 0.0]), (2**47, [0.5, 0.5, 0.5]))
    ]

    assert ids == sorted(ids)
    assert "00000000-0002-7000-8000-000000000000" == ids[1]


def test_a_retiring_model_says_so() -> None:
    """The last day is noon of that day, with the model to use instead."""
    card = ModelCard(
        id="a",
        aliases=("b",),
        abilities=frozenset({"chat", "vision"}),
        retires_on=date(2026, 8, 31),
        replacement="c",
    )

    first, second = model_rows([card], 5)

    assert ("a", ["b"], "b", ["a"]) == (
        first["id"],
        first["aliases"],
        second["id"],
        second["aliases"],
    )
    assert ("2026-08-31T12:00:00Z", "c") == (
        second["deprecation"],
        second["deprecation_replacement_model"],
    )
    assert {"completion_chat", "vision"} == {k for k, v in first["capabilities"].items() if v}
    assert 5 == first["created"]
