"""Scenes of processes, event loops and threads."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from loom.testing.matrix_bench import CANARY, MODEL, Bench, Scene
from loom.testing.matrix_sight import Sight

__all__ = ["PLACES"]

# A program of its own: forking, or ending, the process of a test would fork or end the test.
_FORK = """
import os, sys
from loom.client.blocking import Mistral
m = Mistral(sys.argv[1], base_url=sys.argv[2], model=sys.argv[3])
assert m.chat("Say hello").content == "hello"
child = os.fork()
if not child:
    answer = m.chat("Say hello")
    assert (answer.content, answer.attempts) == ("hello", 1), answer
    m.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
answer = m.chat("Say hello")
assert (answer.content, answer.attempts) == ("hello", 1), answer
m.close()
"""
_EXIT = """
import asyncio, sys
from loom.client.aio import AsyncMistral
from loom.client.blocking import Mistral
with_fault = {"headers": {"x-loom-fault": "14-stall"}, "model": sys.argv[3]}
m = Mistral(sys.argv[1], base_url=sys.argv[2], **with_fault)
stream = m.stream("Say hello")
next(stream), next(stream)

async def main():
    global client, events
    client = AsyncMistral(sys.argv[1], base_url=sys.argv[2], **with_fault)
    events = client.stream("Say hello")
    await anext(events), await anext(events)

asyncio.run(main())
"""


async def _program(bench: Bench, text: str) -> tuple[int, str]:
    """Run a program against the simulator; give its code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        text,
        CANARY,
        bench.simulator.base_url,
        MODEL,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace").strip()


def _each(bench: Bench, before: int, calls: int) -> int:
    """Requests for each of several calls; all of them where they are not evenly many."""
    requests = len(bench.simulator.journal) - before
    return requests // calls if requests % calls == 0 else requests


async def _quiet_end(bench: Bench, text: str, *, calls: int, code: str) -> Sight:
    """Run a program that must end well and say nothing."""
    before = len(bench.simulator.journal)
    ended, said = await _program(bench, text)
    seen = Sight(code=code, wire=_each(bench, before, calls))
    return seen.but(
        ended != 0 and f"it ended with {ended}", bool(said) and f"it said: {said[-200:]}"
    )


async def _after_fork(bench: Bench, *, stream: bool) -> Sight:
    del stream
    if not hasattr(os, "fork"):
        return Sight(code="", wire=1)  # there is nothing to go wrong here
    return await _quiet_end(bench, _FORK, calls=3, code="")


async def _exit(bench: Bench, *, stream: bool) -> Sight:
    del stream
    return await _quiet_end(bench, _EXIT, calls=2, code="left")


async def _loops_and_threads(bench: Bench, *, stream: bool) -> Sight:
    """Three loops one after the other, two loops at once, and two threads of a blocking client."""
    del stream
    before = len(bench.simulator.journal)
    address = {"base_url": bench.simulator.base_url, "model": MODEL}
    client = bench.connect(CANARY, **address)
    blocking = bench.connect_blocking(CANARY, **address)

    def in_a_loop() -> str:
        return asyncio.run(client.chat("Say hello")).content  # type: ignore[no-any-return] # of a client that is handed in

    def in_a_thread() -> str:
        return blocking.chat("Say hello").content  # type: ignore[no-any-return] # the same

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(4) as threads:
        texts = [await loop.run_in_executor(threads, in_a_loop) for _ in range(3)]
        calls = (in_a_loop, in_a_loop, in_a_thread, in_a_thread)
        texts += await asyncio.gather(*(loop.run_in_executor(threads, call) for call in calls))
        await loop.run_in_executor(threads, blocking.close)
    await client.aclose()
    seen = Sight(code="", wire=_each(bench, before, 7))
    return seen.but(texts != ["hello"] * 7 and f"they got {texts}")


PLACES: Mapping[str, Scene] = {
    "after-fork": Scene(_after_fork, both=False),
    "exit-with-streams": Scene(_exit, both=False),
    "loops-and-threads": Scene(_loops_and_threads, both=False),
}
"""Rows 59 to 61."""
