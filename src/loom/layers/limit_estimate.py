"""
Guesses what a call will use, and learns from what calls used.

Prompt: its bytes over 3.2, times what that was wrong by so far for the model. Answer: at first
`max_tokens`; later what 95 % of the answers stay below, for the model and the caller's tags.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from loom.core.messages import Message, TextPart, ThinkingPart
from loom.core.plan import BYTES_PER_TOKEN
from loom.core.request import ChatRequest

__all__ = ["Counting", "Estimate", "Estimator"]

Counting: TypeAlias = Callable[[ChatRequest], int]
"""Counts the tokens of a prompt exactly."""

_encode = msgspec.json.Encoder().encode

# Source: the project's limiter design, point 2.
_QUANTILE = 0.95
# The begin and end of a turn.
_AROUND = 16
# What an image, a document or sound is taken for until the first answer tells: about what the
# largest image has (1,024 by 1,024 pixels in squares of 16).
_OTHER_PART = 4_160 * BYTES_PER_TOKEN
# The client's own default; a request without `max_tokens` may have longer answers.
_MOST = 4_096
# Answers to remember, and how many make a quantile, or a mean, worth trusting.
_KEPT = 128
_ENOUGH = 20
_SOME = 5
# How much of what was learnt of prompts each new one changes.
_NEWS = 0.1
# Tags may name anything, a request's id among them: the oldest are forgotten.
_GROUPS = 512

_Group: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


class Estimate(msgspec.Struct, frozen=True):
    """
    What a call will use.

    Attributes:
        prompt: Tokens of the prompt.
        reserve: Tokens of prompt and answer that it hardly uses more of.
        expected: Tokens that such calls use on average, at most `reserve`.
        most: Tokens that it cannot use more of, its `max_tokens` among them.
        rough: Tokens of the prompt by its bytes alone; 0 when they were counted.
    """

    prompt: int
    reserve: int
    expected: int
    most: int
    rough: float = 0.0


class Estimator:
    """
    Learns from one client's calls, or several clients'; may be used from several threads.

    Args:
        count: Counts a prompt; None: its bytes are taken.
    """

    def __init__(self, count: Counting | None = None) -> None:
        self._count = count
        self._ratios: dict[str, float] = {}
        self._answers: dict[_Group, _Answers] = {}
        self._lock = threading.Lock()

    def estimate(self, request: ChatRequest, model: str) -> Estimate:
        """
        Guess what a call will use.

        Args:
            request: What is asked.
            model: Under which name its model is learnt about.

        Returns:
            The guess; at least one token of prompt, and one of answer where there is one.
        """
        if self._count is None:
            rough = _prompt_bytes(request) / BYTES_PER_TOKEN
            prompt = math.ceil(rough * self._ratios.get(model, 1.0))
        else:
            rough, prompt = 0.0, self._count(request)
        prompt = max(1, prompt)
        if request.kind == "embeddings":
            return Estimate(prompt, prompt, prompt, prompt, rough)
        sampling = request.sampling
        most = (sampling.max_tokens or _MOST) * (sampling.n or 1)
        with self._lock:
            answers = self._known(_group(request, model)) or self._known((model, ()))
            high, mean = (most, most) if answers is None else answers.guess(most)
        return Estimate(prompt, prompt + high, prompt + mean, prompt + most, rough)

    def learn(
        self, request: ChatRequest, model: str, estimate: Estimate, *, prompt: int, total: int
    ) -> None:
        """
        Take note of what a call used.

        Args:
            request: What was asked.
            model: As for `estimate`.
            estimate: What was guessed.
            prompt: Tokens of its prompt.
            total: Tokens that the vendor charged, of prompt and answer.
        """
        # What is charged beyond the prompt is the answer, whatever the vendor counts as one: some
        # charge `max_tokens`. What came from a cache is not charged, and may be next time.
        answer = max(1, total - prompt)
        group = _group(request, model)
        with self._lock:
            if estimate.rough and prompt > 0:
                ratio = self._ratios.get(model)
                new = prompt / estimate.rough
                self._ratios[model] = new if ratio is None else ratio + _NEWS * (new - ratio)
            for one in {group, (model, ())}:
                answers = self._answers.pop(one, None) or _Answers()
                answers.add(answer)
                self._answers[one] = answers
            while len(self._answers) > _GROUPS:
                del self._answers[next(iter(self._answers))]

    def _known(self, group: _Group) -> _Answers | None:
        answers = self._answers.get(group)
        return answers if answers is not None and answers.count >= _SOME else None


class _Answers:
    """The lengths of the last answers."""

    __slots__ = ("_late", "_sorted", "_sum")

    def __init__(self) -> None:
        self._late: deque[int] = deque()
        self._sorted: list[int] = []
        self._sum = 0

    @property
    def count(self) -> int:
        return len(self._late)

    def add(self, tokens: int) -> None:
        self._late.append(tokens)
        insort(self._sorted, tokens)
        self._sum += tokens
        if len(self._late) > _KEPT:
            oldest = self._late.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum -= oldest

    def guess(self, most: int) -> tuple[int, int]:
        """What an answer hardly is longer than, and how long it is on average."""
        count = len(self._sorted)
        mean = max(1, min(most, math.ceil(self._sum / count)))
        if count < _ENOUGH:
            return most, mean
        place = math.ceil(_QUANTILE * count) - 1
        return max(1, mean, min(most, self._sorted[place])), mean


def _prompt_bytes(request: ChatRequest) -> float:
    """
    Measure a prompt without counting it.

    Args:
        request: What is asked.

    Returns:
        Bytes of everything that the model reads, about.
    """
    size: float = _AROUND
    for message in request.messages:
        content = message.content
        if type(content) is str and not message.tool_calls:
            # Whether a string is ASCII is a bit in it.
            size += _AROUND + (len(content) if content.isascii() else len(content.encode()))
        else:
            size += _AROUND + _message_bytes(message)
    if request.kind == "fim":
        # What stands behind the gap is read too.
        size += _json_size(request.extra)
    if request.tools:
        size += _json_size(
            [[tool.name, tool.description, tool.parameters] for tool in request.tools]
        )
    form = request.response_format
    if form is not None and form.schema is not None:
        size += _json_size(form.schema)
    return size


def _message_bytes(message: Message) -> float:
    size = 0.0
    if isinstance(message.content, str):
        size += len(message.content.encode())
    else:
        for part in message.content or ():
            if isinstance(part, TextPart | ThinkingPart):
                size += len(part.text.encode())
            else:
                size += _OTHER_PART
    for call in message.tool_calls:
        size += len(call.name) + _json_size(call.arguments)
    return size


def _json_size(value: object) -> float:
    try:
        return len(_encode(value))
    except (TypeError, ValueError, RecursionError):
        return 0.0  # who writes it says what is wrong with it


def _group(request: ChatRequest, model: str) -> _Group:
    tags = request.attribution.tags
    return model, tuple(sorted(tags.items())) if tags else ()
