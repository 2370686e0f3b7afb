"""A provider that needs no vendor: it answers from a script, or from the prompt itself."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from loom.catalog.estimate import rough_tokens
from loom.core.ambient import Clock, SystemClock
from loom.core.errors import InvalidRequest, LoomError, ModelNotFound
from loom.core.events import (
    Completed,
    Finished,
    ModelEvent,
    PartReceived,
    StreamEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from loom.core.messages import Message, Part, TextPart, ThinkingPart, ToolCall
from loom.core.provider import LLMProvider
from loom.core.request import ChatRequest
from loom.core.response import Choice, LLMResponse, Usage
from loom.providers.improvise import Draft, fingerprint, improvise

__all__ = ["Compose", "ScriptItem", "ScriptedProvider", "Split", "rough_tokens"]

Compose: TypeAlias = Callable[[ChatRequest, int, int], Draft]
"""Makes an answer from a request, the provider's seed, and which of `n` answers it is."""

Split: TypeAlias = Callable[[str], Sequence[str]]
"""Cuts a text into tokens; joined they are the text."""

ScriptItem: TypeAlias = str | Message | LLMResponse | LoomError | Sequence[StreamEvent | LoomError]
"""A text, a turn, a whole response, an error, or the events themselves (an error raises)."""

_WORD = re.compile(r"\s*\S+|\s+$")
# Template tokens around each message; and what a small image or document cost when recorded.
_MESSAGE_TOKENS = 4
_PART_TOKENS = 32
# Contract, section 10: a call costs two tokens beside its name and arguments; so does thinking.
_CALL_TOKENS = 2
_THINKING_TOKENS = 2
# More answers than this to one request are a mistake, and would hold the event loop.
_MOST_CHOICES = 64


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A draft after `stop` and `max_tokens`."""

    thinking: str
    text: str
    calls: tuple[ToolCall, ...]
    reason: str
    tokens: int


class _Room:
    """What `max_tokens` leaves, piece by piece."""

    def __init__(self, split: Split, most: int | None) -> None:
        self.split = split
        self.most = most
        self.spent = 0
        self.full = False

    def take(self, text: str, price: int = 0) -> str:
        """As much of the text as there is room for, after a fixed price."""
        if self.full:
            return ""
        if self.most is None:
            self.spent += price + len(self.split(text))
            return text
        tokens = self.split(text)
        left = self.most - self.spent - price
        if len(tokens) <= left:
            self.spent += price + len(tokens)
            return text
        self.full = True
        self.spent = self.most
        return "".join(tokens[: max(0, left)])


class ScriptedProvider(LLMProvider):
    """
    Answers without a vendor, the same request always alike.

    With a script it gives the script's items in order. Without one it composes an answer from
    the prompt (`loom.providers.improvise`). Usage is an estimate unless `split` is exact.

    Args:
        script: Answers and errors, in order; None composes them.
        name: What `name` says.
        model: The model that answers when a request names none.
        seed: Other seeds give other wordings and other ids.
        words_per_second: The pace; None for full speed.
        clock: Tells the time and waits.
        knows: Whether a model of this id exists; None takes every id.
        split: Cuts a text into tokens.
        splits: Gives the `split` of a model, where models differ; None takes `split` for all.
        count: Counts the prompt's tokens; None estimates them with `split`.
        compose: Makes the answers when there is no script.
    """

    def __init__(
        self,
        script: Sequence[ScriptItem] | None = None,
        *,
        name: str = "mistral",
        model: str = "mistral-large-latest",
        seed: int = 0,
        words_per_second: float | None = None,
        clock: Clock | None = None,
        knows: Callable[[str], bool] | None = None,
        split: Split = rough_tokens,
        splits: Callable[[str], Split] | None = None,
        count: Callable[[ChatRequest], int] | None = None,
        compose: Compose = improvise,
    ) -> None:
        if words_per_second is not None and not words_per_second > 0:
            raise ValueError(f"words_per_second must be above 0, not {words_per_second!r}")
        self._script = None if script is None else iter(tuple(script))
        self._name = name
        self._model = model
        self._seed = seed
        self._pause_s = 0.0 if words_per_second is None else 1 / words_per_second
        self._clock = clock or SystemClock()
        self._knows = knows
        self._splits = splits or (lambda _: split)
        self._count_prompt = count or self._prompt_tokens
        self._compose = compose
        self._count = itertools.count()
        self.requests: list[ChatRequest] = []

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def model(self) -> str:
        """As given."""
        return self._model

    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """
        Answer as events; with `request.stream` false as `Completed` alone.

        Args:
            request: What is asked. A scripted provider keeps it in `requests`.

        Raises:
            ModelNotFound: If `knows` says that there is no such model.
            InvalidRequest: If `n` or `max_tokens` is out of its range.
            LoomError: What the script says.
            RuntimeError: If the script is used up.
        """
        began_s = self._clock.monotonic_s()
        model = request.model or self._model
        if self._knows is not None and not self._knows(model):
            # The wire's own words and numbers (contract, section 6).
            raise ModelNotFound(
                f"Invalid model: {model}",
                http_status=400,
                provider=self._name,
                model=model,
                vendor_type="invalid_model",
                vendor_code="1500",
            )
        _check_sizes(request)
        events = self._scripted(request) if self._script is not None else self._composed(request)
        for event in events:
            if isinstance(event, LoomError):
                raise event
            match event:
                case Completed(response=response):
                    latency_s = self._clock.monotonic_s() - began_s
                    yield Completed(msgspec.structs.replace(response, latency_s=latency_s))
                    return
                case TextDelta() | ThinkingDelta() if self._pause_s:
                    await self._clock.sleep(self._pause_s)
            if request.stream:
                yield event

    async def aclose(self) -> None:
        """Nothing is held."""

    def _scripted(self, request: ChatRequest) -> Iterator[StreamEvent | LoomError]:
        self.requests.append(request)
        item = next(self._script or iter(()), None)
        match item:
            case None:
                raise RuntimeError(f"the script has no answer number {len(self.requests)}")
            case LoomError():
                yield item
            case str():
                yield from self._events(request, [self._limited(request, Draft(text=item))])
            case Message():
                draft = Draft(thinking=item.thinking, text=item.text, calls=item.tool_calls)
                yield from self._events(request, [self._limited(request, draft)])
            case LLMResponse():
                yield from _replayed(item)
            case _:
                yield from item

    def _composed(self, request: ChatRequest) -> Iterator[StreamEvent]:
        every = range(request.sampling.n or 1)
        drafts = [self._compose(request, self._seed, choice) for choice in every]
        return self._events(request, [self._limited(request, draft) for draft in drafts])

    def _limited(self, request: ChatRequest, draft: Draft) -> _Answer:
        """The draft as far as `stop` and `max_tokens` let it through."""
        stop = request.sampling.stop or ()
        text = draft.text
        for each in (stop,) if isinstance(stop, str) else stop:
            text = text.split(each, 1)[0] if each else text
        split = self._splits(request.model or self._model)
        room = _Room(split, request.sampling.max_tokens)
        thinking = room.take(draft.thinking, _THINKING_TOKENS) if draft.thinking else ""
        text = room.take(text)
        calls: list[ToolCall] = []
        for call in draft.calls:
            if room.full:
                break
            price = _CALL_TOKENS + len(split(call.name))
            calls.append(ToolCall(call.id, call.name, arguments=room.take(call.arguments, price)))
        # The end of an answer is a token too; without room for it the model was cut short.
        room.take("", 1)
        done = "tool_calls" if calls else "stop"
        return _Answer(
            thinking=thinking,
            text=text,
            calls=tuple(calls),
            reason="length" if room.full else done,
            tokens=room.spent,
        )

    def _events(self, request: ChatRequest, answers: Sequence[_Answer]) -> Iterator[StreamEvent]:
        # Choices take turns, one piece each, as the vendor streams them.
        pieces = [_pieces(answer, i) for i, answer in enumerate(answers)]
        for row in itertools.zip_longest(*pieces):
            yield from (event for event in row if event is not None)
        prompt = self._count_prompt(request)
        tokens = sum(answer.tokens for answer in answers)
        usage = Usage(
            input_tokens=prompt,
            output_tokens=tokens,
            total_tokens=prompt + tokens,
            service_tier="standard",
            estimated=True,
        )
        yield UsageReported(usage)
        number = next(self._count).to_bytes(8)
        yield Completed(
            LLMResponse(
                choices=tuple(_choice(answer, i) for i, answer in enumerate(answers)),
                usage=usage,
                model=request.model or self._model,
                id=hashlib.sha256(number + fingerprint(request, self._seed)).hexdigest()[:32],
                created=int(self._clock.now().timestamp()),
                metadata={"provider": self._name},
            )
        )

    def _prompt_tokens(self, request: ChatRequest) -> int:
        split = self._splits(request.model or self._model)
        count = 0
        for message in request.messages:
            count += _MESSAGE_TOKENS + len(split(message.text + message.thinking))
            for call in message.tool_calls:
                count += _CALL_TOKENS + len(split(call.name + call.arguments))
            if message.content is not None and not isinstance(message.content, str):
                other = [p for p in message.content if not isinstance(p, TextPart | ThinkingPart)]
                count += _PART_TOKENS * len(other)
        if request.tool_choice != "none":
            for tool in request.tools:
                schema = json.dumps(tool.parameters, default=dict)
                count += len(split(f"{tool.name} {tool.description or ''} {schema}"))
        return count


def _check_sizes(request: ChatRequest) -> None:
    count, most = request.sampling.n, request.sampling.max_tokens
    if count is not None and not 1 <= count <= _MOST_CHOICES:
        raise InvalidRequest(f"'n' must be between 1 and {_MOST_CHOICES}", http_status=422)
    if most is not None and most < 0:
        raise InvalidRequest("'max_tokens' must be at least 0", http_status=422)


def _pieces(answer: _Answer, choice: int) -> Iterator[ModelEvent]:
    for word in _WORD.findall(answer.thinking):
        yield ThinkingDelta(word, choice)
    for word in _WORD.findall(answer.text):
        yield TextDelta(word, choice)
    for i, call in enumerate(answer.calls):
        yield ToolCallDelta(i, call.id, call.name, call.arguments, choice)
    yield Finished(answer.reason, choice)


def _choice(answer: _Answer, index: int) -> Choice:
    content: str | tuple[Part, ...] = answer.text
    if answer.thinking:
        thought = ThinkingPart((TextPart(answer.thinking),), closed=True)
        content = (thought, TextPart(answer.text)) if answer.text else (thought,)
    message = Message.assistant(content, tool_calls=answer.calls)
    return Choice(index=index, message=message, finish_reason=answer.reason)


def _replayed(response: LLMResponse) -> Iterator[StreamEvent]:
    for choice in response.choices:
        message = choice.message
        content = message.content
        for part in (TextPart(content),) if isinstance(content, str) else content or ():
            match part:
                case TextPart(text=text):
                    yield from (TextDelta(word, choice.index) for word in _WORD.findall(text))
                case ThinkingPart():
                    yield ThinkingDelta(part.text, choice.index)
                case _:
                    yield PartReceived(part, choice.index)
        for i, call in enumerate(message.tool_calls):
            yield ToolCallDelta(i, call.id, call.name, call.arguments, choice.index)
        if choice.finish_reason is not None:
            yield Finished(choice.finish_reason, choice.index)
    yield UsageReported(response.usage)
    yield Completed(response)
