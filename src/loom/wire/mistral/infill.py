"""Filling in the middle as Mistral writes it in JSON, both roles (contract: section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.errors import InvalidRequest
from loom.core.messages import Message
from loom.core.request import ChatRequest, Sampling

__all__ = ["SUFFIX", "decode_infill_request", "encode_infill_request"]

SUFFIX = "suffix"
"""Under which name of `ChatRequest.extra` that stands which stands behind the gap."""

_SAMPLING = ("temperature", "top_p", "max_tokens", "min_tokens", "random_seed")
_NO_SAMPLING = tuple(
    field.name
    for field in msgspec.structs.fields(Sampling)
    if field.name not in (*_SAMPLING, "stop")
)
# What a chat may ask for, and this request has no field for. Source: the vendor's `openapi.yaml`.
_FOREIGN = (
    "tools", "tool_choice", "parallel_tool_calls", "response_format", "prediction",
    "reasoning_effort", "prompt_mode", "guardrails", "service_tier", "safe_prompt",
)  # fmt: skip


def encode_infill_request(request: ChatRequest) -> dict[str, Any]:
    """
    A request to fill in the middle as JSON values; only what is set.

    Args:
        request: One such as `decode_infill_request` makes.

    Returns:
        The body; what `extra` holds beside the suffix is among it as it is.

    Raises:
        InvalidRequest: If it holds more than one message, one with something else than text, or
            something that only a chat knows.
    """
    _check(request)
    body: dict[str, Any] = {"model": request.model, "prompt": request.messages[0].content}
    extra = dict(request.extra)
    if suffix := extra.pop(SUFFIX, None):
        body[SUFFIX] = suffix
    for name in (*_SAMPLING, "stop"):
        if (value := getattr(request.sampling, name)) is not None:
            body[name] = value
    if request.stream:
        body["stream"] = True
    if request.prompt_cache_key is not None:
        body["prompt_cache_key"] = request.prompt_cache_key
    if request.metadata is not None:
        body["metadata"] = request.metadata
    body.update(extra)
    return body


def _check(request: ChatRequest) -> None:
    messages = request.messages
    if len(messages) != 1 or not isinstance(messages[0].content, str):
        raise InvalidRequest("a request to fill in the middle has one prompt, a text")
    sampling = request.sampling
    wrong = [name for name in _NO_SAMPLING if getattr(sampling, name) is not None]
    wrong += [name for name in _FOREIGN if getattr(request, name) not in (None, ())]
    if wrong:
        raise InvalidRequest(f"a request to fill in the middle has no {wrong[0]!r}")


def decode_infill_request(body: Mapping[str, Any]) -> ChatRequest:
    """
    A request to fill in the middle, in the shape of a chat: its answer has that shape too.

    Args:
        body: One that `check_fim_request` let through.

    Returns:
        A request whose only message, the user's, is what stands before the gap; what stands
        behind it is `extra["suffix"]`, empty when there is none.
    """
    stop = body.get("stop")
    drawn = {name: body.get(name) for name in _SAMPLING}
    return ChatRequest(
        model=body["model"],
        messages=(Message.user(body["prompt"]),),
        sampling=Sampling(stop=tuple(stop) if isinstance(stop, list) else stop, **drawn),
        prompt_cache_key=body.get("prompt_cache_key"),
        metadata=body.get("metadata"),
        stream=body.get("stream") is True,
        extra={SUFFIX: body.get("suffix") or ""},
        kind="fim",
    )
