"""What a simulator remembers of its callers, and the time that can be moved."""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anyio
import pytest

import loom.server.app
import loom.server.simulator.gate
from loom import AsyncMistral, Mistral
from loom.core.ambient import SystemClock
from loom.server.simulator import SIMULATOR_KEY, Simulator
from loom.server.simulator.clock import SimulatedClock
from loom.server.simulator.exchange import Asked, Exchange
from loom.server.simulator.journal import Journal
from loom.testing.clock import FakeClock

MODEL = "mistral-small-latest"
CANARY = "canary-key-4711"
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello"}]}


def send(
    simulator: Simulator, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(simulator.base_url.split("/")[2], timeout=20)
    try:
        connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def chat(simulator: Simulator, body: bytes, key: str = SIMULATOR_KEY, query: str = "") -> bytes:
    path = f"/v1/chat/completions{query}"
    return send(simulator, "POST", path, body, authorization=f"Bearer {key}")[1]


def test_it_holds_what_was_sent_and_answered_to_the_byte() -> None:
    """Bodies are exact, events are taken apart, tokens and cost are told."""
    plain = json.dumps(HELLO, indent=3).encode()
    stream = json.dumps({**HELLO, "stream": True}).encode()
    with Simulator() as simulator:
        answers = [chat(simulator, plain), chat(simulator, stream)]
        first, second = simulator.journal

    assert [plain, stream] == [first.body, second.body]
    assert answers == [first.answer, second.answer]
    assert (1, 2) == (first.number, second.number)
    assert ("POST", "/v1/chat/completions", 200, MODEL) == (
        first.method,
        first.path,
        first.status,
        first.model,
    )
    usage = json.loads(answers[0])["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
        first.prompt_tokens,
        first.completion_tokens,
    )
    assert first.cost_usd is not None
    assert first.cost_usd > 0
    assert first.events is None
    assert second.events is not None
    assert "[DONE]" == second.events[-1]
    assert "text/event-stream; charset=utf-8" == second.answer_headers["content-type"]


def test_it_holds_no_key() -> None:
    """Not in a header, a path or an object behind it: a fingerprint stands there instead."""
    with Simulator(any_key=True) as simulator:
        query = f"?api_key={CANARY}&token=other-secret"
        send(
            simulator,
            "POST",
            f"/v1/chat/completions{query}",
            json.dumps(HELLO).encode(),
            authorization=f"Bearer {CANARY}",
            x_api_key="other-secret",
            cookie="session=other-secret",
            x_note=f"my key is {CANARY}",
        )
        send(simulator, "POST", "/v1/chat/completions", b"{}", authorization=CANARY)
        _, listed = send(simulator, "GET", "/_sim/journal")
        entries = simulator.journal.entries()

    for secret in (CANARY, "other-secret"):
        assert secret not in repr(entries)
        assert secret.encode() not in listed
        assert secret not in repr(list(simulator.journal._kept))
    assert entries[0].headers["authorization"] == f"Bearer sha256:{entries[0].key}"
    assert 8 == len(entries[0].key)
    assert "" == entries[1].key


def test_refusals_and_other_paths_are_taken_down_too() -> None:
    """Whatever came stands there, with the status that it got."""
    with Simulator() as simulator:
        chat(simulator, b"not JSON")
        chat(simulator, json.dumps(HELLO).encode(), key="wrong")
        send(simulator, "GET", "/v1/models", authorization=f"Bearer {SIMULATOR_KEY}")
        send(simulator, "GET", "/nowhere")
        send(simulator, "GET", "/_sim/clock")
        seen = [(entry.path, entry.status) for entry in simulator.journal]

    assert [
        ("/v1/chat/completions", 422),
        ("/v1/chat/completions", 401),
        ("/v1/models", 200),
        ("/nowhere", 404),
    ] == seen


def test_it_is_read_and_cleared_over_http() -> None:
    """`since` leaves out what was read; DELETE forgets; other ways are refused by name."""
    with Simulator() as simulator:
        for _ in range(3):
            chat(simulator, json.dumps(HELLO).encode())
        _, listed = send(simulator, "GET", "/_sim/journal?since=1")
        rows = json.loads(listed)["data"]
        refused = [
            send(simulator, *asked)
            for asked in (
                ("GET", "/_sim/journal?since=x"),
                ("GET", "/_sim/reset"),
                ("GET", "/_sim/nothing"),
                ("POST", "/_sim/clock", b'{"advance_s": -1}'),
                ("POST", "/_sim/clock", b"{}"),
                ("POST", "/_sim/clock", b"soon"),
                ("POST", "/_sim/clock", b"x" * 5000),
            )
        ]
        send(simulator, "DELETE", "/_sim/journal")
        left = len(simulator.journal)
        chat(simulator, json.dumps(HELLO).encode())
        number = simulator.journal[-1].number

    assert [2, 3] == [row["number"] for row in rows]
    assert HELLO == json.loads(rows[0]["body"])
    assert "hello" == json.loads(rows[0]["answer"])["choices"][0]["message"]["content"]
    assert [400, 405, 404, 400, 400, 400, 413] == [status for status, _ in refused]
    assert all(set(json.loads(body)) == {"detail"} for _, body in refused)
    assert (0, 4) == (left, number)


def test_a_reset_begins_anew() -> None:
    """Journal, numbers and limits are as at the start."""
    with Simulator(tier="1/100000") as simulator:
        body = json.dumps(HELLO).encode()
        first, second = chat(simulator, body), chat(simulator, body)
        send(simulator, "POST", "/_sim/reset")
        third = chat(simulator, body)
        (entry,) = simulator.journal

    assert [True, False, True] == [b"choices" in answer for answer in (first, second, third)]
    assert 1 == entry.number


def test_it_forgets_the_oldest() -> None:
    """No more than `journal_size` are kept; 0 keeps none."""
    with Simulator(journal_size=2) as short, Simulator(journal_size=0) as none:
        for simulator in (short, none):
            for _ in range(3):
                chat(simulator, json.dumps(HELLO).encode())

        assert [2, 3] == [entry.number for entry in short.journal]
        assert () == none.journal.entries()


def test_large_bodies_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound in bytes the oldest are forgotten as well."""
    monkeypatch.setattr("loom.server.simulator.journal._MAX_BYTES", 5000)
    with Simulator() as simulator:
        for _ in range(5):
            chat(simulator, json.dumps(HELLO).encode() + b" " * 1500)

        assert 1 <= len(simulator.journal) < 4
        assert 5 == simulator.journal[-1].number


def test_what_was_forgotten_before_its_end_is_not_counted() -> None:
    """The bytes that it counts are those that it holds, whichever request ends first."""
    asked = [
        Asked(number=n, method="POST", path="/", query="", headers={}, body=b"12") for n in (1, 2)
    ]
    first, second = (Exchange(asked=a, body=a.body, began_s=0.0, at_s=0.0) for a in asked)
    journal = Journal(1)
    for exchange in (first, second):
        journal.begin(exchange)
        exchange.pieces.append(b"345")
    for exchange in (first, second):
        journal.end(exchange)

    assert (5, 1) == (journal._bytes, len(journal))
    journal.clear()
    assert (0, 0) == (journal._bytes, len(journal))


def test_the_clock_moves_answers_and_models() -> None:
    """Created times follow it, and a model is gone after its last day."""
    clock = FakeClock(datetime(2026, 8, 19, tzinfo=UTC))
    with (
        Simulator(clock=clock) as simulator,
        Mistral(SIMULATOR_KEY, base_url=simulator.base_url, model=MODEL) as mistral,
    ):
        before = mistral.chat("Say hello").created
        send(simulator, "POST", "/_sim/clock", b'{"advance_s": 3600}')
        after = mistral.chat("Say hello").created
        status, told = send(simulator, "GET", "/_sim/clock")

    assert before is not None
    assert after == before + 3600
    assert (200, "2026-08-19T01:00:00Z") == (status, json.loads(told)["now"])


@pytest.mark.anyio
async def test_a_pace_follows_the_clock() -> None:
    """A slow answer comes at once when its time was made to pass."""
    with Simulator(words_per_second=0.001) as simulator:
        async with (
            AsyncMistral(SIMULATOR_KEY, base_url=simulator.base_url, model=MODEL) as mistral,
            anyio.create_task_group() as group,
        ):
            group.start_soon(_push, simulator)
            response = await mistral.chat("Say hello")
            group.cancel_scope.cancel()

    assert "hello" == response.content


async def _push(simulator: Simulator) -> None:
    while True:
        simulator.clock.advance(2000)
        await SystemClock().sleep(0)


@pytest.mark.anyio
async def test_moving_the_clock_a_little_does_not_end_a_sleep() -> None:
    """Who sleeps is woken when the time has come, not before."""
    clock = SimulatedClock(FakeClock())
    woken = []

    async def sleep() -> None:
        await clock.sleep(10)
        woken.append(clock.monotonic_s())

    async with anyio.create_task_group() as group:
        group.start_soon(sleep)
        await anyio.wait_all_tasks_blocked()
        began_s = clock.monotonic_s()
        clock.advance(4)
        await anyio.wait_all_tasks_blocked()
        assert not woken
        clock.advance(6)

    assert [began_s + 10] == woken


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), 1e12])
def test_a_clock_only_goes_forward(seconds: float) -> None:
    """What is no time to come is refused."""
    with pytest.raises(ValueError, match="goes forward"):
        SimulatedClock(FakeClock()).advance(seconds)


Asgi = Callable[[Any, Any, Any], Awaitable[None]]


async def status_of(app: Asgi, path: str, body: bytes) -> tuple[int, bytes]:
    """Ask the application without a socket."""
    sent: list[Any] = []
    came = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if came:
            return came.pop()
        return await anyio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {SIMULATOR_KEY}".encode())]
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": headers,
    }
    await app({**scope, "root_path": ""}, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])


def anything(dice: random.Random, depth: int = 0) -> Any:
    """Some JSON value, often one that means something to the API."""
    kinds = 9 if depth < 3 else 6
    match dice.randrange(kinds):
        case 0:
            return dice.choice([None, True, False])
        case 1:
            return dice.choice([0, 1, -1, 2, 7, 10**6, 10**30, 0.5, -0.0, 1e300])
        case 2 | 3:
            words = [
                "user",
                "assistant",
                "tool",
                "system",
                "text",
                "function",
                MODEL,
                "",
                "é\ud7ff",
            ]
            return dice.choice([*words, "auto", "any", "json_object", "a" * 300, "abcdefghi"])
        case 4 | 5:
            return {"role": "user", "content": dice.choice(["Say hello", "list 3", "", "{}"])}
        case 6:
            return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
        case _:
            names = ["role", "content", "type", "function", "name", "parameters", "id", "arguments"]
            names += ["tool_calls", "tool_call_id", "text", "prefix", "json_schema", "schema", "x"]
            return {dice.choice(names): anything(dice, depth + 1) for _ in range(dice.randrange(5))}


FIELDS = [
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "stop",
    "random_seed",
    "metadata",
    "response_format",
    "tools",
    "n",
    "tool_choice",
    "parallel_tool_calls",
    "presence_penalty",
    "frequency_penalty",
    "prediction",
    "safe_prompt",
    "reasoning_effort",
    "prompt_mode",
    "guardrails",
    "prompt_cache_key",
    "service_tier",
    "logprobs",
    "seed",
    "suffix",
    "prompt",
    "input",
    "output_dimension",
    "min_tokens",
    "stream_options",
    "unknown_field",
]


def some_request(dice: random.Random) -> bytes:
    """A request that is right, nearly right, or nothing of the kind."""
    fields: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "list 3"}]}
    fields |= {"prompt": "def f(", "input": ["x"]} if dice.random() < 0.3 else {}
    for name in dice.sample(FIELDS, dice.choice([0, 0, 1, 2, 4])):
        fields[name] = dice.choice([anything(dice), 1, 0.5, True, "auto"])
    if dice.random() < 0.3:
        fields["messages"] = [anything(dice) for _ in range(dice.randrange(4))]
    if dice.random() < 0.1:
        fields["model"] = dice.choice([anything(dice), "codestral-latest", "mistral-embed"])
    body = json.dumps(fields).encode()
    if dice.random() < 0.05:
        return body[: dice.randrange(len(body))] + dice.randbytes(dice.randrange(3))
    return body


@pytest.mark.anyio
async def test_no_request_is_answered_with_500_or_not_at_all() -> None:
    """Seeded requests of every kind get an answer, or a refusal that says why."""
    dice = random.Random(7)
    paths = ["/v1/chat/completions"] * 8 + ["/v1/fim/completions", "/v1/embeddings"]
    simulator = Simulator(seed=7, journal_size=10, clock=FakeClock(), credits_usd=Decimal(10**9))
    app = simulator._app()
    statuses: dict[int, int] = {}
    for number in range(REQUESTS):
        path, body = dice.choice(paths), some_request(dice)
        with anyio.fail_after(10):
            status, answer = await status_of(app, path, body)
        statuses[status] = statuses.get(status, 0) + 1
        assert status < 500, (number, path, body)
        assert b"internal_server_error" not in answer, (number, path, body)

    assert {200, 400, 422} <= statuses.keys()
    assert statuses[200] > REQUESTS / 20


# 10,000 take six seconds; so many are enough to notice a change.
REQUESTS = 3000


@pytest.mark.parametrize(("key", "status"), [(SIMULATOR_KEY, 413), ("another", 401)])
def test_a_body_that_is_too_large_is_refused_after_the_key(
    monkeypatch: pytest.MonkeyPatch, key: str, status: int
) -> None:
    """413 in the dialect's form for who has a key; the bound is that of the application."""
    assert loom.server.app.BODY_BYTES == loom.server.simulator.gate._BODY_BYTES
    monkeypatch.setattr(loom.server.simulator.gate, "_BODY_BYTES", 100)
    with Simulator() as simulator:
        chat(simulator, b" " * 200, key=key)
        entry = simulator.journal[-1]

    assert status == entry.status


def test_a_body_nested_without_end_is_refused() -> None:
    """No body, however deep, is answered with 500."""
    deep = b'{"a":' * 5000 + b"1" + b"}" * 5000
    body = json.dumps(HELLO).encode()[:-1]
    with Simulator() as simulator:
        for each in (deep, body + b', "metadata": ' + deep + b"}"):
            chat(simulator, each)
            assert 400 <= (simulator.journal[-1].status or 0) < 500
