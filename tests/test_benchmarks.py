"""The benchmark runs; how fast anything is, it says and no test asks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("scenario", ["first", "import"])
def test_the_benchmark_measures_both_clients(scenario: str, repository: Path) -> None:
    """One round gives a row with a figure for each contender, and every answer is right."""
    script = repository / "benchmarks" / "client.py"

    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--only", scenario],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert "| | aiohttp | loom | loom-steady | loom-blocking |" == head
    assert rows[0].startswith("| ms")
    assert "(1)" in rows[0]


def test_the_benchmark_measures_the_simulator(repository: Path) -> None:
    """One short round gives a row for each figure, and every answer is one."""
    script = repository / "benchmarks" / "simulator.py"

    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--seconds", "0.2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    for figure in ("start-up", "answers a second", "chunks a second", "memory"):
        assert f"| {figure}" in done.stdout


def test_the_benchmark_measures_every_layer(repository: Path) -> None:
    """One short round gives a row for each layer, with what it adds, and every answer is right."""
    script = repository / "benchmarks" / "layers.py"

    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--only", "call", "--scale", "0.02"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    head, _, first, *rows = done.stdout.splitlines()
    assert "| | us CPU a call, 100 in flight | adds |" == head
    assert first.startswith("| `WiredProvider` alone |")
    for layer in ("Breaking", "Retrying", "Fitting", "FallingBack", "Costing", "Tracing"):
        assert any(row.startswith(f"| and `{layer}`") for row in rows), layer


def test_the_benchmark_shows_what_faults_do(repository: Path) -> None:
    """Each fault gives a row with what the caller got, and the storm its requests a call."""
    script = repository / "benchmarks" / "faults.py"

    done = subprocess.run(
        [sys.executable, str(script), "--only", "FB12", "end", "html", "storm", "--scale", "0.01"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert "| | the provider does | loom |" == done.stdout.splitlines()[0]
    assert "| ContextTooLong, " in done.stdout
    assert "| StreamTruncated, " in done.stdout
    assert "| MalformedReply, " in done.stdout
    assert "| 3 of 3; " in done.stdout
    assert "| loom, `breaker=Breaker()` | 50 | " in done.stdout


def test_the_benchmark_leaves_calls_and_nothing_is_held(repository: Path, tmp_path: Path) -> None:
    """Five hundred calls left at random moments: no socket, task, permit, probe or token."""
    script, out = repository / "benchmarks" / "cancellations.py", tmp_path / "out.json"

    done = subprocess.run(
        [sys.executable, str(script), "--count", "500", "--seed", "1", "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["left"] >= 500
    assert set() == {name for name, number in found["held"].items() if number}
    assert {"cancel", "cancel twice", "timeout", "break", "raise", "drop"} == set(found["ways"])


def test_the_benchmark_compares_ways_to_keep_a_limit(repository: Path) -> None:
    """Two virtual minutes of one load: a row for each way, and ours was never refused."""
    script = repository / "benchmarks" / "limiter.py"

    done = subprocess.run(
        [sys.executable, str(script), "--only", "steady", "--seeds", "1", "--minutes", "2"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert "10000 calls that wait: " in done.stdout
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| loom |")]
    assert [True, True] == ["(0.0%)" in rows[0][-1], "0" == rows[1][2]], done.stdout
    for who in ("cookbook", "minute counters", "plain bucket"):
        assert 2 == done.stdout.count(f"| {who} |")


def test_the_benchmark_measures_a_turn_of_the_agent(repository: Path, tmp_path: Path) -> None:
    """A few turns of each kind: a row each, legal to the model, and every answer is right."""
    script, out = repository / "benchmarks" / "agent.py", tmp_path / "agent.json"
    only = ["turn", "three", "ten", "sessions", "streamed"]
    few = ["--rounds", "1", "--turns", "2", "--out", str(out)]

    done = subprocess.run(
        [sys.executable, str(script), *few, "--only", *only],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert "| | aiohttp-by-hand | loom-by-hand | loom | loom-blocking |" == head
    assert 5 == sum(row.startswith("| ms CPU a turn") for row in rows)
    assert set(only) == set(json.loads(out.read_text())["values"])


def test_the_model_of_the_benchmark_refuses_what_is_not_legal(repository: Path) -> None:
    """A loop that measures well because it leaves something out is found out."""
    call = {"name": "get_weather", "arguments": '{"location": "Oslo"}'}
    result = {"role": "tool", "tool_call_id": "000000007", "content": '{"location": "Oslo"}'}
    system, user, calling = (
        {"role": "system", "content": "You tell the weather. Look it up, and be brief."},
        {"role": "user", "content": "What is the weather like?"},
        {"role": "assistant", "tool_calls": [{"id": "000000007", "function": call}]},
    )
    histories = {
        "None": [system, user, calling, result],
        "the system's message is not first": [user, calling, result],
        "calls without results: 000000007": [system, user, calling, user],
        "nobody waits for an answer": [system, user, calling],
        "no result for Oslo, 000000007: '{\"location\": \"Ulm\"}'": [
            system, user, calling, {**result, "content": '{"location": "Ulm"}'},
        ],
        "no result for None, 000000008: '{\"location\": \"Oslo\"}'": [
            system, user, calling, {**result, "tool_call_id": "000000008"},
        ],
    }  # fmt: skip
    asked = [
        {"model": "m", "messages": messages, "tools": [{"function": {"name": "get_weather"}}]}
        for messages in histories.values()
    ]
    probe = (
        "import sys, msgspec, agent_upstream as model\n"
        "for asked in msgspec.json.decode(sys.stdin.read(), type=list[model.Asked]):\n"
        "    print(model.problem_of(asked))"
    )

    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=repository / "benchmarks",
        input=json.dumps(asked), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert [*histories] == done.stdout.splitlines(), done.stderr


def test_the_benchmark_measures_keys(repository: Path) -> None:
    """One short round gives a row for each kind of caller, and how soon a key is refused."""
    script = repository / "benchmarks" / "keys.py"

    done = subprocess.run(
        [sys.executable, str(script), "--count", "20", "--keys", "3", "--revoked", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    for kind in ("a right key", "no key", "malformed", "unknown", "expired", "revoked"):
        assert f"| {kind} |" in done.stdout
    assert "revoked keys are refused after" in done.stdout


def test_the_benchmark_measures_the_gateway(repository: Path, tmp_path: Path) -> None:
    """A short round asks both ways: every answer is right, and the ledger has a row for each."""
    script, out = repository / "benchmarks" / "gateway.py", tmp_path / "gateway.json"

    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--seconds", "0.2", "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert "| | direct | loom | loom-openai |" == head
    for figure in ("s until it listens", "requests a second", "us CPU a chunk", "MB after"):
        assert any(row.startswith(f"| {figure}") for row in rows), figure
    assert {"loom", "loom-openai"} == set(json.loads(out.read_text())["values"]["cpu"])


def test_the_benchmark_watches_the_memory_of_the_gateway(repository: Path, tmp_path: Path) -> None:
    """A thousand calls, a tenth of them streams: a row of the ledger for each."""
    script, out = repository / "benchmarks" / "gateway.py", tmp_path / "gateway.json"

    done = subprocess.run(
        [sys.executable, str(script), "--requests", "1000", "--out", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert "| calls | MB |" in done.stdout
    assert "| 1,000 | " in done.stdout
    assert 1000 == json.loads((tmp_path / "gateway-long.json").read_text())["samples"][-1][0]


def test_the_benchmark_lets_streams_rest_in_the_gateway(repository: Path, tmp_path: Path) -> None:
    """Twenty streams begin, rest and end whole, with a row each; more than can be are refused."""
    script, out = repository / "benchmarks" / "gateway.py", tmp_path / "gateway.json"
    command = [sys.executable, str(script), "--seconds", "0.2", "--out", str(out), "--idle"]

    done = subprocess.run([*command, "20"], capture_output=True, text=True, check=False)
    refused = subprocess.run([*command, "1000000"], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert "| | before | 20 streams rest | after |" == done.stdout.splitlines()[0]
    for figure in ("MB", "ms CPU in a second of rest", "ms p50", "KB a stream"):
        assert f"| {figure}" in done.stdout
    assert 20 == json.loads((tmp_path / "gateway-idle.json").read_text())["streams"]
    assert "are the most" in refused.stderr


def test_the_benchmark_lets_one_tenant_flood(repository: Path, tmp_path: Path) -> None:
    """Each flood gives a row, with and without the vendor's limits: no call was lost or wrong."""
    script, out = repository / "benchmarks" / "gateway.py", tmp_path / "gateway.json"
    few = ["--tenants", "--rounds", "1", "--seconds", "0.2", "--out", str(out)]

    done = subprocess.run(
        [sys.executable, str(script), *few], capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    for case in ("alone", "beside a flood", "the same, its key has `--rpm 600`"):
        assert f"| {case} | " in done.stdout
        assert f"| {case}, `--rate-limit` | " in done.stdout
    assert 2 == len(json.loads((tmp_path / "gateway-tenants.json").read_text()))
