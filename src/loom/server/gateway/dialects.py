"""
Whose dialect a caller speaks, and what of one vendor's request another vendor does not know.

The rule, first match wins:

1. the header `x-loom-dialect: openai` or `mistral`;
2. the path: `/openai/v1/...` or `/mistral/v1/...`;
3. the SDK: `x-stainless-lang`, or a user agent that begins with `OpenAI/` or `AsyncOpenAI/`, is
   OpenAI's; one that names `mistral` is Mistral's;
4. anybody else speaks OpenAI's: nearly every other tool does.

Sources: openai 3.57 `_base_client.py` (`user_agent`, `platform_headers`); mistralai 3.7.0
`client/_version.py` (`__user_agent__`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from loom.core.request import ChatRequest

__all__ = ["DialectName", "dialect_of", "fitted_for", "refused_fields"]

DialectName: TypeAlias = Literal["openai", "mistral"]

_NAMED: dict[bytes, DialectName] = {b"openai": "openai", b"mistral": "mistral"}

# What OpenAI knows and Mistral refuses with 422 (contract/mistral.md section 2, "extra_forbidden"),
# and what becomes of it. Every other field has the same meaning under its own name
# (`max_completion_tokens` -> `max_tokens`, `seed` -> `random_seed`, `developer` -> `system`), or
# means nothing to the answer.
_UNKNOWN_TO_MISTRAL = frozenset(
    {
        "audio", "logit_bias", "logprobs", "modalities", "moderation", "prompt_cache_options",
        "prompt_cache_retention", "safety_identifier", "store", "top_logprobs", "user", "verbosity",
        "web_search_options",
    }
)  # fmt: skip
# Which of them changes what the caller gets: to leave it out would be another answer.
_NOT_TO_BE_DROPPED = frozenset({"audio", "modalities", "web_search_options"})
# Consumed here: the gateway asks for usage itself.
_CONSUMED = frozenset({"stream_options"})

_UNKNOWN_TO_OPENAI = ("prompt_mode", "guardrails", "safe_prompt")
_NOT_SAMPLED_BY_OPENAI = ("min_tokens", "top_k", "repetition_penalty")


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
    if path.startswith("/mistral/"):
        return "mistral"
    if b"x-stainless-lang" not in headers and b"mistral" in headers.get(b"user-agent", b"").lower():
        return "mistral"
    return "openai"


def fitted_for(request: ChatRequest, vendor: str) -> tuple[ChatRequest, tuple[str, ...]]:
    """
    A request without what a vendor does not know.

    Args:
        request: As the caller's dialect was read.
        vendor: Who is asked, for example "mistral".

    Returns:
        The request, and the fields that were left out, by the names of their own dialect. The
        same request when there are none.
    """
    if vendor == "mistral":
        return _for_mistral(request)
    if vendor == "openai":
        return _for_openai(request)
    return request, ()


def refused_fields(request: ChatRequest, vendor: str) -> tuple[str, ...]:
    """
    Fields without which the answer would be another one, and that the vendor does not know.

    Args:
        request: As the caller's dialect was read.
        vendor: Who is asked.

    Returns:
        Their names; () when there are none.
    """
    if vendor != "mistral":
        return ()
    return tuple(name for name in request.extra if name in _NOT_TO_BE_DROPPED)


def _for_mistral(request: ChatRequest) -> tuple[ChatRequest, tuple[str, ...]]:
    extra = request.extra
    gone = [name for name in extra if name in _UNKNOWN_TO_MISTRAL]
    if not gone and not any(name in _CONSUMED for name in extra):
        return request, ()
    left = {
        name: value
        for name, value in extra.items()
        if name not in _UNKNOWN_TO_MISTRAL and name not in _CONSUMED
    }
    return msgspec.structs.replace(request, extra=left), tuple(sorted(gone))


def _for_openai(request: ChatRequest) -> tuple[ChatRequest, tuple[str, ...]]:
    changes: dict[str, Any] = {}
    gone = [name for name in _UNKNOWN_TO_OPENAI if getattr(request, name) is not None]
    changes.update(dict.fromkeys(gone))
    unsampled = [n for n in _NOT_SAMPLED_BY_OPENAI if getattr(request.sampling, n) is not None]
    if unsampled:
        nothing: dict[str, Any] = dict.fromkeys(unsampled)
        changes["sampling"] = msgspec.structs.replace(request.sampling, **nothing)
    if not changes:
        return request, ()
    return msgspec.structs.replace(request, **changes), tuple(sorted([*gone, *unsampled]))
