"""
Answers of the chat-completions family, client role: a plain body, or a stream of chunks.

Mistral and OpenAI frame an answer alike and fill it differently. What is alike stands here; a
dialect says what a delta holds, how usage is written, and what an error means.

The typed decode is the fast path. What does not fit it (a field of an unexpected type, an
error inside the stream) is decoded again to plain values and read leniently: no call fails for
a field that is not needed.
"""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec

from loom.core.errors import LoomError, MalformedReply, StreamTruncated
from loom.core.events import Finished, StreamEvent, TextDelta, ToolCallDelta, UsageReported
from loom.core.response import Choice, LLMResponse, Partial, Usage
from loom.wire.answer import Answer
from loom.wire.chunks import CallFragment, Forms
from loom.wire.headers import rate_limit_state, request_id
from loom.wire.sse import SSEDecoder

__all__ = ["ReplyDecoder", "take_calls"]


_log = logging.getLogger("loom.wire")

# What stands beside the choices.
_HEAD: dict[str, type] = {"id": str, "model": str, "created": int, "service_tier": str}

_BAD_JSON = (msgspec.DecodeError, RecursionError, UnicodeError)


class ReplyDecoder:
    """
    Decodes one streamed answer; any cut of the bytes gives the same answer.

    `copy.copy` gives an independent decoder in the same state. `read_whole` reads a plain body
    by the same rules.

    Attributes:
        forms: What the dialect's answers look like.

    Args:
        headers: The reply's headers, names in lower case.
        choices: How many answers were asked for (`n`).
    """

    forms: ClassVar[Forms]

    def __init__(self, headers: Mapping[str, str], choices: int = 1) -> None:
        # Looked up once: it is asked for each event.
        self._decode_later = self.forms.later
        self._headers = headers
        self._expected = choices
        self._sse = SSEDecoder()
        self._answers: dict[int, Answer] = {}
        self._usage: Usage | None = None
        self._last: bytes = b""
        self._id = self._model = ""
        self._created: int | None = None
        self._ended = 0
        self._error: LoomError | None = None
        self._skipped = 0
        self.skip_bad_events = False
        self.finished = False
        self.complete = False

    @staticmethod
    @abstractmethod
    def take(answer: Answer, delta: Any, events: list[StreamEvent]) -> None:
        """
        Add a delta (or a whole message, which is one large delta) to an answer.

        Args:
            answer: What came so far.
            delta: What comes now.
            events: Where the events that it makes are added.

        Raises:
            MalformedReply: If a part of it cannot be read.
        """

    @staticmethod
    @abstractmethod
    def read_usage(value: Any) -> Usage:
        """Usage from JSON values that the typed decode refused; None for none."""

    @staticmethod
    @abstractmethod
    def read_error(value: Mapping[str, Any]) -> LoomError:
        """The error of a body that came with status 200."""

    @staticmethod
    def tidy(said: Mapping[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
        """
        A delta from JSON values that the typed decode refused, without what is not needed.

        Args:
            said: The delta, or the message.
            calls: Its tool calls, tidied.
        """
        return {"content": said.get("content"), "tool_calls": calls}

    @staticmethod
    def reason(answer: Answer, word: str) -> str:
        """
        Why an answer ended, in the words of `FinishReason`.

        Args:
            answer: What came before.
            word: The vendor's.
        """
        del answer
        return word

    @classmethod
    def read_whole(cls, body: bytes, headers: Mapping[str, str]) -> LLMResponse:
        """
        A plain answer.

        Args:
            body: The reply's body. A body that is a stream after all is read as one.
            headers: Names in lower case.

        Returns:
            The answer; `usage.estimated` is True when the vendor reported none.

        Raises:
            MalformedReply: If it is not an answer.
            LoomError: If it is an error body in spite of status 200.
        """
        # Fault matrix, row 31.
        if body.lstrip()[:5] == b"data:" or "event-stream" in headers.get("content-type", ""):
            decoder = cls(headers)
            decoder.feed(body)
            return decoder.finish()
        try:
            whole = cls.forms.whole(body)
            usage = cls.read_usage(None) if whole.usage is None else whole.usage.value()
        except _BAD_JSON as error:
            raw = cls._lenient(body, "the reply's body", error)
            whole, usage = cls._convert(raw, cls.forms.whole_type), cls.read_usage(raw.get("usage"))
        if whole.service_tier is not None:
            usage = msgspec.structs.replace(usage, service_tier=whole.service_tier)
        if not whole.choices:
            raise MalformedReply("the reply holds no answer: its 'choices' are empty")
        choices: list[Choice] = []
        for choice in sorted(whole.choices, key=_index):
            answer = Answer(choice.index)
            cls.take(answer, choice.message, [])
            if choice.finish_reason is not None:
                answer.finish_reason = cls.reason(answer, choice.finish_reason)
            _warn_of_twins(answer)
            choices.append(answer.choice(whole.id))
        return LLMResponse(
            choices=tuple(choices),
            usage=usage,
            model=whole.model,
            id=whole.id,
            created=whole.created,
            request_id=request_id(headers),
            rate_limit=rate_limit_state(headers),
            raw_body=body,
        )

    def __copy__(self) -> Self:
        """An independent decoder in the same state."""
        twin = type(self).__new__(type(self))
        answers = {index: answer.copy() for index, answer in self._answers.items()}
        twin.__dict__.update(self.__dict__, _sse=self._sse.copy(), _answers=answers)
        return twin

    def feed(self, data: bytes) -> list[StreamEvent]:
        """
        Take the next bytes.

        Args:
            data: Any cut of the body.

        Returns:
            The model events that they complete, without `Completed`.

        Raises:
            LoomError: An error inside the stream, `MalformedReply`, `ReplyTooLarge`; `.partial`
                holds what came before. With events before it, it is raised by `finish`.
        """
        events: list[StreamEvent] = []
        if self.complete:
            # Fault matrix, rows 18 and 19: whatever follows the end is not ours to judge.
            return events
        try:
            for payload in self._sse.feed(data):
                if payload == b"[DONE]":
                    self.finished = self.complete = True
                    break
                if not self._take_text(payload, events):
                    self._take_or_skip(payload, events)
        except LoomError as error:
            error.partial = self.partial()
            if not events:
                raise
            # What came before it in the same bytes is handed on first.
            self._error, self.complete = error, True
        return events

    def finish(self) -> LLMResponse:
        """
        The body ended: give the answer.

        Returns:
            The whole answer.

        Raises:
            StreamTruncated: If neither a finish reason for every answer nor `[DONE]` came.
            LoomError: The error that ended the stream, if `feed` had events to give before it.
        """
        if self._error is not None:
            raise self._error
        # Fault matrix, rows 16 and 17: a reason ends an answer, with the sentinel or without.
        if not self.finished or not self._answers:
            raise StreamTruncated(
                "the stream ended before the answer was complete: no finish reason came",
                partial=self.partial(),
                request_id=request_id(self._headers),
            )
        # Fault matrix, row 49.
        answers = sorted(self._answers.values(), key=lambda answer: answer.index)
        for answer in answers:
            _warn_of_twins(answer)
        return LLMResponse(
            choices=tuple(answer.choice(self._id) for answer in answers),
            usage=self._usage or Usage(estimated=True),
            model=self._model,
            id=self._id,
            created=self._created,
            request_id=request_id(self._headers),
            rate_limit=rate_limit_state(self._headers),
            metadata={"skipped_events": self._skipped} if self._skipped else {},
            raw_body=self._last or None,
        )

    def partial(self) -> Partial:
        """What has arrived so far, of the first answer."""
        if not self._answers:
            return Partial(usage=self._usage)
        message = self._answers[min(self._answers)].choice(self._id).message
        return Partial(
            text=message.text,
            thinking=message.thinking,
            tool_calls=message.tool_calls,
            usage=self._usage,
        )

    def _take_text(self, payload: bytes, events: list[StreamEvent]) -> bool:
        """The fast path: one more piece of text, as nearly every event of a stream is."""
        try:
            chunk = self._decode_later(payload)
            (choice,) = chunk.choices
        except (*_BAD_JSON, ValueError):
            return False
        delta = choice.delta
        text = delta.content
        answer = self._answers.get(choice.index)
        if (
            answer is None
            or type(text) is not str
            or delta.tool_calls is not None
            or choice.finish_reason is not None
            or chunk.usage is not None
        ):
            return False
        if text:
            answer.add_text(text)
            events.append(TextDelta(text, choice.index))
        return True

    def _take_or_skip(self, payload: bytes, events: list[StreamEvent]) -> None:
        try:
            self._take_chunk(payload, events)
        except MalformedReply:
            # Fault matrix, rows 22 and 23.
            if not self.skip_bad_events:
                raise
            self._skipped += 1

    def _take_chunk(self, payload: bytes, events: list[StreamEvent]) -> None:
        try:
            chunk = self.forms.chunk(payload)
            usage = None if chunk.usage is None else chunk.usage.value()
        except _BAD_JSON as error:
            raw = self._lenient(payload, "an event of the stream", error)
            chunk = self._convert(raw, self.forms.chunk_type)
            usage = self.read_usage(raw["usage"]) if raw.get("usage") is not None else None
        # Fault matrix, rows 32 and 48.
        if not chunk.choices and usage is None:
            self._raise_if_error(msgspec.json.decode(payload))
            return
        self._last = payload
        if not self._id:
            self._id, self._model, self._created = chunk.id, chunk.model, chunk.created
        for choice in chunk.choices:
            answer = self._answers.get(choice.index)
            if answer is None:
                answer = self._answers[choice.index] = Answer(choice.index)
            self.take(answer, choice.delta, events)
            if choice.finish_reason is not None:
                self._end(answer, self.reason(answer, choice.finish_reason), events)
        if usage is not None:
            if chunk.service_tier is not None:
                usage = msgspec.structs.replace(usage, service_tier=chunk.service_tier)
            self._usage = usage
            events.append(UsageReported(usage))
        self.complete = self.finished and self._usage is not None

    def _end(self, answer: Answer, reason: str, events: list[StreamEvent]) -> None:
        if answer.finish_reason is None:
            self._ended += 1
        answer.finish_reason = reason
        events.append(Finished(reason, answer.index))
        self.finished = self._ended >= self._expected

    @classmethod
    def _lenient(cls, data: bytes, what: str, problem: Exception) -> dict[str, Any]:
        """Plain values of a body that the typed decode refused; an error body is raised."""
        try:
            value = msgspec.json.decode(data)
        except _BAD_JSON:
            # Some relays write NaN or Infinity for a count. That is not JSON; Python's decoder
            # takes it.
            try:
                value = json.loads(data)
            except (ValueError, RecursionError):
                raise MalformedReply(_not_json(what, problem)) from None
        cls._raise_if_error(value)
        checked: dict[str, Any] = value
        return checked

    @classmethod
    def _raise_if_error(cls, value: Any) -> None:
        if not isinstance(value, dict):
            raise MalformedReply(f"the reply is a JSON {type(value).__name__}, not an object")
        if "error" in value or str(value.get("object")).lower() == "error":
            raise cls.read_error(value)
        if "choices" not in value and ("detail" in value or "message" in value):
            raise cls.read_error(value)

    @classmethod
    def _convert(cls, raw: dict[str, Any], kind: Any) -> Any:
        """Read plain values as `kind`, without what does not fit and is not needed."""
        choices = raw.get("choices")
        listed = choices if isinstance(choices, list) else []
        kept: dict[str, Any] = {"choices": [cls._tidied(choice) for choice in listed]}
        for name, wanted in _HEAD.items():
            if isinstance(raw.get(name), wanted):
                kept[name] = raw[name]
        try:
            return msgspec.convert(kept, kind)
        except msgspec.ValidationError as error:
            raise MalformedReply(f"the reply is not a chat answer: {error}") from None

    @classmethod
    def _tidied(cls, choice: Any) -> Any:
        if not isinstance(choice, dict):
            return choice
        name = "delta" if "delta" in choice else "message"
        said = choice.get(name) or {}
        calls = [
            {
                **call,
                "id": call.get("id") if isinstance(call.get("id"), str) else None,
                "index": call.get("index") if isinstance(call.get("index"), int) else None,
            }
            for call in said.get("tool_calls") or []
            if isinstance(call, dict) and isinstance(call.get("function"), dict)
        ]
        index, reason = choice.get("index"), choice.get("finish_reason")
        return {
            name: cls.tidy(said, calls),
            "index": index if isinstance(index, int) else 0,
            "finish_reason": None if reason is None else str(reason),
        }


def take_calls(answer: Answer, calls: list[CallFragment] | None, events: list[StreamEvent]) -> None:
    """
    Add the tool calls of a delta to an answer.

    Args:
        answer: What came so far.
        calls: Whole or in pieces; None for none.
        events: Where an event for each is added.
    """
    for call in calls or ():
        arguments = call.function.arguments
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        name, text = call.function.name or "", arguments or ""
        place = answer.add_call(call.index, call.id or "", name, text)
        events.append(ToolCallDelta(place, call.id or "", name, text, answer.index))


def _warn_of_twins(answer: Answer) -> None:
    for call_id in answer.twins:
        # The vendor chose it: no more of it is shown than an id has.
        _log.warning("two tool calls have the id %.40r: the second was given another", call_id)


def _index(choice: Any) -> int:
    index: int = choice.index
    return index


def _not_json(what: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{what} is nested too deeply"
    if isinstance(error, UnicodeError):
        return f"{what} is not UTF-8"
    return f"{what} is not JSON: {error}"
