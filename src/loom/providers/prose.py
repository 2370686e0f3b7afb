"""
An answer in words, composed from the prompt.

It reads like an answer and follows plain wishes (one word, a list, a story, "reply with exactly
..."), but it knows nothing: where the prompt asks for facts, it says that no model was asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from loom.providers.words import Words, arithmetic

__all__ = ["Draw", "answer", "sentence", "thoughts", "told", "topic"]

Draw: TypeAlias = Callable[[Sequence[str]], str]
"""Chooses one of several texts, by the seed."""

_EXACTLY = re.compile(
    r"\b(?:say|reply|respond|answer|output|print|repeat|write|return)\b(?:\s+\w+){0,2}?\s+"
    r"(?:exactly|only|just|nothing but|verbatim)\b(?:\s+(?:with|the\s+words?|this|:))*\s*:?\s*"
    r"(?:[\"\u201c'`](?P<quoted>[^\"\u201d'`\n]+)[\"\u201d'`]|(?P<rest>[^\n]+?))\s*[.!]?\s*$",
    re.IGNORECASE,
)
_SAY = re.compile(
    r"^\s*say:?\s+[\"\u201c'`]?(?P<said>[^\"\u201d'`\n]+?)[\"\u201d'`]?\s*[.!]?\s*$", re.IGNORECASE
)
_FILLER = re.compile(
    r"^(?:(?:please|kindly|hi|hello|hey|now|so|ok|okay)\b[,!.]*\s*"
    r"|(?:can|could|would|will)\s+you\s+"
    r"|(?:tell|give|show|teach|write|make|explain|describe|define|summari[sz]e|compare|outline"
    r"|discuss|introduce|list|name|translate)\b\s*(?:to\s+)?(?:me|us)?\b\s*"
    r"|(?:what|who|where|when)(?:\s+(?:is|are|was|were|does|do)\s+|['\u2019]s\s+)"
    r"|(?:how|why)\s+(?:is|are|does|do|did|can|to)\s+(?:i\s+|we\s+|you\s+)?"
    r"|(?:about|something|briefly|shortly|in\s+short|i\s+want\s+to\s+know)\s+)",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"^(?:what|who|whom|whose|where|when|which|how|why|is|are|was|were|does|do|did|should|may)\b"
    r"[^?\n]*\?",
    re.IGNORECASE,
)
_BRIEF = re.compile(
    r"\b(?:brief|briefly|concise|short|shortly|tl;?dr"
    r"|(?:one|a single|1)\s+(?:short\s+)?sentence)\b",
    re.IGNORECASE,
)
_ONE_WORD = re.compile(r"\b(?:one|single|a)\s+(?:\w+\s+)?word\b|\bjust the \w+\b", re.IGNORECASE)
_STORY = re.compile(r"\b(?:story|tale|poem|novel|essay|long\s+\w+|fairy)\b", re.IGNORECASE)
_LIST = re.compile(r"^\s*(?:please\s+)?list\b|\b(?:a|as a|bullet|numbered) list\b", re.IGNORECASE)
_COUNTED = re.compile(
    r"\b(?P<count>\d{1,2}|two|three|four|five|six|seven|eight|nine|ten)\s+(?:\w+\s+)?"
    r"(?:ways|reasons|tips|ideas|steps|facts|examples|things|points|names|benefits|items)\b",
    re.IGNORECASE,
)
_GREETING = re.compile(
    r"^\s*(?:hi|hello|hey|good (?:morning|evening|day)|bonjour)\b", re.IGNORECASE
)
_NUMERALS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_COUNTS = {word: i for i, word in enumerate(_NUMERALS, 2)}
# A longer prompt is data with a question; its first words still say what it is about.
_LONGEST_TOPIC = 60
# More points than this nobody reads; "list 99 ways" is a test of max_tokens, not of patience.
_MOST_POINTS = 20

_NOTE = "This answer was composed offline from your prompt; no model was asked."

_OPENINGS = (
    "Here is a short answer about {topic}.",
    "Let us look at {topic}.",
    "You asked about {topic}.",
)
_BODY = (
    "A good way to start is to say what it is for, and only then how it works.",
    "It helps to begin with one small example and to change one thing at a time.",
    "The main point is to know what goes in, what comes out, and what may go wrong between.",
    "Most questions about it become easier once the words are used in one sense only.",
    "Look at the simplest case first; the harder ones usually differ from it in one step.",
    "It is worth writing down what you expect before you look at what happens.",
)
_POINTS = (
    "Start with the purpose.",
    "Collect what is already known.",
    "Choose the smallest example.",
    "Try it and write down the result.",
    "Compare the result with what you expected.",
    "Change one thing and try again.",
    "Ask somebody else to read it.",
    "Keep what proved useful.",
    "Remove what nobody needed.",
    "Decide on the next step.",
)
_STORY_START = (
    "Once upon a time there was {hero} who dreamed of {topic}.",
    "In a small town by the sea lived {hero}, who thought of nothing but {topic}.",
    "On the first cold morning of the year {hero} set out to look for {topic}.",
)
_HEROES = ("a clockmaker", "a young weaver", "a lighthouse keeper", "an old ferryman")
_STORY_BODY = (
    (
        "The road was longer than it looked on the map. At every bridge stood somebody who asked a"
        " question, and every question was a little harder than the one before."
    ),
    (
        "At noon the wind turned. What had been easy in the morning was now heavy, and what had"
        " been heavy was suddenly light; only the direction had changed."
    ),
    (
        "In the evening a stranger shared a loaf of bread and a piece of advice: count your threads"
        " before you weave, and you will never wonder where the pattern went wrong."
    ),
    (
        "There was a night of rain. By the light of one candle the whole plan was drawn again,"
        " smaller this time, with every knot in its place and every thread given a name."
    ),
    (
        "The next day the work went well. Threads that had never met lay side by side, and where"
        " they crossed there was a picture that nobody had drawn on purpose."
    ),
)
_STORY_END = (
    "When it was done, nobody asked how long it had taken. They only asked to see it again.",
    "And if you pass that way today, you can still hear the loom at work, thread by thread.",
    "From then on the door stood open, and whoever had a question came in and sat down.",
)


def topic(text: str) -> str:
    """
    What a prompt is about, in a few words.

    Args:
        text: For example "Please explain Python protocols."

    Returns:
        For example "Python protocols"; "your request" when nothing is left.
    """
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if question := _QUESTION.match(first):
        return f'the question "{question[0]}"' if len(question[0]) <= _LONGEST_TOPIC else "it"
    before = None
    while first != before:
        before, first = first, _FILLER.sub("", first, count=1)
    first = re.split(r"(?<=\w)[.!?:;](?:\s|$)", first)[0].strip(" \t.,!?:;")
    if len(first) > _LONGEST_TOPIC:
        first = first[:_LONGEST_TOPIC].rsplit(" ", 1)[0] + " ..."
    return first or "your request"


def sentence(text: str, draw: Draw) -> str:
    """One sentence about what a prompt asks."""
    return draw(_OPENINGS).format(topic=topic(text))


def thoughts(text: str, effort: str, draw: Draw) -> str:
    """
    What a model might think before it answers.

    Args:
        text: The prompt.
        effort: The word of `reasoning_effort`; higher means longer.
        draw: Chooses.

    Returns:
        A few sentences.
    """
    lines = [
        f"I am asked about {topic(text)}.",
        "First I look at what is given and what is asked.",
        draw(_BODY),
        "Then I check the answer against the wording of the question.",
        "Nothing in it needs a second reading, so I can answer now.",
    ]
    count = {"minimal": 1, "low": 2, "medium": 3}.get(effort, len(lines))
    return " ".join(lines[:count])


def answer(system: str, text: str, draw: Draw) -> str:
    """
    The answer to a prompt.

    Args:
        system: What the system messages say; looked at for the wished length only.
        text: The last thing that the user said.
        draw: Chooses among equal wordings.

    Returns:
        Text, never empty.
    """
    wish = f"{system}\n{text}"
    said = _literal(text) or _one_word(text, wish)
    if said:
        return said
    if _STORY.search(text):
        return _story(text, draw)
    counted = _COUNTED.search(text)
    if counted or _LIST.search(text):
        return _list(text, counted["count"] if counted else None)
    if _GREETING.match(text) and len(text) < _LONGEST_TOPIC:
        return "Hello! How can I help you today?"
    return _explanation(text, draw, brief=_BRIEF.search(wish) is not None)


def _literal(text: str) -> str | None:
    exactly = _EXACTLY.search(text) or _SAY.match(text)
    if exactly:
        said = next(group for group in exactly.groups() if group)
        if not re.match(r"(?:the|an?|one|with|in|valid)\b", said, re.IGNORECASE):
            return said.strip()
    return None


def _one_word(text: str, wish: str) -> str | None:
    sum_ = arithmetic(text)
    if sum_:
        return sum_[1] if _ONE_WORD.search(wish) else f"{sum_[0]} = {sum_[1]}."
    if _ONE_WORD.search(wish):
        names = Words(text).names
        return (names or [topic(text).split()[-1]])[-1]
    return None


def _explanation(text: str, draw: Draw, *, brief: bool) -> str:
    if brief:
        return f"{sentence(text, draw)} {_NOTE}"
    start = _BODY.index(draw(_BODY))
    body = " ".join((_BODY[start:] + _BODY[:start])[:3])
    return f"{sentence(text, draw)} {body}\n\n{_NOTE}"


def _list(text: str, count: str | None) -> str:
    wanted = 5 if count is None else _COUNTS.get(count.lower()) or int(count)
    points = [_POINTS[i % len(_POINTS)] for i in range(min(max(wanted, 1), _MOST_POINTS))]
    about = topic(text)
    lines = (f"{i}. {point}" for i, point in enumerate(points, 1))
    return f"{about[0].upper()}{about[1:]}:\n\n" + "\n".join(lines) + f"\n\n{_NOTE}"


def _story(text: str, draw: Draw) -> str:
    about = re.sub(r"^(?:an?|the)?\s*(?:\w+\s+)?(?:story|tale|poem|essay|novel)\b", "", topic(text))
    about = re.sub(r"^\s*(?:about|of|on)\s+", "", about).strip() or "the art of weaving"
    start = draw(_STORY_START).format(hero=draw(_HEROES), topic=about)
    return "\n\n".join((f"{start} {_STORY_BODY[0]}", *_STORY_BODY[1:], draw(_STORY_END)))


def told(results: Sequence[tuple[str, str]]) -> str:
    """
    A final answer that uses what tools gave back.

    Args:
        results: Pairs of a call, for example "get_weather (Paris)", and its result.

    Returns:
        One sentence for each result.
    """
    if len(results) == 1:
        return f"Here is what {results[0][0]} found: {_read(results[0][1])}"
    lines = "\n".join(f"- {name}: {_read(result)}" for name, result in results)
    return f"Here is what I found:\n\n{lines}"


def _read(result: str) -> str:
    try:
        value = json.loads(result)
    except (ValueError, RecursionError):
        value = result
    text = _spoken(value, 0).strip()
    return (text or "nothing") + ("" if text.endswith((".", "!", "?")) else ".")


def _spoken(value: Any, depth: int) -> str:
    if isinstance(value, dict) and depth < 8:
        return ", ".join(
            f"{str(key).replace('_', ' ')} {_spoken(each, depth + 1)}"
            for key, each in value.items()
        )
    if isinstance(value, list) and depth < 8:
        return ", ".join(_spoken(each, depth + 1) for each in value)
    if value is None:
        return "unknown"
    return str(value).lower() if isinstance(value, bool) else str(value)
