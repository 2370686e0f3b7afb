"""Answers in words: they follow plain wishes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from loom.providers.prose import answer, thoughts, told, topic


def first(options: Sequence[str]) -> str:
    return options[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Please explain Python protocols.", "Python protocols"),
        ("Can you tell me about the sea?", "the sea"),
        ("what is a loom", "a loom"),
        ("Why is the sky blue?", 'the question "Why is the sky blue?"'),
        ("", "your request"),
    ],
)
def test_a_prompt_has_a_topic(text: str, expected: str) -> None:
    """Politeness and verbs are taken off; a question stays whole."""
    assert expected == topic(text)


def test_a_long_first_line_is_cut_at_a_word() -> None:
    """A topic stays short enough to stand in a sentence."""
    about = topic("loom " * 40)

    assert about.endswith("loom ...")
    assert len(about) <= 70


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reply with exactly: identity probe", "identity probe"),
        ('Say only "yes"', "yes"),
        ("say hello", "hello"),
        ("What is 12 * 12? Answer with just the number.", "144"),
        ("How much is 2 + 3?", "2 + 3 = 5."),
        ("Name the capital of France in one word", "France"),
        ("Hello!", "Hello! How can I help you today?"),
    ],
)
def test_a_plain_wish_is_obeyed(text: str, expected: str) -> None:
    """Exact words, sums, single words and greetings are answered as such."""
    assert expected == answer("", text, first)


def test_an_explanation_has_several_sentences_and_names_its_topic() -> None:
    """An ordinary answer reads like one and says that no model was asked."""
    text = answer("", "Explain Python protocols.", first)

    assert "Python protocols" in text
    assert text.count(".") >= 4
    assert "no model was asked" in text


def test_brevity_asked_for_anywhere_makes_it_brief() -> None:
    """The system message may ask for a short answer."""
    long, short = (answer(s, "Explain Python.", first) for s in ("", "You are brief."))

    assert len(short) < len(long) / 2


def test_a_story_is_longer() -> None:
    """A story has paragraphs and its hero dreams of what was asked."""
    story = answer("", "Write a story about a robot", first)

    assert "a robot" in story
    assert story.count("\n\n") >= 4
    assert len(story) > 800


@pytest.mark.parametrize(
    ("text", "count"),
    [("Give me three tips", 3), ("List fruits", 5), ("12 ideas please", 12), ("99 facts", 20)],
)
def test_a_list_has_the_number_of_points_that_was_asked_for(text: str, count: int) -> None:
    """A number before ways, tips or ideas is obeyed, within reason."""
    text = answer("", text, first)

    assert f"\n{count}. " in text
    assert f"\n{count + 1}. " not in text


def test_more_effort_thinks_longer() -> None:
    """Each word of effort gives longer thoughts than the one before."""
    lengths = [len(thoughts("x", effort, first)) for effort in ("minimal", "low", "medium", "high")]

    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ('{"temperature_c": 21, "sky": "clear", "dry": true, "wind": null}', "temperature c 21"),
        ("[1, 2]", "1, 2."),
        ("It rains.", "It rains."),
        ("", "nothing."),
        ("{broken", "{broken."),
    ],
)
def test_a_tool_result_is_told(result: str, expected: str) -> None:
    """JSON results are read out, texts are quoted."""
    assert expected in told([("get_weather (Paris)", result)])


def test_several_results_are_listed() -> None:
    """Each result stands on a line with its call."""
    assert "- a: 1.\n- b: 2." in told([("a", "1"), ("b", "2")])
