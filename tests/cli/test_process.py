"""The program itself: signals, pipes, terminals, start-up time."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from typing import IO, TYPE_CHECKING

import pytest

from loom.core.events import StreamEvent
from loom.core.request import ChatRequest
from loom.core.version import VERSION
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import Simulator

if TYPE_CHECKING:
    from tests.cli.conftest import Start

STORY = "Tell me a story about a loom"


def some(stream: IO[bytes] | None) -> bytes:
    """Wait for the first bytes of a stream."""
    assert stream is not None
    return os.read(stream.fileno(), 4096)


def finish(process: subprocess.Popen[bytes], first: bytes = b"") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, (first + out).decode(), err.decode()


def test_ctrl_c_keeps_the_text_and_says_the_cost(
    start: Start, serve: Callable[..., object]
) -> None:
    """The partial answer stays, the cost so far is an estimate that says so, and 130 leaves."""
    serve(words_per_second=10)
    process = start("chat", STORY)
    first = some(process.stdout)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process, first)
    assert 130 == code
    assert first.decode() in out
    assert out.endswith("\n")
    assert err.startswith("interrupted · mistral-large-latest · about ")
    assert "about $0.0" in err
    assert "Traceback" not in err


def test_ctrl_c_as_json(start: Start, serve: Callable[..., object]) -> None:
    """The events so far are whole lines; the error object holds the text."""
    serve(words_per_second=10)
    process = start("chat", "--json", "--stream", STORY)
    first = some(process.stdout)
    while b"text_delta" not in first:
        first += some(process.stdout)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process, first)
    events = [json.loads(line) for line in out.splitlines()]
    text = "".join(event["text"] for event in events if event["event"] == "text_delta")
    error = json.loads(err)["error"]
    assert (130, "ERR_INTERRUPTED") == (code, error["name"])
    # The signal may come when a piece is noted and not yet printed.
    assert error["partial"]["text"].startswith(text)
    assert error["partial"]["usage"]["estimated"]


class Silent(ScriptedProvider):
    """Says when it is asked, and never answers."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked = threading.Event()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.asked.set()
        await asyncio.Event().wait()
        yield  # type: ignore[misc] # makes it a generator; never reached


@pytest.mark.parametrize("words", [("chat", "--no-stream", "hi"), ("chat", "hi"), ("ping",)])
def test_ctrl_c_before_anything_came(
    words: tuple[str, ...], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for the first byte ends at once, without a traceback."""
    silent = Silent()
    with Simulator(provider=silent) as simulator:
        monkeypatch.setenv("LOOM_BASE_URL", simulator.base_url)
        monkeypatch.setenv("MISTRAL_API_KEY", simulator.api_key)
        process = start(*words)
        assert silent.asked.wait(30)
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
    assert (130, "") == (code, out)
    assert "Traceback" not in err


def test_a_reader_that_leaves_ends_it_silently(start: Start, serve: Callable[..., object]) -> None:
    """`looms chat ... | head -c 1`: no traceback, no message, 141."""
    serve(words_per_second=20)
    process = start("chat", STORY)
    assert process.stdout is not None
    some(process.stdout)
    process.stdout.close()
    process.wait(60)
    assert process.stderr is not None
    assert (141, b"") == (process.returncode, process.stderr.read())


def test_standard_error_may_be_closed(start: Start) -> None:
    """`2>&-` costs the cost line, not the answer."""
    process = start("chat", "--sim", "Say hello", stderr=None, preexec_fn=lambda: os.close(2))
    out, _ = process.communicate(timeout=60)
    assert (0, b"hello\n") == (process.returncode, out)


def test_standard_input_may_be_closed(start: Start) -> None:
    """`<&-` is no data."""
    process = start("chat", "--sim", "-q", "Say hello", stdin=None, preexec_fn=lambda: os.close(0))
    assert (0, "hello\n", "") == finish(process)


def on_terminal(start: Start, *words: str, streams: str, **changes: str) -> tuple[int, str, str]:
    """Run a command with some of its streams on a terminal of 80 columns."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **changes}
    ends = {name: slave for name in ("stdin", "stdout", "stderr") if name in streams.split()}
    process = start(*words, env=environment, **ends)
    os.close(slave)
    shown: list[bytes] = []

    def collect() -> None:
        # The terminal's end is an error on Linux, and an empty read elsewhere.
        try:
            while piece := os.read(master, 4096):
                shown.append(piece)
        except OSError:
            pass

    reader = threading.Thread(target=collect)
    reader.start()
    out, err = process.communicate(timeout=60)
    reader.join()
    os.close(master)
    screen = b"".join(shown).decode().replace("\r\n", "\n")
    return process.returncode, screen, ((out or b"") + (err or b"")).decode()


def test_bare_chat_on_a_terminal_shows_help(start: Start) -> None:
    """Nobody is left waiting in front of a silent prompt."""
    code, screen, out = on_terminal(start, "chat", streams="stdin stderr")
    assert (2, "") == (code, out)
    assert "Usage: looms chat" in screen


def test_costs_are_dim_on_a_terminal_and_the_answer_is_plain(start: Start) -> None:
    """Standard error is coloured where it is a terminal; standard output, a pipe, is bare."""
    code, screen, out = on_terminal(start, "chat", "--sim", "Say hello", streams="stderr")
    assert (0, "hello\n") == (code, out)
    assert "\x1b[2m" in screen
    assert "mistral-large-latest · " in screen


@pytest.mark.parametrize(
    ("option", "changes"),
    [([], {"NO_COLOR": "1"}), ([], {"TERM": "dumb"}), (["--no-color"], {})],
)
def test_colour_can_be_switched_off(
    option: list[str], changes: dict[str, str], start: Start
) -> None:
    """NO_COLOR, TERM=dumb and --no-color leave no colour in what is printed."""
    _, screen, _ = on_terminal(
        start, "chat", "-m", "mistral-larg-latest", "--sim", "hi", *option,
        streams="stderr", **changes,
    )  # fmt: skip
    assert "error[ERR_MODEL_NOT_FOUND]:" in screen
    assert "\x1b[31m" not in screen
    assert "\x1b[1;31m" not in screen


def test_colour_can_be_forced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR colours a pipe."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, _, err = finish(start("chat", "-m", "mistral-larg-latest", "--sim", "hi"))
    assert "\x1b[1;31m" in err


def test_the_demo_is_fast_and_whole(start: Start) -> None:
    """`looms demo --fast --json`: one object with calls, tools, costs and three commands."""
    code, out, err = finish(start("demo", "--fast", "--json"))
    value = json.loads(out)
    assert (0, "", 1) == (code, err, out.count("\n"))
    assert value["elapsed_s"] < 5
    assert value["tool"]["calls"][0]["input"] == {"city": "Paris"}
    assert "18" in value["tool"]["answered"]["content"]
    tools = value["tools"]
    assert 3 == len(tools["tool_executions"])
    # Three of 0.2 s each, in the time of one: less than that of two.
    assert (0.2, True) == (tools["each_s"], 0.2 <= tools["together_s"] < 0.4)
    costs = [value["chat"], value["tool"]["asked"], value["tool"]["answered"], tools]
    assert all(float(cost["usage"]["cost_usd"]) > 0 for cost in costs)
    assert 3 == len(value["next"])


def test_the_demo_names_commands_that_work_where_it_was_started(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below `uv run` there is no `looms` on the path: the next commands say so."""
    monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
    _, out, _ = finish(start("demo", "--fast", "--json"))
    assert all("uv run looms " in command for command in json.loads(out)["next"])


def test_the_demo_tells_its_story(start: Start) -> None:
    """Without --json: the five steps, the total, and what it would have cost in 2024."""
    code, out, err = finish(start("demo", "--fast"))
    assert (0, "") == (code, err)
    for words in (
        "1  Ask",
        "2  Give",
        'get_weather(city="Paris")',
        'your code returns {"temperature_c":18,"sky":"light rain"}',
        "3  Let it use three in the time of one",
        'get_weather(city="Oslo")',
        "three of 0.2 s each: done after 0.",
        "4  Stay up",
        "Rate limit hit, retrying in 0.1s (attempt 1/5)",
        "answered after 2 attempts",
        "answered by mistral-small-latest",
        "after 2 failures nothing is sent for 10.0 s: circuit_open",
        "5  Know",
        "Nov 2024",
        "total",
    ):
        assert words in out
    assert "looms models --as-of 2024-11" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_the_version_loads_nothing_heavy(start: Start) -> None:
    """`looms --version` says the version without the client, a server or the catalogue."""
    assert (0, f"looms {VERSION}\n", "") == finish(start("--version"))
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "loom.cli", "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    loaded = {line.rpartition("|")[2].strip() for line in listed.splitlines()}
    assert "loom.cli.main" in loaded
    heavy = {"aiohttp", "starlette", "uvicorn", "loom.client.aio", "loom.catalog.lookup"}
    assert set() == heavy & loaded
