"""`looms serve` as a program: its lines, its signals, its ledger after every end."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from loom.ledger.entry import Entry
from loom.ledger.open import open_ledger
from loom.server.gateway.limits import DoorLimits
from loom.server.simulator import Simulator
from loom.testing import FakeClock, turn

if TYPE_CHECKING:
    from tests.cli.conftest import Run, Start

PATIENCE_S = 30
CHAT = "/v1/chat/completions"
MODEL = "mistral-small-latest"


class Gateway:
    """A running gateway."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, err = process.communicate(timeout=PATIENCE_S)
            raise AssertionError(err.decode())
        told = json.loads(line)
        self.admin_key: str = told["admin_key"]
        self.port = int(told["base_url"].rsplit(":", 1)[1].removesuffix("/v1"))

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> Answer:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        connection = self.connect()
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def chat(self, key: str | None = None, text: str = "Hello", **fields: Any) -> Answer:
        messages = [{"role": "user", "content": text}]
        return self.ask("POST", CHAT, {"model": MODEL, "messages": messages, **fields}, key)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Stream:
    """A streamed chat on its way; its first piece has come."""

    def __init__(self, gateway: Gateway, text: str = "Tell me a story about a loom") -> None:
        self.connection = gateway.connect()
        messages = [{"role": "user", "content": text}]
        body = {"model": MODEL, "messages": messages, "stream": True}
        self.connection.request("POST", CHAT, json.dumps(body))
        self.response = self.connection.getresponse()
        self.first = self.response.read1(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.connection.close()

    def rest(self) -> bytes:
        return self.first + self.response.read()


Begin = Callable[..., Gateway]


@pytest.fixture
def gateway(start: Start) -> Begin:
    """Start a gateway; `--sim` unless something else answers."""

    def begin(*words: str, sim: bool = True) -> Gateway:
        own = ["--sim"] if sim else []
        return Gateway(start("serve", "--json", "--port", "0", *own, *words))

    return begin


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float | None], Simulator]]:
    """Start a Mistral of this test, at a pace, and point the gateway at it."""
    running: list[Simulator] = []

    def begin(words_per_second: float | None = None) -> Simulator:
        simulator = Simulator(words_per_second=words_per_second).start()
        running.append(simulator)
        monkeypatch.setenv("LOOM_BASE_URL", simulator.base_url)
        monkeypatch.setenv("MISTRAL_API_KEY", simulator.api_key)
        return simulator

    yield begin
    for simulator in running:
        simulator.stop()


def rows(path: Path) -> list[Entry]:
    async def read() -> tuple[Entry, ...]:
        ledger = open_ledger(path)
        try:
            return await ledger.entries()
        finally:
            await ledger.aclose()

    return list(asyncio.run(read()))


def test_one_line_when_it_is_ready(gateway: Begin) -> None:
    """`--json` prints one object and nothing else; callers on this machine need no key."""
    running = gateway()
    answer = running.chat()
    assert (200, "application/json") == (answer.status, answer.headers["content-type"])
    code, out, _ = running.end()
    assert (0, "") == (code, out)
    assert running.admin_key.startswith("loom_sk_")


def test_it_prints_where_everything_is(start: Start) -> None:
    """Every address, the state of the keys and how to make one, on standard error."""
    process = start("serve", "--sim", "--port", "0")
    assert process.stderr is not None
    lines: list[bytes] = []
    while not lines or b"Ctrl-C" not in lines[-1]:
        lines.append(process.stderr.readline())
    told = b"".join(lines).decode()
    for part in ("/v1\n", "/mistral/v1\n", "/openapi.json", "/metrics", "/health/ready", "memory:"):
        assert part in told
    assert "none: callers on this machine need no key" in told
    assert "looms keys create" in told
    # Off a terminal the gateway's own key would stand in somebody's log.
    assert "loom_sk_" not in told
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (0, b"") == (process.returncode, out)


def test_on_a_terminal_it_shows_its_own_key(start: Start) -> None:
    """Somebody who sits there may see it; what is not a terminal gets none."""
    ours, theirs = pty.openpty()
    process = start("serve", "--sim", "--port", "0", stderr=theirs)
    os.close(theirs)
    told = b""
    while b"Ctrl-C" not in told:
        told += os.read(ours, 4096)
    assert b"Admin key loom_sk_" in told
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_S)
    os.close(ours)


def test_an_address_of_the_other_family_has_brackets(start: Start) -> None:
    """A URL with an IPv6 address can be used as it stands."""
    process = start("serve", "--sim", "--port", "0", "--json", "--host", "::1")
    assert process.stdout is not None
    assert re.fullmatch(rb'\{"base_url":"http://\[::1\]:\d+/v1",.*\}\n', process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert 0 == process.returncode


def test_keys_are_needed_once_there_is_one(gateway: Begin, looms: Run) -> None:
    """A key lets in, none does not, and the gateway's own key always does."""
    made = looms("keys", "create", "--name", "team-a", "--json")
    key = json.loads(made.out)["key"]
    running = gateway()
    assert [401, 200, 200] == [
        running.chat(key=each).status for each in (None, key, running.admin_key)
    ]


def test_the_first_key_shuts_the_door(gateway: Begin, looms: Run) -> None:
    """A running gateway hears of it within a second."""
    running = gateway()
    assert 200 == running.chat().status
    looms("keys", "create", "--name", "team-a")
    while running.chat().status != 401:
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - that is what is refused
def test_others_are_not_served_without_a_key(looms: Run, host: str) -> None:
    """S11: without a key the gateway stays on this machine."""
    done = looms("serve", "--sim", "--port", "0", "--host", host)
    assert (2, "") == (done.code, done.out)
    assert "there is no key" in done.err
    assert "looms keys create" in done.err


def test_with_a_key_others_are_served(gateway: Begin, looms: Run) -> None:
    """S11: who has made a key may listen elsewhere."""
    looms("keys", "create", "--name", "team-a")
    running = gateway("--host", "0.0.0.0")  # noqa: S104 - a key is needed
    assert 401 == running.chat().status
    assert 0 == running.end()[0]


def test_what_cannot_be_is_refused(looms: Run, tmp_path: Path) -> None:
    """Wrong settings end with 2, a missing key of the vendor with 3."""
    assert 2 == looms("serve", "--sim", "--workers", "2").code
    assert 2 == looms("serve", "--sim", "--rescue").code
    assert 2 == looms("serve", "--sim", "--config", str(tmp_path / "none.toml")).code
    assert 2 == looms("serve", "--sim", "--port", "0", "--ledger", "postgres://a/b").code
    assert 3 == looms("serve", "--port", "0").code


def test_guessing_keys_is_slow(gateway: Begin, looms: Run) -> None:
    """S2: after twenty wrong keys an address has to wait; a right key passes all the same."""
    key = json.loads(looms("keys", "create", "--name", "team-a", "--json").out)["key"]
    running = gateway()
    told = [running.chat(key=f"loom_sk_{number}") for number in range(40)]
    assert {401, 429} == {each.status for each in told}
    assert [401] * 20 == [each.status for each in told[:20]]
    waits = [each for each in told if each.status == 429]
    assert all(int(each.headers["retry-after"]) >= 1 for each in waits)
    assert 1 == len({each.body for each in told if each.status == 401})
    assert 200 == running.chat(key=key).status
    assert 200 == running.chat(key=running.admin_key).status


def test_a_body_has_the_size_that_was_chosen(gateway: Begin) -> None:
    """`--max-body` is the last size that passes; the usual one is that of the door."""
    running = gateway("--max-body", "200")
    assert [200, 413] == [running.chat(text="x" * size).status for size in (10, 200)]
    from loom.cli import serve

    limits = DoorLimits()
    assert limits.body_bytes == serve._BODY_BYTES
    assert limits.connections_per_address == serve._CONNECTIONS


def test_metrics_count_what_was_asked(gateway: Begin) -> None:
    """A scraper on this machine reads them: requests, tokens, cost, door, ledger, limiter."""
    running = gateway("--rate-limit", "60/100000", "--fallback", "openai:gpt-4.1")
    running.chat()
    running.ask("POST", CHAT + "%0d%0a", {})
    told = running.ask("GET", "/metrics").body.decode()
    for name in (
        'requests_total{dialect="openai",model="mistral-small-latest"',
        "tokens_total{",
        "cost_usd_total{",
        'refused_at_door_total{reason="limit"} 1.0',
        "in_flight",
        "waiting 0.0",
        "ledger_queue 0.0",
        'ready{part="ledger"} 1.0',
        'breaker_open{origin="http://127.0.0.1:',
        "limiter_queue 0.0",
        "limiter_held 0.0",
    ):
        assert f"loom_gateway_{name}" in told


def test_sigterm_lets_streams_end(gateway: Begin, vendor: Any, tmp_path: Path) -> None:
    """G21: the stream is whole, nobody new comes in, the ledger is written, exit 0."""
    vendor(words_per_second=60)
    ledger = tmp_path / "calls.db"
    running = gateway("--ledger", str(ledger), sim=False)
    kept = running.connect()
    kept.request("GET", "/health/ready")
    with kept.getresponse() as first:
        assert 200 == first.status
        first.read()
    with Stream(running) as stream:
        running.process.send_signal(signal.SIGTERM)
        until_refused(running)
        kept.request("GET", "/health/ready")
        ready = kept.getresponse()
        told = json.loads(ready.read())
        assert (503, "draining") == (ready.status, told["gateway"])
        assert stream.rest().endswith(b"data: [DONE]\n\n")
    kept.close()
    code, out, _ = running.wait()
    assert (0, "") == (code, out)
    assert ["settled"] == [row.state for row in rows(ledger)]


def until_refused(running: Gateway) -> None:
    """Wait until nobody listens any more."""
    while True:
        connection = running.connect()
        try:
            connection.connect()
        except ConnectionError:
            return
        finally:
            connection.close()


def test_a_stream_that_outlasts_the_drain_is_told(
    gateway: Begin, vendor: Any, tmp_path: Path
) -> None:
    """G21: an error event, no `[DONE]`, a row for what came, exit 0."""
    vendor(words_per_second=5)
    ledger = tmp_path / "calls.db"
    running = gateway("--ledger", str(ledger), "--drain", "0", sim=False)
    with Stream(running) as stream:
        running.process.send_signal(signal.SIGTERM)
        data = stream.rest()
    code, out, _ = running.wait()
    assert b'data: {"error":{"message":"the gateway was stopped"' in data
    assert b"[DONE]" not in data
    assert (0, "") == (code, out)
    (row,) = rows(ledger)
    assert row.state != "open"
    assert row.cost_usd is not None


def test_a_second_sigterm_is_now(gateway: Begin, vendor: Any, tmp_path: Path) -> None:
    """G21: nobody is waited for, and every call has its row."""
    vendor(words_per_second=5)
    ledger = tmp_path / "calls.db"
    running = gateway("--ledger", str(ledger), "--drain", "900", sim=False)
    with Stream(running):
        running.process.send_signal(signal.SIGTERM)
        until_refused(running)
        code, _, _ = running.end()
    assert 130 == code
    (row,) = rows(ledger)
    assert row.state != "open"


def test_kill_9_leaves_an_uncertain_row(gateway: Begin, vendor: Any, tmp_path: Path) -> None:
    """G20: after the next start the call that was on its way counts with its worst case."""
    vendor(words_per_second=5)
    ledger = tmp_path / "calls.db"
    running = gateway("--ledger", str(ledger), sim=False)
    with Stream(running):
        assert -signal.SIGKILL == running.end(signal.SIGKILL)[0]
    again = gateway("--ledger", str(ledger), sim=False)
    assert 0 == again.end()[0]
    (row,) = rows(ledger)
    assert "uncertain" == row.state
    assert row.reserved_usd is not None


def test_two_gateways_on_one_ledger(gateway: Begin, looms: Run, tmp_path: Path) -> None:
    """G23: the second one does not start, and names the first."""
    ledger = str(tmp_path / "calls.db")
    running = gateway("--ledger", ledger)
    done = looms("serve", "--sim", "--port", "0", "--ledger", ledger)
    assert (75, "") == (done.code, done.out)
    assert "is written by" in done.err
    assert str(running.process.pid) in done.err
    assert 200 == running.chat().status


def test_a_damaged_ledger_is_left_as_it_is(looms: Run, tmp_path: Path) -> None:
    """G19: it does not start, points to the check, and makes nothing anew."""
    ledger = tmp_path / "calls.db"
    ledger.write_bytes(b"SQLite format 3\x00" + bytes(range(256)) * 40)
    before = ledger.read_bytes()
    done = looms("serve", "--sim", "--port", "0", "--ledger", str(ledger))
    assert "" == done.out
    assert 0 != done.code
    assert "looms cost check" in done.err
    assert before == ledger.read_bytes()


def test_a_bad_configuration_changes_nothing(
    gateway: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G22: after SIGHUP the old settings hold, and it says why; good ones take over."""
    settings = tmp_path / "settings.toml"
    with Simulator() as first, Simulator() as second:
        monkeypatch.setenv("MISTRAL_API_KEY", first.api_key)
        settings.write_text(f'base_url = "{first.base_url}"')
        running = gateway("--config", str(settings), "-v", sim=False)
        assert running.process.stderr is not None
        assert 200 == running.chat().status

        settings.write_text("base_url = 1")
        running.process.send_signal(signal.SIGHUP)
        line = _until(running, b"the old one holds")
        assert b"settings.toml" in line
        assert 200 == running.chat().status

        settings.write_text(f'base_url = "{second.base_url}"')
        running.process.send_signal(signal.SIGHUP)
        _until(running, b"the configuration was reloaded")
        assert 200 == running.chat().status
        assert [2, 1] == [len(each.journal.entries()) for each in (first, second)]


@pytest.mark.anyio
async def test_what_was_replaced_is_closed_after_its_last_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G22: requests end as they began, and then their vendor's sockets go."""
    from loom.cli.serving import Serving

    monkeypatch.setenv("MISTRAL_API_KEY", "a-key")
    serving = Serving(
        ledger="memory:", keys=tmp_path / "keys.db", host="127.0.0.1", client={},
        body_bytes=1000, connections=10,
    )  # fmt: skip
    serving._clock = FakeClock(auto=True)  # type: ignore[assignment]  # a clock
    old = serving._app()
    (_, client), old.running = serving._served[0], 1
    new = await serving._reloaded()
    await turn(20)
    assert [old, new] == [gateway for gateway, _ in serving._served]
    assert "closed" not in repr(client)

    old.running = 0
    await turn(20)
    assert [new] == [gateway for gateway, _ in serving._served]
    assert "closed" in repr(client)
    await serving._close_clients()


def test_a_call_ends_when_the_settings_say(
    gateway: Begin, vendor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's deadline holds for every call that comes in; its row is there."""
    vendor(words_per_second=0.1)
    monkeypatch.setenv("LOOM_DEADLINE_S", "0.3")
    ledger = tmp_path / "ledger.db"
    running = gateway("--ledger", str(ledger), sim=False)

    answer = running.chat()

    assert 504 == answer.status, answer.body
    assert b"deadline" in answer.body
    assert 0 == running.end()[0]
    assert 1 == len(rows(ledger))


def _until(running: Gateway, text: bytes) -> bytes:
    assert running.process.stderr is not None
    while line := running.process.stderr.readline():
        if text in line:
            return line
    raise AssertionError("it ended")


def test_no_header_of_a_caller_reaches_the_vendor(gateway: Begin, vendor: Any) -> None:
    """S5: the vendor gets our headers and our key, whatever the caller says."""
    simulator = vendor()
    running = gateway(sim=False)
    hostile = {
        "authorization": "Bearer loom_sk_somebody",
        "connection": "keep-alive, x-evil",
        "cookie": "a=b",
        "forwarded": "for=1.2.3.4",
        "openai-organization": "org-evil",
        "proxy-authorization": "Basic evil",
        "te": "trailers",
        "x-api-key": "evil",
        "x-evil": "1",
        "x-forwarded-host": "evil.example",
    }
    connection = running.connect()
    messages = [{"role": "user", "content": "Hello"}]
    body = json.dumps({"model": MODEL, "messages": messages})
    connection.request("POST", CHAT, body, hostile)
    assert 200 == connection.getresponse().status
    connection.close()
    (entry,) = simulator.journal
    assert not set(entry.headers) & (set(hostile) - {"authorization", "connection"})
    assert "evil" not in repr(entry.headers)
    assert "somebody" not in repr(entry)
