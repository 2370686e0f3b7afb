"""The simulator against its own OpenAPI document: nothing breaks it, and it keeps its word."""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import checks
from tests.recorded import chat_exchanges, needed
from tests.simulator.test_replay import send

from loom.server.openapi import openapi_document
from loom.server.simulator import Simulator
from loom.testing import simulator
from loom.wire.mistral.schema import CHAT_FIELDS, EMBEDDINGS_REQUEST, FIM_REQUEST

POSTS = ("chat/completions", "fim/completions", "embeddings")
DOCUMENT = openapi_document(POSTS)
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with simulator(as_of="2026-08") as running:
        yield running


def part(name: str) -> dict[str, Any]:
    """Give a schema of the document that stands on its own."""
    whole = json.loads(json.dumps(DOCUMENT))
    return {"$ref": f"#/components/schemas/{name}", "components": whole["components"]}


def operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    found: list[Any] = list(schema.get_all_operations())
    return [each.ok() for each in found]


@pytest.mark.parametrize("operation", operations(), ids=lambda each: each.label)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_no_request_breaks_the_server(
    sim: Simulator, operation: Any, mode: schemathesis.GenerationMode
) -> None:
    """Requests that fit the document and requests that do not: never a 500, always as written."""
    kept = [
        checks.not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]

    @FEW
    @given(operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case[Any]) -> None:
        headers = {"authorization": f"Bearer {sim.api_key}"}
        base = sim.base_url.removesuffix("/v1")
        case.call_and_validate(base_url=base, headers=headers, checks=kept)

    run()


def test_the_document_is_served(sim: Simulator) -> None:
    """It is OpenAPI 3.1, and names the paths that are offered."""
    reply = send(sim.base_url, "GET", "/openapi.json")

    served = json.loads(reply.body)
    assert "3.1.0" == served["openapi"]
    assert {f"/v1/{path}" for path in POSTS} <= served["paths"].keys()
    assert "/v1/fim/completions" not in openapi_document(("chat/completions",))["paths"]


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("ChatRequest", None),
        ("InfillRequest", FIM_REQUEST),
        ("EmbeddingsRequest", EMBEDDINGS_REQUEST),
    ],
)
def test_the_document_names_the_fields_that_are_taken(name: str, check: Any) -> None:
    """Exactly those of the tables by which requests are refused."""
    named = DOCUMENT["components"]["schemas"][name]["properties"].keys()
    if check is None:
        assert CHAT_FIELDS.keys() == named
        return
    found: list[Any] = []
    check(dict.fromkeys([*named, "more"]), ("body",), found)
    refused = {each["loc"][-1] for each in found if each["type"] == "extra_forbidden"}

    assert {"more"} == refused


def test_the_document_describes_every_recorded_request() -> None:
    """What the API took fits the document."""
    needed()
    validator = jsonschema.Draft202012Validator(part("ChatRequest"))
    for exchange in chat_exchanges():
        if exchange.request and exchange.status == 200:
            problems = [error.message for error in validator.iter_errors(exchange.request)]
            assert [] == problems, str(exchange)


JUNK: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2.5, 1e308, 10**30, "", "none", "\x00", "\ud7ff", "json", [], [[]], {},
    {"type": "text"}, {"role": "user", "content": "x"}, [{"type": "text", "text": "x"}], "x" * 999,
)  # fmt: skip
ASKED: dict[str, dict[str, Any]] = {
    "chat/completions": {
        "model": "mistral-small-latest",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather in Rome, as JSON?"}]},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "a1b2c3d4e", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "a1b2c3d4e", "content": "{}"},
        ],
        "max_tokens": 8,
        "stream": False,
        "stop": ["."],
        "n": 1,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "response_format": {"type": "text"},
        "reasoning_effort": "none",
    },
    "fim/completions": {"model": "codestral-latest", "prompt": "a", "suffix": "b", "max_tokens": 4},
    "embeddings": {"model": "mistral-embed", "input": ["a", "b"], "encoding_format": "float"},
}


def spoiled(value: Any, dice: random.Random) -> Any:
    """Change one place of a value: take it away, put junk there, or double it."""
    if not isinstance(value, dict | list) or not value or dice.random() < 0.2:
        return dice.choice(JUNK)
    copy: Any = value.copy()
    key = dice.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match dice.randrange(6):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, list):
            copy.append(copy[key])
        case 1:
            copy[f"{key}_"] = copy[key]
        case _:
            copy[key] = spoiled(copy[key], dice)
    return copy


def test_ten_thousand_seeded_requests(sim: Simulator) -> None:
    """Requests that are nearly right: no 500, no hang, and each reply is what its type says."""
    dice = random.Random(7)
    statuses: Counter[int] = Counter()
    headers = {"authorization": f"Bearer {sim.api_key}"}
    with closing(http.client.HTTPConnection(sim.base_url.split("/")[2], timeout=20)) as line:
        for _ in range(10_000):
            path = dice.choice(POSTS)
            body = ASKED[path]
            for _ in range(dice.randrange(4)):
                body = spoiled(body, dice)
            line.request("POST", f"/v1/{path}", json.dumps(body), headers)
            reply = line.getresponse()
            data = reply.read()
            statuses[reply.status] += 1
            assert reply.status < 500, body
            if reply.headers["content-type"] == "application/json":
                json.loads(data)
            else:
                assert data.endswith(b"data: [DONE]\n\n"), body

    assert statuses.keys() <= {200, 400, 422}
    assert all(statuses[status] > 100 for status in (200, 400, 422)), statuses
