"""`looms sim` as a program."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest

from loom import Mistral
from loom.cli.sim import _CHARGES, _SECONDS, _WINDOWS
from loom.server.simulator.options import ChargeAt, WindowKind
from loom.testing import simulator

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start the command; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-X", "dev", "-m", "loom.cli", "sim", *words]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield begin
    for process in started:
        with process:
            if process.poll() is None:
                process.kill()


def healthy(base_url: str) -> bool:
    connection = http.client.HTTPConnection(base_url.split("/")[2], timeout=20)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_one_line_when_ready_and_serves_until_stopped(
    start: Start, number: signal.Signals
) -> None:
    """The line has address and key; a signal ends it quietly with 0."""
    process = start("--port", "0", "--json")
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())

    assert {"base_url", "api_key"} == ready.keys()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", ready["base_url"])
    assert healthy(ready["base_url"])
    process.send_signal(number)
    assert ("", "") == process.communicate(timeout=20)
    assert 0 == process.returncode


def test_people_get_a_line_to_try(start: Start) -> None:
    """Without --json it prints address, key and a curl command."""
    process = start("--port", "0", "--pace", "1000", "--seed", "7", "--any-key")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    text = "".join(lines)
    assert re.search(r"^base_url  http://127\.0\.0\.1:\d+/v1$", text, re.MULTILINE)
    assert re.search(r"^api_key   loom-sim-key$", text, re.MULTILINE)
    assert "curl http" in text
    assert 0 == process.returncode


def test_a_port_in_use_is_one_clear_line(start: Start) -> None:
    """The line names the address; the exit code is that of wrong usage."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        process = start("--port", port)
        out, err = process.communicate(timeout=20)

    assert (2, "") == (process.returncode, out)
    assert 1 == len(err.strip().splitlines())
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert "Choose another port" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tier", "gold"), "no such tier: 'gold'"),
        (("--script", "no-such-script"), "no-such-script"),
        (("--replay", "no-such-folder"), "no-such-folder"),
        (("--record", "recordings", "--upstream", "http://api.example.test"), "base_url"),
        (("--record", ".", "--replay", "."), "choose one"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(
    start: Start, words: tuple[str, ...], said: str
) -> None:
    """A tier, script or folder that is none ends with 2 before anything listens."""
    process = start("--port", "0", *words)
    out, err = process.communicate(timeout=20)

    assert (2, "") == (process.returncode, out)
    assert 1 == len(err.strip().splitlines())
    assert said in err


def test_limits_and_latency_are_options(start: Start) -> None:
    """The second request of a plan of one is refused; the journal has both."""
    limits = ("--tier", "1/1000", "--window", "calendar", "--charge-at", "arrival")
    process = start("--port", "0", "--json", "--latency", "1ms", "--credits", "5", *limits)
    assert process.stdout is not None
    base_url = json.loads(process.stdout.readline())["base_url"]
    connection = http.client.HTTPConnection(base_url.split("/")[2], timeout=20)
    body = '{"model": "mistral-small-latest", "messages": [{"role": "user", "content": "Hi"}]}'
    headers = {"authorization": "Bearer loom-sim-key"}
    statuses = []
    for method, path in [("POST", "/v1/chat/completions")] * 2 + [("GET", "/_sim/journal")]:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        answer = reply.read()
        statuses.append(reply.status)
    connection.close()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)

    # A minute of the clock may end between the two.
    assert statuses in ([200, 429, 200], [200, 200, 200])
    assert statuses[:2] == [row["status"] for row in json.loads(answer)["data"]]


def test_the_words_of_the_options_are_the_simulators() -> None:
    """The command lists what the simulator takes."""
    assert get_args(WindowKind) == _WINDOWS
    assert get_args(ChargeAt) == _CHARGES


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("2", 2.0), ("0", 0.0)]
)
def test_a_time_is_written_as_people_do(text: str, seconds: float) -> None:
    """Milliseconds, seconds, or a bare number of seconds."""
    assert seconds == _SECONDS.convert(text, None, None)


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "70000"),
        ("--pace", "0"),
        ("--seed", "x"),
        ("--as-of", "soon"),
        ("--latency", "soon"),
        ("--credits", "-1"),
        ("--window", "weekly"),
        ("--charge-at", "never"),
    ],
)
def test_wrong_options_are_usage_errors(start: Start, words: tuple[str, str]) -> None:
    """An option out of its range ends with 2 and says which one."""
    process = start(*words)
    out, err = process.communicate(timeout=20)

    assert (2, "") == (process.returncode, out)
    assert words[0] in err


def test_it_records_the_api_of_the_settings(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --upstream the settings' base_url is asked; the key is the caller's own."""
    folder = tmp_path / "recordings"
    with simulator() as api:
        monkeypatch.setenv("LOOM_BASE_URL", api.base_url)
        process = start("--port", "0", "--json", "--record", str(folder))
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with Mistral(api.api_key, base_url=ready["base_url"]) as m:
            said = m.chat("Say hello").content
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)

    assert (0, None) == (process.returncode, ready["api_key"])
    assert said == "hello"
    (file,) = folder.iterdir()
    assert api.api_key not in file.read_text()
