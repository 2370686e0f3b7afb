"""The catalogue as the rows of `GET /v1/models`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loom.core.model import Ability, ModelCard

__all__ = ["model_rows"]

# Names on the wire in the wire's order (contract, section 8), and ours.
_CAPABILITIES: dict[str, Ability] = {
    "completion_chat": "chat",
    "function_calling": "tools",
    "reasoning": "reasoning",
    "completion_fim": "fim",
    "fine_tuning": "fine_tuning",
    "vision": "vision",
    "ocr": "ocr",
    "classification": "classification",
    "moderation": "moderation",
    "audio": "audio",
    "audio_transcription": "transcription",
    "audio_transcription_realtime": "transcription_realtime",
    "audio_speech": "speech",
}


def model_rows(cards: Iterable[ModelCard], created: int) -> list[dict[str, Any]]:
    """
    One row for each id and each alias, as the vendor lists them.

    Args:
        cards: What is known of the models on a day.
        created: Unix time in seconds; the vendor gives the time of the request.

    Returns:
        Rows with the keys of the recorded ones.
    """
    return [_row(card, name, created) for card in cards for name in (card.id, *card.aliases)]


def _row(card: ModelCard, name: str, created: int) -> dict[str, Any]:
    abilities = {wire: ours in card.abilities for wire, ours in _CAPABILITIES.items()}
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "mistralai",
        "capabilities": {**abilities, "unified_resources": False},
        "name": card.id,
        "description": card.best_for or card.title,
        "max_context_length": card.context_window,
        "aliases": [each for each in (card.id, *card.aliases) if each != name],
        # The recorded rows name noon, UTC, of the last day.
        "deprecation": card.retires_on and f"{card.retires_on.isoformat()}T12:00:00Z",
        "deprecation_replacement_model": card.replacement,
        "default_model_temperature": card.default_temperature,
        "type": "base",
    }
