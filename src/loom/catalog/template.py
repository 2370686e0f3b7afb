"""
Mistral's prompt formats as rows: what each one writes, and how it differs from the one before.

`catalog/layout.py` obeys the rows.

Source: mistral-common 1.13.1, `tokens/tokenizers/instruct.py`, `protocol/instruct/normalize.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from loom.catalog.media import ImageRule

__all__ = ["TEMPLATES", "Template", "VocabularyName"]

VocabularyName: TypeAlias = Literal[
    "tekken", "sentencepiece-v1", "sentencepiece-v2", "sentencepiece-v3", "sentencepiece-v7"
]
"""What cuts the texts; `catalog/vocabulary.py` knows their files."""


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """
    One prompt format.

    Attributes:
        vocabulary: What cuts its texts.
        spelt: Whether `[INST]` is written as text, not as a mark.
        system: Where system messages stand: in marks of their `own`, or before the text of the
            `first` or the `last` user message.
        tools: The user message before which the tools are listed; None when it lists none.
        calls: How tool calls are written: in one JSON `list`, or each in `marks`.
        call_ids: Whether a call is written with its id.
        results: How a tool result is written: in a JSON `list`, as a JSON `object`, as `text`
            behind its id, or as text `alone`.
        forgets: Whether calls and results before the last user message are left out.
        joint: Between two pieces of text of one message.
        settings: Whether the reasoning effort is told.
        thinking: Whether it has marks for thinking.
        image: How an image becomes tokens; None when no model of the format sees.
        end_counted: Whether the mark that ends an answer is one of its `completion_tokens`.
    """

    vocabulary: VocabularyName
    spelt: bool = False
    system: Literal["first", "last", "own"]
    tools: Literal["first", "last"] | None
    calls: Literal["list", "marks"]
    call_ids: bool
    results: Literal["list", "object", "text", "alone"]
    forgets: bool = False
    joint: str = "\n\n"
    settings: bool = False
    thinking: bool = False
    image: ImageRule | None = None
    end_counted: bool = True


# Pixtral: `tekken_240911.json`, and the image configuration "m1" in the package.
_PIXTRAL = ImageRule(patch=16, most=1024)
# Own measurement on the recorded images; docs/tokens.md, "Images".
_MERGED = ImageRule(patch=28, most=1540)

_V1 = Template(
    vocabulary="sentencepiece-v1",
    spelt=True,
    system="first",
    tools=None,
    calls="list",
    call_ids=False,
    results="list",
    forgets=True,
)
_V2 = replace(_V1, vocabulary="sentencepiece-v2", spelt=False, system="last", tools="last")
_V3 = replace(_V2, vocabulary="sentencepiece-v3", call_ids=True, results="object", forgets=False)
_V7 = replace(_V3, vocabulary="sentencepiece-v7", system="own", results="text", image=_PIXTRAL)
_V11 = replace(_V7, vocabulary="tekken", calls="marks", image=_MERGED)
_V13 = replace(_V11, tools="first", call_ids=False, results="alone", thinking=True)
_V15 = replace(_V13, joint="", settings=True)

TEMPLATES: Mapping[str, Template] = {
    "sentencepiece-v1": _V1,
    "sentencepiece-v2": _V2,
    "sentencepiece-v3": _V3,
    # Recorded answers count their end from November 2024 on, and never before.
    "sentencepiece-v3-2024": replace(_V3, end_counted=False),
    "sentencepiece-v7": _V7,
    "tekken-v3": replace(_V3, vocabulary="tekken", image=_PIXTRAL),
    "tekken-v7": replace(_V7, vocabulary="tekken", image=_MERGED),
    "tekken-v11": _V11,
    "tekken-v13": _V13,
    "tekken-v15": _V15,
}
"""The formats by the names that the catalogue's rows use."""
