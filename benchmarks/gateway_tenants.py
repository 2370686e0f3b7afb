"""
What a tenant feels of another one that floods the gateway.

As a process of its own, `gateway_tenants.py quiet|flood TARGET`, it is one of them, as
`gateway_load.py` is: so neither waits for the other before its calls have left.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from client import figures
from gateway_load import Connection, Load, check, main, percentile
from gateway_processes import Running, load, load_command

__all__ = ["FLOODS", "RATE_LIMIT", "Beside", "Tenants", "flood", "quiet"]

QUIET_PER_S = 20
QUIET_MOST = 100
FLOOD_CONNECTIONS = 200
# What the vendor allows: fewer requests than a gateway could carry, so that its callers queue.
RATE_LIMIT = "18000/100000000000"
# Terms of the key that floods.
FLOODS: dict[str, tuple[str, ...]] = {
    "beside a flood": (),
    "the same, its key has `--rpm 600`": ("--rpm", "600"),
    "the same, its key has `--concurrency 8`": ("--concurrency", "8"),
}
ALONE = "alone"
SCRIPT = "gateway_tenants.py"


async def quiet(load: Load) -> dict[str, Any]:
    """Ask 20 times a second, at moments that chance has chosen."""
    connections = await load.open(QUIET_MOST)
    # Ours closes one that never asked sooner than one that rests.
    await asyncio.gather(*(load.ask(connection, "plain") for connection in connections))
    await load.at_times(connections, QUIET_PER_S, load.target["seconds"] / 5)
    return {"took": await load.at_times(connections, QUIET_PER_S, load.target["seconds"])}


async def flood(load: Load) -> dict[str, Any]:
    """Ask without rest from 200 connections, from a word that all do until the input ends."""
    connections = await load.open(FLOOD_CONNECTIONS)
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    refused = 0

    async def once(connection: Connection) -> None:
        nonlocal refused
        load.sent += 1
        body = await connection.ask(load.requests["plain"])
        if connection.status == b"429":
            refused += 1
        else:
            check("plain", body)

    async def one(connection: Connection) -> None:
        while not ended.done():
            await once(connection)

    if load.target.get("refusable"):
        for connection in connections:
            connection.right = (b"200", b"429")
    await asyncio.gather(*(once(connection) for connection in connections))
    print(json.dumps("it floods"), flush=True)
    began_s, before = time.perf_counter(), (load.sent, refused)
    await asyncio.gather(*(one(connection) for connection in connections))
    took_s = time.perf_counter() - began_s
    refused_per_s = (refused - before[1]) / took_s
    return {
        "refused": refused,
        "refused_per_s": refused_per_s,
        "answered_per_s": (load.sent - before[0]) / took_s - refused_per_s,
    }


class Beside(msgspec.Struct, kw_only=True):
    """
    What the quiet tenant got in one case.

    Attributes:
        took: Milliseconds of each of its answers.
        answered_per_s: What the flood got in a second, round by round.
        refused_per_s: What of it was refused.
    """

    took: list[float] = []
    answered_per_s: list[float] = []
    refused_per_s: list[float] = []


class Tenants:
    """
    Measures a tenant alone and beside each flood.

    Args:
        seconds: How long each lasts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # With `--rate-limit` or without, and then by case.
        self.found: dict[str, dict[str, Beside]] = {}

    def measure(self, running: Running, limited: str, keys: dict[str, str]) -> int:
        """
        Ask a gateway as both do.

        Args:
            running: The gateway, with the quiet tenant's key.
            limited: What is said of its vendor's limits.
            keys: Case of `FLOODS` -> the key that floods.

        Returns:
            How many calls were answered.
        """
        cases = self.found.setdefault(limited, {})
        answered = self._ask(running, cases.setdefault(ALONE, Beside()))
        for case, key in keys.items():
            beside = cases.setdefault(case, Beside())
            with _flooded(running, key, refusable=bool(FLOODS[case])) as flooding:
                answered += self._ask(running, beside)
            answered += flooding["sent"] - flooding["values"]["refused"]
            beside.answered_per_s.append(flooding["values"]["answered_per_s"])
            beside.refused_per_s.append(flooding["values"]["refused_per_s"])
        return answered

    def _ask(self, running: Running, beside: Beside) -> int:
        found = load("quiet", running.target(self._seconds), SCRIPT)
        _see(found)
        beside.took += found["values"]["took"]
        return int(found["sent"])

    def table(self) -> str:
        """Lay out the quiet tenant's times, with their ratios to those alone."""
        rows = [
            "| the quiet tenant | ms p50 | ms p99 | the flood: answered, refused a second |",
            "|---|---|---|---|",
        ]
        for limited, cases in self.found.items():
            for case, beside in cases.items():
                cells = [_cell(beside.took, cases[ALONE].took, share) for share in (0.5, 0.99)]
                cells.append(_flow(beside))
                rows.append(f"| {case}{limited} | {' | '.join(cells)} |")
        return "\n".join(rows)


def _cell(took: list[float], alone: list[float], share: float) -> str:
    value, floor = percentile(took, share), percentile(alone, share)
    return figures(value) if took is alone else f"{figures(value)} ({figures(value / floor)})"


def _flow(beside: Beside) -> str:
    if not beside.answered_per_s:
        return "-"
    rounds = len(beside.answered_per_s)
    means = [sum(each) / rounds for each in (beside.answered_per_s, beside.refused_per_s)]
    return ", ".join(f"{mean:,.0f}" for mean in means)


@contextmanager
def _flooded(running: Running, key: str, *, refusable: bool) -> Iterator[dict[str, Any]]:
    """Let the other tenant flood; afterwards what it yields tells what became of its calls."""
    target = running.target(0)
    target["headers"] = {**running.headers, "authorization": f"Bearer {key}"}
    target["refusable"] = refusable
    found: dict[str, Any] = {}
    process = subprocess.Popen(
        load_command("flood", target, SCRIPT),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        begun = json.loads(process.stdout.readline())
        if isinstance(begun, dict):
            _see(begun)
        yield found
    finally:
        said, _ = process.communicate()  # closes its standard input: it ends
    found |= json.loads(said)
    _see(found)


def _see(found: dict[str, Any]) -> None:
    if "problem" in found:
        raise SystemExit(f"after {found['sent']} calls: {found['problem']}")


if __name__ == "__main__":
    main({"quiet": quiet, "flood": flood})
