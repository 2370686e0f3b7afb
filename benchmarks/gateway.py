"""
Measure the gateway beside others, in one interleaved run over loopback.

    uv run --group bench --extra server python benchmarks/gateway.py    ours
    ... benchmarks/gateway.py --peers               and nginx, LiteLLM, Portkey
    ... benchmarks/gateway.py --requests 1000000    does its memory grow?
    ... benchmarks/gateway.py --idle 9500           what do streams cost that rest?
    ... benchmarks/gateway.py --tenants             what does one feel of another's flood?
    ... benchmarks/gateway.py --profile rate        where its time goes

A gateway is started as a user starts it, and has the first core alone; the load and the vendor
share the last one. So a fast gateway's requests a second are as many as that core can ask and
answer, and its CPU a request says more. Every answer is checked, the vendor counts the calls, and
the ledger of ours has a row for each. What a gateway adds is its time less that of the same load
straight on the vendor, in the same round. A machine is noisy: only the ratios of one run say
something. It needs Linux. It prints and writes `benchmarks/results/gateway.json`; it never fails
for being slow.

Streams that rest have had a word, and then the vendor is silent until it is told to end them. Each
is a file of the load and of the vendor, and two of the gateway, and a machine allows a process so
many. A tenant that floods asks from 200 connections without rest, and another one 20 times a
second: what it waits is compared with what it waits alone, with and without `--rate-limit`, which
has calls queue in the gateway. What these find stands in `gateway-long.json`, `gateway-idle.json`
and `gateway-tenants.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import pstats
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from client import HERE, PEERS, figures, upstream
from gateway_contenders import GATEWAYS, Gateway, new_key, unsettled_or_lost
from gateway_idle import most_streams, rest
from gateway_load import STEADY_PER_S
from gateway_long import grow
from gateway_processes import CORES, Running, free_port, load, rss_mb, started
from gateway_tenants import FLOODS, RATE_LIMIT, Tenants
from gateway_upstream import CALLS
from msgspec import to_builtins
from msgspec.structs import asdict, replace

__all__ = ["main"]

RESULTS = HERE / "results" / "gateway.json"
OURS = ("loom", "loom-openai")
FLOOR = "nginx"
DIRECT = "direct"
# Each is one load; what it measures stands in UNITS.
SCENARIOS = ("rate", "one", "steady", "burst", "paced")
UNITS = {
    "listens": "s until it listens",
    "answers": "s until its first answer",
    "rate": "requests a second, 50 connections",
    "cpu": "ms CPU a request, 50 connections",
    "rate_p50": "ms p50, 50 connections",
    "rate_p99": "ms p99, 50 connections",
    "one_p50": "ms p50 added, one connection",
    "one_p99": "ms p99 added, one connection",
    "steady_p50": f"ms p50 added, {STEADY_PER_S} a second",
    "steady_p99": f"ms p99 added, {STEADY_PER_S} a second",
    "burst": "us CPU a chunk, all at once",
    "paced": "us CPU a chunk, every 20 ms, 50 streams",
    "rss_idle": "MB before the load",
    "rss": "MB after the load",
}
ADDED = ("one_p50", "one_p99", "steady_p50", "steady_p99")

# figure -> gateway -> one value a round
Values = dict[str, dict[str, list[float]]]


def calls_seen(vendor: str) -> int:
    """Ask the vendor how many calls it has answered."""
    with urllib.request.urlopen(f"{vendor}/count") as reply:  # noqa: S310  our own vendor
        counts: dict[str, int] = json.load(reply)
    return counts.get(CALLS, 0)


class Bench:
    """
    Runs one load after the other.

    Args:
        vendor: Where the vendor is.
        gateways: Who is measured.
        seconds: How long a load lasts that has no number of its own.
    """

    def __init__(self, vendor: str, gateways: dict[str, Gateway], seconds: float) -> None:
        self._vendor = vendor
        self._gateways = gateways
        self._seconds = seconds
        self._asked: dict[str, int] = {}
        self.values: Values = {}
        # gateway -> load -> why there is no figure
        self.problems: dict[str, dict[str, str]] = {}

    def round(self, scenarios: list[str]) -> None:
        """Start all, and let each load come to one after the other before the next load."""
        with ExitStack() as folders:
            kept = {
                name: Path(folders.enter_context(tempfile.TemporaryDirectory()))
                for name in self._gateways
            }
            # One call each until it answers.
            self._asked = dict.fromkeys(kept, 1)
            with ExitStack() as stack:
                self._measure_all(stack, kept, scenarios)
            for name in OURS:
                if name in kept and (problem := unsettled_or_lost(kept[name], self._asked[name])):
                    raise SystemExit(f"the ledger of {name}: {problem}")

    def _measure_all(self, stack: ExitStack, kept: dict[str, Path], scenarios: list[str]) -> None:
        running = [Running(name=DIRECT, port=int(self._vendor.rpartition(":")[2]))]
        for name, gateway in self._gateways.items():
            start = gateway.start(kept[name], self._vendor, free_port())
            found = stack.enter_context(started(name, start, kept[name] / "log"))
            running.append(found)
            self._keep("listens", name, found.listens_s)
            self._keep("answers", name, found.answers_s)
            self._keep("rss_idle", name, rss_mb(found.pids))
        for scenario in scenarios:
            for one in running:
                print(f"\r{scenario:8}{one.name:12}", end="", file=sys.stderr, flush=True)
                self.measure(one, scenario)
        for one in running[1:]:
            self._keep("rss", one.name, rss_mb(one.pids))

    def measure(self, running: Running, scenario: str) -> None:
        """Put a load on a gateway, and check that no call was lost or repeated."""
        name = running.name
        problem = self.problems.get(name, {}).get(scenario)
        if problem or (not running.pids and scenario in ("burst", "paced")):
            return
        if scenario == "steady" and self._is_too_slow(name):
            self.problems.setdefault(name, {})[scenario] = f"less than {STEADY_PER_S} a second"
            return
        before = calls_seen(self._vendor)
        found = load(scenario, running.target(self._seconds))
        seen = calls_seen(self._vendor) - before
        problem = found.get("problem")
        if problem is None and seen != found["sent"]:
            problem = f"{seen} calls came for {found['sent']}"
        if problem is None:
            self._asked[name] = self._asked.get(name, 0) + seen
            for figure, value in found["values"].items():
                if running.pids or figure != "cpu":
                    self._keep(figure, name, value)
        elif name in (*OURS, FLOOR, DIRECT):
            raise SystemExit(f"{name}, {scenario}: {problem}")
        else:
            self.problems.setdefault(name, {})[scenario] = problem

    def _is_too_slow(self, name: str) -> bool:
        rates = self.values.get("rate", {}).get(name, [])
        return any(rate < STEADY_PER_S * 1.2 for rate in rates[-1:])

    def _keep(self, figure: str, name: str, value: float) -> None:
        self.values.setdefault(figure, {}).setdefault(name, []).append(value)


def medians(values: Values) -> dict[str, dict[str, float]]:
    """Give the medians of the rounds; of what is added, of the rounds' differences."""
    found = {}
    for figure, by_name in values.items():
        direct = by_name.get(DIRECT, [])
        found[figure] = {
            name: median(
                [a - b for a, b in zip(each, direct, strict=False)]
                if figure in ADDED and name != DIRECT
                else each
            )
            for name, each in by_name.items()
        }
    return found


def table(values: Values, names: list[str]) -> str:
    """Lay out medians, and their ratios to nginx in brackets where it was measured."""
    rows = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    found = medians(values)
    for figure, unit in UNITS.items():
        if figure in found:
            floor = found[figure].get(FLOOR)
            cells = [cell(found[figure].get(name), floor) for name in names]
            rows.append(f"| {unit} | {' | '.join(cells)} |")
    return "\n".join(rows)


def cell(value: float | None, floor: float | None) -> str:
    """Write a figure with its ratio to the floor, as far as there are any."""
    if value is None:
        return "-"
    # A difference of nearly nothing says nothing as a floor.
    if floor is None or floor <= 0:
        return figures(value)
    return f"{figures(value)} ({figures(value / floor)})"


def run_long(vendor: str, requests: int, out: Path) -> None:
    """Ask ours very often, and tell what it holds."""
    with tempfile.TemporaryDirectory() as folder:
        start = GATEWAYS[OURS[0]](PEERS).start(Path(folder), vendor, free_port())
        with started(OURS[0], start, Path(folder) / "log") as running:
            growth = grow(running, requests, calls_seen=lambda: calls_seen(vendor))
        problem = unsettled_or_lost(Path(folder), requests + 1)
    if problem:
        raise SystemExit(f"the ledger: {problem}")
    slope = growth.slope_mb()
    written = {"slope_mb": slope, "rate": growth.rate, "samples": growth.samples}
    out.parent.mkdir(exist_ok=True)
    out.with_stem(f"{out.stem}-long").write_text(json.dumps(written), encoding="utf-8")
    said = "too short to say" if slope is None else f"{slope:+.2f} MB for 100,000 calls"
    print(f"\r{growth.table()}\n\n{said}; {growth.rate:,.0f} calls a second")


def see_kept(vendor: str, before: int, folder: Path, answered: int) -> None:
    """See that each call that was answered came to the vendor once, and that all have a row."""
    problem = unsettled_or_lost(folder, answered)
    seen = calls_seen(vendor) - before
    if problem or seen != answered:
        raise SystemExit(f"{seen} calls came for {answered}; the ledger: {problem or 'right'}")


def run_idle(vendor: str, streams: int, seconds: float, out: Path) -> None:
    """Let streams rest in ours, and tell what they cost it."""
    if streams > most_streams():
        raise SystemExit(
            f"{streams} streams need more files than this machine allows a process: "
            f"{most_streams()} are the most (ulimit -Hn)"
        )
    before = calls_seen(vendor)
    with tempfile.TemporaryDirectory() as folder:
        start = GATEWAYS[OURS[0]](PEERS).start(Path(folder), vendor, free_port())
        # All have one address, and so have the calls beside them.
        command = [*start.command, "--max-connections", str(streams + 100)]
        with started(OURS[0], replace(start, command=command), Path(folder) / "log") as running:
            port = int(vendor.rpartition(":")[2])
            found = rest(running, streams, vendor=port, seconds=seconds)
        see_kept(vendor, before, Path(folder), found.sent + 1)
    out.parent.mkdir(exist_ok=True)
    written = {**asdict(found), "kb_a_stream": found.kb_a_stream()}
    out.with_stem(f"{out.stem}-idle").write_text(json.dumps(written, indent=1), encoding="utf-8")
    print(found.table())


def run_tenants(vendor: str, rounds: int, seconds: float, out: Path) -> None:
    """Let one tenant of ours flood, and tell what another one feels of it."""
    tenants = Tenants(seconds)
    for _ in range(rounds):
        for limited, options in (("", []), (", `--rate-limit`", ["--rate-limit", RATE_LIMIT])):
            before = calls_seen(vendor)
            with tempfile.TemporaryDirectory() as folder:
                start = GATEWAYS[OURS[0]](PEERS).start(Path(folder), vendor, free_port())
                keys = {
                    case: new_key(start.environment, f"flood-{number}", *terms)
                    for number, (case, terms) in enumerate(FLOODS.items())
                }
                start = replace(start, command=[*start.command, *options])
                with started(OURS[0], start, Path(folder) / "log") as running:
                    answered = tenants.measure(running, limited, keys)
                see_kept(vendor, before, Path(folder), answered + 1)
    out.parent.mkdir(exist_ok=True)
    written = json.dumps(to_builtins(tenants.found), indent=1)
    out.with_stem(f"{out.stem}-tenants").write_text(written, encoding="utf-8")
    print(tenants.table())


def run_profile(vendor: str, scenario: str, name: str, seconds: float) -> None:
    """Print where the time of ours goes, in the thread that serves."""
    with tempfile.TemporaryDirectory() as folder:
        profile = f"{folder}/profile"
        start = GATEWAYS[name](PEERS).start(Path(folder), vendor, free_port())
        python, *words = start.command
        command = [python, "-m", "cProfile", "-o", profile, *words]
        with started(name, replace(start, command=command), Path(folder) / "log") as running:
            print(load(scenario, running.target(seconds)))
        pstats.Stats(profile).sort_stats("tottime").print_stats(60)


def main() -> None:
    """Measure in rounds, print the table, write the figures."""
    parser = argparse.ArgumentParser(description="Measure the gateway.")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long one load lasts")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=SCENARIOS, help="loads")
    parser.add_argument("--who", nargs="+", choices=GATEWAYS, help="gateways; all that are there")
    parser.add_argument(
        "--peers", nargs="?", type=Path, const=PEERS, metavar="FOLDER",
        help="other gateways, in the same run; FOLDER has what is installed",
    )  # fmt: skip
    parser.add_argument(
        "--requests", type=int, metavar="N", help="ask ours so often instead, and see it grow"
    )
    parser.add_argument(
        "--idle", type=int, metavar="N", help="let so many streams rest in ours instead"
    )
    parser.add_argument(
        "--tenants", action="store_true", help="let one tenant of ours flood beside another"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--profile", choices=SCENARIOS, help="profile ours instead")
    chosen = parser.parse_args()
    # The vendor gets it from here.
    os.sched_setaffinity(0, {CORES[-1]})
    if chosen.requests or chosen.idle or chosen.tenants or chosen.profile:
        with upstream("gateway_upstream.py") as vendor:
            if chosen.requests:
                run_long(vendor, chosen.requests, chosen.out)
            elif chosen.idle:
                run_idle(vendor, chosen.idle, chosen.seconds, chosen.out)
            elif chosen.tenants:
                run_tenants(vendor, chosen.rounds, chosen.seconds, chosen.out)
            else:
                run_profile(vendor, chosen.profile, (chosen.who or OURS)[0], chosen.seconds)
        return
    wanted = chosen.who or (GATEWAYS if chosen.peers else OURS)
    gateways = {name: GATEWAYS[name](chosen.peers or PEERS) for name in wanted}
    about = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "cores": f"gateway {CORES[0]}, load and vendor {CORES[-1]}",
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
    }
    for name, gateway in gateways.items():
        if chosen.peers:
            gateway.install()
        about[name] = gateway.version() or "not there"
    there = {name: one for name, one in gateways.items() if about[name] != "not there"}
    with upstream("gateway_upstream.py") as vendor:
        bench = Bench(vendor, there, chosen.seconds)
        for _ in range(chosen.rounds):
            bench.round(chosen.only)
    print("\r", end="", file=sys.stderr)
    chosen.out.parent.mkdir(exist_ok=True)
    written = {"about": about, "values": bench.values, "problems": bench.problems}
    chosen.out.write_text(json.dumps(written, indent=1), encoding="utf-8")
    print(table(bench.values, [DIRECT, *there]))
    for name, problems in bench.problems.items():
        for scenario, problem in problems.items():
            print(f"\n{name}, {scenario}: {problem[:500]}")
    print("\nMedians; in brackets the ratio to nginx.", json.dumps(about))


if __name__ == "__main__":
    main()
