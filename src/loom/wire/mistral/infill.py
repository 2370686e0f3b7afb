"""Filling in the middle as Mistral writes it in JSON, server role (contract: section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.messages import Message
from loom.core.request import ChatRequest, Sampling

__all__ = ["decode_infill_request"]

_SAMPLING = ("temperature", "top_p", "max_tokens", "min_tokens", "random_seed")


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
        extra={"suffix": body.get("suffix") or ""},
    )
