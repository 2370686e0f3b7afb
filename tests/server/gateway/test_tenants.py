"""Two tenants: neither sees anything of the other, nor waits for the other's flood."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from tests.server.gateway.kit import Answer, Keys, Served, chat
from tests.server.gateway.test_app import key

from loom import RateLimit
from loom.ledger.budgets import Budget
from loom.ledger.contract import Query
from loom.server.gateway.metrics import Metrics
from loom.server.simulator import Simulator

SMALL, MINI = "mistral-small-latest", "ministral-8b-latest"
BUDGET = Budget(limit_usd="1", period="month")
ANN = key("annabel", models=("mistral-small*",), budget=BUDGET, rpm=1000, tags={"team": "annsteam"})
BOB = key("bob", models=("ministral-*",), budget=BUDGET, rpm=1000, tags={"team": "bobsteam"})
OF_ANN = ("annabel", ANN.id, "annsteam", ANN.fingerprint)
SPEAKS = pytest.mark.parametrize("speaks", ["openai", "mistral"])
# Every route, and whether a key is asked for there.
ROUTES: dict[str, tuple[str, Any]] = {
    "/v1/models": ("GET", None),
    f"/v1/models/{SMALL}": ("GET", None),
    f"/v1/models/{MINI}": ("GET", None),
    "/v1/chat/completions": ("POST", chat(model=MINI)),
    "/v1/embeddings": ("POST", {"model": MINI, "input": ["a"]}),
    "/v1/fim/completions": ("POST", {"model": MINI, "prompt": "a"}),
    "/health": ("GET", None),
    "/health/ready": ("GET", None),
    "/openapi.json": ("GET", None),
    "/nosuch": ("GET", None),
}


@pytest.fixture
def served() -> Iterator[Served]:
    metrics = Metrics(routes=list(ROUTES))
    with Served(ring=Keys(ann=ANN, bob=BOB), metrics=metrics) as running:
        yield running


def ask(served: Served, who: str, path: str, speaks: str, body: Any = None) -> Answer:
    method, usual = ROUTES[path]
    return served.ask(
        body or usual,
        path=path,
        method=method,
        authorization=f"Bearer {who}",
        x_loom_dialect=speaks,
    )


@SPEAKS
@pytest.mark.parametrize("path", ROUTES)
def test_no_route_shows_anything_of_another(served: Served, path: str, speaks: str) -> None:
    """S12: what one key spent, asked or may ask stands in no answer to the other."""
    fresh = ask(served, "bob", path, speaks)
    for _ in range(3):
        answer = served.ask(
            chat(model=SMALL, user="annsuser"), authorization="Bearer ann", x_request_id="annsid"
        )
        assert 200 == answer.status
    later = ask(served, "bob", path, speaks)
    shown = str(later.headers) + later.body.decode()
    for word in (*OF_ANN, "annsuser", "annsid"):
        assert word not in shown
    assert fresh.status == later.status
    assert fresh.headers.keys() == later.headers.keys()
    if path.startswith("/v1/models"):
        assert SMALL not in later.body.decode() or path.endswith(SMALL)


@SPEAKS
def test_a_model_of_another_is_as_good_as_none(served: Served, speaks: str) -> None:
    """Listed for its key alone; its card looks like that of a model that does not exist."""
    of = {}
    for who in ("ann", "bob"):
        rows = ask(served, who, "/v1/models", speaks).json["data"]
        of[who] = {row["id"] for row in rows}
    assert SMALL in of["ann"]
    assert MINI in of["bob"]
    assert not of["ann"] & of["bob"]
    hidden = ask(served, "bob", f"/v1/models/{SMALL}", speaks)
    none = served.ask(
        None, path="/v1/models/nosuch", method="GET", authorization="Bearer bob",
        x_loom_dialect=speaks,
    )  # fmt: skip
    assert 404 == hidden.status == none.status
    assert hidden.body.replace(SMALL.encode(), b"nosuch") == none.body


@SPEAKS
@pytest.mark.parametrize("path", [path for path, (how, _) in ROUTES.items() if how == "POST"])
def test_a_model_of_another_is_not_asked(served: Served, path: str, speaks: str) -> None:
    """403 on every way to a model, before anything is sent or spent."""
    body = {**ROUTES[path][1], "model": SMALL}
    answer = ask(served, "bob", path, speaks, body)
    # OpenAI has no request to fill a gap.
    assert answer.status == (404 if "fim" in path and speaks == "openai" else 403)
    assert not served.sim.journal.entries()
    assert not served.rows()


@pytest.mark.parametrize("twice", ["first", "last"])
@SPEAKS
def test_a_model_that_is_named_twice_is_not_asked(served: Served, speaks: str, twice: str) -> None:
    """Two readers of one body may each take another of two fields: so none is taken."""
    names = (SMALL, MINI) if twice == "first" else (MINI, SMALL)
    body = '{"model": "%s", "messages": %s, "model": "%s"}'
    sent = (body % (names[0], json.dumps(chat()["messages"]), names[1])).encode()
    answer = ask(served, "bob", "/v1/chat/completions", speaks, sent)
    assert answer.status in (400, 422)
    assert not served.sim.journal.entries()


def test_each_pays_for_itself(served: Served) -> None:
    """Rows, sums and what is left are each tenant's own."""
    for _ in range(3):
        served.ask(chat(model=SMALL), authorization="Bearer ann")
    answer = served.ask(chat(model=MINI), authorization="Bearer bob")
    cost = Decimal(answer.headers["x-loom-cost-usd"])
    assert Decimal(1) - cost == Decimal(answer.headers["x-loom-budget-remaining-usd"])
    rows = served.rows()
    assert [ANN.id] * 3 + [BOB.id] == [row.tenant for row in rows]
    assert {"annsteam"} == {row.tags["team"] for row in rows[:3]}
    assert Query(tenant=BOB.id) != Query(tenant=ANN.id)


# --- floods ----------------------------------------------------------------------------------


def test_a_flood_is_refused_and_another_is_answered() -> None:
    """G28: who is over its own limits gets 429; who is not, answers."""
    flood, quiet = key("flood", rpm=20), key("quiet", rpm=1000)
    stop = threading.Event()
    statuses: list[int] = []

    with Served(Simulator(latency_s=0.01), ring=Keys(flood=flood, quiet=quiet)) as served:

        def pour(_: int) -> None:
            while not stop.is_set():
                statuses.append(served.ask(chat(), authorization="Bearer flood").status)

        with ThreadPoolExecutor(8) as pool:
            pouring = pool.map(pour, range(8))
            answers = [served.ask(chat(), authorization="Bearer quiet") for _ in range(30)]
            stop.set()
            list(pouring)
    assert {200} == {answer.status for answer in answers}
    assert {200, 429} == set(statuses)
    assert 20 == statuses.count(200)


def test_tenants_take_turns_at_the_vendor() -> None:
    """G28: in the queue before the vendor, one request of a tenant passes another's forty."""
    shared = {"rate_limit": RateLimit(concurrency=1)}
    ring = Keys(flood=key("flood"), quiet=key("quiet"))
    with Served(
        Simulator(latency_s=0.05, tier="100000/100000000"), ring=ring, client=shared
    ) as served:
        entries = served.sim.journal.entries

        def pour(_: int) -> int:
            return served.ask(chat(), authorization="Bearer flood").status

        with ThreadPoolExecutor(40) as pool:
            pouring = pool.map(pour, range(40))
            served.wait(lambda: len(entries()) >= 3)
            sent = len(entries())
            asked = chat(messages=[{"role": "user", "content": "quiet one"}])
            assert 200 == served.ask(asked, authorization="Bearer quiet").status
            (place,) = [n for n, entry in enumerate(entries()) if b"quiet one" in entry.body]
            assert {200} == set(pouring)
    # Who is on its way is let finish, and one more may have left meanwhile.
    assert place - sent <= 4
