"""
What a call is called in traces and metrics: the names of the OpenTelemetry GenAI conventions.

Plain values from plain values, without OpenTelemetry: `layers/trace_otel.py` puts them on spans
and points. Nothing here is text of a conversation; that is `layers/trace_content.py`.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/client-inference.md and
gen-ai-token-metrics.md, read 2026-11-26; every item is in state "Development". Cost has no name
there (its issue 101), so it stands under `loom.`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from loom.core.errors import LoomError
from loom.core.events import Rerouted, Restarted, Retried, Throttled
from loom.core.messages import Message, TextPart, ThinkingPart
from loom.core.request import ChatRequest
from loom.core.response import LLMResponse, Usage
from loom.core.timeline import Timeline

__all__ = [
    "answer_attributes",
    "cost_attributes",
    "error_attributes",
    "input_modality",
    "metric_attributes",
    "notice_attributes",
    "output_modality",
    "provider_name",
    "request_attributes",
    "server_attributes",
    "usage_attributes",
]

# Whose well-known value differs from our name for it.
_PROVIDERS = {"mistral": "mistral_ai", "azure": "azure.ai.openai", "bedrock": "aws.bedrock"}

_SAMPLING = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "random_seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}

# Kinds of requests under their well-known names.
_OPERATIONS = {"chat": "chat", "fim": "text_completion", "embeddings": "embeddings"}

_PORTS = {"https": 443, "http": 80}

_MICROS = Decimal(1_000_000)


def provider_name(name: str) -> str:
    """
    A provider under its well-known name.

    Args:
        name: Ours, for example "mistral".

    Returns:
        For example "mistral_ai"; a name that is not listed stays as it is.
    """
    return _PROVIDERS.get(name, name)


def request_attributes(provider: str, request: ChatRequest) -> dict[str, Any]:
    """
    What is known of a call before it is sent.

    Args:
        provider: Our name of who is asked.
        request: What is asked.

    Returns:
        Attributes; what was not given is not among them.
    """
    sampling = request.sampling
    found: dict[str, Any] = {
        "gen_ai.operation.name": _OPERATIONS[request.kind],
        "gen_ai.provider.name": provider_name(provider),
        "gen_ai.request.model": request.model,
    }
    for field, name in _SAMPLING.items():
        value = getattr(sampling, field)
        if value is not None:
            found[name] = value
    if sampling.stop is not None:
        stop = sampling.stop
        found["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    if sampling.n not in (None, 1):
        found["gen_ai.request.choice.count"] = sampling.n
    if request.kind == "embeddings" and "dimension" in request.extra:
        found["gen_ai.embeddings.dimension.count"] = request.extra["dimension"]
    if request.stream:
        found["gen_ai.request.stream"] = True
    if request.reasoning_effort is not None:
        found["gen_ai.request.reasoning.level"] = request.reasoning_effort
    if request.response_format is not None:
        plain = request.response_format.type == "text"
        found["gen_ai.output.type"] = "text" if plain else "json"
    return found


def answer_attributes(response: LLMResponse) -> dict[str, Any]:
    """
    What an answer says of itself, its text left out.

    Args:
        response: The answer, priced.

    Returns:
        Attributes: model, id, finish reasons, tokens, money, attempts.
    """
    found: dict[str, Any] = {
        "gen_ai.response.model": response.model,
        "loom.attempts": response.attempts,
        **usage_attributes(response.usage),
        **cost_attributes(response.usage),
        **server_attributes(response.timeline),
    }
    if response.choices:
        reasons = [choice.finish_reason or "error" for choice in response.choices]
        found["gen_ai.response.finish_reasons"] = reasons
    if response.id:
        found["gen_ai.response.id"] = response.id
    if response.request_id is not None:
        found["loom.request_id"] = response.request_id
    provider = response.metadata.get("provider")
    if isinstance(provider, str):
        # With routes to fall back on, another provider may have answered.
        found["gen_ai.provider.name"] = provider_name(provider)
    return found


def error_attributes(error: LoomError, *, begun: bool) -> dict[str, Any]:
    """
    What is known of a call that failed; its message stays with the caller.

    Args:
        error: How it failed.
        begun: Whether a part of the answer had come.

    Returns:
        Attributes: code, status, attempts, and tokens if the vendor had reported them.
    """
    found: dict[str, Any] = {
        "error.type": error.code,
        "loom.attempts": error.attempts,
        **server_attributes(error.timeline),
    }
    last = None if error.timeline is None else error.timeline.attempts[-1:]
    if last and last[0].status is not None:
        found["http.response.status_code"] = last[0].status
    if error.request_id is not None:
        found["loom.request_id"] = error.request_id
    if begun:
        found["gen_ai.response.finish_reasons"] = ["error"]
    if error.partial is not None and error.partial.usage is not None:
        found.update(usage_attributes(error.partial.usage))
    return found


def usage_attributes(usage: Usage) -> dict[str, Any]:
    """
    Tokens as attributes of a span.

    The conventions count every kind of token in `input_tokens`; Mistral counts sound apart.

    Args:
        usage: Tokens.

    Returns:
        Attributes; `loom.usage.estimated` if the vendor did not report them.
    """
    found: dict[str, Any] = {
        "gen_ai.usage.input_tokens": usage.input_tokens + usage.audio_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
    }
    if usage.cached_tokens:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
    if usage.audio_tokens:
        found["gen_ai.usage.audio.input_tokens"] = usage.audio_tokens
    if usage.estimated:
        found["loom.usage.estimated"] = True
    return found


def cost_attributes(usage: Usage) -> dict[str, Any]:
    """
    Money as attributes of a span.

    Args:
        usage: Tokens and money.

    Returns:
        Whole millionths of a US dollar, the exact amount as text, and the price's row; empty when
        the cost is unknown.
    """
    if usage.cost_usd is None:
        return {}
    micros = (usage.cost_usd * _MICROS).to_integral_value(ROUND_HALF_EVEN)
    found: dict[str, Any] = {
        "loom.cost.usd": format(usage.cost_usd, "f"),
        "loom.cost.usd_micros": int(micros),
    }
    if usage.price is not None:
        found["loom.price.id"] = usage.price.id
    return found


def server_attributes(timeline: Timeline | None) -> dict[str, Any]:
    """
    Whose socket it was.

    Args:
        timeline: What happened; None if nobody kept one.

    Returns:
        Address and port of the last request that was sent; empty if none was.
    """
    sent = [] if timeline is None else [each for each in timeline.attempts if each.origin]
    if not sent:
        return {}
    scheme, _, place = sent[-1].origin.partition("://")
    host, colon, port = place.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = place, ""
    found: dict[str, Any] = {"server.address": host.strip("[]")}
    number = int(port) if port.isdecimal() else _PORTS.get(scheme)
    if number is not None:
        found["server.port"] = number
    return found


def metric_attributes(found: Mapping[str, Any]) -> dict[str, Any]:
    """
    Those of a span's attributes that a metric is split by: few values, and no text.

    Args:
        found: The attributes of a span.

    Returns:
        Operation, provider, models, address and port.
    """
    return {name: found[name] for name in _OF_METRICS if name in found}


_OF_METRICS = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)


def notice_attributes(
    event: Retried | Rerouted | Restarted | Throttled,
) -> tuple[str, dict[str, Any]]:
    """
    A notice as an event of a span.

    Args:
        event: What happened on the way.

    Returns:
        Name and attributes.
    """
    match event:
        case Retried(attempt=attempt, wait_s=wait_s, error=error):
            facts: dict[str, Any] = {"loom.attempt": attempt, "loom.wait_s": wait_s}
            return "loom.retried", {"error.type": error.code, **facts}
        case Rerouted(error=error, provider=provider, model=model):
            return "loom.rerouted", {"error.type": error.code, **_route(provider, model)}
        case Restarted(provider=provider, model=model):
            return "loom.restarted", _route(provider, model)
        case _:
            return "loom.throttled", {"loom.wait_s": event.wait_s}


def _route(provider: str, model: str) -> dict[str, Any]:
    return {"gen_ai.provider.name": provider_name(provider), "gen_ai.request.model": model}


def input_modality(request: ChatRequest) -> str:
    """
    Of what kind a prompt's tokens are, those of sound left out.

    Args:
        request: What was asked.

    Returns:
        "text" if nothing else was sent; else "unknown": the vendor reports images and documents
        in one number with the text.
    """
    return _modality(request.messages)


def output_modality(response: LLMResponse) -> str:
    """
    Of what kind an answer's tokens are.

    Args:
        response: The answer.

    Returns:
        "text", or "unknown" if something else is among them.
    """
    return _modality([choice.message for choice in response.choices])


def _modality(messages: Sequence[Message]) -> str:
    plain = all(
        content is None
        or isinstance(content, str)
        or all(isinstance(part, TextPart | ThinkingPart) for part in content)
        for content in (message.content for message in messages)
    )
    return "text" if plain else "unknown"
