"""What stands before the simulated API: ids that sort, rows."""

from __future__ import annotations

from datetime import date

from loom.core.model import ModelCard
from loom.server.simulator.front import correlation_id
from loom.server.simulator.rows import model_rows
from loom.testing.clock import FakeDice


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
