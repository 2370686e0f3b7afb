"""A killed process loses no entry that was acknowledged, and leaves none half."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from loom.agent.session import Said
from loom.agent.session_sqlite import SQLiteSessions

CHILD = """
import asyncio, sys
from decimal import Decimal
from loom.agent.session import Said
from loom.agent.session_sqlite import SQLiteSessions
from loom.core.messages import Message
from loom.core.response import Usage

async def talk(store, name):
    known = len(await store.read(name))
    while True:
        cost = Usage(input_tokens=1, cost_usd=Decimal("0.01"))
        known = await store.append(name, [
            Said(message=Message.user(f"question {known}" + "x" * 2000)),
            Said(message=Message.assistant(f"answer {known + 1}"), usage=cost),
        ], expected=known)
        print(name, known, flush=True)

async def main():
    store = SQLiteSessions(sys.argv[1])
    await asyncio.gather(*(talk(store, f"s{n}") for n in range(4)))

asyncio.run(main())
"""


def run_and_kill(path: Path, after: int) -> dict[str, int]:
    """Kill a writing process after so many acknowledgements; give how far each session was."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    said: list[str] = []
    with child:
        for line in child.stdout:
            said.append(line)
            if len(said) == after:
                child.kill()
    # A line that the kill cut off acknowledged nothing.
    words = [line.split() for line in said if line.endswith("\n")]
    return {name: int(known) for name, known in words}


async def judge(path: Path, known: dict[str, int]) -> None:
    store = SQLiteSessions(path)
    for name, count in known.items():
        entries = await store.read(name)
        info = await store.info(name)
        assert info is not None
        assert len(entries) >= count, f"{count - len(entries)} entries of {name} are lost"
        assert 0 == len(entries) % 2, "half of an append is there"
        assert (len(entries), len(entries) // 2) == (info.entries, info.turns)
        assert info.cost_usd * 100 == len(entries) // 2 == info.input_tokens
        for place, entry in enumerate(entries):
            assert isinstance(entry, Said)
            assert str(place) == entry.message.text.replace("x", "").split()[1]
    await store.aclose()


def test_ten_kills_lose_nothing(tmp_path: Path) -> None:
    """After SIGKILL under load every acknowledged entry is there, sums hold, no append is half."""
    path = tmp_path / "sessions.db"
    known: dict[str, int] = {}
    for after in (1, 2, 3, 5, 8, 13, 40, 41, 97, 150):
        known |= run_and_kill(path, after)
        asyncio.run(judge(path, known))
    assert sum(known.values()) >= 2 * 100
