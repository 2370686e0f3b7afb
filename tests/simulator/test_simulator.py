"""Mistral's API on loopback: started, asked, stopped."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import uuid
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from tests.recorded import exchanges, needed

from loom.catalog.lookup import Catalog
from loom.core.ambient import SystemClock
from loom.core.errors import ConfigInvalid
from loom.core.events import StreamEvent, TextDelta
from loom.core.request import ChatRequest
from loom.providers.scripted import ScriptedProvider
from loom.server.simulator import SIMULATOR_KEY, Simulator
from loom.server.simulator.rows import model_rows
from loom.testing.clock import FakeClock

MODEL = "mistral-small-latest"
# One day in the life of the catalogue, so that a retirement fails no test.
DAY = date(2026, 8, 19)


def ask(
    simulator: Simulator, path: str = "/chat/completions", key: str = SIMULATOR_KEY, **body: Any
) -> tuple[int, dict[str, str], bytes]:
    address, _, root = simulator.base_url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        method = "POST" if body else "GET"
        headers = {"authorization": f"Bearer {key}"}
        connection.request(method, f"/{root}{path}", json.dumps(body) if body else None, headers)
        reply = connection.getresponse()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def prompt(text: str = "Say hello", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator(as_of=DAY) as running:
        yield running


def test_it_answers_a_prompt(simulator: Simulator) -> None:
    """A prompt gets a text, in the wire's form."""
    status, _, body = ask(simulator, **prompt())

    assert 200 == status
    assert "hello" == json.loads(body)["choices"][0]["message"]["content"]


def test_its_address_ends_in_v1(simulator: Simulator) -> None:
    """The address is loopback, with the port that the kernel chose."""
    assert simulator.base_url.startswith("http://127.0.0.1:")
    assert simulator.base_url.endswith("/v1")
    assert "loom-sim-key" == simulator.api_key


def test_equal_seeds_give_equal_bytes() -> None:
    """Text, ids, correlation ids and padding repeat; another seed gives others."""

    def replies(seed: int) -> list[Any]:
        clock = FakeClock(datetime(2026, 8, 19, tzinfo=UTC))
        with Simulator(seed=seed, clock=clock) as running:
            every = [ask(running, **prompt("Explain looms", stream=s)) for s in (False, True)]
        return [(h["mistral-correlation-id"], body) for _, h, body in every]

    assert replies(1) == replies(1)
    assert replies(1) != replies(2)


def test_an_unknown_or_retired_model_is_refused_as_recorded(simulator: Simulator) -> None:
    """400 with type invalid_model and code 1500, streamed or not."""
    for model in ("no-such-model", "open-mixtral-8x7b"):
        for stream in (False, True):
            status, _, body = ask(simulator, **{**prompt(stream=stream), "model": model})

            assert 400 == status
            assert {
                "object": "error",
                "message": f"Invalid model: {model}",
                "type": "invalid_model",
                "param": None,
                "code": "1500",
                "raw_status_code": 400,
            } == json.loads(body)


def test_as_of_gives_the_models_of_that_day() -> None:
    """In November 2024, mixtral answers and ministral 3 is not yet known."""
    with Simulator(as_of=date(2024, 11, 30)) as then:
        status, _, _ = ask(then, **{**prompt(), "model": "open-mixtral-8x7b"})
        _, _, listed = ask(then, "/models")

    ids = {row["id"] for row in json.loads(listed)["data"]}
    assert 200 == status
    assert "open-mixtral-8x7b" in ids
    assert "ministral-3b-2512" not in ids


def test_headers_are_the_recorded_ones(simulator: Simulator) -> None:
    """One correlation id in two headers; rate limits on plain answers only."""
    _, plain, body = ask(simulator, **prompt())
    _, streamed, _ = ask(simulator, **prompt(stream=True))

    assert plain["mistral-correlation-id"] == plain["x-kong-request-id"]
    assert 7 == uuid.UUID(plain["x-kong-request-id"]).version
    assert uuid.RFC_4122 == uuid.UUID(plain["x-kong-request-id"]).variant
    used = json.loads(body)["usage"]["total_tokens"]
    assert str(used) == plain["x-ratelimit-tokens-query-cost"]
    assert int(plain["x-ratelimit-remaining-tokens-minute"]) <= 100_000 - used
    limits = {name for name in plain if name.startswith("x-ratelimit")}
    assert 5 == len(limits)
    # Their body is not framed the same way; all else agrees.
    assert plain.keys() - limits - {"content-length"} == streamed.keys() - {"transfer-encoding"}


def test_headers_agree_with_the_recordings(simulator: Simulator) -> None:
    """What the newest recorded answers say of the edge, this one says too, in the same order."""
    needed()
    untrue = {"alt-svc", "date", "server", "content-type"}
    audio = "audio-seconds"
    for stream in (False, True):
        _, ours, _ = ask(simulator, **prompt(stream=stream))
        found = 0
        for exchange in exchanges():
            theirs = [name for name in exchange.headers if name not in untrue and audio not in name]
            if exchange.stream == stream and "x-max-retry-attempts-reached" in theirs:
                found += 1
                assert set(theirs) <= set(ours), str(exchange)
        assert found


def test_model_rows_have_the_recorded_keys(simulator: Simulator) -> None:
    """Each row of the list has the keys of the recorded rows, and each alias is a row."""
    needed()
    _, _, body = ask(simulator, "/models")
    rows = {row["id"]: row for row in json.loads(body)["data"]}
    recorded = [
        json.loads(exchange.body)
        for exchange in exchanges()
        if exchange.kind == "models" and b"capabilities" in exchange.body
    ]
    assert recorded
    for listing in recorded:
        for row in listing["data"]:
            assert row.keys() == next(iter(rows.values())).keys()
            if row["id"] in rows:
                ours = rows[row["id"]]
                assert row["capabilities"].keys() == ours["capabilities"].keys()
                assert row["max_context_length"] == ours["max_context_length"], row["id"]
    for row in rows.values():
        assert all(alias in rows for alias in row["aliases"])
        assert row["id"] not in row["aliases"]


def test_one_model_is_a_row_of_the_list(simulator: Simulator) -> None:
    """`/models/{id}` gives the row of that id or alias."""
    status, _, body = ask(simulator, f"/models/{MODEL}")

    assert 200 == status
    assert json.loads(body) | {"created": 0} == next(
        row for row in model_rows(Catalog.builtin().cards(DAY, "mistral"), 0) if row["id"] == MODEL
    )


def test_only_its_own_key_is_accepted(simulator: Simulator) -> None:
    """Another key is 401, unless every key is welcome; an empty one never is."""
    assert 401 == ask(simulator, key="another", **prompt())[0]
    with Simulator(any_key=True) as open_door:
        assert 200 == ask(open_door, key="another", **prompt())[0]
        assert 401 == ask(open_door, key=" ", **prompt())[0]


def test_it_can_be_started_again() -> None:
    """Start and stop may follow each other, stop may be called twice, start may not."""
    running = Simulator()
    for _ in range(3):
        running.start()
        assert 200 == ask(running, **prompt())[0]
        with pytest.raises(RuntimeError, match="runs already"):
            running.start()
        running.stop()
        running.stop()
        running.abandon()
    with pytest.raises(RuntimeError, match="not running"):
        _ = running.base_url


def test_entering_a_started_one_does_not_start_it_twice() -> None:
    """`with Simulator().start()` works as `with Simulator()` does."""
    with Simulator().start() as running:
        assert 200 == ask(running, **prompt())[0]


def test_a_port_in_use_is_one_clear_error(simulator: Simulator) -> None:
    """The error names the address and the reason, and the port stays with its owner."""
    port = int(simulator.base_url.rsplit(":", 1)[1].removesuffix("/v1"))

    with pytest.raises(ConfigInvalid, match=rf"cannot listen on 127.0.0.1:{port}: .*in use"):
        Simulator(port=port).start()
    beyond = 2**20
    with pytest.raises(ConfigInvalid, match=f"cannot listen on 127.0.0.1:{beyond}"):
        Simulator(port=beyond).start()

    assert 200 == ask(simulator, **prompt())[0]


@pytest.mark.parametrize("pace", [0, -3, float("nan")])
def test_a_pace_must_be_above_nothing(pace: float) -> None:
    """A pace that is none is refused before anything is started."""
    with pytest.raises(ValueError, match="words_per_second"):
        Simulator(words_per_second=pace)


class Halting(ScriptedProvider):
    """Says a word, and then nothing for an hour."""

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        del request
        yield TextDelta("word")
        await SystemClock().sleep(3600)


def test_stopping_drops_open_streams_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """A stream of an hour ends with the simulator, with no thread or complaint left."""
    before = set(threading.enumerate())
    with caplog.at_level(logging.INFO), Simulator(provider=Halting()) as running:
        connection = http.client.HTTPConnection(running.base_url.split("/")[2], timeout=20)
        headers = {"authorization": f"Bearer {SIMULATOR_KEY}"}
        body = json.dumps(prompt(stream=True))
        connection.request("POST", "/v1/chat/completions", body, headers)
        reply = connection.getresponse()
        assert b"data: " == reply.read(6)
        running.stop()
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            reply.read()
        connection.close()

    assert [] == [record for record in caplog.records if record.levelno > logging.INFO]
    assert before == set(threading.enumerate())


def test_a_failing_start_raises_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the server's thread comes out of `start`, and nothing stays behind."""

    def broken() -> Catalog:
        raise LookupError("no rows")

    monkeypatch.setattr(Catalog, "builtin", broken)
    running = Simulator()

    with pytest.raises(LookupError, match="no rows"):
        running.start()
    running.stop()
