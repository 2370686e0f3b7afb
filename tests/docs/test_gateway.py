"""The numbers of docs/gateway.md are those of the code."""

from __future__ import annotations

from pathlib import Path

import pytest

from loom.cli.serve import serve
from loom.server.gateway.limits import DoorLimits
from loom.server.gateway.metrics import Answered, Metrics
from loom.server.gateway.run import MOST_DRAIN_S

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
LIMITS = DoorLimits()


@pytest.mark.parametrize(
    "text",
    [
        f"| {LIMITS.line_bytes // 1024} KiB | 414 |",
        f"| {LIMITS.head_bytes // 1024} KiB; {LIMITS.head_fields} | 431 |",
        f"| {LIMITS.body_bytes // 1024**2} MiB | 413 |",
        f"| {LIMITS.depth}; {LIMITS.values:,} | 400 |",
        f"| {LIMITS.messages:,}; {LIMITS.tools}; {LIMITS.schema_bytes // 1024} KiB | 400 |",
        f"| {LIMITS.head_s:.0f} seconds | 408 |",
        f"| {LIMITS.body_s:.0f} seconds, and {LIMITS.body_bytes_per_s:,.0f} bytes a second",
        f"after {LIMITS.body_grace_s:.0f} seconds | 408 |",
        f"| {LIMITS.idle_s:.0f} seconds | closed |",
        f"| {LIMITS.write_s:.0f} seconds | cut, and billed |",
        f"| {LIMITS.write_bytes // 1024} KiB, then",
        f"| {LIMITS.connections_per_address:,} | 429 |",
        f"(`ulimit -Hn`), {LIMITS.connections:,} at most | 503 |",
        f"up to {MOST_DRAIN_S:.0f} seconds",
    ],
)
def test_the_limits_are_those_of_the_door(text: str) -> None:
    """Each number stands in the page as it is in the code."""
    assert text in PAGE


def test_every_option_of_its_own_is_told() -> None:
    """What `looms serve` takes stands in the page, but for what every command has."""
    common = {"--json", "--quiet", "--verbose", "--no-color", "--debug", "--as-of", "--model"}
    for option in serve.params:
        for name in option.opts:
            assert not name.startswith("--") or name in common or name in PAGE, name


def test_every_metric_is_told() -> None:
    """A metric that a scraper sees stands in the page."""
    metrics = Metrics()
    metrics.answered(Answered(route="/", dialect="openai", status=200))
    for family in metrics.collect():
        assert family.name in PAGE
