"""
One measurement in a fresh process: `measure.py SCENARIO CONTENDER URL` prints it as JSON.

`benchmarks/client.py` starts it; each figure is of this process alone, upstream apart.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from contenders import ASYNC, BLOCKING, AsyncContender, BlockingContender

__all__ = ["SCENARIOS", "main"]

CALLS = 3000
IN_FLIGHT = 100
AT_ONCE = 1000
BURST_STREAMS = 6
PACED_STREAMS = 50

SCENARIOS = {
    "call": ("plain", "ms CPU a call, 100 in flight"),
    "at_once": ("delay", "s for 1,000 calls at once, upstream 200 ms"),
    "burst": ("burst", "us CPU a chunk, all at once"),
    "paced": ("paced", "us CPU a chunk, every 20 ms, 50 streams"),
    "first": ("plain", "ms from the import to the first answer"),
}


async def _in_flight(work: Callable[[], Awaitable[object]], times: int, tasks: int) -> None:
    left = iter(range(times))

    async def worker() -> None:
        for _ in left:
            await work()

    await asyncio.gather(*(worker() for _ in range(tasks)))


def _in_threads(work: Callable[[], object], times: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(times)]:
            done.result()


def _result(value: float, requests: int) -> dict[str, float]:
    # Linux counts in KiB.
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"value": value, "requests": requests, "rss_mb": peak_mb}


async def _measure(make: Callable[[], AsyncContender], scenario: str) -> dict[str, float]:
    start_s = time.perf_counter()
    contender = make()
    try:
        if scenario in ("call", "at_once", "first"):
            await contender.call()
        if scenario == "first":
            return _result((time.perf_counter() - start_s) * 1e3, 1)
        if scenario == "at_once":
            start_s = time.perf_counter()
            await _in_flight(contender.call, AT_ONCE, AT_ONCE)
            return _result(time.perf_counter() - start_s, AT_ONCE + 1)
        if scenario == "call":
            await _in_flight(contender.call, IN_FLIGHT, IN_FLIGHT)
            start_s = time.process_time()
            await _in_flight(contender.call, CALLS, IN_FLIGHT)
            value = (time.process_time() - start_s) / CALLS * 1e3
            return _result(value, CALLS + IN_FLIGHT + 1)
        streams, tasks = (BURST_STREAMS, 1) if scenario == "burst" else (PACED_STREAMS,) * 2
        pieces = await contender.stream()
        start_s = time.process_time()
        await _in_flight(contender.stream, streams, tasks)
        value = (time.process_time() - start_s) / (streams * pieces) * 1e6
        return _result(value, streams + 1)
    finally:
        await contender.aclose()


def _measure_blocking(make: Callable[[], BlockingContender], scenario: str) -> dict[str, float]:
    start_s = time.perf_counter()
    contender = make()
    try:
        if scenario in ("call", "first"):
            contender.call()
        if scenario == "first":
            return _result((time.perf_counter() - start_s) * 1e3, 1)
        if scenario == "call":
            _in_threads(contender.call, IN_FLIGHT, IN_FLIGHT)
            start_s = time.process_time()
            _in_threads(contender.call, CALLS, IN_FLIGHT)
            value = (time.process_time() - start_s) / CALLS * 1e3
            return _result(value, CALLS + IN_FLIGHT + 1)
        streams, threads = (BURST_STREAMS, 1) if scenario == "burst" else (PACED_STREAMS,) * 2
        pieces = contender.stream()
        start_s = time.process_time()
        _in_threads(contender.stream, streams, threads)
        value = (time.process_time() - start_s) / (streams * pieces) * 1e6
        return _result(value, streams + 1)
    finally:
        contender.close()


def main() -> None:
    """Measure what the arguments say."""
    scenario, name, url = sys.argv[1:4]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    kind = SCENARIOS[scenario][0]
    if name in BLOCKING:
        result = _measure_blocking(lambda: BLOCKING[name](url, kind), scenario)
    else:
        result = asyncio.run(_measure(lambda: ASYNC[name](url, kind), scenario))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
