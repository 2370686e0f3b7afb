"""Two ways to run a command: in this process, and as a program of its own."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from loom.cli.root import run
from loom.providers.scripted import ScriptedProvider, ScriptItem
from loom.server.simulator import Simulator


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in an empty folder, and give the library's log back as it was."""
    monkeypatch.chdir(tmp_path)
    log = logging.getLogger("loom")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before


@pytest.fixture
def looms(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; `stdin` is what is piped into it."""

    def call(*words: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = run(words)
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `looms` as a program; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str, **options: object) -> subprocess.Popen[bytes]:
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(  # type: ignore[call-overload] # a test's own options
            [sys.executable, "-m", "loom.cli", *words],
            **{"stdin": subprocess.DEVNULL, **streams, **options},
        )
        started.append(process)
        return process  # type: ignore[no-any-return] # of an overloaded call

    yield begin
    for process in started:
        with process:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedProvider]]:
    """Serve a script, or composed answers at a pace, and point commands at it."""
    running: list[Simulator] = []

    def begin(
        *script: ScriptItem, words_per_second: float | None = None, key: str | None = None
    ) -> ScriptedProvider:
        provider = ScriptedProvider(script or None, words_per_second=words_per_second)
        simulator = Simulator(provider=provider).start()
        running.append(simulator)
        monkeypatch.setenv("LOOM_BASE_URL", simulator.base_url)
        monkeypatch.setenv("MISTRAL_API_KEY", key or simulator.api_key)
        return provider

    yield begin
    for simulator in running:
        simulator.stop()


@pytest.fixture
def environment() -> dict[str, str]:
    """Give the environment that a program of a test inherits."""
    return dict(os.environ)
