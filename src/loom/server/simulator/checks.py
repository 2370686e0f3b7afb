"""What the real API refuses before it charges anything: shape, model, turns, window."""

from __future__ import annotations

from typing import Any

from loom.catalog.tokens import count_prompt
from loom.server.simulator.exchange import Exchange
from loom.wire.mistral.strict import (
    FindModel,
    check_embeddings_request,
    check_fim_request,
    check_request,
    check_window,
)

__all__ = ["StrictCheck", "prompt_tokens"]


class StrictCheck:
    """
    Refuses as `wire/mistral/strict.py` says.

    Args:
        find: The card of a model; None for one that is unknown. None takes every model.
    """

    def __init__(self, find: FindModel | None) -> None:
        self._find = find

    def __call__(self, exchange: Exchange) -> None:
        """
        Look at one request.

        Args:
            exchange: The request; its body is a JSON object.

        Raises:
            InvalidRequest: As the strict check says.
            ModelNotFound: If the model is unknown.
            ContextTooLong: If the prompt, or prompt and `max_tokens`, pass the model's window.
        """
        match exchange.asked.path:
            case path if not path.startswith("/v1/"):
                pass  # another vendor's API, which has a check of its own
            case "/v1/fim/completions":
                check_fim_request(exchange.fields, find=self._find)
            case "/v1/embeddings":
                check_embeddings_request(exchange.fields, find=self._find)
            case _:
                check_request(exchange.fields, find=self._find)
                _check_window(exchange)


def prompt_tokens(exchange: Exchange) -> int:
    """
    Tokens of a request's prompt.

    Args:
        exchange: The request.

    Returns:
        Exact where the vocabulary is installed and known, else an estimate.
    """
    return count_prompt(exchange.fields or {}, exchange.card).tokens


def _check_window(exchange: Exchange) -> None:
    card, fields = exchange.card, exchange.fields or {}
    if card is None or card.context_window is None:
        return
    most: Any = fields.get("max_tokens") or 0
    # A token is a byte of the body at least: a body that fits need not be counted.
    if len(exchange.body) + most > card.context_window:
        check_window(fields, card, prompt_tokens(exchange))
