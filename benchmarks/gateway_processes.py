"""Starts gateways as users do, each on a core of its own, and looks at what they use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
from client import HERE
from gateway_contenders import Start
from gateway_load import Target, request_body
from upstream import TEXT

__all__ = [
    "CORES",
    "Running",
    "free_port",
    "load",
    "load_command",
    "on_core",
    "rss_mb",
    "started",
]

CORES = sorted(os.sched_getaffinity(0))
START_LIMIT_S = 60
LOOK_EVERY_S = 0.002
MB = 1024 * 1024


class Running(msgspec.Struct, kw_only=True):
    """A gateway that answers; or the vendor itself, which has no process that counts."""

    name: str
    port: int
    headers: dict[str, str] = {}
    pids: list[int] = []
    listens_s: float = 0
    answers_s: float = 0

    def target(self, seconds: float, requests: int = 0) -> Target:
        """Say what a load must know."""
        return {
            "port": self.port, "headers": self.headers, "pids": self.pids,
            "seconds": seconds, "requests": requests,
        }  # fmt: skip


def on_core(core: int, *command: str) -> list[str]:
    """Give a command that stays on one core."""
    return ["taskset", "--cpu-list", str(core), *command]


def environment() -> dict[str, str]:
    """Give a user's environment: its Python keeps what it compiled, whatever ours is told."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def free_port() -> int:
    """Find a port that nobody has."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rss_mb(pids: list[int]) -> float:
    """Give what processes hold in memory; what two share counts twice."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / MB


def load_command(scenario: str, target: Target, script: str = "gateway_load.py") -> list[str]:
    """Give the command that puts a load on a gateway, from the core that it has not."""
    command = on_core(CORES[-1], sys.executable, str(HERE / script), scenario)
    return [*command, json.dumps(target)]


def load(scenario: str, target: Target, script: str = "gateway_load.py") -> dict[str, Any]:
    """Put a load on a gateway."""
    command = load_command(scenario, target, script)
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def started(name: str, start: Start, log: Path) -> Iterator[Running]:
    """
    Start a gateway, wait for its first answer, and stop it in the end.

    Args:
        name: Whose gateway it is.
        start: How it is started.
        log: Where it writes what it has to say.

    Yields:
        The gateway, and how long it took.
    """
    began_s = time.perf_counter()
    with log.open("w") as said:
        process = subprocess.Popen(
            on_core(CORES[0], *start.command),
            env={**environment(), **start.environment},
            stdout=subprocess.PIPE if start.port is None else said,
            stderr=said,
            text=True,
        )
        try:
            port = start.port or _told(process.stdout)
            running = Running(name=name, port=port, headers=start.headers)
            _wait(lambda: _is_open(port), process, log)
            running.listens_s = time.perf_counter() - began_s
            _wait(lambda: _answers(running), process, log)
            running.answers_s = time.perf_counter() - began_s
            running.pids = _family(process.pid)
            yield running
        finally:
            process.terminate()
            process.communicate()


def _told(pipe: IO[str] | None) -> int:
    line = pipe.readline() if pipe else ""
    if not line:
        raise SystemExit("our gateway ended before it was ready")
    return int(json.loads(line)["base_url"].rpartition(":")[2].partition("/")[0])


def _wait(done: Callable[[], bool], process: subprocess.Popen[str], log: Path) -> None:
    end_s = time.perf_counter() + START_LIMIT_S
    while not done():
        if process.poll() is not None or time.perf_counter() > end_s:
            raise SystemExit(f"it does not start: {log.read_text()[-2000:]}")
        time.sleep(LOOK_EVERY_S)


def _is_open(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def _answers(running: Running) -> bool:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{running.port}/v1/chat/completions",
        data=request_body("plain"),
        headers={"content-type": "application/json", **running.headers},
    )
    try:
        with urllib.request.urlopen(asked) as reply:  # noqa: S310  the same
            return TEXT.encode() in reply.read()
    except urllib.error.URLError:
        return False


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]
