"""Every field of either vendor's request has a fate at the other one, and meets it."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from mistralai.client.models import ChatCompletionRequest, ChatCompletionStreamRequest
from openai.types.chat import completion_create_params
from tests.server.gateway.kit import MODEL, Answer, Served, chat

from loom import AsyncOpenAI
from loom.core.request import ChatRequest
from loom.core.route import Fallback, Route
from loom.server.gateway.dialects import FIELDS, fitted_for
from loom.server.simulator import Simulator

OPENAI = {"x_loom_dialect": "openai"}
MISTRAL = {"x_loom_dialect": "mistral"}
GPT = "gpt-4.1-mini"
SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CHOICE = {"type": "function", "function": {"name": "look"}}

# A value for each field that says something, and what goes beside it.
VALUES: dict[str, Any] = {
    "frequency_penalty": 0.5, "logprobs": True, "max_tokens": 9, "metadata": {"a": "b"}, "n": 2,
    "parallel_tool_calls": True, "prediction": {"type": "content", "content": "x"},
    "presence_penalty": 0.5, "prompt_cache_key": "k", "reasoning_effort": "none",
    "response_format": SCHEMA, "service_tier": "auto", "stop": ["x"], "stream": True,
    "temperature": 0.5, "tool_choice": CHOICE, "tools": [TOOL], "top_logprobs": 2, "top_p": 0.5,
    # OpenAI's alone.
    "audio": {"voice": "alloy", "format": "mp3"}, "function_call": {"name": "look"},
    "functions": [TOOL["function"]], "logit_bias": {"1": 2}, "max_completion_tokens": 9,
    "modalities": ["text", "audio"], "moderation": {"x": 1}, "prompt_cache_options": {"x": 1},
    "prompt_cache_retention": "24h", "safety_identifier": "s", "seed": 7, "store": True,
    "user": "ann", "verbosity": "low", "web_search_options": {"x": 1},
    "stream_options": {"include_usage": True},
    # Mistral's alone.
    "guardrails": [{"block_on_error": True}], "min_tokens": 1, "prompt_logprobs": True,
    "prompt_mode": "reasoning", "random_seed": 7, "repetition_penalty": 1.1, "safe_prompt": True,
    "top_k": 3, "top_prompt_logprobs": 2,
}  # fmt: skip
BESIDE: dict[str, dict[str, Any]] = {
    "parallel_tool_calls": {"tools": [TOOL]},
    "tool_choice": {"tools": [TOOL]},
    "function_call": {"functions": [TOOL["function"]]},
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
}
# Where it stands at the other vendor; elsewhere under its own name.
NAMES = {
    "openai": {
        "function_call": "tool_choice", "functions": "tools", "max_completion_tokens": "max_tokens",
        "seed": "random_seed",
    },
    "mistral": {"random_seed": "seed"},  # a server at another address is sent max_tokens
}  # fmt: skip


def fields(*kinds: Any) -> set[str]:
    return {name for kind in kinds for name in typing.get_type_hints(kind)}


def test_every_field_of_openai_has_a_fate() -> None:
    """A new field of the SDK fails here until somebody has decided."""
    theirs = fields(
        completion_create_params.CompletionCreateParamsNonStreaming,
        completion_create_params.CompletionCreateParamsStreaming,
    )
    assert theirs == set(FIELDS["openai"])


def test_every_field_of_mistral_has_a_fate() -> None:
    """The same for the other SDK; `stream_options` is known to the server alone."""
    models = (ChatCompletionRequest, ChatCompletionStreamRequest)
    theirs = {field.alias or name for m in models for name, field in m.model_fields.items()}
    assert theirs | {"stream_options"} == set(FIELDS["mistral"])


@pytest.fixture(scope="module")
def mistral() -> Iterator[Served]:
    with Served() as served:
        yield served


@pytest.fixture(scope="module")
def openai() -> Iterator[Served]:
    """Give a gateway before an OpenAI."""
    with OpenAIServed() as served:
        yield served


class OpenAIServed(Served):
    """A gateway before the simulator's OpenAI side."""

    def make_client(self) -> Any:
        own = {"api_key": self.sim.api_key, "base_url": self.sim.openai_base_url, "model": GPT}
        return AsyncOpenAI(**{**own, "retry": None, **self._client})


def sent(served: Served) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(served.sim.journal.entries()[-1].body)
    return body


def judge(speaks: str, name: str, served: Served, answer: Answer) -> None:
    """Hold an answer, and what the vendor was asked, to the field's fate."""
    fate = FIELDS[speaks][name]  # type: ignore[index]  # one of two
    dropped = answer.headers.get("x-loom-dropped", "").split(", ")
    if fate == "refused":
        assert 400 == answer.status
        assert name in str(answer.json)
        return
    assert answer.status in (200, 400, 422), answer.body
    there = NAMES[speaks].get(name, name)
    if fate == "translated":
        assert name not in dropped
        assert there in sent(served)
    elif fate == "dropped":
        assert name in dropped
        assert name not in sent(served)
    else:
        assert name not in dropped


CASES = [(speaks, name) for speaks in FIELDS for name in FIELDS[speaks]]


@pytest.mark.parametrize(("speaks", "name"), CASES)
def test_a_field_meets_its_fate(speaks: str, name: str, mistral: Served, openai: Served) -> None:
    """Sent to the other vendor, it arrives, is named as dropped, or is refused by name."""
    served = mistral if speaks == "openai" else openai
    model = MODEL if speaks == "openai" else GPT
    given = {} if name in ("model", "messages") else {name: VALUES[name], **BESIDE.get(name, {})}
    before = len(served.sim.journal.entries())
    answer = served.ask(chat(**{"model": model, **given}), x_loom_dialect=speaks)
    assert (FIELDS[speaks][name] != "refused") is (len(served.sim.journal.entries()) > before)  # type: ignore[index]  # one of two
    judge(speaks, name, served, answer)


@pytest.mark.parametrize(("speaks", "name"), CASES)
def test_a_field_of_ones_own_vendor_is_not_touched(
    speaks: str, name: str, mistral: Served, openai: Served
) -> None:
    """The vendor of the caller's own dialect judges its own fields."""
    served = mistral if speaks == "mistral" else openai
    model = MODEL if speaks == "mistral" else GPT
    given = {} if name in ("model", "messages") else {name: VALUES[name], **BESIDE.get(name, {})}
    body = chat(**{"model": model, **given})
    answer = served.ask(body, x_loom_dialect=speaks)
    assert "x-loom-dropped" not in answer.headers
    asked = sent(served)
    told = {"stream_options": {"include_usage": True}} if asked.get("stream") else {}
    assert asked in (body, {**body, **told})


@pytest.mark.parametrize(
    ("speaks", "tier", "there"),
    [
        ("openai", "default", "standard_only"),
        ("openai", "flex", None),
        ("openai", "priority", None),
        ("mistral", "standard_only", "default"),
    ],
)
def test_tiers_have_the_same_price(
    speaks: str, tier: str, there: str | None, mistral: Served, openai: Served
) -> None:
    """A tier that the other vendor does not have is left out, and named."""
    served, model = (mistral, MODEL) if speaks == "openai" else (openai, GPT)
    answer = served.ask(chat(model=model, service_tier=tier), x_loom_dialect=speaks)
    assert 200 == answer.status
    assert there == sent(served).get("service_tier")
    assert (there is None) is ("x-loom-dropped" in answer.headers)


@pytest.mark.parametrize("speaks", ["openai", "mistral"])
@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_usage": True}])
def test_openai_is_always_asked_for_usage(
    speaks: str, options: dict[str, Any] | None, openai: Served
) -> None:
    """The row is settled whatever the caller asked for, and the caller gets what it asked for."""
    more = {} if options is None or speaks == "mistral" else {"stream_options": options}
    answer = openai.ask(chat(model=GPT, stream=True, **more), x_loom_dialect=speaks)
    assert 200 == answer.status, answer.body
    assert "settled" == openai.rows()[-1].state
    if speaks == "openai":
        usages = [json.loads(e).get("usage") for e in answer.events if e.startswith("{")]
        assert any(usages) is (more == {"stream_options": {"include_usage": True}})


@pytest.mark.parametrize("stream", [False, True])
def test_another_vendors_answer_is_never_handed_on_as_it_came(stream: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """A caller reads its own dialect when a route of another vendor answers."""
    with Simulator() as other:
        route = Route(
            provider="openai", model=GPT, base_url=other.openai_base_url, api_key=other.api_key
        )
        broken = {"headers": {"x-loom-fault": "503"}, "fallback": Fallback([route])}
        with Served(client=broken) as served:
            answer = served.ask(chat(stream=stream), **MISTRAL)
    assert 200 == answer.status, answer.body
    assert b"system_fingerprint" not in answer.body
    assert "openai" == (answer.note if stream else answer.headers)["x-loom-provider"]
    if not stream:
        assert {"role", "tool_calls", "content"} == set(answer.json["choices"][0]["message"])


def test_a_vendor_that_nobody_has_a_table_for_gets_what_it_was_sent() -> None:
    """A server that speaks like OpenAI may know more fields than OpenAI."""
    request = ChatRequest(model="m", messages=(), extra={"top_k": 3})
    assert (request, ()) == fitted_for(request, "openai", "acme")
    assert msgspec.structs.asdict(request)["extra"] == {"top_k": 3}
