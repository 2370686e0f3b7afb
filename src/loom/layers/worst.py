"""What a call costs at the most, and what it likely cost when nobody said: pure policy."""

from __future__ import annotations

from decimal import Decimal
from math import ceil, inf

from loom.catalog.cost import cost
from loom.core.messages import AudioPart
from loom.core.model import ModelCard
from loom.core.plan import BYTES_PER_TOKEN
from loom.core.request import ChatRequest
from loom.core.response import Usage
from loom.layers.bounds import most_tokens

__all__ = ["has_sound", "likely_usage", "worst_cost"]

# GPT-4o mini counts 2,833 tokens, and 5,667 for each of at most 8 squares: the most of a model
# that is not Mistral's. Source: OpenAI's guide "Images and vision", "Calculating costs".
_FOREIGN_IMAGE = 48_169


def worst_cost(request: ChatRequest, card: ModelCard | None) -> Decimal | None:
    """
    The most that one attempt may cost; no token is counted.

    A prompt has at most a token for each byte, and at most the window; the answer has at most
    `max_tokens`, the model's longest answer, or the window. Of texts that are to become vectors
    each has the window for itself, and there is no answer in tokens.

    Args:
        request: What is asked.
        card: Its model on the day of the call; None when unknown.

    Returns:
        US dollars; None when the price is unknown, or nothing bounds the tokens.
    """
    price = None if card is None else card.price
    if card is None or price is None:
        return None
    if price.usd_per_audio_second and has_sound(request):
        return None  # billed by the second, and nobody has listened to it yet
    window = inf if card.context_window is None else card.context_window
    most = (
        most_tokens(request)
        if card.provider == "mistral"
        else most_tokens(request, image=_FOREIGN_IMAGE)
    )
    prompt = min(most, window)
    asked = request.sampling.max_tokens
    longest = min(inf if asked is None else asked, card.max_output or inf, window)
    if request.kind == "embeddings":
        prompt, longest = min(most, window * len(request.messages)), 0
    if inf in (prompt, longest):
        return None
    # With "auto" the vendor chooses the tier when it answers.
    tier = "priority" if request.service_tier == "auto" else None
    return cost(
        price,
        input_tokens=int(prompt),
        output_tokens=int(longest) * (request.sampling.n or 1),
        tier=tier,
    )


def likely_usage(request: ChatRequest, said_bytes: int, prompts: int = 1) -> Usage:
    """
    What a call used that was broken off before the vendor said so.

    Args:
        request: What was asked.
        said_bytes: Bytes of the answer that came.
        prompts: How many times the prompt may have been billed.

    Returns:
        An estimate; 3.2 bytes are taken for a token.
    """
    most = most_tokens(request)
    prompt = 0 if most == inf else ceil(most / BYTES_PER_TOKEN) * prompts
    answer = ceil(said_bytes / BYTES_PER_TOKEN)
    return Usage(
        input_tokens=prompt, output_tokens=answer, total_tokens=prompt + answer, estimated=True
    )


def has_sound(request: ChatRequest) -> bool:
    """
    Whether a request holds sound, which some models bill by the second.

    Args:
        request: What is asked.

    Returns:
        True if one of its messages does.
    """
    return any(
        isinstance(part, AudioPart)
        for message in request.messages
        for part in (() if isinstance(message.content, str) else message.content or ())
    )
