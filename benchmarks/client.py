"""
Measure the client beside bare aiohttp, in one interleaved run over loopback.

    uv run --group bench python benchmarks/client.py            ours beside aiohttp
    uv run --group bench python benchmarks/client.py --peers    and the mistralai and openai SDKs
    uv run --group bench python benchmarks/client.py --profile call

Every measurement is a fresh process; the upstream is one of its own and counts the requests.
A machine is noisy: only the ratios of one run say something. It prints and writes
`benchmarks/results/client.json`; it never fails for being slow.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from contenders import ASYNC, BLOCKING
from measure import SCENARIOS

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".cache" / "peers"
RESULTS = HERE / "results" / "client.json"
FLOOR = "aiohttp"
OURS = (FLOOR, "loom", "loom-steady", "loom-blocking")
# What a peer needs for what is measured, and does not bring: without it litellm retries nothing.
BESIDE = {"litellm": ["tenacity"]}
# A blocking client with a thread for each of 1,000 calls measures threads, not the client.
SENSELESS = {("at_once", name) for name in BLOCKING}

IMPORTS = {
    "bare": "pass",
    "loom": "from loom import Mistral",
    FLOOR: "import aiohttp",
    "mistralai": "from mistralai.client import Mistral",
    "openai": "import openai",
}
IMPORT_PROBE = """
{statement}
import json, time
cpu_ms = time.process_time() * 1e3
# Not `ru_maxrss`: a process inherits that of the one that started it.
peak = open("/proc/self/status").read().partition("VmHWM:")[2]
print(json.dumps([cpu_ms, int(peak.split()[0]) / 1024]))
"""

VERSION_PROBE = (
    "import importlib.metadata as m, json, sys; print(json.dumps(m.version(sys.argv[1])))"
)

# scenario -> contender -> one value a round
Values = dict[str, dict[str, list[float]]]


@contextmanager
def upstream(script: str = "upstream.py") -> Iterator[str]:
    """Run the upstream in its own process, and give its address."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.communicate()  # closes its standard input: it ends


def requests_seen(url: str) -> int:
    """Ask the upstream how many requests it has answered."""
    with urllib.request.urlopen(f"{url}/count") as reply:  # noqa: S310  our own upstream
        counts: dict[str, int] = json.load(reply)
    return sum(counts.values())


def python_of(name: str) -> str:
    """Give the interpreter that has a contender installed."""
    return str(PEERS / name / "bin" / "python") if name not in OURS else sys.executable


def install_peers(peers: list[str]) -> None:
    """Install each peer into an environment of its own."""
    for name in peers:
        for command in (
            ["venv", "--quiet", "--allow-existing", str(PEERS / name)],
            ["pip", "install", "--quiet", "--python", python_of(name), name, *BESIDE.get(name, [])],
        ):
            subprocess.run(["uv", *command], check=True)  # noqa: S607  uv is where the PATH says


def run(*arguments: str, python: str = sys.executable) -> Any:
    """Run one measurement and read its JSON."""
    # A user's Python keeps what it compiled; a machine for tests may be told not to.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [python, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments[1:3])} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def measure(url: str, scenario: str, name: str) -> float:
    """Measure once, and check that no request was lost or repeated."""
    before = requests_seen(url)
    result = run(str(HERE / "measure.py"), scenario, name, url, python=python_of(name))
    seen = requests_seen(url) - before
    if seen != result["requests"]:
        raise SystemExit(f"{name} sent {seen} requests for {result['requests']} calls ({scenario})")
    return float(result["value"])


def measure_imports(values: Values, names: list[str]) -> None:
    """Measure what the imports cost: CPU over a bare interpreter, and peak memory."""
    for name in ("bare", *names):
        if name not in IMPORTS:
            continue
        probe = IMPORT_PROBE.format(statement=IMPORTS[name])
        cpu_ms, rss_mb = run(
            "-c", probe, python=python_of(name) if name != "bare" else sys.executable
        )
        values.setdefault("import_cpu", {}).setdefault(name, []).append(cpu_ms)
        values.setdefault("import_rss", {}).setdefault(name, []).append(rss_mb)


def figures(value: float) -> str:
    """Write a number with three figures."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(values: Values, names: list[str]) -> str:
    """Lay out medians, and their ratios to the floor in brackets."""
    units = {name: unit for name, (_, unit) in SCENARIOS.items()}
    units |= {"import_cpu": "ms CPU of the import, over a bare Python", "import_rss": "MB after it"}
    rows = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for scenario, unit in units.items():
        if scenario not in values:
            continue
        found = {name: median(rounds) for name, rounds in values[scenario].items()}
        if scenario == "import_cpu":
            bare = found.pop("bare")
            found = {name: value - bare for name, value in found.items()}
        cells = [
            f"{figures(found[name])} ({figures(found[name] / found[FLOOR])})"
            if name in found
            else "-"
            for name in names
        ]
        rows.append(f"| {unit} | {' | '.join(cells)} |")
    return "\n".join(rows)


def profile(scenario: str) -> None:
    """Print where our client's time goes."""
    with upstream() as url:
        command = ["-m", "cProfile", "-s", "tottime", str(HERE / "measure.py")]
        done = subprocess.run(
            [sys.executable, *command, scenario, "loom", url],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    print("\n".join(done.stdout.splitlines()[:50]))


def main() -> None:
    """Measure in rounds, print the table, write the figures."""
    parser = argparse.ArgumentParser(description="Measure the client beside bare aiohttp.")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    parser.add_argument("--only", nargs="+", choices=[*SCENARIOS, "import"], help="scenarios")
    parser.add_argument("--peers", action="store_true", help="other clients, in the same run")
    parser.add_argument("--profile", choices=SCENARIOS, help="profile our client instead")
    chosen = parser.parse_args()
    if chosen.profile:
        profile(chosen.profile)
        return
    scenarios = chosen.only or [*SCENARIOS, "import"]
    peers = [name for name in ASYNC if name not in OURS] if chosen.peers else []
    install_peers(peers)
    names = [*OURS, *peers]
    values: Values = {}
    measure_imports({}, names)  # compiles what is not compiled yet
    with upstream() as url:
        for number in range(chosen.rounds):
            for scenario in scenarios:
                print(f"\rround {number + 1}: {scenario:10}", end="", file=sys.stderr, flush=True)
                if scenario == "import":
                    measure_imports(values, names)
                    continue
                for name in names:
                    if (scenario, name) not in SENSELESS:
                        found = values.setdefault(scenario, {}).setdefault(name, [])
                        found.append(measure(url, scenario, name))
    print("\r", end="", file=sys.stderr)
    about = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "aiohttp": version("aiohttp"),
        **{name: run("-c", VERSION_PROBE, name, python=python_of(name)) for name in peers},
        "rounds": chosen.rounds,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"about": about, "values": values}, indent=1), encoding="utf-8")
    print(table(values, names))
    print("\nMedians; in brackets the ratio to aiohttp alone.", json.dumps(about))


if __name__ == "__main__":
    main()
