"""Usage as Mistral reports it, in each form it has had (contract: section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loom.core.response import Usage

__all__ = ["decode_usage", "encode_usage"]

_MAX_TOKENS = 10**9
"""Larger counts are garbage: the largest window is about a million tokens."""


def decode_usage(value: Mapping[str, Any] | None) -> Usage:
    """
    Tokens as the vendor reported them.

    0 is a count; a missing, negative or absurd count is none, and the usage is marked as
    estimated so that whoever knows the request can fill it in.

    Args:
        value: The `usage` object; None when there was none.

    Returns:
        The tokens; `estimated` is True when they must not be billed as they are.
    """
    if value is None:
        return Usage(estimated=True)
    prompt, answer = _count(value.get("prompt_tokens")), _count(value.get("completion_tokens"))
    if prompt is None or answer is None:
        return Usage(estimated=True)
    details = value.get("prompt_tokens_details")
    if not isinstance(details, Mapping):
        # One model of 2026 writes the name in the singular.
        details = value.get("prompt_token_details")
    if not isinstance(details, Mapping):
        details = {}
    cached = _count(details.get("cached_tokens"))
    if cached is None:
        cached = _count(value.get("num_cached_tokens")) or 0
    audio = _count(details.get("audio_tokens")) or 0
    total = _count(value.get("total_tokens"))
    tier = value.get("service_tier")
    return Usage(
        input_tokens=prompt,
        output_tokens=answer,
        total_tokens=prompt + answer + audio if total is None else total,
        cached_tokens=min(cached, prompt),
        audio_tokens=audio,
        audio_seconds=_count(value.get("prompt_audio_seconds")) or 0,
        service_tier=tier if isinstance(tier, str) else None,
    )


def encode_usage(usage: Usage) -> dict[str, Any]:
    """
    Usage in the form and key order of August 2026.

    Args:
        usage: The tokens.

    Returns:
        JSON values.
    """
    details: dict[str, int] = {"cached_tokens": usage.cached_tokens}
    wire: dict[str, Any] = {}
    if usage.audio_seconds or usage.audio_tokens:
        wire["prompt_audio_seconds"] = usage.audio_seconds
        details["audio_tokens"] = usage.audio_tokens
    wire["prompt_tokens"] = usage.input_tokens
    wire["total_tokens"] = usage.total_tokens
    wire["completion_tokens"] = usage.output_tokens
    wire["prompt_tokens_details"] = details
    wire["service_tier"] = usage.service_tier or "standard"
    return wire


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_TOKENS else None
