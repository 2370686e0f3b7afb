"""
How long the ring takes to let a caller in or not, and how soon it sees that a key was revoked.

    uv run --group bench python benchmarks/keys.py
    uv run --group bench python benchmarks/keys.py --count 200

Each kind of caller is asked in turn, so that whatever else the machine does falls on all of them.
The kinds of wrong keys must not be told apart by the time that they take: compare their medians
with each other, not with the others. Nothing is measured of HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from statistics import median, quantiles

from loom.core.ambient import SystemClock
from loom.core.errors import InvalidAPIKey
from loom.core.messages import Message
from loom.core.request import ChatRequest
from loom.server.gateway.keys import KeyTerms, check_request
from loom.server.gateway.keys_failures import Failures
from loom.server.gateway.keys_ring import KeyRing
from loom.server.gateway.keys_store import KeyStore
from loom.server.gateway.keys_text import digest_of, new_key
from loom.server.gateway.keys_watch import KeyWatch

__all__ = ["main"]

# Each one that is made is synced several times; what a ring holds costs it nothing.
KEYS = 100


async def main(arguments: Sequence[str]) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description="Measure the keys of the gateway.")
    parser.add_argument("--count", type=int, default=10_000, help="tries of each kind")
    parser.add_argument("--keys", type=int, default=KEYS, help="keys that the ring holds")
    parser.add_argument("--revoked", type=int, default=20, help="keys that are revoked")
    given = parser.parse_args(arguments)
    # What a log costs is the log's, and the same for all.
    logging.getLogger("loom.keys").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.db"
        headers, store = callers(path, given.keys)
        failures = Failures(burst=1e12)
        admin = digest_of(new_key().reveal())
        async with KeyRing(
            KeyWatch(path), host="127.0.0.1", admin_hash=admin, failures=failures
        ) as ring:
            print(f"| {given.keys:,} keys, {given.count:,} tries | median us | p99 us |")
            print("|---|---|---|")
            for kind, times in measured(ring, headers, given.count).items():
                print(row(kind, times))
            key = ring.admit(headers["a right key"])
            asked = ChatRequest(model="mistral-small-latest", messages=(Message.user("hi"),))
            print(row("`check_request`", timed(lambda: check_request(key, asked), given.count)))
            seen = [await revoked(ring, store, number) for number in range(given.revoked)]
            print(f"\nrevoked keys are refused after {median(seen):.2f} s, at most {max(seen):.2f}")
    return 0


def callers(path: Path, count: int) -> tuple[dict[str, str | None], KeyStore]:
    """Give the header of each kind of caller, and the store."""
    store = KeyStore(path)
    terms = KeyTerms(models=("mistral-*", "codestral-*"), max_tokens=1000)
    made = [store.create(f"key-{number}", terms, actor="bench") for number in range(count)]
    right, expired, revoked_one = made[0], made[1], made[2]
    before = SystemClock().now() - timedelta(seconds=1)
    store.update(expired.key.id, {"expires_at": before}, actor="bench")
    store.revoke(revoked_one.key.id, actor="bench")
    return {
        "a right key": f"Bearer {right.secret.reveal()}",
        "no key": None,
        "malformed": "Bearer loom_sk_with-a-typo",
        "unknown": f"Bearer {new_key().reveal()}",
        "expired": f"Bearer {expired.secret.reveal()}",
        "revoked": f"Bearer {revoked_one.secret.reveal()}",
    }, store


def measured(ring: KeyRing, headers: dict[str, str | None], count: int) -> dict[str, list[float]]:
    """Ask for each kind in turn; microseconds."""
    times: dict[str, list[float]] = {kind: [] for kind in headers}
    gc.disable()
    for _ in range(count):
        for kind, header in headers.items():
            began = time.perf_counter_ns()
            with suppress(InvalidAPIKey):
                ring.admit(header, "10.0.0.1")
            times[kind].append((time.perf_counter_ns() - began) / 1000)
    gc.enable()
    return times


def timed(work: Callable[[], object], count: int) -> list[float]:
    """Do something again and again; microseconds."""
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        work()
        times.append((time.perf_counter_ns() - began) / 1000)
    return times


async def revoked(ring: KeyRing, store: KeyStore, number: int) -> float:
    """Revoke a key, and give the seconds from the acknowledgement until it is refused."""
    made = store.create(f"gone-{number}", actor="bench")
    header = f"Bearer {made.secret.reveal()}"
    await until(ring, header, admitted=True)
    store.revoke(made.key.id, actor="bench")
    began = time.perf_counter()
    await until(ring, header, admitted=False)
    return time.perf_counter() - began


async def until(ring: KeyRing, header: str, *, admitted: bool) -> None:
    """Wait until a caller is let in, or is not."""
    while True:
        try:
            ring.admit(header)
        except InvalidAPIKey:
            if not admitted:
                return
        else:
            if admitted:
                return
        await asyncio.sleep(0.005)


def row(kind: str, times: list[float]) -> str:
    """One row of the table."""
    return f"| {kind} | {median(times):.2f} | {quantiles(times, n=100)[98]:.2f} |"


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
