"""
Canaries go through the gateway: the vendor's key, a caller's key, a prompt, an answer.

None is found in logs, rows, traces, metrics, errors, headers, representations or files; and no
caller learns where the vendor is. The project's reliability rules R-45, R-46, S8, S9 and S10.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.pretty import pretty_repr
from tests.client.canary import Log, leaks
from tests.layers.telemetry import Seen
from tests.server.gateway.kit import Answer, Keys, Served, chat
from tests.server.gateway.test_app import key
from tests.server.gateway.vendor import Act, RawVendor, event, plain, says, stream

from loom.core.request import Timeouts
from loom.layers.retry_policy import RetryPolicy
from loom.ledger.budgets import Budget
from loom.providers.improvise import Draft
from loom.providers.scripted import ScriptedProvider
from loom.server.gateway.metrics import Metrics
from loom.server.simulator import Simulator
from loom.server.simulator.faults import fault_table
from loom.testing import no_waits

VENDOR_KEY = "loom-canary-key-0123456789"
CALLER_KEY = "loom_sk_canarycaller0123456789"
KEYS = (VENDOR_KEY, CALLER_KEY)
PROMPT = ("canaryprompt", "canarysystem", "canaryarguments", "canarymetadata", "canarytool")
ANSWER = ("canaryanswer", "canarythought")
BEARER = f"Bearer {CALLER_KEY}"
SPEAKS = pytest.mark.parametrize("speaks", ["openai", "mistral"])
STREAM = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])

CALL = {
    "id": "abcdefghi",
    "type": "function",
    "function": {"name": "look", "arguments": '{"what": "canaryarguments"}'},
}
BODY = {
    "messages": [
        {"role": "system", "content": "canarysystem"},
        {"role": "user", "content": "canaryprompt one, that is long enough to be a quote"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "canaryprompt two"},
        {"role": "assistant", "content": "so?"},
        {"role": "user", "content": "canaryprompt three"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "look", "description": "canarytool"}},
    ],
    "metadata": {"note": "canarymetadata"},
}
HASTY = Timeouts(connect_s=5, write_s=5, first_byte_s=0.1, idle_s=0.1, total_s=20)
SLOW = ("7-unread", "8-no-headers", "10-stall-body", "14-stall", "25-comments-only")
QUICK = {"25-comments-only": "25-comments-only;seconds=0.05", "26-gzip-bomb": "26-gzip-bomb;mib=66"}
ROWS = [row.id for row in fault_table().rows if row.raises]


@pytest.fixture
def log() -> Iterator[Log]:
    """Listen to everything, at any level, in every library."""
    root, listener = logging.getLogger(), Log()
    level = root.level
    root.addHandler(listener)
    root.setLevel(1)
    yield listener
    root.setLevel(level)
    root.removeHandler(listener)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let whatever is written be written here."""
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Watched:
    """A gateway with everything that could tell, before a vendor."""

    def __init__(self, sim: Simulator, log: Log, folder: Path, **client: Any) -> None:
        self.seen = Seen()
        self.metrics = Metrics(routes=["/v1/chat/completions"], known=lambda _: True)
        own = {"api_key": VENDOR_KEY, "telemetry": self.seen.telemetry, **client}
        budget = Budget(limit_usd="10", period="month")
        ring = Keys(**{CALLER_KEY: key(budget=budget, rpm=1000)})
        timeouts = own.pop("timeouts", Timeouts())
        self.served = Served(sim, ring=ring, client=own, metrics=self.metrics, timeouts=timeouts)
        self._log, self._folder = log, folder
        self._where = client.get("base_url")

    def ask(self, speaks: str, **more: Any) -> Answer:
        """Ask, and see that neither head nor error shows a canary, or where the vendor is."""
        answer = self.served.ask(
            chat(**{**BODY, **more}), authorization=BEARER, x_loom_dialect=speaks
        )
        where = (self._where or self.served.sim.base_url).removeprefix("http://").split("/")[0]
        shown = [("headers", str(answer.headers))]
        if answer.status != 200:
            shown.append(("body", answer.body.decode()))
        else:
            shown += [("event", x) for x in answer.events if "error" in x]
        assert [] == leaks((*KEYS, *PROMPT, *ANSWER, where), shown)
        return answer

    def told(self) -> list[tuple[str, str]]:
        """Give everything that was written, counted or kept."""
        served = self.served
        values = [served.gateway, served.gateway.counters, served.gateway.relay, served.client]
        printed = [
            (how, text)
            for value in [*values, vars(served.gateway), vars(served.gateway.counters)]
            for how, text in (("repr", repr(value)), ("rich", pretty_repr(value, expand_all=True)))
        ]
        ring = [(where, text) for where, text in printed if CALLER_KEY in text]
        files = [
            (str(path), path.read_bytes().decode("latin-1"))
            for path in self._folder.rglob("*")
            if path.is_file()
        ]
        return [
            *self._log.said,
            ("traces", self.seen.dump()),
            ("metrics", self.metrics.page()[2].decode()),
            ("rows", str(served.rows())),
            *(x for x in printed if x not in ring),
            *files,
        ]


def draft(_request: Any, _seed: int, _number: int) -> Draft:
    return Draft(thinking="canarythought " * 4, text="canaryanswer " * 8)


@pytest.mark.parametrize("fault", ROWS)
def test_no_fault_shows_a_canary(log: Log, folder: Path, fault: str) -> None:
    """Every row of the fault table, plain and streamed, in both dialects."""
    sim = Simulator(any_key=True, provider=ScriptedProvider(compose=draft))
    client = {
        "headers": {"x-loom-fault": QUICK.get(fault, fault)},
        "timeouts": HASTY if fault in (*SLOW, "toxic-timeout") else Timeouts(),
        "retry": RetryPolicy(attempts=2),
    }
    watched = Watched(sim, log, folder, **client)
    with no_waits(), watched.served:
        for speaks in ("openai", "mistral"):
            for streamed in (False, True):
                watched.ask(speaks, stream=streamed)
        assert 4 == len(watched.served.rows())
        assert [] == leaks((*KEYS, *PROMPT, *ANSWER), watched.told())


QUOTE = (
    f"{VENDOR_KEY} of http://vendor.internal:8080 was asked: canaryprompt one, that is long enough"
)
HEADERS = f"x-request-id: {VENDOR_KEY}\r\nretry-after: 1\r\n"
BODIES = {
    "mistral": {"object": "error", "message": QUOTE, "type": QUOTE, "param": None, "code": QUOTE},
    "openai": {"error": {"message": QUOTE, "type": QUOTE, "param": QUOTE, "code": QUOTE}},
    "detail": {"detail": [{"type": QUOTE, "loc": ["body", QUOTE], "msg": QUOTE, "input": QUOTE}]},
    "text": {"message": QUOTE},
}


def quoting(status: str, body: Any) -> Act:
    return says(json.dumps(body).encode(), status=status, kind="application/json", more=HEADERS)


@SPEAKS
@STREAM
@pytest.mark.parametrize("shape", BODIES)
@pytest.mark.parametrize(
    "status", ["400 X", "401 X", "402 X", "403 X", "404 X", "413 X", "422 X", "429 X", "500 X"]
)
def test_a_vendor_that_quotes_is_not_quoted(
    log: Log,
    folder: Path,
    *,
    status: str,
    shape: str,
    streamed: bool,
    speaks: str,
) -> None:
    """S10: whatever a vendor writes into an error, keys and prompts of it go no further."""
    with RawVendor(quoting(status, BODIES[shape])) as vendor:
        watched = Watched(Simulator(), log, folder, base_url=vendor.base_url)
        with watched.served:
            assert 400 <= watched.ask(speaks, stream=streamed).status
            assert [] == leaks((*KEYS, *PROMPT), watched.told())


@SPEAKS
@pytest.mark.parametrize("shape", BODIES)
@pytest.mark.parametrize("behind", [0, 3])
def test_a_vendor_that_quotes_in_a_stream_is_not_quoted(
    log: Log, folder: Path, shape: str, behind: int, speaks: str
) -> None:
    """The same for an error that comes as an event, first or behind a part of the answer."""
    events = [*stream()[:behind], event(BODIES[shape])]
    with RawVendor(says(*events, more=HEADERS)) as vendor:
        watched = Watched(Simulator(), log, folder, base_url=vendor.base_url)
        with watched.served:
            watched.ask(speaks, stream=True)
            assert [] == leaks((*KEYS, *PROMPT), watched.told())


@SPEAKS
@STREAM
def test_a_vendor_that_is_not_there_has_no_address(
    log: Log,
    folder: Path,
    *,
    streamed: bool,
    speaks: str,
) -> None:
    """S10: the log knows where the vendor should be, and the caller does not."""
    with RawVendor(says(b"")) as vendor:
        address = vendor.base_url
    watched = Watched(Simulator(), log, folder, base_url=address)
    with watched.served:
        answer = watched.ask(speaks, stream=streamed)
    assert 503 == answer.status


PAGES = (
    "/v1/models", "/v1/models/nosuch", "/v1/models/mistral-small-latest", "/health",
    "/health/ready", "/metrics", "/openapi.json", "/nosuch",
)  # fmt: skip


@SPEAKS
def test_what_is_listed_shows_neither_keys_nor_addresses(
    log: Log, folder: Path, speaks: str
) -> None:
    """S10: models, health and the document are the same wherever the vendor is."""
    sim = Simulator(any_key=True)
    watched = Watched(sim, log, folder)
    with watched.served as served:
        where = sim.base_url.removeprefix("http://").split("/")[0]
        for path in PAGES:
            answer = served.ask(
                None, path=path, method="GET", authorization=BEARER, x_loom_dialect=speaks
            )
            shown = [(path, str(answer.headers) + answer.body.decode())]
            assert [] == leaks((*KEYS, where), shown)


@SPEAKS
@STREAM
def test_what_the_gateway_refuses_quotes_nothing(
    log: Log,
    folder: Path,
    *,
    streamed: bool,
    speaks: str,
) -> None:
    """A body that is wrong is answered with the place and not with what stands there."""
    with Watched(Simulator(any_key=True), log, folder).served as served:
        watched = Watched(served.sim, log, folder)
        watched.served = served
        for wrong in (
            {"temperature": "canaryprompt"},
            {"messages": "canaryprompt"},
            {"messages": [{"role": "canaryprompt", "content": "canaryprompt"}]},
            {"messages": [{"role": "user", "content": [{"type": "canaryprompt"}]}]},
            {"tools": [{"type": "function", "function": "canarytool"}]},
            {"tool_choice": {"canarytool": "canarytool"}},
            {"response_format": {"type": "canaryprompt"}},
            {"stop": [{"canaryprompt": 1}]},
        ):
            answer = served.ask(
                chat(**{**BODY, **wrong, "stream": streamed}),
                authorization=BEARER,
                x_loom_dialect=speaks,
            )
            assert answer.status in (400, 422), answer.body
        assert [] == leaks((*KEYS, *PROMPT), log.said)


def test_an_error_that_nobody_foresaw_is_logged_without_its_words(
    log: Log, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it happened stands in the log, what it says does not."""
    watched = Watched(Simulator(any_key=True), log, folder)
    with watched.served as served:

        def broken(*_args: object) -> None:
            raise ValueError(BODY)

        monkeypatch.setattr(served.gateway, "_prepared", broken)
        answer = watched.ask("openai")
        assert 500 == answer.status
    assert any("ValueError" in text for _, text in log.said)
    assert [] == leaks((*KEYS, *PROMPT), log.said)


@SPEAKS
@STREAM
def test_headers_hold_what_headers_may_hold(streamed: bool, speaks: str) -> None:  # noqa: FBT001 - a parameter of pytest
    """A vendor's name of a model cannot break an answer's head."""
    name = "möd\r\nx-evil: 1 \U0001f600"
    events = [x.replace(b"mistral-small-latest", json.dumps(name)[1:-1].encode()) for x in stream()]
    act = says(*events) if streamed else says(plain(model=name), kind="application/json")
    with (
        RawVendor(act) as vendor,
        Served(client={"base_url": vendor.base_url, "api_key": "k" * 8}) as served,
    ):
        answer = served.ask(chat(stream=streamed), x_loom_dialect=speaks)
    assert 200 == answer.status
    assert "x-evil" not in answer.headers
    told = answer.note if streamed else answer.headers
    assert told["x-loom-model"].isascii()


def test_a_request_id_of_a_vendor_is_held_to_the_same() -> None:
    """A header of an error is no way in either."""
    act = says(b"{}", status="500 X", kind="application/json", more="x-request-id: \xe9\xff a\r\n")
    with (
        RawVendor(act) as vendor,
        Served(client={"base_url": vendor.base_url, "api_key": "k" * 8}) as served,
    ):
        answer = served.ask(chat())
    assert 500 == answer.status
    assert "x-loom-upstream-request-id" not in answer.headers
