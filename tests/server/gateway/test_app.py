"""The gateway on real sockets: two dialects, keys, costs, errors, callers that hang up."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.server.gateway.kit import MODEL, QUESTION, Answer, Keys, Served, chat, request

from loom import Message, ToolCall
from loom.core.errors import (
    CapacityExceeded,
    ContentBlocked,
    InsufficientCredits,
    InvalidAPIKey,
    LoomError,
    RateLimited,
    ServiceUnavailable,
)
from loom.ledger.budgets import Budget
from loom.providers.scripted import ScriptedProvider
from loom.server.gateway import relay
from loom.server.gateway.counter import KeyLimiters
from loom.server.gateway.keys import VirtualKey
from loom.server.gateway.metrics import Metrics
from loom.server.simulator import Simulator

OPENAI = {"x_loom_dialect": "openai"}
MISTRAL = {"x_loom_dialect": "mistral"}
DIALECTS = pytest.mark.parametrize("speaks", [OPENAI, MISTRAL], ids=["openai", "mistral"])


def key(name: str = "team", **terms: Any) -> VirtualKey:
    made = datetime(2026, 11, 1, tzinfo=UTC)
    return VirtualKey(id=f"key_{name}", name=name, hash=name.encode() * 8, created_at=made, **terms)


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """Give a gateway that nobody needs a key for."""
    with Served() as served:
        yield served


# --- answers -----------------------------------------------------------------------------------


@DIALECTS
def test_a_plain_answer(plain: Served, speaks: dict[str, str]) -> None:
    """Each dialect gets its own shape, with id, model, attempts and cost in the headers."""
    answer = plain.ask(chat(), **speaks)
    assert 200 == answer.status
    assert answer.json["choices"][0]["message"]["content"]
    assert MODEL == answer.headers["x-loom-model"]
    assert "mistral" == answer.headers["x-loom-provider"]
    assert Decimal(answer.headers["x-loom-cost-usd"]) > 0
    assert "1" == answer.headers["x-loom-attempts"]
    assert ("system_fingerprint" in answer.json) is (speaks is OPENAI)


@DIALECTS
def test_a_stream(plain: Served, speaks: dict[str, str]) -> None:
    """Events, the cost as a comment, and the sentinel last."""
    answer = plain.ask(chat(stream=True), **speaks)
    assert 200 == answer.status
    assert "[DONE]" == answer.events[-1]
    assert answer.text
    assert Decimal(answer.note["x-loom-cost-usd"]) > 0
    assert answer.body.endswith(b"data: [DONE]\n\n")


def test_the_same_dialect_is_relayed_to_the_byte(plain: Served) -> None:
    """What the vendor sent is what the caller gets: body, and every event."""
    sent = chat(temperature=0.5)
    answer = plain.ask(sent, **MISTRAL)
    entry = plain.sim.journal.entries()[-1]
    assert json.dumps(sent).encode() == entry.body
    assert entry.answer == answer.body
    answer = plain.ask(chat(stream=True), **MISTRAL)
    entry = plain.sim.journal.entries()[-1]
    kept = [x for x in answer.body.split(b"\n\n") if not x.startswith(b": loom")]
    assert entry.answer == b"\n\n".join(kept)


def test_openais_words_are_translated_or_named(plain: Served) -> None:
    """What has the same meaning goes under Mistral's name; what has none is named in a header."""
    answer = plain.ask(
        chat(max_completion_tokens=50, seed=7, user="ann", store=True, tools=[], logit_bias={}),
        **OPENAI,
    )
    assert 200 == answer.status
    assert "logit_bias, store, user" == answer.headers["x-loom-dropped"]
    sent = json.loads(plain.sim.journal.entries()[-1].body)
    assert 50 == sent["max_tokens"]
    assert 7 == sent["random_seed"]
    assert not {"user", "store", "tools", "logit_bias", "stream_options"} & set(sent)


def test_what_changes_the_answer_is_not_dropped(plain: Served) -> None:
    """A caller that wants sound is told that it cannot have it."""
    answer = plain.ask(chat(modalities=["text", "audio"]), **OPENAI)
    assert 400 == answer.status
    assert "modalities" in answer.json["error"]["message"]


@pytest.mark.parametrize("wanted", [True, False])
def test_usage_of_a_stream_comes_when_it_is_asked_for(plain: Served, wanted: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """`stream_options` is the gateway's to obey; the vendor never sees it."""
    more = {"stream_options": {"include_usage": True}} if wanted else {}
    answer = plain.ask(chat(stream=True, **more), **OPENAI)
    usages = [json.loads(e).get("usage") for e in answer.events if e.startswith("{")]
    assert wanted is any(usages)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, "openai"),
        ({"user_agent": "OpenAI/Python 3.57.0", "x_stainless_lang": "python"}, "openai"),
        ({"user_agent": "speakeasy-sdk/python 3.7.0 2.935.1 1.0.0 mistralai"}, "mistral"),
        ({"user_agent": "curl/8"}, "openai"),
        ({"x_loom_dialect": "Mistral"}, "mistral"),
        ({"x_loom_dialect": "openai", "user_agent": "mistralai"}, "openai"),
    ],
)
def test_who_speaks_which_dialect(plain: Served, headers: dict[str, str], expected: str) -> None:
    """The rule of the document, by the headers that the official SDKs send."""
    answer = plain.ask(chat(model="nosuch"), **headers)
    assert expected == ("openai" if "error" in answer.json else "mistral")


@pytest.mark.parametrize(("prefix", "is_openai"), [("/openai", True), ("/mistral", False)])
def test_a_path_may_say_the_dialect(plain: Served, prefix: str, is_openai: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """For callers whose headers cannot be set."""
    answer = plain.ask(chat(model="nosuch"), path=f"{prefix}/v1/chat/completions")
    assert is_openai is ("error" in answer.json)


def test_tool_ids_of_any_form_are_taken(plain: Served) -> None:
    """A history of OpenAI's goes to Mistral with legal ids, calls and results in pairs."""
    history = [
        *QUESTION,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_AbCdEfGhIjKlMnOpQrSt",
                    "type": "function",
                    "function": {"name": "look", "arguments": "{}"},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_AbCdEfGhIjKlMnOpQrSt", "content": "blue"},
    ]
    for speaks in (OPENAI, MISTRAL):
        answer = plain.ask({"model": MODEL, "messages": history}, **speaks)
        assert 200 == answer.status
        sent = json.loads(plain.sim.journal.entries()[-1].body)["messages"]
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
        assert 9 == len(sent[2]["tool_call_id"])


def test_a_request_id_is_taken_or_made(plain: Served) -> None:
    """A caller's own id is given back if it can stand in a header."""
    assert "abc-1" == plain.ask(chat(), x_request_id="abc-1").headers["x-request-id"]
    made = plain.ask(chat(), x_request_id="a b").headers["x-request-id"]
    other = plain.ask(chat(model="nosuch")).headers["x-request-id"]
    assert made.startswith("req_")
    assert other.startswith("req_")
    assert made != other


# --- what is listed ------------------------------------------------------------------------------


def test_models_health_and_document(plain: Served) -> None:
    """Each path answers what its clients read."""
    rows = plain.ask(None, path="/v1/models", method="GET").json["data"]
    assert MODEL in [row["id"] for row in rows]
    one = plain.ask(None, path=f"/v1/models/{MODEL}", method="GET")
    assert MODEL == one.json["id"]
    assert 404 == plain.ask(None, path="/v1/models/nosuch", method="GET").status
    assert {"status": "ok"} == plain.ask(None, path="/health", method="GET").json
    assert 200 == plain.ask(None, path="/health/ready", method="GET").status
    document = plain.ask(None, path="/openapi.json", method="GET").json
    assert "/v1/chat/completions" in document["paths"]


def test_paths_and_methods_that_are_not_there(plain: Served) -> None:
    """404 and 405 in the caller's dialect; a 405 says what is allowed."""
    assert 404 == plain.ask(chat(), path="/v1/nosuch").status
    answer = plain.ask(None, method="GET")
    assert 405 == answer.status
    assert "POST" == answer.headers["allow"]
    assert "error" in answer.json


def test_readiness_names_what_is_not_well() -> None:
    """One part that is not well makes the whole not ready; health stays."""
    with Served(readiness=lambda: {"ledger": "full", "provider": "ok"}) as served:
        answer = served.ask(None, path="/health/ready", method="GET")
        assert 503 == answer.status
        assert "full" == answer.json["ledger"]
        assert 200 == served.ask(None, path="/health", method="GET").status


# --- keys ----------------------------------------------------------------------------------------


@DIALECTS
def test_a_wrong_key_gets_nothing(speaks: dict[str, str]) -> None:
    """G6: 401 with the same body for every wrong key, on every path, and no echo of it."""
    with Served(ring=Keys(good=key())) as served:
        bodies = set()
        for path, method in [("/v1/chat/completions", "POST"), ("/v1/models", "GET")]:
            for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic good"}):
                answer = served.ask(chat(), path=path, method=method, **given, **speaks)
                assert 401 == answer.status
                assert b"wrong" not in answer.body
                bodies.add(answer.body)
        assert 1 == len(bodies)
        assert 200 == served.ask(chat(), authorization="Bearer good", **speaks).status
        assert 1 == len(served.sim.journal.entries())


def test_a_key_asks_only_its_models() -> None:
    """Others are refused before anything is sent, and not listed."""
    with Served(ring=Keys(good=key(models=("ministral-*",)))) as served:
        answer = served.ask(chat(), authorization="Bearer good")
        assert 403 == answer.status
        rows = served.ask(None, path="/v1/models", method="GET", authorization="Bearer good")
        assert rows.json["data"]
        assert all(row["id"].startswith("ministral-") for row in rows.json["data"])
        assert not served.sim.journal.entries()


def test_a_key_over_its_limit_is_told_when_to_come_back() -> None:
    """G7: 429 with `retry-after`, and whose limit it is; the next key is not harmed."""
    ring = Keys(good=key(rpm=2), other=key("other"))
    with Served(ring=ring) as served:
        answers = [served.ask(chat(), authorization="Bearer good") for _ in range(3)]
        assert [200, 200, 429] == [answer.status for answer in answers]
        assert int(answers[2].headers["retry-after"]) >= 1
        assert "key" == answers[2].headers["x-loom-limit"]
        assert 200 == served.ask(chat(), authorization="Bearer other").status
        assert 3 == len(served.sim.journal.entries())
        # What is refused so costs the disk nothing: a flood of it harms nobody.
        assert 3 == len(served.rows())


@DIALECTS
@pytest.mark.parametrize("stream", [False, True])
def test_a_key_knows_what_it_may_still_do(speaks: dict[str, str], *, stream: bool) -> None:
    """G7: its limits and what is left of them, in the names that each SDK's users know."""
    with Served(ring=Keys(good=key(rpm=2, tpm=10_000), free=key("free"))) as served:
        answers = [
            served.ask(chat(max_tokens=50, stream=stream), authorization="Bearer good", **speaks)
            for _ in range(3)
        ]
        assert [200, 200, 429] == [answer.status for answer in answers]
        count, size = ("requests", "tokens")
        if speaks is MISTRAL:
            count, size = ("req-minute", "tokens-minute")
        for answer, left in zip(answers, ("1", "0", "0"), strict=True):
            assert "2" == answer.headers[f"x-ratelimit-limit-{count}"]
            assert left == answer.headers[f"x-ratelimit-remaining-{count}"]
            assert "10000" == answer.headers[f"x-ratelimit-limit-{size}"]
            assert 0 < int(answer.headers[f"x-ratelimit-remaining-{size}"]) < 10_000
        free = served.ask(chat(), authorization="Bearer free", **speaks)
        assert not [name for name in free.headers if name.startswith("x-ratelimit")]


def test_a_key_over_its_budget_is_refused_before_it_costs() -> None:
    """G8: 402 in OpenAI's words, nothing is sent, and what is left stands in the headers."""
    budget = Budget(limit_usd="0.01", period="month")
    tiny = Budget(limit_usd="0.000001")
    ring = Keys(good=key(budget=budget), poor=key("poor", budget=tiny))
    with Served(ring=ring) as served:
        answer = served.ask(chat(max_tokens=100), authorization="Bearer good")
        left = Decimal(answer.headers["x-loom-budget-remaining-usd"])
        assert Decimal("0.01") - Decimal(answer.headers["x-loom-cost-usd"]) == left
        refused = served.ask(chat(), authorization="Bearer poor", **OPENAI)
        assert 402 == refused.status
        assert "insufficient_quota" == refused.json["error"]["type"]
        assert 1 == len(served.sim.journal.entries())


def test_rows_know_their_key() -> None:
    """The ledger says who called, with the key's own labels."""
    with Served(ring=Keys(good=key(tags={"project": "loom"}))) as served:
        served.ask(chat(), authorization="Bearer good")
        (row,) = served.rows()
    assert "key_team" == row.tenant
    assert {"project": "loom"} == row.tags


# --- errors of the vendor ------------------------------------------------------------------------


@DIALECTS
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidAPIKey("bad"), 502),  # G9
        (InsufficientCredits("empty"), 502),  # G9
        (RateLimited("slow", retry_after_s=7), 429),  # G10
        (CapacityExceeded("full"), 429),
        (ServiceUnavailable("down"), 503),  # G11
        (ContentBlocked("no"), 422),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
def test_a_vendors_error_is_told_as_the_callers_may_know_it(
    error: LoomError, status: int, speaks: dict[str, str]
) -> None:
    """G9, G10, G11: whose fault it is shows in the status, plain and streamed alike."""
    script = ScriptedProvider([error, error], model=MODEL)
    with Served(Simulator(provider=script)) as served:
        for stream in (False, True):
            answer = served.ask(chat(stream=stream), **speaks)
            assert status == answer.status, answer.body
            assert "1" == answer.headers["x-loom-attempts"]
            assert answer.headers["x-loom-upstream-request-id"]
            if isinstance(error, RateLimited):
                whose = "capacity" if isinstance(error, CapacityExceeded) else "upstream"
                assert whose == answer.headers["x-loom-limit"]


def test_a_vendor_that_dies_in_the_middle_is_told_in_the_stream() -> None:
    """G12: an error event in the caller's dialect, and no sentinel after it."""
    for speaks, name in ((OPENAI, "error"), (MISTRAL, "object")):
        with Served(Simulator(scenario="FB08")) as served:
            answer = served.ask(chat(stream=True), **speaks)
            assert 200 == answer.status
            assert "[DONE]" not in answer.events
            last = json.loads(answer.events[-1])
            assert name in last
            (row,) = served.rows()
            assert "estimated" == row.state


@DIALECTS
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"nul", b'{"model": 1}', b"[" * 100_000, b'{"messages": NaN}']
)
def test_a_body_that_is_none_is_a_400(plain: Served, body: bytes, speaks: dict[str, str]) -> None:
    """G5: a typed error in the caller's dialect, never a 500."""
    answer = plain.ask(body, **speaks)
    assert answer.status in (400, 422)
    assert answer.json


# --- callers that hang up ------------------------------------------------------------------------


def hang_up(served: Served, body: dict[str, Any], after: bytes, **headers: str) -> None:
    """Send a request, and leave when `after` has come."""
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        connection.sendall(request(body, **headers))
        data = b""
        while after not in data:
            data += connection.recv(65536)


@DIALECTS
def test_a_caller_that_leaves_in_the_middle_has_its_bill(speaks: dict[str, str]) -> None:
    """G2: the answer is read on, so that the row has the real usage."""
    with Served(Simulator(words_per_second=50)) as served:
        hang_up(served, chat(stream=True, max_tokens=40), b"data: ", **speaks)
        served.wait(lambda: served.rows()[0].state != "open")
        (row,) = served.rows()
        assert "settled" == row.state
        assert row.output_tokens
        served.wait(lambda: served.gateway.relay.draining == 0)


def test_a_caller_that_leaves_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """G2: after the time for it the vendor is left, and the bill is an estimate."""
    monkeypatch.setattr(relay, "DRAIN_S", 0.05)
    with Served(Simulator(words_per_second=5)) as served:
        hang_up(served, chat(stream=True), b"data: ", **MISTRAL)
        served.wait(lambda: served.rows()[0].state != "open")
        (row,) = served.rows()
        assert "estimated" == row.state
        served.wait(lambda: served.gateway.relay.draining == served.gateway.relay.streams == 0)


def test_only_so_many_are_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """G2: with no place left, the vendor is left at once."""
    monkeypatch.setattr(relay, "DRAINS_AT_ONCE", 0)
    with Served(Simulator(words_per_second=5)) as served:
        hang_up(served, chat(stream=True), b"data: ", **MISTRAL)
        served.wait(lambda: served.rows()[0].state != "open")
        (row,) = served.rows()
        assert "estimated" == row.state


def test_a_caller_that_leaves_before_the_answer_leaves_a_row() -> None:
    """G1: the vendor is left at once; nobody knows what it charges."""
    with Served(Simulator(latency_s=30)) as served:
        with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
            connection.sendall(request(chat(), **MISTRAL))
            served.wait(lambda: bool(served.sim.journal.entries()))
        served.wait(lambda: served.rows()[0].state != "open")
        (row,) = served.rows()
        assert "uncertain" == row.state


def test_every_request_is_one_row(plain: Served) -> None:
    """As many rows as requests that a vendor could have been asked for."""
    before = len(plain.rows())
    for stream in (False, True):
        for speaks in (OPENAI, MISTRAL):
            plain.ask(chat(stream=stream), **speaks)
    plain.ask(chat(model="nosuch"))
    plain.ask(b"{")
    assert 5 == len(plain.rows()) - before


def test_tools_of_an_answer_come_through(plain: Served) -> None:
    """A call of a tool is given in both dialects, plain and streamed."""
    del plain
    call = ToolCall("abcdefgh1", "look", {"at": "sky"})
    script = [Message.assistant(tool_calls=(call,))] * 4
    with Served(Simulator(provider=ScriptedProvider(script, model=MODEL))) as served:
        tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
        for speaks in (OPENAI, MISTRAL):
            answer = served.ask(chat(tools=[tool]), **speaks)
            (given,) = answer.json["choices"][0]["message"]["tool_calls"]
            assert ("abcdefgh1", "look") == (given["id"], given["function"]["name"])
            streamed = served.ask(chat(tools=[tool], stream=True), **speaks)
            assert "abcdefgh1" in streamed.body.decode()


def test_an_answer_can_be_taken_apart() -> None:
    """The reader of these tests sees an answer that was cut."""
    whole = Answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n")
    assert (b"ab", True) == (whole.body, whole.whole)
    cut = Answer(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n")
    assert not cut.whole


# --- vectors, gaps, metrics ----------------------------------------------------------------------


@DIALECTS
def test_vectors(plain: Served, speaks: dict[str, str]) -> None:
    """One vector for each text, with cost, and a row of its own kind."""
    body = {"model": "mistral-embed", "input": ["blue", "red"]}
    answer = plain.ask(body, path="/v1/embeddings", **speaks)
    assert 200 == answer.status, answer.body
    assert 2 == len(answer.json["data"])
    assert Decimal(answer.headers["x-loom-cost-usd"]) > 0
    assert "embeddings" == plain.rows()[-1].kind


def test_vectors_of_a_key_that_may_not() -> None:
    """Models, limits and budgets hold on every path."""
    with Served(ring=Keys(good=key(models=("mistral-small-*",)))) as served:
        body = {"model": "mistral-embed", "input": ["blue"]}
        answer = served.ask(body, path="/v1/embeddings", authorization="Bearer good")
        assert 403 == answer.status
        assert not served.sim.journal.entries()


@pytest.mark.parametrize("stream", [False, True])
def test_a_gap_is_filled(plain: Served, stream: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """Mistral's path for code, relayed to the byte; OpenAI has no such thing."""
    body: dict[str, Any] = {"model": "codestral-latest", "prompt": "def a():"}
    body |= {"suffix": "return 1", "stream": stream}
    answer = plain.ask(body, path="/v1/fim/completions", **MISTRAL)
    assert 200 == answer.status, answer.body
    entry = plain.sim.journal.entries()[-1]
    assert "/v1/fim/completions" == entry.path
    assert json.dumps(body).encode() == entry.body
    assert "fim" == plain.rows()[-1].kind
    assert 404 == plain.ask(body, path="/v1/fim/completions", **OPENAI).status
    # Who says nothing of himself is understood: no other vendor has this path.
    assert 200 == plain.ask(body, path="/v1/fim/completions").status


def test_metrics_count_what_was_answered() -> None:
    """Requests by route, dialect, status and model; tokens and cost."""
    with Served(metrics=Metrics(("/v1/chat/completions",), lambda model: model == MODEL)) as served:
        served.ask(chat(), **OPENAI)
        served.ask(chat(stream=True), **MISTRAL)
        served.ask(chat(model="canary-model"))
        answer = served.ask(None, path="/metrics", method="GET")
    text = answer.body.decode()
    assert 200 == answer.status
    assert 'status="200"' in text
    assert "canary-model" not in text
    assert MODEL in text


def test_metrics_may_be_absent(plain: Served) -> None:
    """A gateway that counts nothing says so."""
    assert 501 == plain.ask(None, path="/metrics", method="GET").status


def test_a_caller_cannot_name_a_host(plain: Served) -> None:
    """S4, R-46: at no depth, and nothing is sent."""
    before = len(plain.sim.journal.entries())
    for more in ({"api_base": "http://evil"}, {"extra": {"base_url": "http://evil"}}):
        answer = plain.ask(chat(**more))
        assert 400 == answer.status
    assert before == len(plain.sim.journal.entries())


def test_a_keys_limits_outlive_the_application() -> None:
    """Settings that are read anew make a new application: what was used is not forgotten."""
    limiters = KeyLimiters()
    ring = Keys(good=key(rpm=1))
    statuses = []
    for _ in range(2):
        with Served(ring=ring, limiters=limiters) as served:
            statuses.append(served.ask(chat(), authorization="Bearer good").status)
    assert [200, 429] == statuses
    changed = key(rpm=2)
    assert limiters.limiter(changed) is not limiters.limiter(key(rpm=1))
    assert limiters.limiter(key()) is None
