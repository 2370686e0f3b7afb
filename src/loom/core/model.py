"""What is known of a model: its card and its price, each with source and date."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

__all__ = ["Ability", "ModelCard", "ModelState", "Price"]

Ability: TypeAlias = Literal[
    "chat",
    "tools",
    "reasoning",
    "vision",
    "documents",
    "audio",
    "fim",
    "embeddings",
    "moderation",
    "classification",
    "ocr",
    "transcription",
    "transcription_realtime",
    "speech",
    "fine_tuning",
]

ModelState: TypeAlias = Literal["ga", "preview", "deprecated", "retired"]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """
    A dated price row. Amounts are US dollars, never floats.

    Attributes:
        id: Names the row, for example `mistral-large-2512@2025-12-02`.
        input_usd_per_mtok: Per million prompt tokens; None when this model does not bill them.
        output_usd_per_mtok: Per million answer tokens.
        cached_input_usd_per_mtok: Per million prompt tokens that came from the vendor's cache.
        usd_per_page: Per page read (OCR).
        usd_per_audio_second: Per second of sound.
        batch_factor: What a batch pays of the normal price.
        priority_factor: What the priority tier pays of the normal price; None when unknown.
        long_prompt_tokens: Prompts of more tokens pay the factors below, for all of their tokens;
            None: the price is the same for all.
        long_input_factor: What the input of such a call pays of the normal price, cached or not.
        long_output_factor: The same for its output.
        valid_from: First day of the row, UTC; None when it was not published.
        source: Where the numbers stand.
        checked_on: When somebody last compared them with the source.
    """

    id: str
    input_usd_per_mtok: Decimal | None = None
    output_usd_per_mtok: Decimal | None = None
    cached_input_usd_per_mtok: Decimal | None = None
    usd_per_page: Decimal | None = None
    usd_per_audio_second: Decimal | None = None
    batch_factor: Decimal = Decimal("0.5")
    priority_factor: Decimal | None = Decimal("1.75")
    long_prompt_tokens: int | None = None
    long_input_factor: Decimal = Decimal(1)
    long_output_factor: Decimal = Decimal(1)
    valid_from: date | None = None
    source: str = ""
    checked_on: date | None = None


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """
    What was true of a model on a day.

    Attributes:
        id: The id that bills are made out to.
        provider: Who serves it: "mistral", "openai", ...
        title: Its name for people, for example "Mistral Large".
        aliases: Other ids that meant this model on that day, legacy ids among them.
        legacy_ids: Those of the aliases that are versioned ids of older models.
        context_window: Prompt and answer together, in tokens; None when unknown.
        max_output: The longest answer in tokens; None when the window is the only limit.
        abilities: What it can do.
        licence: For example "Apache 2.0" or "commercial".
        open_weights: Whether its weights are published.
        parameters: All parameters, for example "46.7B"; None when unknown.
        active_parameters: Parameters used for a token, for example "12.9B".
        architecture: For example "MoE (8x7B)".
        best_for: What it is chosen for, in a few words.
        use_cases: Examples of such work.
        speed: The vendor's word for its speed.
        state: Whether to use it.
        retires_on: Its last day, when announced.
        replacement: The id that the vendor names instead.
        default_temperature: What the vendor uses when none is sent.
        reasoning_efforts: The words that `reasoning_effort` takes; empty when it takes none.
        tokenizer: Vocabulary and prompt format, for example `tekken-v13`; None when unknown.
        price: The row in force on that day; None when unknown.
        source: Where the facts stand.
        checked_on: When somebody last compared them with the source.
    """

    id: str
    provider: str = "mistral"
    title: str = ""
    aliases: tuple[str, ...] = ()
    legacy_ids: tuple[str, ...] = ()
    context_window: int | None = None
    max_output: int | None = None
    abilities: frozenset[Ability] = frozenset()
    licence: str = ""
    open_weights: bool = False
    parameters: str | None = None
    active_parameters: str | None = None
    architecture: str | None = None
    best_for: str = ""
    use_cases: tuple[str, ...] = ()
    speed: str | None = None
    state: ModelState = "ga"
    retires_on: date | None = None
    replacement: str | None = None
    default_temperature: float | None = None
    reasoning_efforts: tuple[str, ...] = ()
    tokenizer: str | None = None
    price: Price | None = None
    source: str = ""
    checked_on: date | None = None
