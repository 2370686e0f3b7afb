"""
One measurement in a fresh process: `agent_measure.py SCENARIO CONTENDER URL TURNS` prints JSON.

`benchmarks/agent.py` starts it; each figure is of this process alone, upstream apart.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from agent_contenders import ASYNC, BLOCKING, SCRIPTS, BlockingContender, Contender

__all__ = ["AT_ONCE", "SCENARIOS", "main"]

AT_ONCE = 100
WARM_TURNS = 10

# scenario -> the script, and what its figure is
SCENARIOS = {
    "turn": ("one", "ms CPU a turn: one tool, two calls"),
    "three": ("three", "ms CPU a turn: three tools at once, two calls"),
    "ten": ("ten", "ms CPU a turn: ten tools in a row, eleven calls"),
    "sessions": ("one", "ms CPU a turn of one tool, kept in SQLite"),
    "streamed": ("one", "ms CPU a turn of one tool, streamed: 20 pieces"),
    "at_once": ("one", "ms CPU a turn of one tool, 100 at once"),
    "delay": ("delay", "s for 100 turns at once, the model takes 200 ms a call"),
}


def _result(scenario: str, value: float, turns: int) -> dict[str, float]:
    tools, at_once, _ = SCRIPTS[SCENARIOS[scenario][0]]
    return {"value": value, "requests": turns * (tools // at_once + 1)}


async def _measure(contender: Contender, scenario: str, turns: int) -> dict[str, float]:
    once = contender.streamed if scenario == "streamed" else contender.turn
    try:
        if scenario == "delay":
            await once()
            began_s = time.perf_counter()
            await asyncio.gather(*(once() for _ in range(AT_ONCE)))
            return _result(scenario, time.perf_counter() - began_s, AT_ONCE + 1)
        for _ in range(WARM_TURNS):
            await once()
        if scenario != "at_once":
            began_s = time.process_time()
            for _ in range(turns):
                await once()
            value = (time.process_time() - began_s) / turns * 1e3
            return _result(scenario, value, turns + WARM_TURNS)
        await asyncio.gather(*(once() for _ in range(AT_ONCE)))
        rounds = max(1, turns // AT_ONCE)
        began_s = time.process_time()
        for _ in range(rounds):
            await asyncio.gather(*(once() for _ in range(AT_ONCE)))
        value = (time.process_time() - began_s) / (rounds * AT_ONCE) * 1e3
        return _result(scenario, value, (rounds + 1) * AT_ONCE + WARM_TURNS)
    finally:
        await contender.aclose()


def _measure_blocking(contender: BlockingContender, scenario: str, turns: int) -> dict[str, float]:
    once = contender.streamed if scenario == "streamed" else contender.turn
    try:
        for _ in range(WARM_TURNS):
            once()
        began_s = time.process_time()
        for _ in range(turns):
            once()
        value = (time.process_time() - began_s) / turns * 1e3
        return _result(scenario, value, turns + WARM_TURNS)
    finally:
        contender.close()


async def _measured(make: Callable[[], Contender], scenario: str, turns: int) -> dict[str, float]:
    # An agent may want a running loop when it is made.
    return await _measure(make(), scenario, turns)


def main() -> None:
    """Measure what the arguments say."""
    scenario, name, url, turns = sys.argv[1:5]
    script = SCENARIOS[scenario][0]
    with tempfile.TemporaryDirectory() as folder:
        sessions = str(Path(folder) / "sessions.db") if scenario == "sessions" else None
        if name in BLOCKING:
            blocking = BLOCKING[name](url, script, sessions)
            result = _measure_blocking(blocking, scenario, int(turns))
        else:
            made = ASYNC[name]
            result = asyncio.run(
                _measured(lambda: made(url, script, sessions), scenario, int(turns))
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
