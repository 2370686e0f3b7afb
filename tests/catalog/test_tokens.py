"""Counts of tokens beside what the vendor counted when the exchanges were recorded."""

import re
from pathlib import Path

import pytest
from tests.recorded import Exchange, exchanges, needed, truth_of
from tests.recorded_prompts import Prompt, prompts

from loom.catalog import tokens
from loom.catalog import vocabulary as vocabularies
from loom.catalog.lookup import Catalog
from loom.catalog.rows import read_sheet
from loom.catalog.template import TEMPLATES
from loom.catalog.tokens import (
    count_completion,
    count_prompt,
    count_text,
    exact_counts_available,
    load,
    split_text,
)
from loom.core.errors import ConfigInvalid
from loom.core.messages import ToolCall
from loom.core.model import ModelCard

TEXT_ONLY = [prompt for prompt in prompts() if prompt.text_only]
WITH_MEDIA = [prompt for prompt in prompts() if not prompt.text_only]
HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello there"}]}
SMALL = ModelCard(id="small", tokenizer="tekken-v15")
LARGE = ModelCard(id="large", tokenizer="tekken-v13")


def test_recordings_are_there() -> None:
    """The recordings hold chats with requests, text alone and with media."""
    needed()
    assert TEXT_ONLY
    assert WITH_MEDIA


@pytest.mark.parametrize("prompt", TEXT_ONLY, ids=str)
def test_prompt_of_a_recorded_text_chat(prompt: Prompt) -> None:
    """A prompt of text is counted as the vendor counted it, by the model of its day."""
    found = count_prompt(prompt.body, prompt.card)

    assert prompt.prompt_tokens == found.tokens
    assert not found.estimated, found.reason


@pytest.mark.parametrize("prompt", WITH_MEDIA, ids=str)
def test_prompt_of_a_recorded_chat_with_media(prompt: Prompt) -> None:
    """With media a count is either the vendor's, or marked with a reason."""
    found = count_prompt(prompt.body, prompt.card)

    assert found.estimated or prompt.prompt_tokens == found.tokens
    assert found.estimated == (found.reason is not None)


def test_images_in_the_request_are_counted() -> None:
    """Most recorded chats whose images came with the request, unshortened, are counted exactly."""
    needed()
    exact = [p for p in WITH_MEDIA if not count_prompt(p.body, p.card).estimated]
    assert any("image_url" in str(prompt.body) for prompt in exact)


def test_completions_of_recorded_chats() -> None:
    """At least 97 % of the recorded answers are counted as the vendor counted them."""
    needed()
    truths = {exchange.file: truth_of(exchange) for exchange in exchanges() if _answered(exchange)}
    missed = [
        prompt.file
        for prompt in prompts()
        if prompt.completion_tokens
        != sum(
            count_completion(
                choice["text"],
                choice["thinking"],
                [ToolCall("", name, arguments=given) for name, given in choice["calls"]],
                choice["finish_reason"],
                prompt.card,
            )
            for choice in truths[prompt.file]["choices"]
        )
    ]
    assert len(missed) <= 0.03 * len(prompts()), missed


def _answered(exchange: Exchange) -> bool:
    return exchange.file in {prompt.file for prompt in prompts()}


EMBEDDED = [one for one in exchanges() if one.kind == "embeddings" and one.request]


@pytest.mark.parametrize("exchange", EMBEDDED, ids=str)
def test_recorded_embeddings(exchange: Exchange) -> None:
    """The inputs of an embedding request are counted as the vendor counted them."""
    counted = re.findall(rb'"prompt_tokens":\s*(\d+)', exchange.body)
    request = exchange.request or {}
    if not counted:
        pytest.skip("the recorded reply is an error")
    card = next(
        card
        for card in Catalog.builtin().cards(prompts()[0].day, retired=True)
        if request["model"] in (card.id, *card.aliases)
    )
    assert int(counted[-1]) == count_prompt(request, card).tokens


def test_a_row_names_a_known_tokenizer() -> None:
    """A row with a tokenizer that nobody can count with is refused, with the known ones."""
    with pytest.raises(ConfigInvalid, match="'tekken-v99' is none of sentencepiece-v1, "):
        read_sheet('[[model]]\nid = "m"\ntokenizer = "tekken-v99"', "prices.toml")


def test_unknown_model_is_an_estimate() -> None:
    """Without a known tokenizer the count is marked, and says whose it misses."""
    for card in (None, ModelCard(id="m"), ModelCard(id="m", tokenizer="tekken-v99")):
        found = count_prompt(HELLO, card)
        assert found.estimated
        assert found.reason is not None
        assert "'m'" in found.reason
        assert found.tokens == count_prompt(HELLO, LARGE).tokens
    assert count_text("Hello", None).estimated


def test_missing_extra_is_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the count is marked, names the command, and is not far off."""
    exact = count_prompt(HELLO, LARGE)
    monkeypatch.setattr(vocabularies, "find_spec", lambda name: None)
    monkeypatch.setattr(tokens, "available", vocabularies.available.__wrapped__)

    found = count_prompt(HELLO, LARGE)

    assert not exact_counts_available()
    assert found.estimated
    assert found.reason is not None
    assert "pip install 'looms[tokens]'" in found.reason
    assert abs(exact.tokens - found.tokens) <= 2
    assert split_text("Hello there", LARGE)
    load(LARGE)
    with pytest.raises(ConfigInvalid, match="looms"):
        vocabularies._load.__wrapped__("tekken")


def test_bare_text() -> None:
    """A bare text has no marks around it."""
    found = count_text("Hello there", LARGE)
    assert (len(split_text("Hello there", LARGE)), False) == (found.tokens, found.estimated)


def test_no_settings_for_an_answer_in_json() -> None:
    """A response format of JSON takes the settings out of the prompt; its schema adds nothing."""
    plain = count_prompt(HELLO, SMALL).tokens
    for kind in ("json_object", "json_schema"):
        wanted = {"type": kind, "json_schema": {"name": "n", "schema": {"type": "object"}}}
        found = count_prompt({**HELLO, "response_format": wanted}, SMALL)
        assert count_prompt(HELLO, LARGE).tokens == found.tokens
        assert plain - 12 == found.tokens


def test_effort_is_told() -> None:
    """The word of the reasoning effort stands in the prompt."""
    none, high = (
        count_prompt({**HELLO, "reasoning_effort": word}, SMALL).tokens for word in ("none", "high")
    )
    assert none == count_prompt(HELLO, SMALL).tokens
    assert none == high


TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("read_the_file", "go")
]


def test_tool_choice_none_drops_the_tools() -> None:
    """With `none` the tools are not in the prompt."""
    found = count_prompt({**HELLO, "tools": TOOLS, "tool_choice": "none"}, LARGE)
    assert count_prompt(HELLO, LARGE).tokens == found.tokens


def test_named_tool_stands_alone() -> None:
    """A named tool is the only one listed, and the start of its call is in the prompt."""
    choice = {"type": "function", "function": {"name": "read_the_file"}}
    alone = count_prompt({**HELLO, "tools": TOOLS[:1]}, LARGE).tokens
    found = count_prompt({**HELLO, "tools": TOOLS, "tool_choice": choice}, LARGE)
    assert alone + 2 + count_text("read_the_file", LARGE).tokens == found.tokens


def test_vendors_own_tools_are_marked() -> None:
    """A tool that is no function makes the count an estimate."""
    found = count_prompt({**HELLO, "tools": [{"type": "web_search"}]}, LARGE)
    assert found.estimated
    assert found.tokens > count_prompt(HELLO, LARGE).tokens


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": "https://example.org/cat.png"},
        {"type": "document_url", "document_url": "https://example.org/a.pdf"},
        {"type": "input_audio", "input_audio": "UklGRg=="},
        {"type": "file", "file_id": "f"},
        {"type": "reference", "reference_ids": [1]},
    ],
    ids=lambda part: str(part["type"]),
)
def test_what_cannot_be_counted_is_marked(part: dict[str, object]) -> None:
    """Each part without a known rule adds something, and marks the count."""
    content = [{"type": "text", "text": "Hello there"}, part]
    found = count_prompt({"model": "m", "messages": [{"role": "user", "content": content}]}, LARGE)
    assert found.estimated
    assert found.tokens > count_prompt(HELLO, LARGE).tokens


def test_thinking_in_an_older_format() -> None:
    """Thinking in the history of a model without marks for it is counted, and marked."""
    thought = {"type": "thinking", "thinking": "Paris, I think."}
    spoken = {"role": "assistant", "content": [thought, {"type": "text", "text": "Paris"}]}
    body = {"messages": [*HELLO["messages"], spoken, *HELLO["messages"]]}
    older, newer = (
        count_prompt(body, ModelCard(id="m", tokenizer=name))
        for name in ("tekken-v11", "tekken-v13")
    )
    assert older.estimated
    assert not newer.estimated
    assert older.tokens + 2 == newer.tokens


def test_infill_request() -> None:
    """A FIM request is its two texts and three marks."""
    body = {"model": "m", "prompt": "def f(", "suffix": "return 1"}
    texts = count_text("def f(", LARGE).tokens + count_text("return 1", LARGE).tokens
    assert texts + 3 == count_prompt(body, LARGE).tokens


def test_cut_answer_has_no_end() -> None:
    """An answer cut by `max_tokens` lacks the token of its end; an empty one still has one."""
    whole = count_completion("Hello", "", [], "stop", LARGE)
    assert whole - 1 == count_completion("Hello", "", [], "length", LARGE)
    assert 1 == count_completion("", "", [], "length", LARGE)


def test_ends_of_2024_are_not_counted() -> None:
    """In the first answers of 2024 the end was no token of the answer."""
    old = ModelCard(id="m", tokenizer="sentencepiece-v3-2024")
    new = ModelCard(id="m", tokenizer="sentencepiece-v3")
    both = [count_completion("France won", "", [], "stop", card) for card in (old, new)]
    assert [2, 3] == both


def test_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without the vocabulary's file is an error that names the file."""
    monkeypatch.setitem(vocabularies._FILES, "tekken", "absent.json")
    with pytest.raises(ConfigInvalid, match=r"absent\.json"):
        vocabularies._load.__wrapped__("tekken")


def test_the_page_names_every_format() -> None:
    """The page about token counts describes each format that the catalogue may name."""
    page = Path(__file__).resolve().parents[2] / "docs" / "tokens.md"
    text = page.read_text(encoding="utf-8")
    assert [] == [name for name in TEMPLATES if f"`{name}`" not in text]
