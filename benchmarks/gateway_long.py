"""What a gateway holds in memory while it answers very many calls."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import linear_regression
from typing import Any

import msgspec
from gateway_processes import Running, load_command, rss_mb

__all__ = ["Growth", "grow"]

LOOK_EVERY_S = 1.0
# What a gateway keeps for good it has by then: pools, caches, what is loaded when first needed.
SETTLED = 0.1
PER = 100_000


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of the memory.

    Attributes:
        samples: (calls answered, MB), about once a second.
        rate: Calls a second.
    """

    samples: list[tuple[int, float]]
    rate: float

    def slope_mb(self) -> float | None:
        """
        Megabytes that 100,000 further calls add, by least squares, once it has settled.

        Returns:
            It; None when there are too few samples to say.
        """
        begin = self.samples[-1][0] * SETTLED
        later = [sample for sample in self.samples if sample[0] > begin]
        if len(later) < 3:
            return None
        return linear_regression(*zip(*later, strict=True)).slope * PER

    def table(self) -> str:
        """Lay out the memory after each tenth of the calls."""
        total = self.samples[-1][0]
        rows = ["| calls | MB |", "|---|---|"]
        for tenth in range(11):
            calls, mb = min(self.samples, key=lambda one: abs(one[0] - total * tenth / 10))
            rows.append(f"| {calls:,} | {mb:.1f} |")
        return "\n".join(rows)


def grow(running: Running, requests: int, *, calls_seen: Any) -> Growth:
    """
    Ask so many times, and look at the memory meanwhile.

    Args:
        running: The gateway.
        requests: How many times; every tenth is a short stream.
        calls_seen: Gives how many calls the vendor has answered.

    Returns:
        What was seen.
    """
    before = calls_seen()
    command = load_command("long", running.target(0, requests))
    samples: list[tuple[int, float]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = None
        while said is None:
            samples.append((calls_seen() - before, rss_mb(running.pids)))
            try:
                said, _ = process.communicate(timeout=LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                print(f"\r{samples[-1][0]:>12,}", end="", file=sys.stderr, flush=True)
    found = json.loads(said or "{}")
    samples.append((calls_seen() - before, rss_mb(running.pids)))
    if "problem" in found or samples[-1][0] != requests:
        raise SystemExit(f"{samples[-1][0]} calls came for {requests}: {found.get('problem')}")
    return Growth(samples=samples, rate=found["values"]["rate"])
