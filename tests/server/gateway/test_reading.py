"""What one vendor says that a caller of the other dialect has no word for: it can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mistralai.client as mistralai
import openai
import pytest
from tests.server.gateway.kit import MODEL, QUESTION, Answer, Served, chat
from tests.server.gateway.vendor import USAGE, Act, RawVendor, chunk, event, plain, says

from loom import AsyncOpenAI

STREAM = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
JSON = "application/json"
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm, blue."}], "closed": True}
REFERENCE = {"type": "reference", "reference_ids": [1, "two"]}
NEW = {"type": "hologram", "hologram": "???"}
WORSE = {"type": "holo\u00e9\r\nx: y", "hologram": "???"}
TEXT = {"type": "text", "text": "It is blue."}
PARTS = [THOUGHT, TEXT, REFERENCE, NEW, WORSE, {"type": "text", "text": " Truly."}]
SAID = "It is blue. Truly."


class OpenAIServed(Served):
    """A gateway before a server that speaks like OpenAI."""

    def make_client(self) -> Any:
        return AsyncOpenAI(**{"model": "gpt-4.1-mini", "retry": None, **self._client})


@contextmanager
def before(act: Act, kind: type[Served] = Served) -> Iterator[Served]:
    with RawVendor(act) as vendor:
        client = {"base_url": vendor.base_url, "api_key": "vendor-key"}
        with kind(client=client) as served:
            yield served


def mistral_says(content: Any, *, streamed: bool, finish: str = "stop") -> Act:
    if not streamed:
        message = {"role": "assistant", "content": content, "tool_calls": None}
        choice = {"index": 0, "finish_reason": finish, "message": message}
        return says(plain(choices=[choice]), kind=JSON)
    parts = content if isinstance(content, list) else [content]
    deltas = [[each] if isinstance(each, dict) else each for each in parts]
    values = [chunk({"role": "assistant", "content": ""})]
    values += [chunk({"content": delta}) for delta in deltas]
    values.append(chunk("", finish=finish, usage=USAGE))
    return says(*map(event, values), event(b"[DONE]"))


def openai_says(message: dict[str, Any], *, streamed: bool, finish: str = "stop") -> Act:
    if not streamed:
        choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
        return says(plain(choices=[choice], model="gpt-4.1-mini"), kind=JSON)
    values = [chunk({"role": "assistant", "content": ""}), chunk(message)]
    values.append(chunk({}, finish=finish))
    values.append({**chunk({}), "choices": [], "usage": USAGE})
    return says(*map(event, values), event(b"[DONE]"))


def told(answer: Answer, *, streamed: bool) -> dict[str, str]:
    return answer.note if streamed else answer.headers


def by_openai(served: Served, *, streamed: bool) -> tuple[str, str, str | None]:
    """Ask with the SDK: text, thoughts and finish reason."""
    with openai.OpenAI(api_key="x", base_url=f"{served.address}/v1", max_retries=0) as client:
        ask = client.chat.completions
        if not streamed:
            choice = ask.create(model=MODEL, messages=QUESTION).choices[0]
            extra: Any = choice.message.model_extra
            return choice.message.content or "", extra.get(THOUGHTS, ""), choice.finish_reason
        text = thoughts = ""
        finish: str | None = None
        for each in ask.create(model=MODEL, messages=QUESTION, stream=True):
            delta: Any = each.choices[0].delta
            text += delta.content or ""
            thoughts += (delta.model_extra or {}).get(THOUGHTS) or ""
            finish = each.choices[0].finish_reason or finish
    return text, thoughts, finish


THOUGHTS = "reasoning_content"


@STREAM
def test_thoughts_and_references_for_openai(*, streamed: bool) -> None:
    """Text is text, thoughts stand beside it, and what has no place is named."""
    with before(mistral_says(PARTS, streamed=streamed)) as served:
        assert (SAID, "Hm, blue.", "stop") == by_openai(served, streamed=streamed)
        answer = served.ask(chat(stream=streamed), x_loom_dialect="openai")
        assert (
            "answer.hologram, answer.reference, answer.unknown"
            == told(answer, streamed=streamed)["x-loom-dropped"]
        )
        answer = served.ask(chat(stream=streamed), x_loom_dialect="mistral")
        assert "x-loom-dropped" not in told(answer, streamed=streamed)
        assert b"hologram" in answer.body


@STREAM
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("model_length", "length"), ("error", "stop"), ("length", "length"), ("new", "stop")],
)
def test_finish_reasons_for_openai(theirs: str, ours: str, *, streamed: bool) -> None:
    """A word that OpenAI's clients do not check for is given as one that they do."""
    with before(mistral_says("Hi.", streamed=streamed, finish=theirs)) as served:
        assert ("Hi.", "", ours) == by_openai(served, streamed=streamed)


@STREAM
@pytest.mark.parametrize(
    ("message", "finish", "text", "ours"),
    [
        ({"content": None, "refusal": "I will not."}, "stop", "I will not.", "stop"),
        ({"content": "Hi.", "reasoning_content": "Hm."}, "stop", "Hi.", "stop"),
        ({"content": "Hi."}, "content_filter", "Hi.", "error"),
        ({"content": "Hi."}, "length", "Hi.", "length"),
    ],
)
def test_openais_answers_for_mistral(
    message: dict[str, Any], finish: str, text: str, ours: str, *, streamed: bool
) -> None:
    """A refusal is text, a thought is a chunk, and a finish reason is one of Mistral's."""
    act = openai_says(message, streamed=streamed, finish=finish)
    with before(act, OpenAIServed) as served:
        with mistralai.Mistral(api_key="x", server_url=served.address) as client:
            if streamed:
                events = list(client.chat.stream(model="gpt-4.1-mini", messages=QUESTION))
                contents: list[Any] = [each.data.choices[0].delta.content for each in events]
                reason: Any = events[-1].data.choices[0].finish_reason
            else:
                choice: Any = client.chat.complete(model="gpt-4.1-mini", messages=QUESTION).choices
                contents, reason = [choice[0].message.content], choice[0].finish_reason
        assert text == "".join(map(text_of, contents))
        assert ours == reason


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content or () if part.type == "text")


@STREAM
def test_calls_have_ids_that_each_can_send_back(*, streamed: bool) -> None:
    """An id of OpenAI's that a Mistral caller sends back finds its call again."""
    call = {
        "index": 0, "id": "call_AbCdEfGhIjKlMnOpQrSt", "type": "function",
        "function": {"name": "look", "arguments": "{}"},
    }  # fmt: skip
    act = openai_says({"tool_calls": [call]}, streamed=streamed, finish="tool_calls")
    with before(act, OpenAIServed) as served:
        answer = served.ask(chat(model="gpt-4.1-mini", stream=streamed), x_loom_dialect="mistral")
        assert 200 == answer.status
        said = answer.body.decode()
        given = json.loads(answer.events[-2]) if streamed else answer.json
        choice = given["choices"][0]
        (made,) = choice["delta" if streamed else "message"]["tool_calls"]
        history = [
            *QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [made]},
            {"role": "tool", "tool_call_id": made["id"], "content": "blue"},
        ]
        again = served.ask(chat(model="gpt-4.1-mini", messages=history), x_loom_dialect="mistral")
        assert again.status == 200, (said, again.body)
