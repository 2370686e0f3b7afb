"""
Whose dialect a caller speaks, and what of one vendor's request another vendor does not know.

The rule, first match wins:

1. the header `x-loom-dialect: openai` or `mistral`;
2. the path: `/openai/v1/...` or `/mistral/v1/...`, and `/v1/fim/completions`, which only Mistral
   has;
3. the SDK: `x-stainless-lang`, or a user agent that begins with `OpenAI/` or `AsyncOpenAI/`, is
   OpenAI's; one that names `mistral` is Mistral's;
4. anybody else speaks OpenAI's: nearly every other tool does.

Sources: openai 3.57 `_base_client.py` (`user_agent`, `platform_headers`); mistralai 3.7.0
`client/_version.py` (`__user_agent__`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.messages import RawPart, TextPart, ThinkingPart
from loom.core.request import ChatRequest, Sampling
from loom.core.response import LLMResponse

__all__ = ["FIELDS", "DialectName", "Fate", "dialect_of", "fitted_for", "unread_parts"]

DialectName: TypeAlias = Literal["openai", "mistral"]

_NAMED: dict[bytes, DialectName] = {b"openai": "openai", b"mistral": "mistral"}

Fate: TypeAlias = Literal["translated", "dropped", "refused", "consumed"]
"""
What becomes of a field that another vendor is asked with.

"translated": it has the same meaning there, under its own name or another one. "dropped": it means
nothing there, and is named in the header `x-loom-dropped`. "refused": without it the answer would
be another one, so the caller is told to leave it out. "consumed": the gateway obeys it itself.
"""

# A row for every field of the vendor's request; a test compares them with the official SDKs.
FIELDS: Mapping[DialectName, Mapping[str, Fate]] = {
    # What OpenAI knows, for Mistral, which refuses other fields with 422 (contract/mistral.md
    # section 2, "extra_forbidden").
    "openai": {
        "audio": "refused",
        "frequency_penalty": "translated",
        "function_call": "translated",  # tool_choice
        "functions": "translated",  # tools
        "logit_bias": "dropped",
        "logprobs": "dropped",
        "max_completion_tokens": "translated",  # max_tokens
        "max_tokens": "translated",
        "messages": "translated",
        "metadata": "translated",
        "modalities": "refused",
        "model": "translated",
        "moderation": "dropped",
        "n": "translated",
        "parallel_tool_calls": "translated",
        "prediction": "translated",
        "presence_penalty": "translated",
        "prompt_cache_key": "translated",
        "prompt_cache_options": "dropped",
        "prompt_cache_retention": "dropped",
        "reasoning_effort": "translated",
        "response_format": "translated",
        "safety_identifier": "dropped",
        "seed": "translated",  # random_seed
        "service_tier": "translated",  # where Mistral has such a tier
        "stop": "translated",
        "store": "dropped",
        "stream": "translated",
        "stream_options": "consumed",
        "temperature": "translated",
        "tool_choice": "translated",
        "tools": "translated",
        "top_logprobs": "dropped",
        "top_p": "translated",
        "user": "dropped",
        "verbosity": "dropped",
        "web_search_options": "refused",
    },
    # What Mistral knows, for OpenAI.
    "mistral": {
        "frequency_penalty": "translated",
        "guardrails": "refused",
        "logprobs": "dropped",  # an answer in Mistral's shape has no place for them
        "max_tokens": "translated",  # max_completion_tokens
        "messages": "translated",
        "metadata": "translated",
        "min_tokens": "dropped",
        "model": "translated",
        "n": "translated",
        "parallel_tool_calls": "translated",
        "prediction": "translated",
        "presence_penalty": "translated",
        "prompt_cache_key": "translated",
        "prompt_logprobs": "dropped",
        "prompt_mode": "dropped",
        "random_seed": "translated",  # seed
        "reasoning_effort": "translated",
        "repetition_penalty": "dropped",
        "response_format": "translated",
        "safe_prompt": "refused",
        "service_tier": "translated",
        "stop": "translated",
        "stream": "translated",
        "stream_options": "consumed",
        "temperature": "translated",
        "tool_choice": "translated",
        "tools": "translated",
        "top_k": "dropped",
        "top_logprobs": "dropped",
        "top_p": "translated",
        "top_prompt_logprobs": "dropped",
    },
}

# Tiers of the same price. Source: contract/mistral.md section 2; openai 3.57
# `completion_create_params.py`.
_TIERS: Mapping[DialectName, Mapping[str, str]] = {
    "openai": {"auto": "auto", "default": "standard_only"},
    "mistral": {"auto": "auto", "standard_only": "default"},
}
_WORD = re.compile(r"[a-z0-9_]{1,32}")
_IN_SAMPLING = frozenset(field.name for field in msgspec.structs.fields(Sampling))
_IN_REQUEST = frozenset(field.name for field in msgspec.structs.fields(ChatRequest))


def dialect_of(path: str, headers: Mapping[bytes, bytes]) -> DialectName:
    """
    Whose dialect a request is in.

    Args:
        path: The URL's path.
        headers: Names in lower case.

    Returns:
        Its name; see the rule above.
    """
    said = _NAMED.get(headers.get(b"x-loom-dialect", b"").lower())
    if said is not None:
        return said
    if path.startswith("/openai/"):
        return "openai"
    if path.startswith(("/mistral/", "/v1/fim/")):
        return "mistral"
    if b"x-stainless-lang" not in headers and b"mistral" in headers.get(b"user-agent", b"").lower():
        return "mistral"
    return "openai"


def fitted_for(
    request: ChatRequest, speaks: DialectName, vendor: str
) -> tuple[ChatRequest, tuple[str, ...]]:
    """
    A request without what a vendor does not know.

    Args:
        request: As the caller's dialect was read.
        speaks: That dialect.
        vendor: Who is asked, for example "mistral".

    Returns:
        The request, and the fields that were left out, by the names of their own dialect. The
        same request when there is nothing to change.

    Raises:
        InvalidRequest: If there is a field without which the answer would be another one.
    """
    if vendor == speaks:
        return _with_usage(request, vendor), ()
    if vendor not in FIELDS:
        return request, ()
    dropped: list[str] = []
    refused: list[str] = []
    for name, fate in FIELDS[speaks].items():
        if fate == "dropped" and _value(request, name) is not None:
            dropped.append(name)
        elif fate == "refused" and _value(request, name):
            refused.append(name)
    if refused:
        raise InvalidRequest(
            f"{', '.join(map(repr, refused))}: the model that answers here cannot do that;"
            " leave it out",
            attempts=0,
        )
    return _without(request, speaks, dropped)


def unread_parts(response: LLMResponse, speaks: DialectName, vendor: str) -> tuple[str, ...]:
    """
    What of an answer has no place in a dialect.

    Args:
        response: The answer.
        speaks: The caller's dialect.
        vendor: Who was asked; an answer of the same dialect loses nothing.

    Returns:
        For example `("answer.reference",)`.
    """
    if speaks != "openai" or vendor == speaks:
        return ()
    found: set[str] = set()
    for choice in response.choices:
        content = choice.message.content
        if content is None or isinstance(content, str):
            continue
        for part in content:
            if not isinstance(part, TextPart | ThinkingPart):
                kind = part.type if isinstance(part, RawPart) else type(part).__struct_config__.tag
                # The vendor's own word may be any text.
                found.add(f"answer.{kind}" if _WORD.fullmatch(str(kind)) else "answer.unknown")
    return tuple(sorted(found))


def _value(request: ChatRequest, name: str) -> Any:
    if name in _IN_SAMPLING:
        return getattr(request.sampling, name)
    return getattr(request, name) if name in _IN_REQUEST else request.extra.get(name)


def _without(
    request: ChatRequest, speaks: DialectName, dropped: list[str]
) -> tuple[ChatRequest, tuple[str, ...]]:
    changes: dict[str, Any] = {}
    tier = request.service_tier
    if tier is not None:
        changes["service_tier"] = _TIERS[speaks].get(tier)
        if changes["service_tier"] is None:
            dropped.append("service_tier")
    unsampled: dict[str, Any] = dict.fromkeys(name for name in dropped if name in _IN_SAMPLING)
    if unsampled:
        changes["sampling"] = msgspec.structs.replace(request.sampling, **unsampled)
    fates = FIELDS[speaks]
    # What is refused is here only where it says nothing, as `false` does.
    gone = [name for name in request.extra if fates.get(name, "translated") != "translated"]
    if gone:
        left = {name: value for name, value in request.extra.items() if name not in gone}
        changes["extra"] = left
    for name in fates:
        if fates[name] in ("dropped", "refused") and name in _IN_REQUEST:
            changes[name] = None
    changes = {name: value for name, value in changes.items() if value != _value(request, name)}
    if not changes:
        return request, ()
    return msgspec.structs.replace(request, **changes), tuple(sorted(dropped))


def _with_usage(request: ChatRequest, vendor: str) -> ChatRequest:
    """The same request, of a stream that tells what it used: OpenAI tells it only when asked."""
    if vendor != "openai" or "stream_options" not in request.extra:
        return request
    options = {**request.extra["stream_options"], "include_usage": True}
    return msgspec.structs.replace(request, extra={**request.extra, "stream_options": options})
