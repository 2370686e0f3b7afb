"""The gateway against its own OpenAPI document: nothing breaks it, and it keeps its word."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import checks
from tests.server.gateway.kit import MODEL, Keys, Served
from tests.server.gateway.test_app import key
from tests.simulator.test_schemathesis import ASKED, spoiled

from loom.server.gateway.metrics import Metrics
from loom.server.gateway.openapi import POSTS, gateway_document

DOCUMENT = gateway_document()
FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
KEPT = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
SPEAKS = pytest.mark.parametrize("speaks", ["openai", "mistral"])
HOLDS = pytest.mark.parametrize("held", [True, False], ids=["with a key", "without"])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    metrics = Metrics(routes=[f"/v1/{path}" for path in POSTS])
    with Served(ring=Keys(good=key()), metrics=metrics) as running:
        yield running


def operations() -> Iterator[Any]:
    """Give each operation with what can be generated for it."""
    schema: Any = schemathesis.openapi.from_dict(DOCUMENT)
    for found in schema.get_all_operations():
        operation = found.ok()
        raw = operation.definition.raw
        for mode in schemathesis.GenerationMode:
            # Without parameters no request can be wrong.
            if mode.is_positive or "parameters" in raw or "requestBody" in raw:
                yield pytest.param(operation, mode, id=f"{mode.value} {operation.label}")


@SPEAKS
@HOLDS
@pytest.mark.parametrize(("operation", "mode"), list(operations()))
def test_no_request_breaks_the_gateway(
    served: Served, operation: Any, mode: schemathesis.GenerationMode, *, held: bool, speaks: str
) -> None:
    """Requests that fit the document and requests that do not: never a 500, always as written."""
    headers = {"x-loom-dialect": speaks}
    if held:
        headers["authorization"] = "Bearer good"

    @FEW
    @given(operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case[Any]) -> None:
        case.call_and_validate(base_url=served.address, headers=headers, checks=KEPT)

    run()


def test_the_document_is_served(served: Served) -> None:
    """It is OpenAPI 3.1, the same with a key and without, and names what the gateway offers."""
    answer = served.ask(None, path="/openapi.json", method="GET")
    assert DOCUMENT == answer.json
    assert "3.1.0" == DOCUMENT["openapi"]
    assert {f"/v1/{path}" for path in POSTS} <= DOCUMENT["paths"].keys()
    assert "looms" in DOCUMENT["info"]["title"]


def test_every_path_of_the_gateway_is_in_the_document(served: Served) -> None:
    """What is routed is written, and the other way round."""
    gateway = served.gateway
    routed = {*gateway._posts, *gateway._gets, "/v1/models/{id}"}
    assert routed == DOCUMENT["paths"].keys()


@SPEAKS
def test_three_thousand_seeded_requests(served: Served, speaks: str) -> None:
    """Requests that are nearly right: no 5xx, no hang, and each reply is what its type says."""
    dice = random.Random(11)
    statuses: Counter[int] = Counter()
    headers = {"authorization": "Bearer good", "x-loom-dialect": speaks}
    openai = {
        **ASKED["chat/completions"],
        "model": MODEL,
        "user": "ann",
        "seed": 1,
        "stream_options": {"include_usage": True},
        "stream": True,
    }
    openai.pop("reasoning_effort")
    bodies = {**ASKED, "chat/completions": openai} if speaks == "openai" else ASKED
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)) as line:
        for _ in range(3000):
            path = dice.choice(POSTS)
            body = bodies[path]
            for _ in range(dice.randrange(4)):
                body = spoiled(body, dice)
            line.request("POST", f"/v1/{path}", json.dumps(body), headers)
            reply = line.getresponse()
            data = reply.read()
            statuses[reply.status] += 1
            assert reply.status < 500, (body, data)
            if reply.headers["content-type"] == "application/json":
                json.loads(data)
            else:
                assert data.endswith(b"data: [DONE]\n\n"), body
    assert statuses.keys() <= {200, 400, 404, 422}, statuses
    assert all(statuses[status] > 30 for status in (200, 400)), statuses
    assert all(row.state != "open" for row in served.rows())
