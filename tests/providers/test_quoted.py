"""What a vendor quotes of a key or a prompt is taken out of its error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loom import Message
from loom.core.errors import InvalidRequest
from loom.core.request import ChatRequest
from loom.providers.quoted import clean_error

PROMPT = "The patient's name is Anna Schmidt, born in 1971 in Ulm."


def asked(*texts: str) -> ChatRequest:
    return ChatRequest(model="m", messages=tuple(Message.user(text) for text in texts))


def cleaned(message: str, *texts: str, **fields: str) -> InvalidRequest:
    error = InvalidRequest(message, **fields)  # type: ignore[arg-type]  # texts, all of them
    clean_error(error, asked(*texts), ["a-key-of-ours"])
    assert (error.message,) == error.args
    return error


@given(start=st.integers(0, 24), length=st.integers(32, 40), before=st.text(max_size=40))
def test_a_quote_of_a_clause_is_found_wherever_it_stands(
    start: int, length: int, before: str
) -> None:
    """Thirty-two characters in a row, at any place of either text."""
    quote = PROMPT[start : start + length]
    assert len(quote) >= 32
    error = cleaned(f"{before}: {quote} is refused", "What else?", PROMPT)
    assert quote not in error.message
    assert "..." in error.message


def test_what_is_no_quote_stays() -> None:
    """A sentence of the vendor's is not cut for words that stand in the prompt as well."""
    said = "Prompt contains 9000 tokens: too large for model with 8192 maximum context length"
    assert said == cleaned(said, "What is the maximum context length of a model?").message


def test_two_quotes_are_two_cuts() -> None:
    """What stands between them is the vendor's."""
    error = cleaned(f"'{PROMPT}' and then '{PROMPT}' again", PROMPT)
    assert "'...' and then '...' again" == error.message


@pytest.mark.parametrize("name", ["vendor_code", "vendor_type", "request_id"])
@pytest.mark.parametrize("value", ["a-key-of-ours", "see a-key-of-ours", "two words\n"])
def test_fields_hold_a_word_or_nothing(name: str, value: str) -> None:
    """A key, or a sentence, is neither a code nor an id."""
    assert getattr(cleaned("no", **{name: value}), name) is None
    assert "1500" == getattr(cleaned("no", **{name: "1500"}), name)


def test_what_stands_behind_a_gap_is_no_less_the_callers() -> None:
    """The suffix of a request to fill in the middle is taken out too."""
    request = ChatRequest(
        model="m", messages=(Message.user("x"),), kind="fim", extra={"suffix": PROMPT}
    )
    error = InvalidRequest(f"no: {PROMPT}")
    clean_error(error, request, [])
    assert "no: ..." == error.message


def test_a_key_is_masked() -> None:
    """Wherever it stands in the message."""
    assert (
        "the key *** is wrong: ***"
        == cleaned("the key a-key-of-ours is wrong: a-key-of-ours").message
    )
