"""Usage as Mistral reports it, in each form it has had (contract: section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.response import Usage
from loom.wire.counts import Count, count

__all__ = ["WireUsage", "decode_usage", "encode_usage"]


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None
    audio_tokens: Count = 0


class WireUsage(msgspec.Struct):
    """The fast path: usage as every recording of 2026 writes it."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: _Details | None = None
    prompt_token_details: _Details | None = None
    num_cached_tokens: Count | None = None
    prompt_audio_seconds: Count | None = None
    service_tier: str | None = None

    def value(self) -> Usage:
        """The usage that it stands for."""
        details = self.prompt_tokens_details or self.prompt_token_details
        cached = self.num_cached_tokens if details is None else details.cached_tokens
        if cached is None:
            cached = self.num_cached_tokens or 0
        return Usage(
            input_tokens=self.prompt_tokens,
            output_tokens=self.completion_tokens,
            total_tokens=self.total_tokens,
            cached_tokens=min(cached, self.prompt_tokens),
            audio_tokens=0 if details is None else details.audio_tokens,
            audio_seconds=self.prompt_audio_seconds or 0,
            service_tier=self.service_tier,
        )


def decode_usage(value: Any) -> Usage:
    """
    Tokens as the vendor reported them; a form that the fast path refuses is read piece by piece.

    Args:
        value: The `usage` object as JSON values; anything else when there was none.

    Returns:
        The tokens; `estimated` is True when they must not be billed as they are.
    """
    if not isinstance(value, Mapping):
        return Usage(estimated=True)
    try:
        return msgspec.convert(value, WireUsage).value()
    except msgspec.ValidationError:
        pass  # something in it is missing, of another type, or absurd
    prompt, answer = count(value.get("prompt_tokens")), count(value.get("completion_tokens"))
    if prompt is None or answer is None:
        return Usage(estimated=True)
    details = value.get("prompt_tokens_details")
    if not isinstance(details, Mapping):
        # One model of 2026 writes the name in the singular.
        details = value.get("prompt_token_details")
    if not isinstance(details, Mapping):
        details = {}
    cached = count(details.get("cached_tokens"))
    if cached is None:
        cached = count(value.get("num_cached_tokens")) or 0
    audio = count(details.get("audio_tokens")) or 0
    total = count(value.get("total_tokens"))
    tier = value.get("service_tier")
    return Usage(
        input_tokens=prompt,
        output_tokens=answer,
        total_tokens=prompt + answer + audio if total is None else total,
        cached_tokens=min(cached, prompt),
        audio_tokens=audio,
        audio_seconds=count(value.get("prompt_audio_seconds")) or 0,
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
