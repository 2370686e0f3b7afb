"""
Counts the tokens of prompts and answers, exactly where the model's vocabulary is known.

A prompt is counted as the encoded request that goes over the wire, because the vendor counts that.
Which vocabulary and format a model has is a row of `models.toml` (`ModelCard.tokenizer`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from loom.catalog.estimate import rough_tokens
from loom.catalog.layout import Layout, lay_out, lay_out_answer
from loom.catalog.template import TEMPLATES, Template
from loom.catalog.vocabulary import INSTALL, Vocabulary, available, vocabulary
from loom.core.messages import ToolCall
from loom.core.model import ModelCard
from loom.core.plan import TokenCount

__all__ = [
    "count_completion",
    "count_prompt",
    "count_text",
    "exact_counts_available",
    "load",
    "split_text",
]

# For a model whose format is not known: what most of Mistral's current models have.
_USUAL = TEMPLATES["tekken-v13"]

_ROUGH = Vocabulary(count=lambda text: len(rough_tokens(text)), split=rough_tokens)


def exact_counts_available() -> bool:
    """Whether the packages of the extra `tokens` are installed; nothing is loaded."""
    return available()


def load(card: ModelCard | None) -> None:
    """
    Load the vocabulary of a model, so that counting does not have to.

    Up to 0.3 s at the first call, nothing afterwards: a program with an event loop calls it in a
    thread. Without the extra `tokens` there is nothing to load.

    Args:
        card: The model; None for one that the catalogue does not know.

    Raises:
        ConfigInvalid: If the installed `mistral-common` lacks the vocabulary's file.
    """
    _vocabulary(_template(card))


def count_prompt(body: Mapping[str, Any], card: ModelCard | None) -> TokenCount:
    """
    Tokens of a request's prompt, as the vendor reports them in `usage.prompt_tokens`.

    The body may be a chat request, a FIM request (`prompt`, `suffix`) or an embedding request
    (`input`); it is not validated.

    Args:
        body: The encoded request.
        card: The model on the day of the request; None when the catalogue does not know it.

    Returns:
        The count, and whether and why it is an estimate.

    Raises:
        ConfigInvalid: If the installed `mistral-common` lacks the vocabulary's file.
    """
    template = _template(card)
    layout = lay_out(body, template)
    cut = _vocabulary(template)
    tokens = layout.marks + sum(map(cut.count, layout.texts))
    reasons = [*_ignorance(card, str(body.get("model", ""))), *layout.doubts]
    return TokenCount(
        tokens=tokens, estimated=bool(reasons), reason="; ".join(reasons) if reasons else None
    )


def count_completion(
    text: str,
    thinking: str,
    calls: Sequence[ToolCall],
    finish_reason: str | None,
    card: ModelCard | None,
) -> int:
    """
    Tokens of one answer, as the vendor reports them in `usage.completion_tokens`.

    Text, thinking with its two marks, calls, and one for the end, unless `max_tokens` cut it off.

    Args:
        text: What the model said.
        thinking: What it thought, if that was shown.
        calls: The tools it called.
        finish_reason: Why it ended, in the vendor's words.
        card: The model on the day of the answer; None when the catalogue does not know it.

    Returns:
        Tokens, at least 1; an estimate where `count_prompt` would give one.

    Raises:
        ConfigInvalid: If the installed `mistral-common` lacks the vocabulary's file.
    """
    template = _template(card)
    layout: Layout = lay_out_answer(text, thinking, calls, template)
    cut = _vocabulary(template)
    end = template.end_counted and finish_reason not in ("length", "model_length")
    return max(1, layout.marks + sum(map(cut.count, layout.texts)) + end)


def count_text(text: str, card: ModelCard | None) -> TokenCount:
    """
    Tokens of a bare text, without any format around it.

    Args:
        text: Any text.
        card: The model on the day; None when the catalogue does not know it.

    Returns:
        The count, and whether and why it is an estimate.

    Raises:
        ConfigInvalid: If the installed `mistral-common` lacks the vocabulary's file.
    """
    tokens = _vocabulary(_template(card)).count(text)
    reasons = _ignorance(card, "" if card is None else card.id)
    return TokenCount(
        tokens=tokens, estimated=bool(reasons), reason="; ".join(reasons) if reasons else None
    )


def split_text(text: str, card: ModelCard | None) -> Sequence[str]:
    """
    Cut a text into its tokens.

    Args:
        text: Any text.
        card: The model on the day; None when the catalogue does not know it.

    Returns:
        As many pieces as tokens; joined they are the text. A sign that takes several tokens
        stands in the last of them, and the others are empty.

    Raises:
        ConfigInvalid: If the installed `mistral-common` lacks the vocabulary's file.
    """
    return _vocabulary(_template(card)).split(text)


def _template(card: ModelCard | None) -> Template:
    name = None if card is None else card.tokenizer
    return _USUAL if name is None else TEMPLATES.get(name, _USUAL)


def _vocabulary(template: Template) -> Vocabulary:
    return vocabulary(template.vocabulary) if available() else _ROUGH


def _ignorance(card: ModelCard | None, model: str) -> list[str]:
    reasons = []
    if card is None or card.tokenizer not in TEMPLATES:
        reasons.append(f"the tokenizer of {model!r} is not known")
    if not available():
        reasons.append(f"the vocabularies are not installed: {INSTALL}")
    return reasons
