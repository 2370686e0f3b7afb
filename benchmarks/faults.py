"""
Do the same to every client, and see what its caller gets: faults, in real time.

    uv run python benchmarks/faults.py                   ours
    uv run python benchmarks/faults.py --peers           and mistralai, openai, litellm
    uv run python benchmarks/faults.py --only FB06 html

The server is the simulator (`looms sim`) in a process of its own; it makes each fault to the byte
and keeps a journal of what came. Every client is an asyncio one in a process, and but for ours an
environment, of its own, with a deadline of 3 seconds for a call, as near as its options come to
that. It prints and writes `benchmarks/results/faults.json`; it never fails for what it finds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from client import VERSION_PROBE, install_peers, python_of, run
from fault_clients import CLIENTS, OPTIONS, Task

__all__ = ["main"]

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "faults.json"
COMMAND = [sys.executable, "-m", "loom.cli", "sim", "--port", "0", "--json", "--script"]
HEALTHY = "FB03:fallback"
DEADLINE_S = 3.0
# Later than this after its deadline, a call is late and not merely slow.
LATE_S = 0.5
STORM_IN_FLIGHT = 50


class Row(msgspec.Struct, frozen=True):
    """
    A fault, and what a correct client without another route makes of it.

    Attributes:
        id: Its name here.
        what: What the provider does.
        right: What a caller may get: "answer", "error" or "either".
        script: The simulator's script; without one it is healthy but for `fault`.
        fault: As `docs/faults.md` writes it.
        stream: Whether a stream is asked for.
        most: Requests for a call, at most.
        calls: How many calls, all at once.
        deadline_s: Seconds for a call.
        least_s: Seconds that the provider asks to wait before another request.
    """

    id: str
    what: str
    right: str
    script: str = HEALTHY
    fault: str = ""
    stream: bool = False
    most: int = 5
    calls: int = 1
    deadline_s: float = DEADLINE_S
    least_s: float = 0.0


ROWS = (
    Row("FB01", "429 with Retry-After: 2, once", "answer", "FB01", most=2, least_s=2.0),
    Row("FB02", "429 without a hint, for ever", "error", "FB02"),
    Row("FB03", "500 once, then healthy", "answer", "FB03", most=2),
    Row("FB04", "503 for ever", "error", "FB04", most=3),
    Row("FB05", "TCP reset before headers, once", "answer", "FB05", most=2),
    Row("FB06", "no response at all", "error", "FB06", most=2, calls=5),
    Row("FB07", "first token after 20 s, deadline 30 s", "answer", "FB07", most=1, deadline_s=30.0),
    Row("FB08", "stream cut after 40 of 60 tokens", "error", "FB08", stream=True, most=1),
    Row("FB09", "stream stalls 30 s, connection open", "error", "FB09", stream=True, most=1),
    Row("FB10", "malformed chunk in mid-stream", "either", "FB10", stream=True, most=1),
    Row("FB11", "stream ends without [DONE], finish reason seen", "answer", "FB11", stream=True),
    Row("FB12", "400 context length exceeded", "error", "FB12", most=1),
    Row("FB13", "400 content filter", "error", "FB13", most=1),
    Row("503", "503 once, then healthy", "answer", fault="40-503;times=1", most=2),
    Row("again", "429 with Retry-After: 2, for ever", "error", fault="33-retry-after:2",
        least_s=2.0),
    Row("huge", "429 with Retry-After: 1000000000", "error", fault="33e-huge", most=1),
    Row("trickle", "64 bytes of the body each half second", "error",
        fault="toxic-slicer;size=64;seconds=0.5", calls=5, most=1),
    Row("stall", "stream stalls for ever after 20 tokens", "error",
        fault="14-stall:21", stream=True, calls=5, most=1),
    Row("comments", "after 20 tokens only comments, each half second", "error",
        fault="25-comments-only:21;seconds=0.5", stream=True, calls=5, most=1),
    Row("cut", "reset after 20 tokens", "error", fault="15-reset:21", stream=True, most=1),
    Row("end", "body ends as it should after 20 tokens", "error",
        fault="16-clean-end:21", stream=True, most=1),
    Row("open", "finish reason seen, no [DONE], connection stays open", "answer",
        fault="17-no-done-open", stream=True, most=1),
    Row("event", "an error stands in the stream after 20 tokens", "error",
        fault="32-error-event:21", stream=True, most=1),
    Row("html", "a page of HTML with status 200", "error", fault="30-html-200", most=3),
)  # fmt: skip

# Everything fails, every client as it comes and with what it offers: client, variant, calls. Where
# each call takes hundreds of milliseconds of CPU, there are fewer of them.
STORM = (
    ("loom", "", "as it comes", 2000),
    ("loom", "breaker", "`breaker=Breaker()`", 2000),
    ("mistralai", "", "as it comes: no retries", 2000),
    ("mistralai", "backoff", "retries as its README shows them", 200),
    ("openai", "", "as it comes", 2000),
    ("litellm", "", "as it comes", 2000),
    ("litellm", "retries", "`num_retries=2`", 200),
)


class Seen(msgspec.Struct, frozen=True):
    """
    What came of a row.

    Attributes:
        got: What the caller got, in a word or two, and how often.
        elapsed_s: Of the slowest call.
        late_ms: How long after its deadline that ended; negative before it.
        requests: What the simulator saw.
        amplification: Requests for each call.
        held: Requests that the client had not let go of when its call was over.
        sockets: Sockets that it kept, for other calls or by mistake.
        ok: Whether all of it is as a correct client does.
    """

    got: dict[str, int]
    elapsed_s: float
    late_ms: float
    requests: int
    amplification: float
    held: int
    sockets: int
    ok: bool


class Sim:
    """A running simulator, and its own paths."""

    def __init__(self, ready: dict[str, str]) -> None:
        self.base_url = ready["base_url"]
        self.api_key = ready["api_key"]

    def answer(self) -> str:
        """Give the text of a healthy answer, whatever the script; what it loads is loaded then."""
        body = {"model": "mistral-small-latest", "messages": [{"role": "user", "content": "Hi"}]}
        reply = self._ask("POST", "/v1/chat/completions", body)
        return str(reply["choices"][0]["message"]["content"])

    def reset(self) -> None:
        """Begin anew."""
        self._ask("POST", "/_sim/reset", {})

    def requests(self) -> int:
        """Count what came since."""
        return int(self._ask("GET", "/_sim/clock")["entries"])

    def held(self) -> int:
        """Count what is still being answered: the caller has not hung up."""
        entries = self._ask("GET", "/_sim/journal")["data"]
        return sum(entry["duration_s"] is None for entry in entries)

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  our own simulator
            self.base_url.removesuffix("/v1") + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "authorization": f"Bearer {self.api_key}",
                "content-type": "application/json",
                # A header goes before a script.
                "x-loom-fault": "toxic-latency;seconds=0",
            },
        )
        with urllib.request.urlopen(request) as reply:  # noqa: S310  the same
            found: dict[str, Any] = json.load(reply)
        return found


@contextmanager
def simulator(script: str) -> Iterator[Sim]:
    """Start `looms sim` with a script, and stop it."""
    process = subprocess.Popen([*COMMAND, script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None  # noqa: S101  PIPE was asked for
        yield Sim(json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        process.communicate()


class Process:
    """A client in a process of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115  it lives as long as this
        self._process = subprocess.Popen(
            [python_of(name), str(HERE / "fault_clients.py"), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints, text=True,
            # Else it asks another machine for its prices at import.
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        )  # fmt: skip

    def do(self, task: Task) -> dict[str, Any]:
        """Do a task, and tell what came of it."""
        assert self._process.stdin is not None  # noqa: S101  PIPE was asked for
        assert self._process.stdout is not None  # noqa: S101  the same
        print(json.dumps(task._asdict()), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            self._complaints.seek(0)
            raise SystemExit(f"{self.name} ended:\n{self._complaints.read()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        self._complaints.close()


def task_of(row: Row, sim: Sim) -> Task:
    """Say what a client is to do."""
    return Task(
        base_url=sim.base_url,
        api_key=sim.api_key,
        fault=row.fault,
        stream=row.stream,
        deadline_s=row.deadline_s,
        guard_s=4 * row.deadline_s + 8,
        calls=row.calls,
        in_flight=row.calls,
        variant="",
    )


def judge(row: Row, result: dict[str, Any], whole: str) -> tuple[str, bool]:
    """Say what a caller got, and whether that is right."""
    if result["kind"] == "hang":
        return "hangs", False
    if result["kind"] == "answer":
        if result["text"] == whole:
            return "answer", row.right != "error"
        return (
            "a part as the whole" if whole.startswith(result["text"]) else "another text"
        ), False
    name, root = result["name"], result["module"].partition(".")[0]
    right = row.right != "answer"
    if root in CLIENTS:
        return name, right
    # Who catches the errors of a client does not catch a KeyError from inside it.
    return f"{root}.{name}", right and root not in ("builtins", "json")


def observe(process: Process, row: Row, sim: Sim, whole: str) -> Seen:
    """Do a row with a client."""
    sim.reset()
    told = process.do(task_of(row, sim))
    requests, held = sim.requests(), sim.held()
    verdicts = [judge(row, result, whole) for result in told["results"]]
    elapsed_s = max(result["elapsed_s"] for result in told["results"])
    late_s = elapsed_s - row.deadline_s
    ok = (
        all(right for _, right in verdicts)
        and late_s <= LATE_S
        and requests <= row.most * row.calls
        and (requests == row.calls or elapsed_s >= row.least_s)
        and not held
    )
    return Seen(
        got=dict(Counter(got for got, _ in verdicts)),
        elapsed_s=round(elapsed_s, 4),
        late_ms=round(late_s * 1e3, 1),
        requests=requests,
        amplification=requests / row.calls,
        held=held,
        sockets=told["sockets"],
        ok=ok,
    )


def cell(row: Row, seen: Seen) -> str:
    """Write what came of a row in a client; bold what a correct client does not do."""
    got = ", ".join(seen.got)
    asked = f"{seen.amplification:g} request{'s' if seen.amplification != 1 else ''}"
    # Only who was stopped by its deadline has an error of it.
    near = seen.elapsed_s >= row.deadline_s - 0.2
    late = f" ({seen.late_ms:+,.0f} ms)" if near else ""
    held = f", {seen.held} not let go" if seen.held else ""
    text = f"{got}, {seen.elapsed_s:.2f} s{late}, {asked}{held}"
    return text if seen.ok else f"**{text}**"


def table(rows: Sequence[Row], found: dict[str, dict[str, Seen]]) -> str:
    """Lay out every row and client."""
    names = [*next(iter(found.values()))]
    lines = [f"| | the provider does | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [cell(row, found[row.id][name]) for name in names]
        lines.append(f"| {row.id} | {row.what} | {' | '.join(cells)} |")
    sums = []
    for name in names:
        every = [found[row.id][name] for row in rows]
        worst_ms = max((seen.late_ms for seen in every), default=0.0)
        right = sum(seen.ok for seen in every)
        late = f"{worst_ms:+,.0f} ms" if worst_ms > -200 else "never near"
        sums.append(f"{right} of {len(every)}; worst deadline error {late}")
    lines.append(f"| | **as a correct client does** | {' | '.join(sums)} |")
    return "\n".join(lines)


def storm(processes: dict[str, Process], sim: Sim, scale: float) -> list[dict[str, Any]]:
    """Fail every request of many calls, and count the requests."""
    found = []
    for name, variant, how, calls in STORM:
        if name not in processes:
            continue
        print(f"\rstorm: {name:30}", end="", file=sys.stderr, flush=True)
        calls = max(STORM_IN_FLIGHT, round(calls * scale))  # noqa: PLW2901  fewer in a test
        sim.reset()
        task = Task(
            sim.base_url, sim.api_key, "40-503", False, None, 600.0, calls, STORM_IN_FLIGHT, variant  # noqa: FBT003  a field of a tuple
        )  # fmt: skip
        told = processes[name].do(task)
        requests = sim.requests()
        errors = Counter(r.get("name", r["kind"]) for r in told["results"])
        found.append(
            {
                "client": name,
                "how": how,
                "calls": calls,
                "requests": requests,
                "amplification": round(requests / calls, 3),
                "elapsed_s": round(told["elapsed_s"], 1),
                "got": dict(errors),
            }
        )
    return found


def storm_table(found: list[dict[str, Any]]) -> str:
    """Lay out the storm."""
    head = "| every request fails (503) | calls | requests | a call | s | callers got |"
    lines = [head, "|---" * 6 + "|"]
    for one in found:
        got = ", ".join(f"{count} {name}" for name, count in one["got"].items())
        lines.append(
            f"| {one['client']}, {one['how']} | {one['calls']:,} | {one['requests']:,}"
            f" | {one['amplification']:.2f} | {one['elapsed_s']} | {got} |"
        )
    return "\n".join(lines)


def observe_all(processes: dict[str, Process], rows: Sequence[Row]) -> dict[str, dict[str, Seen]]:
    """Do every row with every client, one after the other."""
    found: dict[str, dict[str, Seen]] = {}
    with simulator(HEALTHY) as healthy:
        whole = healthy.answer()
        for process in processes.values():
            # What loads at the first call is loaded.
            for stream in (False, True):
                process.do(task_of(Row("", "", "answer", stream=stream, deadline_s=30.0), healthy))
        for row in rows:
            with ExitStack() as stack:
                scripted = row.script != HEALTHY
                sim = stack.enter_context(simulator(row.script)) if scripted else healthy
                sim.answer()
                for name, process in processes.items():
                    print(f"\r{row.id}: {name:30}", end="", file=sys.stderr, flush=True)
                    found.setdefault(row.id, {})[name] = observe(process, row, sim, whole)
    return found


def main() -> None:
    """Do every fault to every client, print the tables, write the figures."""
    parser = argparse.ArgumentParser(description="Do the same to every client.")
    choices = [*(row.id for row in ROWS), "storm"]
    parser.add_argument("--only", nargs="+", choices=choices, metavar="FAULT", help="faults")
    parser.add_argument("--peers", action="store_true", help="other clients, in the same run")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the storm's calls")
    chosen = parser.parse_args()
    names = [*CLIENTS] if chosen.peers else ["loom"]
    install_peers(names[1:])
    # FB07 alone takes 20 seconds.
    wanted = chosen.only or [row.id for row in ROWS if chosen.peers or row.id != "FB07"]
    rows = [row for row in ROWS if row.id in wanted]
    about: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **{name: run("-c", VERSION_PROBE, name, python=python_of(name)) for name in names[1:]},
    }
    processes = {name: Process(name) for name in names}
    storms: list[dict[str, Any]] = []
    try:
        found = observe_all(processes, rows) if rows else {}
        if not chosen.only or "storm" in chosen.only:
            with simulator(HEALTHY) as sim:
                storms = storm(processes, sim, chosen.scale)
    finally:
        for process in processes.values():
            process.close()
    print("\r", end="", file=sys.stderr)
    RESULTS.parent.mkdir(exist_ok=True)
    kept = {"about": about, "options": OPTIONS, "faults": found, "storm": storms}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))
    tables = [table(rows, found)] if rows else []
    print("\n\n".join([*tables, *([storm_table(storms)] if storms else [])]))
    print("\nBold is what a correct client does not do. Options:")
    print("\n".join(f"- {name}: {OPTIONS[name]}" for name in names))
    print(json.dumps(about))


if __name__ == "__main__":
    main()
