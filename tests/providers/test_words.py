"""What a prompt offers to fill in."""

from __future__ import annotations

from typing import Any

import pytest

from loom.providers.words import Words, arithmetic, name_words


@pytest.mark.parametrize(
    ("prompt", "name", "kind", "expected"),
    [
        ("What's the weather in Paris?", "location", "string", "Paris"),
        ("What is the weather like in New York today?", "city", "string", "New York"),
        ("Book a flight from Berlin to Oslo", "origin", "string", "Berlin"),
        ("Book a flight from Berlin to Oslo", "destination", "string", "Oslo"),
        ("Anna is 33 and lives in Oslo", "name", "string", "Anna"),
        ("Anna is 33 and lives in Oslo", "city", "string", "Oslo"),
        ("What is the status of transaction T1001?", "transaction_id", "string", "T1001"),
        ("cancel order id A-17 please", "order_id", "string", "A-17"),
        ("read path: ./a/x.txt", "path", "string", "./a/x.txt"),
        ('translate "good day" to French', "text", "string", "good day"),
        ("search for good tea", "query", "string", "search for good tea"),
        ("what is 12 * 12?", "expression", "string", "12 * 12"),
        ("mail ada@example.org now", "email", "string", "ada@example.org"),
        ("meet on 2026-12-24", "day", "date", "2026-12-24"),
        ("open https://example.org/a?b=1.", "url", "string", "https://example.org/a?b=1"),
        ("set the limit to 7 for 3 users", "limit", "integer", 7),
        ("it has 3 users", "users", "integer", 3),
        ("pay 3.5 now", "amount", "number", 3.5),
    ],
)
def test_a_prompt_suggests_a_value(prompt: str, name: str, kind: str, expected: Any) -> None:
    """The first suggestion is the one that a reader would choose."""
    assert expected == Words(prompt).suggest(name, kind)[0]


def test_a_prompt_without_names_suggests_none() -> None:
    """A capital letter at the head of a sentence is no name."""
    assert [] == Words("Tell me. What is it? Use the tool!").names


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("the weather in Paris and Rome", ["Paris", "Rome"]),
        ("the weather in Paris, Rome and Oslo", ["Paris", "Rome", "Oslo"]),
        ("the weather in Paris, France", ["Paris"]),
        ("the weather", []),
    ],
)
def test_names_side_by_side_are_several(prompt: str, expected: list[str]) -> None:
    """Names joined by "and" are several; a comma alone explains the name before it."""
    assert expected == Words(prompt).joined_names()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("what is 12 * 12?", ("12 * 12", "144")),
        ("7/2", ("7/2", "3.5")),
        ("1 - 2.5", ("1 - 2.5", "-1.5")),
        ("1 / 0", None),
        ("on 2026-01-15", None),
        ("15/01/2026", None),
        ("version 1.2.3", None),
    ],
)
def test_a_sum_is_worked_out(text: str, expected: tuple[str, str] | None) -> None:
    """A sum in a prompt is found with its value; a day is no sum."""
    assert expected == arithmetic(text)


def test_an_identifier_has_words() -> None:
    """Underscores, hyphens and inner capitals part the words of a name."""
    assert ("get", "current", "weather", "by", "id") == name_words("getCurrent_weather-byId")
