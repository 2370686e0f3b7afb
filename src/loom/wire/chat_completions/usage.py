"""Usage as OpenAI reports it, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from loom.core.response import Usage
from loom.wire.counts import Count

__all__ = ["WireUsage", "decode_usage", "encode_usage"]


class _PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = None
    audio_tokens: Count | None = None


class _AnswerDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class WireUsage(msgspec.Struct):
    """
    The fast path.

    Source: openai 3.57 `types/completion_usage.py`.
    """

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _AnswerDetails | None = None

    def value(self) -> Usage:
        """The usage that it stands for: OpenAI counts sound among the prompt, we beside it."""
        prompt, answer = self.prompt_tokens, self.completion_tokens
        of_prompt, of_answer = self.prompt_tokens_details, self.completion_tokens_details
        cached = sound = thought = 0
        if of_prompt is not None:
            cached = of_prompt.cached_tokens or 0
            sound = min(of_prompt.audio_tokens or 0, prompt)
        if of_answer is not None:
            thought = of_answer.reasoning_tokens or 0
        return Usage(
            input_tokens=prompt - sound,
            output_tokens=answer,
            total_tokens=prompt + answer if self.total_tokens is None else self.total_tokens,
            cached_tokens=min(cached, prompt - sound),
            audio_tokens=sound,
            reasoning_tokens=min(thought, answer),
        )


def decode_usage(value: Any) -> Usage:
    """
    Tokens as the vendor reported them; `estimated` where a count is missing or is none.

    Args:
        value: The `usage` object as JSON values; anything else when there was none.

    Returns:
        The tokens, for the bill unless they are estimated.
    """
    if not isinstance(value, Mapping):
        return Usage(estimated=True)
    # Details that cannot be read cost the details, not the counts.
    for details in (value, _counts(value)):
        try:
            return msgspec.convert(details, WireUsage).value()
        except msgspec.ValidationError:
            continue
    return Usage(estimated=True)


def _counts(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.get(name) for name in ("prompt_tokens", "completion_tokens")}


def encode_usage(usage: Usage) -> dict[str, Any]:
    """
    Usage as JSON values.

    Args:
        usage: The tokens.

    Returns:
        The counts with their details, keys in the order of OpenAI's examples.
    """
    return {
        "prompt_tokens": usage.input_tokens + usage.audio_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": usage.audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
