"""What holds for the counts of all conversations, and beside the vendor's own encoder."""

import copy
import json
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from mistral_common.exceptions import MistralCommonException

from loom.catalog.layout import lay_out
from loom.catalog.template import TEMPLATES
from loom.catalog.tokens import count_prompt, count_text, split_text
from loom.core.model import ModelCard

CARDS = {name: ModelCard(id=name, tokenizer=name) for name in TEMPLATES}
TEXT = st.text(max_size=30) | st.sampled_from(
    ["Hello there", " two  blanks ", '{"a": 1}', "", "日本語 😀", "\n\n"]
)
TEXTS = TEXT | st.lists(st.builds(lambda text: {"type": "text", "text": text}, TEXT), max_size=3)
USER = st.builds(lambda content: [{"role": "user", "content": content}], TEXTS)
SYSTEM = st.builds(lambda content: [{"role": "system", "content": content}], TEXTS)
SAID = TEXT.filter(lambda text: text.strip() != "")
ASSISTANT = st.builds(lambda content: [{"role": "assistant", "content": content}], SAID)
ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8), max_size=2)


def _called(arguments: list[dict[str, Any]], results: list[str]) -> list[dict[str, Any]]:
    calls = [
        {"id": f"call{place:05}", "function": {"name": "look_up", "arguments": json.dumps(given)}}
        for place, given in enumerate(arguments)
    ]
    answers = [
        {"role": "tool", "tool_call_id": call["id"], "name": "look_up", "content": result}
        for call, result in zip(calls, results, strict=False)
    ]
    return [{"role": "assistant", "content": "", "tool_calls": calls}, *answers]


CALLED = st.builds(
    _called, st.lists(ARGUMENTS, min_size=1, max_size=2), st.lists(SAID, min_size=2, max_size=2)
)
CONVERSATION = st.lists(USER | SYSTEM | ASSISTANT | CALLED, max_size=6).map(
    lambda turns: [message for turn in turns for message in turn]
)
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Look a word up — quickly",
            "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
        },
    }
]
NAMES = st.sampled_from(sorted(TEMPLATES))


@given(text=TEXT, name=NAMES)
def test_pieces_join_to_the_text(text: str, name: str) -> None:
    """As many pieces as tokens, and joined they are the text."""
    pieces = split_text(text, CARDS[name])
    assert text == "".join(pieces)
    assert count_text(text, CARDS[name]).tokens == len(pieces)


@given(text=st.text())
def test_guessed_pieces_join_to_the_text(text: str) -> None:
    """The estimate loses no letter either."""
    from loom.catalog.estimate import rough_tokens

    assert text == "".join(rough_tokens(text))


@given(messages=CONVERSATION, name=NAMES)
@settings(deadline=None)
def test_counts_are_deterministic(messages: list[dict[str, Any]], name: str) -> None:
    """The same request has the same count, and counting does not change it."""
    body = {"messages": messages, "tools": TOOLS}
    before = copy.deepcopy(body)
    assert count_prompt(body, CARDS[name]) == count_prompt(body, CARDS[name])
    assert before == body


@given(
    messages=CONVERSATION,
    more=USER | SYSTEM | ASSISTANT | CALLED,
    name=NAMES.filter(lambda name: not TEMPLATES[name].forgets),
)
@settings(deadline=None)
def test_another_turn_adds_tokens(
    messages: list[dict[str, Any]], more: list[dict[str, Any]], name: str
) -> None:
    """Another turn never lowers a count, in the formats that forget nothing."""
    # Tools stand before the last user turn; no request goes out without one.
    assume(any(message["role"] == "user" for message in messages))
    card = CARDS[name]
    less = count_prompt({"messages": messages, "tools": TOOLS}, card).tokens
    assert less <= count_prompt({"messages": messages + more, "tools": TOOLS}, card).tokens


def test_half_signs_are_counted() -> None:
    """Half of a sign, which no wire can carry, is counted like a sign that is not known."""
    for card in CARDS.values():
        assert 0 < count_text("a\ud800b", card).tokens
        assert "a\ud800b" == "".join(split_text("a\ud800b", card))


def test_long_runs_of_blanks() -> None:
    """A million blanks are counted, and joined again."""
    text = "a" + " " * 1_000_000 + "b"
    assert text == "".join(split_text(text, CARDS["tekken-v13"]))


# ------------------------------------------------------------------ beside the vendor's encoder


@cache
def _oracles() -> dict[str, Callable[[dict[str, Any]], int]]:
    from mistral_common.protocol.instruct.normalize import get_normalizer
    from mistral_common.protocol.instruct.request import ChatCompletionRequest
    from mistral_common.tokens.tokenizers import instruct
    from mistral_common.tokens.tokenizers.base import SpecialTokens, TokenizerVersion
    from mistral_common.tokens.tokenizers.model_settings_builder import ModelSettingsBuilder
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
    from mistral_common.tokens.tokenizers.tekken import SpecialTokenInfo, Tekkenizer

    found = find_spec("mistral_common")
    assert found is not None
    assert found.submodule_search_locations
    data = Path(found.submodule_search_locations[0]) / "data"
    file = json.loads((data / "tekken_240911.json").read_bytes())
    builder = ModelSettingsBuilder.model_validate(
        {
            "reasoning_effort": {
                "type": "enum",
                "values": ["none", "high"],
                "accepts_none": True,
                "default": "none",
            }
        }
    )
    newest: Any = Tekkenizer(
        vocab=file["vocab"],
        special_tokens=[
            SpecialTokenInfo(rank=place, token_str=str(token), is_control=True)
            for place, token in enumerate(SpecialTokens)
        ],
        pattern=file["config"]["pattern"],
        vocab_size=file["config"]["default_vocab_size"],
        num_special_tokens=file["config"]["default_num_special_tokens"],
        version=TokenizerVersion.v15,
        model_settings_builder=builder,
    )
    older = copy.copy(newest)
    older._model_settings_builder = None
    files = {path.suffix: path for path in data.glob("*.model.v*")}

    def oracle(version: str, tokenizer: Any) -> Callable[[dict[str, Any]], int]:
        settings_of = builder if version == "v15" else None
        encoder = getattr(instruct, f"InstructTokenizer{version.upper()}")(tokenizer)
        normalizer = get_normalizer(TokenizerVersion(version), settings_of)

        def count(body: dict[str, Any]) -> int:
            request: Any = ChatCompletionRequest.model_validate(body)
            return len(
                encoder.encode_instruct(normalizer.from_chat_completion_request(request)).tokens
            )

        return count

    tekken = {
        f"tekken-{version}": oracle(version, newest if version == "v15" else older)
        for version in ("v3", "v7", "v11", "v13", "v15")
    }
    pieces = {
        f"sentencepiece-{version}": oracle(version, SentencePieceTokenizer(files[f".{version}"]))
        for version in ("v1", "v2", "v3", "v7")
    }
    return tekken | pieces


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"sentencepiece-v3-2024"}))
@given(messages=CONVERSATION)
@settings(deadline=None, max_examples=60)
def test_beside_the_vendors_encoder(name: str, messages: list[dict[str, Any]]) -> None:
    """Each format lays any conversation out to the length that `mistral-common` gives it."""
    body = {"messages": messages} if name.endswith("v1") else {"messages": messages, "tools": TOOLS}
    oracle = _oracles()[name]
    try:
        expected = oracle(body)
    except (MistralCommonException, ValueError, AssertionError):
        # It refuses some of what the API takes, and what a format had no way to say.
        event("refused")
        return
    assert expected == count_prompt(body, CARDS[name]).tokens, lay_out(body, TEMPLATES[name]).texts
