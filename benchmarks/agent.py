"""
Measure a turn of the agent beside other agents, in one interleaved run over loopback.

    uv run --group bench python benchmarks/agent.py            ours beside the loop by hand
    uv run --group bench python benchmarks/agent.py --peers    and pydantic-ai, langchain-mistralai
    uv run --group bench python benchmarks/agent.py --profile turn

In a turn the model asks for a tool, the tool runs, and the model answers: two calls and one tool.
Every measurement is a fresh process; the model is one of its own, refuses what is not legal, and
counts the calls. A machine is noisy: only the ratios of one run say something. It prints and
writes `benchmarks/results/agent.json`; it never fails for being slow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

from agent_contenders import ASYNC, BLOCKING
from agent_measure import SCENARIOS
from client import HERE, IMPORT_PROBE, PEERS, VERSION_PROBE, figures, requests_seen, run, upstream

__all__ = ["main"]

RESULTS = HERE / "results" / "agent.json"
FLOOR = "aiohttp-by-hand"
OURS = (FLOOR, "loom-by-hand", "loom", "loom-blocking")
# environment -> what is installed into it; the first is the one whose version is told
ENVIRONMENTS = {
    "pydantic-ai": ("pydantic-ai-slim", "pydantic-ai-slim[mistral,openai]"),
    "langchain-mistralai": ("langchain-mistralai", "langchain", "langgraph-checkpoint-sqlite"),
}
ENVIRONMENT_OF = {
    "pydantic-ai-openai": "pydantic-ai",
    "pydantic-ai-mistral": "pydantic-ai",
    "langchain-mistralai": "langchain-mistralai",
}
# Who keeps conversations in SQLite; a floor would have to be invented.
REMEMBER = {"loom", "loom-blocking", "langchain-mistralai"}
# Peers take so much longer that fewer turns say as much.
PEER_SHARE = 5

IMPORTS = {
    "bare": "pass",
    FLOOR: "import aiohttp",
    "loom": "from loom import Agent",
    "pydantic-ai-openai": "from pydantic_ai import Agent\n"
    "from pydantic_ai.models.openai import OpenAIChatModel",
    "pydantic-ai-mistral": "from pydantic_ai import Agent\n"
    "from pydantic_ai.models.mistral import MistralModel",
    "langchain-mistralai": "from langchain.agents import create_agent\n"
    "from langchain_mistralai import ChatMistralAI",
}
UNITS = {
    **{scenario: unit for scenario, (_, unit) in SCENARIOS.items()},
    "import_cpu": "ms CPU of the import, over a bare Python",
    "import_rss": "MB after it",
}

# scenario -> contender -> one value a round
Values = dict[str, dict[str, list[float]]]


class Bench:
    """
    Runs one measurement after the other.

    Args:
        url: Where the model is.
        peers: In which folder the environments of the others are.
        turns: How many turns a measurement of ours has.
    """

    def __init__(self, url: str, peers: Path, turns: int) -> None:
        self._url = url
        self._peers = peers
        self._turns = turns
        self.values: Values = {}

    def python_of(self, name: str) -> str:
        """Give the interpreter that has a contender installed."""
        return python_in(self._peers, ENVIRONMENT_OF[name]) if name not in OURS else sys.executable

    def measure(self, scenario: str, name: str) -> None:
        """Measure once, and check that no call was lost or repeated."""
        turns = self._turns // (1 if name in OURS else PEER_SHARE)
        turns = max(1, turns // 5 if scenario == "ten" else turns)
        before = requests_seen(self._url)
        script = str(HERE / "agent_measure.py")
        asked = (script, scenario, name, self._url, str(turns))
        result = run(*asked, python=self.python_of(name))
        seen = requests_seen(self._url) - before
        if seen != result["requests"]:
            raise SystemExit(f"{name} made {seen} calls for {result['requests']} ({scenario})")
        self._keep(scenario, name, float(result["value"]))

    def measure_import(self, name: str) -> None:
        """Measure what an import costs: CPU, and peak memory."""
        probe = IMPORT_PROBE.format(statement=IMPORTS[name])
        python = sys.executable if name == "bare" else self.python_of(name)
        cpu_ms, rss_mb = run("-c", probe, python=python)
        self._keep("import_cpu", name, cpu_ms)
        self._keep("import_rss", name, rss_mb)

    def _keep(self, scenario: str, name: str, value: float) -> None:
        self.values.setdefault(scenario, {}).setdefault(name, []).append(value)


def python_in(peers: Path, environment: str) -> str:
    """Give the interpreter of an environment."""
    return str(peers / environment / "bin" / "python")


def install_peers(peers: Path) -> None:
    """Install the peers, each kind into an environment of its own."""
    for name, packages in ENVIRONMENTS.items():
        for command in (
            ["venv", "--quiet", "--allow-existing", str(peers / name)],
            ["pip", "install", "--quiet", "--python", python_in(peers, name), *packages],
        ):
            subprocess.run(["uv", *command], check=True)  # noqa: S607  uv is where the PATH says


def is_sensible(scenario: str, name: str) -> bool:
    """Say whether a contender can do that, and whether it says something."""
    if scenario == "sessions":
        return name in REMEMBER
    # A blocking agent with a thread for each turn measures threads.
    return name not in BLOCKING or scenario not in ("at_once", "delay")


def in_rounds(bench: Bench, scenarios: list[str], names: list[str], rounds: int) -> None:
    """Measure everything of a round before the next round."""
    importers = [name for name in ("bare", *names) if name in IMPORTS]
    if "import" in scenarios:
        for name in importers:  # compiles what is not compiled yet
            bench.measure_import(name)
        bench.values.clear()
    for number in range(rounds):
        for scenario in scenarios:
            print(f"\rround {number + 1}: {scenario:10}", end="", file=sys.stderr, flush=True)
            if scenario == "import":
                for name in importers:
                    bench.measure_import(name)
                continue
            for name in names:
                if is_sensible(scenario, name):
                    bench.measure(scenario, name)
    print("\r", end="", file=sys.stderr)


def table(values: Values, names: list[str]) -> str:
    """Lay out medians, and their ratios to the floor in brackets."""
    rows = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for scenario, unit in UNITS.items():
        if scenario not in values:
            continue
        found = {name: median(rounds) for name, rounds in values[scenario].items()}
        bare = found.pop("bare", 0.0)
        if scenario == "import_cpu":
            found = {name: value - bare for name, value in found.items()}
        floor = found.get(FLOOR)
        cells = [cell(found.get(name), floor) for name in names]
        rows.append(f"| {unit} | {' | '.join(cells)} |")
    return "\n".join(rows)


def cell(value: float | None, floor: float | None) -> str:
    """Write a figure with its ratio to the floor, as far as there are any."""
    if value is None:
        return "-"
    return figures(value) if floor is None else f"{figures(value)} ({figures(value / floor)})"


def profile(scenario: str, turns: int) -> None:
    """Print where our agent's time goes."""
    with upstream("agent_upstream.py") as url:
        command = ["-m", "cProfile", "-s", "tottime", str(HERE / "agent_measure.py")]
        print(
            subprocess.run(
                [sys.executable, *command, scenario, "loom", url, str(turns)],
                capture_output=True, text=True, check=True,
            ).stdout[:8000]
        )  # fmt: skip


def main() -> None:
    """Measure in rounds, print the table, write the figures."""
    parser = argparse.ArgumentParser(description="Measure a turn of the agent.")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    parser.add_argument("--turns", type=int, default=1000, help="turns of one of ours")
    parser.add_argument("--only", nargs="+", choices=[*SCENARIOS, "import"], help="scenarios")
    parser.add_argument(
        "--peers", nargs="?", type=Path, const=PEERS, metavar="FOLDER",
        help="other agents, in the same run; FOLDER has their environments",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--profile", choices=SCENARIOS, help="profile our agent instead")
    chosen = parser.parse_args()
    if chosen.profile:
        profile(chosen.profile, chosen.turns)
        return
    names = [*OURS, *(name for name in ASYNC if name not in OURS and chosen.peers)]
    about = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "aiohttp": version("aiohttp"),
        "rounds": chosen.rounds,
    }
    if chosen.peers:
        install_peers(chosen.peers)
        for name, packages in ENVIRONMENTS.items():
            python = python_in(chosen.peers, name)
            about[name] = run("-c", VERSION_PROBE, packages[0], python=python)
    with upstream("agent_upstream.py") as url:
        bench = Bench(url, chosen.peers or PEERS, chosen.turns)
        in_rounds(bench, chosen.only or [*SCENARIOS, "import"], names, chosen.rounds)
    chosen.out.parent.mkdir(exist_ok=True)
    written = json.dumps({"about": about, "values": bench.values}, indent=1)
    chosen.out.write_text(written, encoding="utf-8")
    print(table(bench.values, names))
    print("\nMedians; in brackets the ratio to the loop by hand.", json.dumps(about))


if __name__ == "__main__":
    main()
